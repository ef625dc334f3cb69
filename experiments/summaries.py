"""From records of answers to numbers with their doubt."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.bench import Record
from experiments.testbed.scenes import PANELS
from gaze.statistics import UNATTRIBUTABLE, Estimate, accuracy, panel_accuracy, tally


def measured(records: Sequence[Record], seed: int) -> dict[str, Any]:
    """Share of answers that are their target's caption, in all and per panel, with intervals clustered by strip."""
    hit, target, strip = _arrays(records)
    panels = panel_accuracy(hit, target, strip, seed)
    return {
        **_estimate(accuracy(hit, strip, seed)),
        "per_panel": [{"panel": panel + 1, **_estimate(found)} for panel, found in panels.items()],
    }


def condition(records: Sequence[Record], alone: Sequence[Record], seed: int) -> dict[str, Any]:
    """`measured`, and what became of the other answers; `alone` are the unsteered answers about the same strips."""
    unsteered = {row["strip"]: row["text"] for row in alone}
    counted = tally(_judged(records), _arrays(records)[1], PANELS)
    outcomes = {
        "hit": counted.hit,
        "wrong": counted.wrong,
        "unattributable": counted.unattributable,
        "empty": sum(not row["text"] for row in records),
        "baseline": sum(row["text"] == unsteered[row["strip"]] for row in records),
    }
    return {**measured(records, seed), "outcomes": outcomes, "picks": list(counted.picks)}


def random_condition(
    draws: Sequence[Sequence[Record]], heads: Sequence[Sequence[tuple[int, int]]], alone: Sequence[Record], seed: int
) -> dict[str, Any]:
    """All draws together (the interval is over strips), and each draw by itself."""
    pooled = condition([row for records in draws for row in records], alone, seed)
    single = [
        {"accuracy": float(_arrays(records)[0].mean()), "heads": [list(head) for head in drawn]}
        for records, drawn in zip(draws, heads, strict=True)
    ]
    return {**pooled, "draws": single}


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


def _judged(records: Sequence[Record]) -> np.ndarray:
    return np.array([UNATTRIBUTABLE if row["panel"] is None else row["panel"] - 1 for row in records])


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"accuracy": found.value, "interval": [found.low, found.high], "n": found.answers, "strips": found.strips}
