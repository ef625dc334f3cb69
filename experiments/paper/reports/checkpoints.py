"""The chapter about checkpoints."""

from collections.abc import Mapping, Sequence

import numpy as np
from typing_extensions import TypedDict

from experiments.paper.reports.discovery import CurveRow, StabilityRow
from experiments.run.formatting import COUNTING, ON_TARGET, drawn, made_with, percent, rules, share
from experiments.run.summaries import ConditionRow, Share, UnsteeredRow
from gaze.report.html import Cell, Chapter, Compared, Plot, Table
from gaze.report.plots import Measure, Role
from gaze.report.plots_compare import ComparedCheckpoint, checkpoints

ANSWERS = {True: ("has", "yes"), False: ("has no", "no"), None: ("may or may not have", "–")}
"""What a verdict says, in a sentence and in a table."""


class LookRow(TypedDict):
    """How a head looks on strips that did not choose it, see `gaze.discovery.verdict.Look`."""

    layer: int
    head: int
    routing: float
    lift: float
    p: float
    gazes: bool


class CriterionRow(TypedDict):
    """One thing that must hold, see `gaze.discovery.verdict.Criterion`."""

    about: str
    what: str
    value: float
    threshold: float
    passed: bool


class VerdictRow(TypedDict):
    """Whether a checkpoint has gaze heads; None where its strips cannot tell."""

    has_gaze_heads: bool | None
    reason: str
    criteria: Sequence[CriterionRow]
    looks: Sequence[LookRow]


class CheckpointRow(TypedDict):
    """What is known of one checkpoint."""

    model: str
    revision: str
    layers: int
    heads_per_layer: int
    strips: dict[str, int]
    k: int
    curve: list[CurveRow]
    scores: dict[str, list[float]]
    profile: list[float]
    lift_profile: list[float]
    stability: StabilityRow
    unsteered: UnsteeredRow
    conditions: dict[str, ConditionRow]
    verdict: VerdictRow


class CheckpointResults(TypedDict):
    """What `e9_checkpoints.sum_up` returns."""

    judge: str
    checkpoints: dict[str, CheckpointRow]


STORY = (
    "Other models are asked the same questions. Do they have heads that look where the question says? How deep in the model are "
    "they, how many does it take to steer, and does the answer follow?"
)
COULD_FAIL = (
    "A method that finds gaze heads everywhere finds nothing. So models that cannot have any are tried, too: one that was never "
    "trained, or one whose queries were scrambled."
)


def chapter(results: CheckpointResults, number: int, name: str, title: str) -> Chapter:
    """Tells what `e9_checkpoints.sum_up` found."""
    found = results["checkpoints"]
    chance = 1 / len(next(iter(found.values()))["conditions"]["gaze"]["per_panel"])
    return Chapter(
        number,
        name,
        title,
        STORY,
        findings=[
            f"{name} {ANSWERS[one['verdict']['has_gaze_heads']][0]} gaze heads. {one['verdict']['reason']}"
            for name, one in found.items()
        ],
        plots=[
            Plot(
                "checkpoints",
                checkpoints([_drawn(name, one) for name, one in found.items()], chance),
                "The best gaze score of each layer; how many heads steer best, on strips of their own; and what these "
                "heads, and "
                "random ones of the same layers, reach on other strips.",
            )
        ],
        tables=[_table(found), _criteria(found)],
        compared=[
            Compared(
                "heads at the peak of 2B, 4B, 8B, 32B (of 448, 1,152, 1,152, 4,096)",
                "10, 75, 100, 500",
                ", ".join(f"{name}: {_peak(one)}" for name, one in found.items()),
            ),
            Compared(
                "accuracy there, chosen on the same strips",
                "68.6%, 72.9%, 83.1%, 70.2%",
                ", ".join(
                    f"{name}: {percent(one['conditions']['gaze']['by_paper']['accuracy'])}"
                    for name, one in found.items()
                ),
            ),
        ],
        caveats=_caveats(results),
        could_fail=COULD_FAIL,
        conclusion=_conclusion(found),
    )


def _conclusion(found: Mapping[str, CheckpointRow]) -> str:
    said = {True: "gaze heads", False: "none", None: "cannot be told"}
    return "; ".join(f"{name}: {said[one['verdict']['has_gaze_heads']]}" for name, one in found.items()) + "."


def _drawn(name: str, one: CheckpointRow) -> ComparedCheckpoint:
    gaze, random = one["conditions"]["gaze"], one["conditions"]["random"]
    return ComparedCheckpoint(
        name,
        one["profile"],
        one["k"] if gaze["accuracy"] > 0 else np.nan,
        _heads(one),
        _measure("gaze heads", "gaze", gaze),
        _measure("random heads", "random", random),
    )


def _measure(name: str, role: Role, found: Share) -> Measure:
    low, high = found["interval"]
    return Measure(name, role, found["accuracy"], low, high)


def _table(found: Mapping[str, CheckpointRow]) -> Table:
    rows: list[list[Cell]] = []
    for name, one in found.items():
        gaze, random, everything = (one["conditions"][kind] for kind in ("gaze", "random", "all"))
        stability, witness = one["stability"], one["verdict"]["looks"][0]
        rows.append(
            [
                name,
                ANSWERS[one["verdict"]["has_gaze_heads"]][1],
                _peak(one),
                f"L{witness['layer']}H{witness['head']}",
                max(one["profile"]),
                witness["lift"],
                percent(stability["overlap"]),
                *(share(counted) for _, counted in rules(gaze)),
                *(drawn(counted["against"]) for _, counted in rules(random)),
                *(share(counted) for _, counted in rules(everything)),
            ]
        )
    names = ("checkpoint", "gaze heads?", "heads", "best", "best score", "its lift, held out", "halves agree")
    heads = ("steered", "random, over draws", "all heads")
    steering = (f"{one}, {rule}" for one in heads for rule in ON_TARGET[::2])
    sources = [made_with(one["conditions"]["gaze"]) for one in found.values()]
    return Table("The checkpoints", (*names, *steering), rows, COUNTING, sources)


def _criteria(found: Mapping[str, CheckpointRow]) -> Table:
    rows = [
        [name, row["about"], row["what"], row["value"], row["threshold"], "yes" if row["passed"] else "no"]
        for name, one in found.items()
        for row in one["verdict"]["criteria"]
    ]
    return Table("Every criterion", ("checkpoint", "about", "what must hold", "value", "threshold", "holds"), rows)


def _caveats(results: CheckpointResults) -> list[str]:
    found, said = results["checkpoints"], []
    if results["judge"] == "likelihood":
        said.append("Each checkpoint judges its own answers: do not trust the accuracy of a model that cannot judge.")
    said += [
        f"{name}: halves of the strips agree on the best heads, but these do not look at the panel asked about. Agreement "
        "alone proves nothing."
        for name, one in found.items()
        if one["verdict"]["has_gaze_heads"] is False
        and any(row["about"] == "stability" and row["passed"] for row in one["verdict"]["criteria"])
    ]
    return said


def _peak(one: CheckpointRow) -> str:
    """How many heads steer best; none if no number moves an answer."""
    return f"{one['k']} of {_heads(one)}" if one["conditions"]["gaze"]["accuracy"] > 0 else "none"


def _heads(one: CheckpointRow) -> int:
    return int(one["layers"] * one["heads_per_layer"])
