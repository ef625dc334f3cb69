"""Numbers with their doubt: means with intervals that know that answers about one strip hang together.

All intervals are those of `gaze.intervals`. A single strip says nothing about others: its interval is the whole range
of what is measured. Numbers of several draws of heads have an interval over draws and strips.
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Num, Shaped
from scipy import stats

from gaze.intervals import Labels, Means, numbered, shares, shares_over_words, sums, variance
from qwen3vl_jax.errors import InputError

UNATTRIBUTABLE = -1
"""The verdict on a text that describes no panel in particular."""


@dataclass(frozen=True)
class Estimate:
    """A share, mean or difference with its 95 % interval, from so many answers about so many strips."""

    value: float
    low: float
    high: float
    answers: int
    strips: int


@dataclass(frozen=True)
class Tally:
    """What became of the answers; `picks` counts verdicts per panel, whatever was asked."""

    hit: int
    wrong: int
    unattributable: int
    picks: tuple[int, ...]


@dataclass(frozen=True)
class Controls:
    """What random heads do, as a distribution, and where the gaze heads stand.

    Attributes:
      accuracies: of each draw of heads.
      mean: of the draws, with an interval over draws and strips.
      sd, lowest, highest: of the draws' accuracies; sd is None for a single draw.
      gaze: accuracy of the gaze heads.
      advantage: that minus the controls' mean, with an interval over draws and strips.
      above_all: whether no draw is as good as the gaze heads.
      p: the rank of the gaze heads among the draws, as a p value: at best 1 / (draws + 1).
    """

    accuracies: tuple[float, ...]
    mean: Estimate
    sd: float | None
    lowest: float
    highest: float
    gaze: float
    advantage: Estimate
    above_all: bool
    p: float


@dataclass(frozen=True)
class Correlation:
    """Mean rank correlation over sequences, each of which may have none.

    Attributes:
      value, low, high: over the sequences that have one; None if none has.
      zero_filled: the mean if the others count as 0, which is what the paper's code does; None without any sequence.
      defined, undefined: how many sequences have one, and how many do not.
      strips: how many the former are about.
    """

    value: float | None
    low: float | None
    high: float | None
    zero_filled: float | None
    defined: int
    undefined: int
    strips: int


def average(
    values: Num[np.ndarray, " answer"] | Bool[np.ndarray, " answer"],
    *clusters: Labels,
    whole: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Mean over answers of what lies in a range.

    Args:
      values: whatever is measured per answer.
      clusters: the strip of each answer and, if answers come from several draws of heads, its draw.
      whole: the range that it can have, which is the interval of a single strip.

    Raises InputError if there is no answer or one lies outside of the range.
    """
    floor, size = whole[0], whole[1] - whole[0]
    found = shares((values.astype(np.float64) - floor) / size, *clusters)
    low, high = (floor + size * float(end) for end in found[1:])
    return Estimate(float(values.mean()), low, high, values.size, len(np.unique(clusters[0])))


def accuracy(hit: Bool[np.ndarray, " answer"], *clusters: Labels) -> Estimate:
    """Share of hits; `average` of answers that are right or wrong. Raises InputError if there is no answer."""
    return average(hit, *clusters)


def accuracy_over_words(hit: Bool[np.ndarray, " answer"], strip: Labels, words: Sequence[Set[str]]) -> Estimate:
    """Share of hits with an interval over strips and words: answers that share a word may have their misses in common.

    Args:
      words: of the caption of each target.
    """
    found = shares_over_words(hit, strip, words)
    return Estimate(float(hit.mean()), float(found.low), float(found.high), hit.size, len(np.unique(strip)))


def difference(
    values: Num[np.ndarray, " answer"] | Bool[np.ndarray, " answer"],
    strip: Int[np.ndarray, " answer"],
    other: Num[np.ndarray, " reply"] | Bool[np.ndarray, " reply"],
    other_strip: Int[np.ndarray, " reply"],
) -> Estimate:
    """Share in one condition minus that in another on the same strips.

    The conditions may differ in the number of answers about a strip. Raises InputError if they are not about the same
    strips or there is no answer.
    """
    names, number = np.unique(strip, return_inverse=True)
    others, other_number = np.unique(other_strip, return_inverse=True)
    if not names.size or not np.array_equal(names, others):
        raise InputError(
            f"two conditions can only be compared on the same strips, got {len(names)} and {len(others)} strips"
        )
    return _difference((values, number), (other, other_number))


def group_accuracy(
    hit: Bool[np.ndarray, " answer"], group: Shaped[np.ndarray, " answer"], *clusters: Labels
) -> dict[str, Estimate]:
    """`accuracy` for each group of answers (a size class, a schedule, ...), by its name."""
    return {str(name): accuracy(hit[some], *(one[some] for one in clusters)) for name, some in _groups(group)}


def panel_accuracy(
    hit: Bool[np.ndarray, " answer"], target: Int[np.ndarray, " answer"], *clusters: Labels
) -> dict[int, Estimate]:
    """`accuracy` for each panel that was a target."""
    return {int(panel): accuracy(hit[some], *(one[some] for one in clusters)) for panel, some in _groups(target)}


def tally(judged: Int[np.ndarray, " answer"], target: Int[np.ndarray, " answer"], panels: int) -> Tally:
    """Counts verdicts (panels from 0, or UNATTRIBUTABLE) against targets."""
    lost = judged == UNATTRIBUTABLE
    hit = int(np.sum(judged == target))
    picks = np.bincount(judged[~lost], minlength=panels)
    return Tally(hit, int(np.sum(~lost)) - hit, int(np.sum(lost)), tuple(picks.tolist()))


def against_controls(
    gaze: Bool[np.ndarray, " answer"], controls: Bool[np.ndarray, "draw answer"], strip: Int[np.ndarray, " answer"]
) -> Controls:
    """Places the gaze heads among draws of random heads.

    Args:
      gaze, controls: hits in the same answers, with gaze heads and with each draw of random heads.
      strip: which strip each answer is about.

    A single set (all heads, those of another ranking) is no draw: its interval is over strips, and about these heads only.
    Raises InputError if there is no draw or no answer.
    """
    if not controls.size:
        raise InputError("there are no answers with control heads to compare with")
    each, value = controls.mean(axis=1), float(gaze.mean())
    strips, draw = np.tile(strip, len(controls)), np.repeat(np.arange(len(controls)), len(strip))
    clusters = (strips, draw) if len(controls) > 1 else (strips,)
    return Controls(
        accuracies=tuple(each.tolist()),
        mean=accuracy(controls.ravel(), *clusters),
        sd=float(each.std(ddof=1)) if len(each) > 1 else None,
        lowest=float(each.min()),
        highest=float(each.max()),
        gaze=value,
        advantage=_difference((gaze, strip), (controls.ravel(), *clusters)),
        above_all=bool(value > each.max()),
        p=float(1 + np.sum(each >= value)) / (1 + len(each)),
    )


def spearman(first: Num[np.ndarray, " item"], second: Num[np.ndarray, " item"]) -> float | None:
    """Rank correlation; None, undefined, for fewer than three items or if one side is constant."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(stats.spearmanr(first, second).statistic)


def follows(wanted: Int[np.ndarray, " segment"], judged: Int[np.ndarray, " segment"]) -> float | None:
    """Rank correlation of the scheduled panels and those described, without segments that describe none."""
    known = judged != UNATTRIBUTABLE
    return spearman(wanted[known], judged[known])


def correlation(values: Sequence[float | None], strip: Int[np.ndarray, " sequence"]) -> Correlation:
    """Mean of rank correlations, those that are undefined counted and left out."""
    defined = np.array([value is not None for value in values], bool)
    known = np.array([value for value in values if value is not None], float)
    if not known.size:
        return Correlation(None, None, None, 0.0 if len(values) else None, 0, len(values), 0)
    found = average(known.clip(-1, 1), strip[defined], whole=(-1.0, 1.0))
    zero_filled = float(known.sum()) / len(values)
    lost = len(values) - known.size
    return Correlation(found.value, found.low, found.high, zero_filled, known.size, lost, found.strips)


def _groups(names: Shaped[np.ndarray, " answer"]) -> Iterator[tuple[np.generic, Bool[np.ndarray, " answer"]]]:
    return ((name, names == name) for name in np.unique(names))


def _difference(one: tuple[np.ndarray, *tuple[Labels, ...]], other: tuple[np.ndarray, *tuple[Labels, ...]]) -> Estimate:
    """Difference of shares, each with its clusters, strips first, from their intervals (Newcombe 1998, Zou & Donner 2008).

    Where both are near 0 or 1 it is as uncertain as they are: the correlation is known only where both vary.
    """
    (first, *clusters), (second, *others) = one, other
    strips, size = len(np.unique(clusters[0])), first.size + second.size
    value = float(first.mean() - second.mean())
    if min(len(np.unique(labels)) for labels in (*clusters, *others)) < 2:
        return Estimate(value, -1.0, 1.0, size, strips)
    here, there = shares(first, *clusters), shares(second, *others)
    parts = [
        sums((values - values.mean())[:, None], numbered(labels[0])) / values.size
        for values, labels in ((first, clusters), (second, others))
    ]
    together = strips / (strips - 1) * float(np.prod(parts, axis=0).sum())
    apart = float(np.sqrt(variance(first[:, None], *clusters) * variance(second[:, None], *others))[0])
    rho = min(max(together / apart, -1.0), 1.0) if apart > 0 else 0.0
    return Estimate(value, value - _reach(here, there, rho), value + _reach(there, here, rho), size, strips)


def _reach(first: Means, second: Means, rho: float) -> float:
    """How far below the difference its interval begins."""
    down, up = float(first.value - first.low), float(second.high - second.value)
    return float(np.sqrt(max(down**2 + up**2 - 2 * rho * down * up, 0.0)))
