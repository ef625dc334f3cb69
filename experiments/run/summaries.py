"""From records of answers to numbers with their doubt."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from experiments.run.records import Row as Record
from experiments.testbed.scenes import PANELS
from gaze.judges.outcomes import count, outcome
from gaze.statistics import UNATTRIBUTABLE, Estimate, accuracy, against_controls, panel_accuracy


def measured(records: Sequence[Record], seed: int) -> dict[str, Any]:
    """Share of answers that are their target's caption, in all and per panel, with intervals clustered by strip."""
    hit, target, strip = _arrays(records)
    panels = panel_accuracy(hit, target, strip, seed)
    return {
        **_estimate(accuracy(hit, strip, seed)),
        "per_panel": [{"panel": panel + 1, **_estimate(found)} for panel, found in panels.items()],
    }


PROVENANCE = (
    "model",
    "revision",
    "heads",
    "k",
    "question",
    "mode",
    "bias",
    "strength",
    "query_positions",
    "seed",
    "judge",
)
"""What every row of numbers says of where it comes from."""


def provenance(row: Record) -> dict[str, Any]:
    """Where the numbers of a condition come from, by one of its answers."""
    return {name: row.get(name) for name in PROVENANCE}


def estimated(records: Sequence[Record], seed: int) -> dict[str, Any]:
    """Share of answers that describe their target, with its interval, and where it comes from."""
    hit, _, strip = _arrays(records)
    return {**provenance(records[0]), **_estimate(accuracy(hit, strip, seed))}


def against(draws: Sequence[Sequence[Record]], gaze: Sequence[Record], seed: int) -> dict[str, Any]:
    """The gaze heads among draws of control heads, answer by answer; see `gaze.statistics.Controls`."""
    hit, _, strip = _arrays(gaze)
    placed = against_controls(hit, np.stack([_arrays(records)[0] for records in draws]), strip, seed)
    return asdict(placed)


def condition(records: Sequence[Record], alone: Sequence[Record], seed: int) -> dict[str, Any]:
    """`measured`, and what became of the answers; `alone` are the unsteered answers about the same strips."""
    unsteered = {row["strip"]: (row["text"], _region(row)) for row in alone}
    counted = count(
        [outcome(row["text"], _region(row), row["target"] - 1, *unsteered[row["strip"]]) for row in records]
    )
    picks = np.bincount([row["panel"] - 1 for row in records if row["panel"]], minlength=PANELS)
    return {
        **provenance(records[0]),
        **measured(records, seed),
        "outcomes": asdict(counted),
        "picks": picks.tolist(),
    }


def baseline(alone: Sequence[Record]) -> dict[str, Any]:
    """Which panels the model describes when nobody steers it."""
    judged = _judged(alone)
    lost = int(np.sum(judged == UNATTRIBUTABLE))
    picks = np.bincount(judged[judged >= 0], minlength=PANELS).tolist()
    return {"picks": picks, "unattributable": lost, "n": len(alone)}


def _arrays(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    target = np.array([row["target"] - 1 for row in records])
    _, strip = np.unique([row["strip"] for row in records], return_inverse=True)
    return _judged(records) == target, target, strip


def _region(record: Record) -> int | None:
    return None if record["panel"] is None else record["panel"] - 1


def _judged(records: Sequence[Record]) -> np.ndarray:
    return np.array([UNATTRIBUTABLE if row["panel"] is None else row["panel"] - 1 for row in records])


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"accuracy": found.value, "interval": [found.low, found.high], "n": found.answers, "strips": found.strips}
