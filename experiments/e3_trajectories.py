"""Experiment 3, trajectories: where heads look while the model narrates a strip (arXiv 2606.14703, section 2; released script 02).

The model writes its narration alone; then it is read once more and the attention of every head on every panel is kept, token
by token for the gaze heads and the controls, line by line for all.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from experiments.conditions import Condition
from experiments.e1_discovery import by_strip
from experiments.lab import Lab, progress
from experiments.models import TESTBED
from experiments.records import Row
from experiments.runner import script
from experiments.study import nowhere
from experiments.summaries import provenance
from experiments.telling import percent, share, source
from experiments.testbed.wordings import NOTEBOOK_NARRATION, REVERSE_NARRATION, REVERSE_ORDER, TRAJECTORY
from gaze import trajectory
from gaze.book import Chapter, Compared, Plot, Table
from gaze.passages import Passage, narrated, token_ends
from gaze.plots_time import Stairs, staircase, trajectories
from gaze.score import CREDITS, per_strip
from gaze.statistics import accuracy, against_controls, correlation, spearman
from gaze.strips import Strip
from gaze.trajectory import Watched, watch

NUMBER, NAME, TITLE = 3, "e3_trajectories", "Where the heads look while the model narrates"
STRIPS = 8
"""Strips that are watched, and saved, at once."""
BINS = 8
"""Steps of a line in the figures."""
WEIGHTS = ("mass", "value_mass")


class Narration(NamedTuple):
    """A way to ask for a narration, and whether it goes through the strip backwards."""

    question: str
    backwards: bool

    def order(self, panels: int) -> list[int]:
        return [*range(panels)][:: -1 if self.backwards else 1]


NUMBERED = {
    "forward": Narration(TRAJECTORY, False),
    "reverse": Narration(REVERSE_ORDER.paraphrases[0], True),
}
FREE = {
    "forward, no numbers": Narration(NOTEBOOK_NARRATION, False),
    "reverse, no numbers": Narration(REVERSE_NARRATION, True),
}


def narrations(lab: Lab) -> dict[str, Narration]:
    """The numbered narrations, and those without numbers of a model that is known to give each panel one sentence."""
    return NUMBERED | (FREE if lab.settings.model == TESTBED else {})


def collect(lab: Lab) -> None:
    strips = lab.pictures("evaluation")
    asked = narrations(lab)
    room = lab.settings.narration
    rows = lab.generate(
        NAME, strips, [Condition(name, one.question, room, nowhere(strips)) for name, one in asked.items()]
    )
    starts = range(0, len(strips), STRIPS)
    with progress("watching narrations", len(asked) * len(starts)) as done:
        for name, one in asked.items():
            said = _of(rows, name)
            for start in starts:
                some = slice(start, start + STRIPS)
                lab.saved(_file(lab, name, start), partial(_watched, lab, one, strips[some], said[some]))
                done(1)


def sum_up(lab: Lab) -> dict[str, Any]:
    rows = lab.answers(NAME)
    asked = narrations(lab)
    found = {name: _narration(lab, name, one, _of(rows, name)) for name, one in asked.items()}
    return {
        "judge": lab.judge.name,
        "heads": [list(head) for head in lab.heads().heads],
        "draws": lab.settings.draws,
        "narrations": found,
        "generation": _generation(lab),
        "skipped_lines": lab.skipped,
        "failed_verdicts": len(lab.failed),
    }


def watched(lab: Lab, name: str) -> dict[str, np.ndarray]:
    """What is saved of a narration, of all strips.

    `lines` [strip, token]: the panel of each token's line; `ends` [strip, token] and `length`, see `gaze.passages`;
    for each of `WEIGHTS` the means over the gaze heads, then each draw of controls, "mass/sets" [strip, set, token, panel], and
    of every head "mass/lines" [strip, line, layer, head, panel].
    """
    starts = range(0, len(lab.pictures("evaluation")), STRIPS)
    parts = [dict(np.load(_file(lab, name, start))) for start in starts]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _file(lab: Lab, name: str, start: int) -> Any:
    return lab.place(NAME) / name.replace(", ", "_").replace(" ", "_") / f"{start:05}.npz"


def _of(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row["condition"] == name]


def _watched(lab: Lab, narration: Narration, strips: Sequence[Strip], rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """What is saved of some strips."""
    room, size = lab.settings.narration, min(STRIPS, lab.settings.evaluation)
    decode = lab.processor.tokenizer.decode
    ends = [token_ends(partial(decode, skip_special_tokens=True), row["tokens"]) for row in rows]
    order = narration.order(len(strips[0]))
    told = [narrated(row["text"], end, order) for row, end in zip(rows, ends, strict=True)]
    lines = trajectory.line_of_token(told, room)
    said = [np.array(row["tokens"], np.int32) for row in rows]
    found = watch(lab.model, lab.processor, strips, narration.question, said, room, size)
    return {
        "lines": lines.astype(np.int8),
        "ends": np.stack([np.pad(end, (0, room - len(end))) for end in ends]),
        "length": np.array([len(end) for end in ends], np.int32),
        **_reduced(lab, found, lines),
    }


def _reduced(lab: Lab, found: Watched, lines: np.ndarray) -> dict[str, np.ndarray]:
    heads = lab.heads()
    sets = np.stack([one.to_mask(*lab.shape) for one in (heads, *lab.controls(heads))])
    kept = {}
    for weight in WEIGHTS:
        mass = getattr(found, weight)
        kept[f"{weight}/sets"] = trajectory.averaged(mass, sets).astype(np.float16)
        kept[f"{weight}/lines"] = trajectory.by_line(mass, lines).astype(np.float16)
    return kept


def _narration(lab: Lab, name: str, narration: Narration, rows: Sequence[Row]) -> dict[str, Any]:
    """One way of narrating: whether the lines are right, and where the heads look during them."""
    strips, saved = lab.pictures("evaluation"), watched(lab, name)
    order = narration.order(len(strips[0]))
    ends = [end[:length] for end, length in zip(saved["ends"], saved["length"], strict=True)]
    told = [narrated(row["text"], end, order) for row, end in zip(rows, ends, strict=True)]
    return {
        **provenance({**rows[0], "judge": lab.judge.name}),
        "order": [panel + 1 for panel in order],
        "strips": len(strips),
        "lines": len(strips) * len(order),
        "lines_found": sum(map(len, told)),
        "lines_right": _right(lab, rows, told, order),
        **{weight: _looking(lab, saved, weight, order) for weight in WEIGHTS},
    }


def _right(
    lab: Lab, rows: Sequence[Row], told: Sequence[Mapping[int, Passage]], order: Sequence[int]
) -> dict[str, Any]:
    """Share of lines that describe their own panel; a line that is not there does not."""
    wanted = [(number, panel) for number in range(len(rows)) for panel in order]
    texts = [told[number][panel].text if panel in told[number] else "" for number, panel in wanted]
    strips = [rows[number]["strip"] for number, _ in wanted]
    found = lab.verdicts(lab.pictures("evaluation"), list(zip(strips, texts, strict=True)))
    hit = np.array([said == panel for said, (_, panel) in zip(found, wanted, strict=True)])
    estimate = accuracy(hit, np.array([number for number, _ in wanted]), lab.settings.seed)
    return {"accuracy": estimate.value, "interval": [estimate.low, estimate.high], "n": hit.size, "strips": len(rows)}


def _looking(lab: Lab, saved: Mapping[str, np.ndarray], weight: str, order: Sequence[int]) -> dict[str, Any]:
    """The staircase of gaze heads and controls, and its numbers."""
    seed, lines = lab.settings.seed, saved["lines"].astype(np.int32)
    sets = saved[f"{weight}/sets"].astype(np.float32).transpose(1, 0, 2, 3)
    looked = [trajectory.attended(trajectory.line_mass(one, lines)) for one in sets]
    known = looked[0] >= 0
    strip, panel = np.nonzero(known)
    hits = np.stack([one[known] == panel for one in looked])
    begun = trajectory.first_token(lines, len(order))
    gaze = accuracy(hits[0], strip, seed)
    return {
        "own_panel": {
            "accuracy": gaze.value,
            "interval": [gaze.low, gaze.high],
            "n": gaze.answers,
            "strips": gaze.strips,
        },
        "against": asdict(against_controls(hits[0], hits[1:], strip, seed)),
        "with_panel": [_correlated(one, np.broadcast_to(np.arange(len(order)), one.shape), seed) for one in looked],
        "with_time": [_correlated(one, begun, seed) for one in looked],
        "stairs": trajectory.stairs(sets[0], lines, order, BINS).tolist(),
        "control_stairs": trajectory.stairs(sets[1:].mean(axis=0), lines, order, BINS).tolist(),
    }


def _correlated(looked: np.ndarray, other: np.ndarray, seed: int) -> dict[str, Any]:
    """Rank correlation, over the lines of each strip, of the panel that is looked at with something else."""
    values = [spearman(one[row >= 0], row[row >= 0]) for one, row in zip(other, looked, strict=True)]
    return asdict(correlation(values, np.arange(len(values)), seed))


def _generation(lab: Lab) -> dict[str, Any]:
    """Scores as in discovery, from the lines of the forward narration in place of questions about panels."""
    saved, heads = watched(lab, "forward"), lab.heads()
    chosen = heads.to_mask(*lab.shape) > 0
    whole = trajectory.complete(saved["mass/lines"])
    return {
        "strips": int(whole.sum()),
        "incomplete": int((~whole).sum()),
        "scores": {
            f"{name}{', by value' if weight == 'value_mass' else ''}": _compared(
                per_strip(saved[f"{weight}/lines"][whole].astype(np.float32), credit).mean(axis=0),
                by_strip(lab, name).mean(axis=0) if weight == "mass" else None,
                chosen,
            )
            for weight in WEIGHTS
            for name, credit in CREDITS.items()
        }
        if whole.any()
        else {},
    }


def _compared(narrating: np.ndarray, asked: np.ndarray | None, chosen: np.ndarray) -> dict[str, Any]:
    """Scores while narrating beside those of discovery (None if there are none of this kind)."""
    last = np.sort(narrating.ravel())[-chosen.sum()]  # heads that tie with the last of the best are among them
    gap = {"narrating": narrating, "asked": asked}
    means = {
        name: None
        if scores is None
        else {"gaze": float(scores[chosen].mean()), "others": float(scores[~chosen].mean())}
        for name, scores in gap.items()
    }
    return {**means, "shared": int((narrating[chosen] >= last).sum()), "k": int(chosen.sum())}


def chapter(lab: Lab, results: dict[str, Any]) -> Chapter:
    found = results["narrations"]
    forward, reverse = found["forward"], found["reverse"]
    return Chapter(
        NUMBER,
        NAME,
        TITLE,
        "The model narrates the strip by itself, and we watch which panel each head looks at while each word is chosen. Heads that "
        "look at what is being told draw a staircase: panel 1 during the first line, panel 2 during the second, and so on.",
        findings=[
            _staircase_finding("While narrating forwards", forward),
            _staircase_finding("While narrating in reverse", reverse),
            _time_finding(forward, reverse),
            *_generation_finding(results["generation"]),
        ],
        plots=_plots(lab, found),
        tables=[_looking_table(found), _generation_table(results["generation"]), _made_with(found)],
        compared=[
            Compared(
                "gaze heads follow the panel that is being told, random heads do not",
                "shown for one strip",
                _staircase(forward),
            )
        ],
        caveats=_caveats(found, results["generation"]),
    )


def _staircase(one: dict[str, Any]) -> str:
    mass = one["mass"]
    return f"own panel first in {percent(mass['own_panel']['accuracy'])} of lines, controls {percent(mass['against']['mean']['value'])}"


def _staircase_finding(when: str, one: dict[str, Any]) -> str:
    mass, rho = one["mass"], one["mass"]["with_panel"]
    against = mass["against"]
    controls = [draw["value"] for draw in rho[1:] if draw["value"] is not None]
    spread = f"{min(controls):.2f} to {max(controls):.2f}" if controls else "undefined"
    return (
        f"{when}, the gaze heads look most at the panel of the line in {share(mass['own_panel'])} of {mass['own_panel']['n']} lines, "
        f"random heads of the same layers in {percent(against['mean']['value'])} over {len(against['accuracies'])} draws "
        f"({percent(against['lowest'])} to {percent(against['highest'])}); the rank correlation of the panel looked at with the panel of "
        f"the line is {_rho(rho[0])}, that of the draws {spread}."
    )


def _time_finding(forward: dict[str, Any], reverse: dict[str, Any]) -> str:
    ahead, back = (_rho(one["mass"]["with_time"][0]) for one in (forward, reverse))
    return f"Against the order in time the staircase goes up forwards ({ahead}) and down in reverse ({back})."


def _generation_finding(generation: dict[str, Any]) -> list[str]:
    if not generation["scores"]:
        return []
    gaze = generation["scores"]["gaze"]
    asked, narrating = (gaze[name]["gaze"] for name in ("asked", "narrating"))
    return [
        f"Scored while narrating (lines in place of questions), {gaze['shared']} of the {gaze['k']} gaze heads are again among the "
        f"best {gaze['k']}; their mean score is {narrating:.3f}, {narrating / asked:.2f} times that of discovery ({asked:.3f})."
    ]


def _rho(one: dict[str, Any]) -> str:
    if one["value"] is None:
        return "undefined"
    lost = f", undefined in {one['undefined']} strips" if one["undefined"] else ""
    return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f}{lost})"


def _plots(lab: Lab, found: dict[str, Any]) -> list[Plot]:
    def maps(weight: str) -> list[Stairs]:
        return [
            Stairs(f"{heads}, {name}", np.array(one[weight][stairs]), np.repeat(one["order"], BINS) - 1)
            for name, one in found.items()
            for heads, stairs in (("gaze heads", "stairs"), ("random heads", "control_stairs"))
        ]

    step = f"narration, {BINS} steps a line"
    plots = [
        Plot(
            "staircase",
            staircase(maps("mass"), step),
            "Attention on each panel while the strip is narrated, mean over strips with their lines laid over one another. The orange "
            "line is the panel that the text is about.",
            "the staircase",
        ),
        Plot(
            "staircase_by_value",
            staircase(maps("value_mass"), step, "attention × norm of values"),
            "The same, each image token weighted by the norm of its value vector, as the paper's script does.",
        ),
    ]
    return [*plots, *_one_strip(lab)]


def _one_strip(lab: Lab) -> list[Plot]:
    """The first strip that has a line about every panel, token by token."""
    saved = watched(lab, "forward")
    whole = np.flatnonzero(trajectory.complete(saved["mass/lines"]))
    if not whole.size:
        return []
    first = whole[0]
    tokens = slice(0, int(saved["length"][first]))
    sets = saved["mass/sets"][first, :, tokens].astype(np.float32)
    lines = {"gaze heads": sets[0], "random heads, mean of draws": sets[1:].mean(axis=0)}
    figure = trajectories(lines, saved["lines"][first, tokens].astype(np.int32))
    name = lab.pictures("evaluation")[first].name
    return [
        Plot(
            "one_strip",
            figure,
            f"One narration, strip {name}; orange while the text is about the panel.",
            "trajectories",
        )
    ]


def _looking_table(found: dict[str, Any]) -> Table:
    rows = []
    for name, one in found.items():
        for weight, label in zip(WEIGHTS, ("attention", "by value"), strict=True):
            looked = one[weight]
            against = looked["against"]
            rows.append([
                name,
                label,
                share(looked["own_panel"]),
                f"{percent(against['mean']['value'])} ({percent(against['lowest'])} to {percent(against['highest'])})",
                _rho(looked["with_panel"][0]),
                _rho(looked["with_time"][0]),
                f"{one['lines_found']} of {one['lines']}",
                share(one["lines_right"]),
            ])  # fmt: skip
    columns = (
        "narration",
        "weight",
        "own panel first",
        "random heads, mean and range of draws",
        "ρ with the line's panel",
    )
    return Table(
        "The staircase in numbers", (*columns, "ρ with time", "lines", "lines that describe their panel"), rows
    )


def _generation_table(generation: dict[str, Any]) -> Table:
    rows = []
    for name, one in generation["scores"].items():
        told, asked = one["narrating"], one["asked"] or {"gaze": float("nan"), "others": float("nan")}
        ratio = (told["gaze"] - told["others"]) / (asked["gaze"] - asked["others"])
        rows.append(
            [
                name,
                told["gaze"],
                told["others"],
                asked["gaze"],
                asked["others"],
                ratio,
                f"{one['shared']} of {one['k']}",
            ]
        )
    columns = ("score", "gaze heads, narrating", "others", "gaze heads, asked", "others, asked")
    return Table(
        "Scores while narrating and in discovery",
        (*columns, "gap, narrating over asked", "gaze heads among the best"),
        rows,
        f"{generation['strips']} strips with a line about every panel.",
    )


def _made_with(found: dict[str, Any]) -> Table:
    return Table("What was asked", ("narration", "made with"), [[name, source(one)] for name, one in found.items()])


def _caveats(found: dict[str, Any], generation: dict[str, Any]) -> list[str]:
    lost = [f"{one['lines'] - one['lines_found']} of {one['lines']} {name}" for name, one in found.items()]
    other = [name for name, one in found.items() if one["lines_right"]["accuracy"] < 0.5]
    return [
        *(f"The model does not narrate as asked: {name}; its lines are about other panels." for name in other),
        f"Lines that were never written cannot be watched and are left out of the staircase: {'; '.join(lost)}.",
        f"{generation['incomplete']} narrations lack a line and are left out of the scores while narrating.",
        "Attention is that of the pass that chooses a token; a word of several tokens may be decided with its first.",
    ]


if __name__ == "__main__":
    script(sys.modules[__name__])
