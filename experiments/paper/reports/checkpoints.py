"""The chapter about checkpoints."""

from typing import Any

import numpy as np

from experiments.run.formatting import COUNTING, ON_TARGET, drawn, percent, rules, share, source
from gaze.prompts import ORDINALS
from gaze.report.html import Chapter, Compared, Plot, Table
from gaze.report.plots import Measure
from gaze.report.plots_compare import Checkpoint, checkpoints

STORY = (
    "Other models, the same questions: do they have heads that look where the question says, how deep in the model do "
    "these lie, "
    "how many does it take to turn its gaze, and does turning it turn the answer? A model that was never trained must "
    "come out "
    "without any."
)


def chapter(results: dict[str, Any], number: int, name: str, title: str) -> Chapter:
    """Tells what `e9_checkpoints.sum_up` found."""
    found = results["checkpoints"]
    return Chapter(
        number,
        name,
        title,
        STORY,
        findings=[
            f"{name} {'has' if one['verdict']['has_gaze_heads'] else 'has no'} gaze heads. {one['verdict']['reason']}"
            for name, one in found.items()
        ],
        plots=[
            Plot(
                "checkpoints",
                checkpoints([_drawn(name, one) for name, one in found.items()], 1 / len(ORDINALS)),
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
    )


def _drawn(name: str, one: dict[str, Any]) -> Checkpoint:
    gaze, random = one["conditions"]["gaze"], one["conditions"]["random"]
    return Checkpoint(
        name,
        one["profile"],
        one["k"] if gaze["accuracy"] > 0 else np.nan,
        _heads(one),
        Measure("gaze heads", "gaze", gaze["accuracy"], *gaze["interval"]),
        Measure("random heads", "random", random["accuracy"], *random["interval"]),
    )


def _table(found: dict[str, Any]) -> Table:
    rows = []
    for name, one in found.items():
        gaze, random, everything = (one["conditions"][kind] for kind in ("gaze", "random", "all"))
        stability, witness = one["stability"], one["verdict"]["looks"][0]
        rows.append(
            [
                name,
                "yes" if one["verdict"]["has_gaze_heads"] else "no",
                _peak(one),
                f"L{witness['layer']}H{witness['head']}",
                max(one["profile"]),
                witness["lift"],
                percent(stability["overlap"]),
                *(share(counted) for _, counted in rules(gaze)),
                *(drawn(counted["against"]) for _, counted in rules(random)),
                *(share(counted) for _, counted in rules(everything)),
                source(gaze),
            ]
        )
    names = ("checkpoint", "gaze heads?", "heads", "best", "best score", "its lift, held out", "halves agree")
    heads = ("steered", "random, over draws", "all heads")
    steering = (f"{one}, {rule}" for one in heads for rule in ON_TARGET[::2])
    return Table("The checkpoints", (*names, *steering, "made with"), rows, COUNTING)


def _criteria(found: dict[str, Any]) -> Table:
    rows = [
        [name, row["about"], row["what"], row["value"], row["threshold"], "yes" if row["passed"] else "no"]
        for name, one in found.items()
        for row in one["verdict"]["criteria"]
    ]
    return Table("Every criterion", ("checkpoint", "about", "what must hold", "value", "threshold", "holds"), rows)


def _caveats(results: dict[str, Any]) -> list[str]:
    found, said = results["checkpoints"], []
    if results["judge"] == "likelihood":
        said.append(
            "Each checkpoint judges its own answers: accuracies of a model that cannot judge are not to be trusted."
        )
    said += [
        f"{name}: halves of the strips agree on heads that do not look where they are asked to; stability alone proves "
        "nothing."
        for name, one in found.items()
        if not one["verdict"]["has_gaze_heads"]
        and any(row["about"] == "stability" and row["passed"] for row in one["verdict"]["criteria"])
    ]
    return said


def _peak(one: dict[str, Any]) -> str:
    """How many heads steer best; none if no number moves an answer."""
    return f"{one['k']} of {_heads(one)}" if one["conditions"]["gaze"]["accuracy"] > 0 else "none"


def _heads(one: dict[str, Any]) -> int:
    return int(one["layers"] * one["heads_per_layer"])
