"""How experiment 3 is told: its figures, tables and sentences."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from typing_extensions import TypedDict

from experiments.run.formatting import drawn, made_with, percent, share
from experiments.run.summaries import Among, CorrelationRow, Provenance, Share
from gaze.report.html import Chapter, Compared, Plot, Table
from gaze.report.plots_time import Stairs, staircase

STORY = (
    "The model narrates the strip by itself, and we watch which panel each head looks at while each word is chosen. Heads that "
    "look at what is being told draw a staircase: panel 1 during the first line, panel 2 during the second, and so on."
)
COULD_FAIL = (
    "Heads that move from left to right as time goes by draw the same staircase, whatever is told. So the model narrates in "
    "reverse, too: such heads would then look at the wrong panels."
)
Weight = Literal["mass", "value_mass"]
WEIGHTS: dict[Weight, str] = {"mass": "attention", "value_mass": "by value"}
"""Attention as it is, and weighted by the norm of what is attended to."""


class Looking(TypedDict):
    """Where the gaze heads, then each draw of controls, look during the lines of a narration."""

    own_panel: Share
    against: Among
    with_panel: list[CorrelationRow]
    with_time: list[CorrelationRow]
    stairs: list[list[float]]
    control_stairs: list[list[float]]


class NarrationRow(Provenance):
    """One way of narrating; `order` counts panels from 1."""

    order: list[int]
    strips: int
    lines: int
    lines_found: int
    lines_right: Share
    mass: Looking
    value_mass: Looking


class MeanScores(TypedDict):
    """Mean score of the gaze heads and of the others."""

    gaze: float
    others: float


class GenerationScores(TypedDict):
    """A score while narrating and in discovery (None if it has none there), and how many of the best k heads are shared."""

    narrating: MeanScores
    asked: MeanScores | None
    shared: int
    k: int


class GenerationResults(TypedDict):
    """The scores while narrating, over the strips whose narration has every line."""

    strips: int
    incomplete: int
    scores: dict[str, GenerationScores]


class TrajectoryResults(TypedDict):
    """What `e3_trajectories.sum_up` returns."""

    judge: str
    heads: list[list[int]]
    draws: int
    narrations: dict[str, NarrationRow]
    generation: GenerationResults
    skipped_lines: int
    failed_verdicts: int


def report(
    found: Mapping[str, NarrationRow], generation: GenerationResults, head: tuple[int, str, str], plots: Sequence[Plot]
) -> Chapter:
    """The chapter; every number in it stands in the results.

    Args:
      found: by narration.
      generation: the scores while narrating.
      head: number, name and title.
    """
    forward, reverse = found["forward"], found["reverse"]
    ahead, back = (rho(one["mass"]["with_time"][0]) for one in (forward, reverse))
    return Chapter(
        *head,
        STORY,
        findings=[
            _staircase("While narrating forwards", forward["mass"]),
            _staircase("While narrating in reverse", reverse["mass"]),
            f"Rank correlation of the panel looked at with time: forwards {ahead}, in reverse {back}.",
            *_again(generation),
        ],
        plots=plots,
        tables=[_looking(found), _scores(generation)],
        compared=[
            Compared(
                "lines during which the heads look most at their panel: gaze heads, random heads",
                "shown as a figure",
                f"{_own(forward)}, {_drawn(forward)}",
            )
        ],
        caveats=_caveats(found, generation),
        could_fail=COULD_FAIL,
        conclusion=f"The panel being told is the one that the gaze heads look at most in {_own(forward)} of the lines told "
        f"forwards and {_own(reverse)} of those in reverse; for random heads in {_drawn(forward)} and {_drawn(reverse)}.",
    )


def staircases(found: Mapping[str, NarrationRow], bins: int) -> list[Plot]:
    """Heat maps of every narration, with attention as it is and by value.

    Args:
      bins: steps of a line.
    """
    step = f"narration, {bins} steps a line"
    return [
        Plot(
            "staircase",
            staircase(_maps(found, "mass", bins), step),
            "Attention on each panel while the strip is narrated, mean over strips with their lines laid over one "
            "another. The "
            "orange line is the panel that the text is to be about.",
        ),
        Plot(
            "staircase_by_value",
            staircase(_maps(found, "value_mass", bins), step, "attention × norm of values"),
            "The same, each image token weighted by the norm of its value vector, as the paper's script does.",
        ),
    ]


def rho(one: CorrelationRow) -> str:
    """A mean rank correlation with its interval, and in how many strips there is none."""
    lost = f"undefined in {one['undefined']} of {one['defined'] + one['undefined']} strips"
    if one["value"] is None:
        return lost
    more = f"; {lost}" if one["undefined"] else ""
    return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f}{more})"


def _own(one: NarrationRow) -> str:
    return percent(one["mass"]["own_panel"]["accuracy"])


def _drawn(one: NarrationRow) -> str:
    return percent(one["mass"]["against"]["mean"]["value"])


def _maps(found: Mapping[str, NarrationRow], weight: Weight, bins: int) -> list[Stairs]:
    return [
        Stairs(f"{heads}, {name}", np.array(stairs, np.float64), np.repeat(one["order"], bins) - 1)
        for name, one in found.items()
        for heads, stairs in (
            ("gaze heads", one[weight]["stairs"]),
            ("random heads", one[weight]["control_stairs"]),
        )
    ]


def _staircase(when: str, looked: Looking) -> str:
    against = looked["against"]
    values = [draw["value"] for draw in looked["with_panel"][1:] if draw["value"] is not None]
    draws = f"{min(values):.2f} to {max(values):.2f}" if values else "undefined"
    return (
        f"{when}, the gaze heads look most at the panel of the line in {share(looked['own_panel'])} of "
        f"{looked['own_panel']['n']} lines, random heads of the same layers in {drawn(against)} over "
        f"{len(against['accuracies'])} draws. The rank correlation of the panel looked at with the panel of the line is "
        f"{rho(looked['with_panel'][0])}, that of the draws {draws}."
    )


def _again(generation: GenerationResults) -> list[str]:
    if not generation["scores"]:
        return []
    gaze = generation["scores"]["gaze"]
    narrating, asked = gaze["narrating"]["gaze"], gaze["asked"]
    compared = f", {narrating / asked['gaze']:.2f} times that of discovery ({asked['gaze']:.3f})" if asked else ""
    return [
        f"Scored while narrating, with lines in place of questions, {gaze['shared']} of the {gaze['k']} gaze heads are "
        f"again among the best {gaze['k']}; their mean score is {narrating:.3f}{compared}."
    ]


def _looking(found: Mapping[str, NarrationRow]) -> Table:
    rows = [
        [
            name,
            label,
            share(one[weight]["own_panel"]),
            drawn(one[weight]["against"]),
            rho(one[weight]["with_panel"][0]),
            rho(one[weight]["with_time"][0]),
            f"{one['lines_found']} of {one['lines']}",
            share(one["lines_right"]),
        ]
        for name, one in found.items()
        for weight, label in WEIGHTS.items()
    ]
    columns = ("narration", "weight", "own panel first", "random heads", "ρ with the line's panel", "ρ with time")
    return Table(
        "The staircase in numbers",
        (*columns, "lines", "lines that describe their panel"),
        rows,
        "Random heads: mean and range of the draws. ρ: Spearman correlation over the lines of a strip, mean over strips.",
        [made_with(one) for one in found.values() for _ in WEIGHTS],
    )


def _scores(generation: GenerationResults) -> Table:
    rows: list[list[str | float]] = []
    nowhere: MeanScores = {"gaze": np.nan, "others": np.nan}
    for name, one in generation["scores"].items():
        narrating, asked = one["narrating"], one["asked"] or nowhere
        ratio = (narrating["gaze"] - narrating["others"]) / (asked["gaze"] - asked["others"])
        shared = f"{one['shared']} of {one['k']}"
        rows.append([name, narrating["gaze"], narrating["others"], asked["gaze"], asked["others"], ratio, shared])
    columns = ("score", "gaze heads, narrating", "others", "gaze heads, asked", "others, asked")
    return Table(
        "Scores while narrating and in discovery",
        (*columns, "gap, narrating over asked", "gaze heads among the best"),
        rows,
        f"{generation['strips']} strips with a line about every panel. While narrating: the mean over all tokens of a "
        "line, the "
        "panel's number included, where a head may have nothing to look for.",
    )


def _caveats(found: Mapping[str, NarrationRow], generation: GenerationResults) -> list[str]:
    unwritten = {name: one["lines"] - one["lines_found"] for name, one in found.items()}
    lost = [f"{count} of {found[name]['lines']} {name}" for name, count in unwritten.items() if count]
    left_out = f"Lines that were never written cannot be watched and are left out of the staircase: {'; '.join(lost)}."
    incomplete = f"{generation['incomplete']} narrations lack a line and are left out of the scores while narrating."
    other = [name for name, one in found.items() if one["lines_right"]["accuracy"] < 0.5]
    return [
        *(f"The model does not narrate as asked ({name}): most of its lines are about other panels." for name in other),
        *[left_out] * bool(lost),
        *[incomplete] * bool(generation["incomplete"]),
        "Attention is that of the pass that chooses a token; a word of several tokens may be decided with its first.",
    ]
