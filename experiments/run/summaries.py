"""Turns records of answers into numbers with their intervals.

Every share of answers on target is counted twice: as judged, and by the paper's rule (arXiv 2606.14703, appendix A and the
released scripts), which calls an answer that equals the unsteered one a miss, even where it describes the target.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple, NotRequired, TypeVar, cast

import numpy as np
from jaxtyping import Bool, Int
from typing_extensions import TypedDict

from experiments.run.records import Row as Record
from gaze.intervals import Labels, numbered
from gaze.judges.outcomes import count, outcome, same_by_code
from gaze.statistics import (
    UNATTRIBUTABLE,
    Correlation,
    Estimate,
    accuracy,
    accuracy_over_words,
    against_controls,
    panel_accuracy,
)

T = TypeVar("T")
N = TypeVar("N")

PLATEAU = 0.95
"""The share of what the greatest strength reaches that is called enough."""
MOVED = 0.01
"""The share of answers that must be surely exceeded before steering is said to move any."""

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


class Provenance(TypedDict):
    """What a number depends on, see `PROVENANCE`."""

    model: str
    revision: str
    heads: str | None
    k: int
    question: str
    mode: str
    bias: str
    strength: float
    query_positions: str
    seed: int
    judge: NotRequired[str | None]


class EstimateRow(TypedDict):
    """A `gaze.statistics.Estimate`."""

    value: float
    low: float
    high: float
    answers: int
    strips: int


class CorrelationRow(TypedDict):
    """A `gaze.statistics.Correlation`."""

    value: float | None
    low: float | None
    high: float | None
    zero_filled: float | None
    defined: int
    undefined: int
    strips: int


class Among(TypedDict):
    """The gaze heads among draws of control heads, a `gaze.statistics.Controls`."""

    accuracies: Sequence[float]
    mean: EstimateRow
    sd: float | None
    lowest: float
    highest: float
    gaze: float
    advantage: EstimateRow
    above_all: bool
    p: float


class Rate(TypedDict):
    """A share of `n` answers, with its 95 % interval."""

    accuracy: float
    interval: Sequence[float]
    n: int


class CountedRate(Rate):
    """A share of answers on target as judged, and by the paper's rule."""

    by_paper: Rate


class Share(Rate):
    """A share of answers about `strips` strips; of draws of control heads, beside them."""

    strips: int
    against: NotRequired[Among]


class Counted(Share):
    """A share of answers on target as judged, and by the paper's rule."""

    by_paper: Share


class PanelRow(Counted):
    """The answers whose target is one panel, from 1."""

    panel: int


class Measured(Counted):
    """All answers, and those of each target panel."""

    per_panel: list[PanelRow]


class OutcomeCounts(TypedDict):
    """What became of the answers, see `gaze.judges.outcomes.Counts`."""

    answers: int
    hit: int
    wrong: int
    unattributable: int
    failed: int
    empty: int
    junk: int
    same_paper: int
    same_code: int
    baseline_on_target: int


class ConditionRow(Provenance, Measured):
    """The numbers of one condition; `picks` counts the answers that describe each panel, whatever the target.

    `over_words` has an interval over strips and the words of captions, where those are known.
    """

    outcomes: OutcomeCounts
    picks: list[int]
    over_words: NotRequired[Share]


class EstimatedRow(Provenance, Counted):
    """The numbers of one condition without its panels."""

    outcomes: OutcomeCounts


class UnsteeredPicks(TypedDict):
    """Which panels the model describes when nobody steers it."""

    picks: list[int]
    unattributable: int
    n: int


class UnsteeredRow(Provenance, UnsteeredPicks):
    """The same with what was asked."""


class _Judged(NamedTuple):
    """Answers one by one: whether they are on target, as judged and by the paper's rule, and what they are about."""

    hit: Bool[np.ndarray, " answer"]
    by_paper: Bool[np.ndarray, " answer"]
    target: Int[np.ndarray, " answer"]
    clusters: tuple[Labels, ...]


def measured(records: Sequence[Record], alone: Sequence[Record]) -> Measured:
    """Returns the share of answers that describe their target, in all and per panel, with intervals over strips,
    and over draws of heads where there are several.

    Args:
      alone: the unsteered answers about the same strips.
    """
    some = _judged(records, alone)
    panels, by_paper = (panel_accuracy(hit, some.target, *some.clusters) for hit in (some.hit, some.by_paper))
    return {
        **_counted(some),
        "per_panel": [
            {"panel": panel + 1, **shared(found), "by_paper": shared(by_paper[panel])}
            for panel, found in panels.items()
        ],
    }


def provenance(row: Record) -> Provenance:
    """Returns where the numbers of a condition come from, by one of its answers."""
    return cast(Provenance, {name: row.get(name) for name in PROVENANCE})


def estimated(records: Sequence[Record], alone: Sequence[Record]) -> EstimatedRow:
    """Returns the share of answers that describe their target, with its interval, and where it comes from."""
    return {
        **provenance(records[0]),
        **_counted(_judged(records, alone)),
        "outcomes": _outcomes(records, alone),
    }


def condition(records: Sequence[Record], alone: Sequence[Record], panels: int) -> ConditionRow:
    """Returns `measured`, and what became of the answers about strips of so many panels."""
    return {
        **provenance(records[0]),
        **measured(records, alone),
        "outcomes": _outcomes(records, alone),
        "picks": _picks(_verdicts(records), panels),
    }


def controls(
    draws: Sequence[Sequence[Record]], gaze: Sequence[Record], alone: Sequence[Record], panels: int
) -> ConditionRow:
    """Returns the `condition` of draws of control heads together, and the gaze heads among them under both rules."""
    found = condition(numbered_draws(draws), alone, panels)
    steered, drawn = _judged(gaze, alone), [_judged(draw, alone) for draw in draws]
    found["against"] = among(steered.hit, [one.hit for one in drawn], steered.clusters[0])
    found["by_paper"]["against"] = among(steered.by_paper, [one.by_paper for one in drawn], steered.clusters[0])
    return found


def over_words(records: Sequence[Record], captions: Mapping[str, Sequence[str]]) -> Share:
    """Returns the share of answers that describe their target, with an interval over strips and words.

    Args:
      captions: of the panels of each strip.
    """
    targets = [captions[row["strip"]][row["target"] - 1] for row in records]
    words = [{*re.findall(r"\w+", target.lower())} for target in targets]
    hit = _verdicts(records) == np.array([row["target"] - 1 for row in records])
    return shared(accuracy_over_words(hit, clusters(records)[0], words))


def numbered_draws(draws: Sequence[Sequence[Record]]) -> list[Record]:
    """Returns the answers of all draws of control heads, each with the number of its draw."""
    return [{**row, "draw": number} for number, draw in enumerate(draws) for row in draw]


def among(
    gaze: Bool[np.ndarray, " answer"],
    draws: Sequence[Bool[np.ndarray, " answer"]],
    strip: Int[np.ndarray, " answer"],
) -> Among:
    """Returns where the gaze heads stand among draws of control heads, answer by answer."""
    found = asdict(against_controls(gaze, np.stack(draws), strip))
    return cast(Among, {**found, "accuracies": [*found["accuracies"]]})  # as it is read back


def baseline(alone: Sequence[Record], panels: int) -> UnsteeredPicks:
    """Returns which panels the model describes when nobody steers it."""
    judged = _verdicts(alone)
    return {
        "picks": _picks(judged, panels),
        "unattributable": int(np.sum(judged == UNATTRIBUTABLE)),
        "n": len(alone),
    }


def shared(found: Estimate) -> Share:
    """Returns an estimate as all results have it."""
    return {"accuracy": found.value, "interval": [found.low, found.high], "n": found.answers, "strips": found.strips}


def estimate_row(found: Estimate) -> EstimateRow:
    """Returns an estimate of anything but a share."""
    return cast(EstimateRow, asdict(found))


def correlation_row(found: Correlation) -> CorrelationRow:
    return cast(CorrelationRow, asdict(found))


def least_sufficient(curve: Iterable[tuple[float, Counted]]) -> float | None:
    """Returns the least strength that reaches `PLATEAU` of what the greatest does; None if that one moves nothing.

    A model that ignores steering still describes one target in so many. So something has moved only if answers other than
    the unsteered one are on target, beyond what chance explains: the interval by the paper's rule lies above `MOVED`.

    Args:
      curve: strengths, and the answers on target with each.
    """
    points = sorted(curve, key=lambda point: point[0])
    if not points or points[-1][1]["by_paper"]["interval"][0] <= MOVED:
        return None
    plateau = points[-1][1]["accuracy"]
    return next(strength for strength, found in points if found["accuracy"] >= PLATEAU * plateau)


def grouped(rows: Iterable[T], name: Callable[[T], N]) -> dict[N, list[T]]:
    """Returns rows by what `name` says of each, in the order in which they come."""
    groups: dict[N, list[T]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append(row)
    return groups


def _counted(some: _Judged) -> Counted:
    return {
        **shared(accuracy(some.hit, *some.clusters)),
        "by_paper": shared(accuracy(some.by_paper, *some.clusters)),
    }


def _outcomes(records: Sequence[Record], alone: Sequence[Record]) -> OutcomeCounts:
    unsteered = {row["strip"]: (row["text"], _region(row)) for row in alone}
    counted = count(
        [outcome(row["text"], _region(row), row["target"] - 1, *unsteered[row["strip"]]) for row in records]
    )
    return cast(OutcomeCounts, asdict(counted))


def _judged(records: Sequence[Record], alone: Sequence[Record]) -> _Judged:
    target = np.array([row["target"] - 1 for row in records])
    unsteered = {row["strip"]: row["text"] for row in alone}
    hit = _verdicts(records) == target
    same = np.array([same_by_code(row["text"], unsteered[row["strip"]]) for row in records])
    return _Judged(hit, hit & ~same, target, clusters(records))


def clusters(records: Sequence[Record]) -> tuple[Labels, ...]:
    """Returns what answers have in common: the strip and, if heads were drawn more than once, the draw."""
    strip = numbered(np.array([row["strip"] for row in records]))
    draw = np.array([row.get("draw", 0) for row in records])
    return (strip, draw) if np.ptp(draw) else (strip,)


def _region(record: Record) -> int | None:
    return None if record["panel"] is None else record["panel"] - 1


def _verdicts(records: Sequence[Record]) -> Int[np.ndarray, " answer"]:
    return np.array([UNATTRIBUTABLE if row["panel"] is None else row["panel"] - 1 for row in records])


def _picks(judged: Int[np.ndarray, " answer"], panels: int) -> list[int]:
    return [int(np.sum(judged == panel)) for panel in range(panels)]
