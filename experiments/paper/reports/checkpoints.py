"""The chapter about checkpoints."""

from collections.abc import Mapping

import numpy as np
from typing_extensions import TypedDict

from experiments.paper.examination import ExaminedRow
from experiments.run.formatting import COUNTING, ON_TARGET, drawn, made_with, percent, rules, share
from experiments.run.summaries import Share
from gaze.report.html import Cell, Chapter, Compared, Plot, Table
from gaze.report.plots import Measure, Role
from gaze.report.plots_compare import ComparedCheckpoint, checkpoints

ANSWERS = {
    "yes": "has gaze heads",
    "no": "has no gaze heads",
    "uncertain": "may have gaze heads or not",
    None: "cannot be told",
}


class CheckpointResults(TypedDict):
    """What `e9_checkpoints.sum_up` returns."""

    judge: str
    checkpoints: dict[str, ExaminedRow]


LABELS: tuple[tuple[str, Role], ...] = (("gaze heads", "gaze"), ("random heads", "random"))

STORY = (
    "Other models are asked the same questions. Do they have heads that look where the question says? How deep in the model are "
    "they, and if just these are steered, does the answer follow?"
)
COULD_FAIL = (
    "A method that finds gaze heads everywhere finds nothing. So models that cannot have any are tried, too: one that was never "
    "trained, or one whose queries were scrambled. And heads that look while other heads do the work do not count: what is "
    "steered are the very heads that look."
)


def chapter(results: CheckpointResults, number: int, name: str, title: str) -> Chapter:
    """Tells what `e9_checkpoints.sum_up` found."""
    found = results["checkpoints"]
    chance = 1 / len(next(iter(found.values()))["unsteered"]["picks"])
    return Chapter(
        number,
        name,
        title,
        STORY,
        findings=[
            f"{name} {ANSWERS[one['verdict']['answer']]}. {one['verdict']['reason']}" for name, one in found.items()
        ],
        plots=[
            Plot(
                "checkpoints",
                checkpoints([_drawn(name, one) for name, one in found.items()], chance),
                "The best gaze score of each layer; how many heads look where the question says, on strips of their own; and "
                "what steering these heads, and random ones of the same layers, reaches on other strips.",
            )
        ],
        tables=[_table(found), _criteria(found)],
        compared=[
            Compared(
                "heads steered in 2B, 4B, 8B, 32B (of 448, 1,152, 1,152, 4,096): there those at the peak, here those that look",
                "10, 75, 100, 500",
                ", ".join(f"{name}: {_number(one)}" for name, one in found.items()),
            ),
            Compared(
                "accuracy with them",
                "68.6%, 72.9%, 83.1%, 70.2%",
                ", ".join(
                    f"{name}: {percent(one['steering']['conditions']['gaze']['by_paper']['accuracy'])}"
                    for name, one in found.items()
                    if "steering" in one
                )
                or "none",
            ),
        ],
        caveats=_caveats(results),
        could_fail=COULD_FAIL,
        conclusion=_conclusion(found),
    )


def _conclusion(found: Mapping[str, ExaminedRow]) -> str:
    said = {"yes": "gaze heads", "no": "none", "uncertain": "uncertain", None: "cannot be told"}
    return "; ".join(f"{name}: {said[one['verdict']['answer']]}" for name, one in found.items()) + "."


def _drawn(name: str, one: ExaminedRow) -> ComparedCheckpoint:
    steered = one.get("steering")
    gaze, random = (
        _measure(label, role, steered["conditions"][role]) if steered else Measure(label, role, np.nan, np.nan, np.nan)
        for label, role in LABELS
    )
    return ComparedCheckpoint(name, one["profile"], one["looking"] or np.nan, _heads(one), gaze, random)


def _measure(name: str, role: Role, found: Share) -> Measure:
    low, high = found["interval"]
    return Measure(name, role, found["accuracy"], low, high)


def _table(found: Mapping[str, ExaminedRow]) -> Table:
    rows: list[list[Cell]] = []
    for name, one in found.items():
        start: list[Cell] = [
            name,
            one["verdict"]["answer"] or "–",
            _number(one),
            max(one["profile"]),
            share(one["asked"]),
        ]
        if steered := one.get("steering"):
            gaze, random, everything = (steered["conditions"][kind] for kind in ("gaze", "random", "all"))
            start += [
                f"{gaze['strength']:,g}",
                *(share(counted) for _, counted in rules(gaze)),
                *(drawn(counted["against"]) for _, counted in rules(random)),
                *(share(counted) for _, counted in rules(everything)),
                share(steered["cut"]["gaze"]),
                share(steered["cut"]["random"]),
            ]
        rows.append([*start, *["–"] * (14 - len(start))])
    names = ("checkpoint", "gaze heads?", "heads that look", "best score", "panel asked for described", "strength")
    heads = ("steered", "random, over draws", "all heads")
    steering = (f"{one}, {rule}" for one in heads for rule in ON_TARGET[::2])
    cut = ("panel asked for, without these heads", "without random ones")
    sources = [
        made_with(one["steering"]["conditions"]["gaze"] if "steering" in one else one["unsteered"])
        for one in found.values()
    ]
    note = f"Each kind of heads at the strength that is its best on other strips. {COUNTING}"
    return Table("The checkpoints", (*names, *steering, *cut), rows, note, sources)


def _criteria(found: Mapping[str, ExaminedRow]) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            row["about"],
            row["what"],
            row["value"],
            f"{row['low']:.3f} to {row['high']:.3f}",
            row["threshold"],
            row["state"],
        ]
        for name, one in found.items()
        for row in one["verdict"]["criteria"]
    ]
    columns = ("checkpoint", "about", "what", "value", "95% interval", "threshold", "above it?")
    note = (
        "A criterion holds if its interval lies above the threshold, fails if it lies below, and is uncertain otherwise; a p "
        "value must lie below. All are about the same heads, those that look on other strips. What is needed is told but decides "
        "nothing: other heads may stand in."
    )
    return Table("Every criterion", columns, rows, note)


def _caveats(results: CheckpointResults) -> list[str]:
    found, said = results["checkpoints"], []
    if results["judge"] == "likelihood":
        said.append("Each checkpoint judges its own answers: do not trust the accuracy of a model that cannot judge.")
    said += [
        f"{name}: these heads look, but the answers about the panel asked for are not known to need them."
        for name, one in found.items()
        if any(row["about"] == "need" and row["state"] != "holds" for row in one["verdict"]["criteria"])
    ]
    return said


def _number(one: ExaminedRow) -> str:
    """How many heads look."""
    return f"{one['looking']} of {_heads(one)}" if one["looking"] else "none"


def _heads(one: ExaminedRow) -> int:
    return int(one["layers"] * one["heads_per_layer"])
