"""Numbers with their doubt: means with intervals that know that answers about one strip hang together.

All intervals are those of `gaze.intervals`. A single strip says nothing about others: its interval is the whole range
of what is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped
from scipy import stats

from gaze.intervals import DRAWS, ends, resampled
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
    strip: Int[np.ndarray, " answer"],
    seed: int,
    whole: tuple[float, float] = (0.0, 1.0),
    draws: int = DRAWS,
) -> Estimate:
    """Mean over answers, all answers about a strip being drawn together.

    Args:
      values: whatever is measured per answer.
      whole: the range that it can have, which is the interval of a single strip.

    Raises InputError if there is no answer.
    """
    if not values.size:
        raise InputError("there is no answer to take the mean of")
    _, number = np.unique(strip, return_inverse=True)
    sums, answers = np.bincount(number, values), np.bincount(number)
    times = resampled(len(answers), np.random.default_rng(seed), draws)
    low, high = ends(times @ sums / (times @ answers)).tolist() if len(answers) > 1 else whole
    return Estimate(float(values.mean()), low, high, values.size, len(answers))


def accuracy(
    hit: Bool[np.ndarray, " answer"], strip: Int[np.ndarray, " answer"], seed: int, draws: int = DRAWS
) -> Estimate:
    """Share of hits; `average` of answers that are right or wrong. Raises InputError if there is no answer."""
    return average(hit, strip, seed, draws=draws)


def difference(
    values: Num[np.ndarray, " answer"] | Bool[np.ndarray, " answer"],
    strip: Int[np.ndarray, " answer"],
    other: Num[np.ndarray, " reply"] | Bool[np.ndarray, " reply"],
    other_strip: Int[np.ndarray, " reply"],
    seed: int,
    whole: tuple[float, float] = (-1.0, 1.0),
    draws: int = DRAWS,
) -> Estimate:
    """Mean of one condition minus that of another on the same strips, which are drawn for both at once.

    The conditions may differ in the number of answers about a strip. Raises InputError if they are not about the same
    strips or there is no answer.
    """
    names, number = np.unique(strip, return_inverse=True)
    others, other_number = np.unique(other_strip, return_inverse=True)
    if not names.size or not np.array_equal(names, others):
        raise InputError(
            f"two conditions can only be compared on the same strips, got {len(names)} and {len(others)} strips"
        )

    times = resampled(len(names), np.random.default_rng(seed), draws)
    mean = times @ np.bincount(number, values) / (times @ np.bincount(number))
    other_mean = times @ np.bincount(other_number, other) / (times @ np.bincount(other_number))
    low, high = ends(mean - other_mean).tolist() if len(names) > 1 else whole
    return Estimate(float(values.mean() - other.mean()), low, high, values.size + other.size, len(names))


def group_accuracy(
    hit: Bool[np.ndarray, " answer"],
    group: Shaped[np.ndarray, " answer"],
    strip: Int[np.ndarray, " answer"],
    seed: int,
    draws: int = DRAWS,
) -> dict[str, Estimate]:
    """`accuracy` for each group of answers (a size class, a schedule, ...), by its name."""
    return {str(name): accuracy(hit[group == name], strip[group == name], seed, draws) for name in np.unique(group)}


def panel_accuracy(
    hit: Bool[np.ndarray, " answer"],
    target: Int[np.ndarray, " answer"],
    strip: Int[np.ndarray, " answer"],
    seed: int,
    draws: int = DRAWS,
) -> dict[int, Estimate]:
    """`accuracy` for each panel that was a target."""
    return {
        int(panel): accuracy(hit[target == panel], strip[target == panel], seed, draws) for panel in np.unique(target)
    }


def tally(judged: Int[np.ndarray, " answer"], target: Int[np.ndarray, " answer"], panels: int) -> Tally:
    """Counts verdicts (panels from 0, or UNATTRIBUTABLE) against targets."""
    lost = judged == UNATTRIBUTABLE
    hit = int(np.sum(judged == target))
    picks = np.bincount(judged[~lost], minlength=panels)
    return Tally(hit, int(np.sum(~lost)) - hit, int(np.sum(lost)), tuple(picks.tolist()))


def against_controls(
    gaze: Bool[np.ndarray, " answer"],
    controls: Bool[np.ndarray, "draw answer"],
    strip: Int[np.ndarray, " answer"],
    seed: int,
    draws: int = DRAWS,
) -> Controls:
    """Places the gaze heads among draws of random heads.

    Args:
      gaze, controls: hits in the same answers, with gaze heads and with each draw of random heads.
      strip: which strip each answer is about.
      draws: of the bootstrap, which draws from the draws of heads and from the strips, independently.

    Raises InputError if there is no draw or no answer.
    """
    if not controls.size:
        raise InputError("there are no answers with control heads to compare with")
    _, number = np.unique(strip, return_inverse=True)
    answers = np.bincount(number)
    hits = np.stack([np.bincount(number, row) for row in controls])
    each, value = controls.mean(axis=1), float(gaze.mean())
    none = np.zeros_like(hits[0])
    mean = _over_draws(hits, none, answers, seed, draws, whole=(0.0, 1.0))
    ahead = _over_draws(-hits, np.bincount(number, gaze), answers, seed, draws, whole=(-1.0, 1.0))
    size = (controls.size, len(answers))
    return Controls(
        accuracies=tuple(each.tolist()),
        mean=Estimate(float(each.mean()), *mean, *size),
        sd=float(each.std(ddof=1)) if len(each) > 1 else None,
        lowest=float(each.min()),
        highest=float(each.max()),
        gaze=value,
        advantage=Estimate(value - float(each.mean()), *ahead, *size),
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


def correlation(
    values: Sequence[float | None], strip: Int[np.ndarray, " sequence"], seed: int, draws: int = DRAWS
) -> Correlation:
    """Mean of rank correlations, those that are undefined counted and left out."""
    defined = np.array([value is not None for value in values], bool)
    known = np.array([value for value in values if value is not None], float)
    if not known.size:
        return Correlation(None, None, None, 0.0 if len(values) else None, 0, len(values), 0)
    found = average(known, strip[defined], seed, (-1.0, 1.0), draws)
    zero_filled = float(known.sum()) / len(values)
    lost = len(values) - known.size
    return Correlation(found.value, found.low, found.high, zero_filled, known.size, lost, found.strips)


def _over_draws(
    hits: Float[np.ndarray, "draw strip"],
    extra: Float[np.ndarray, " strip"],
    answers: Int[np.ndarray, " strip"],
    seed: int,
    draws: int,
    whole: tuple[float, float],
) -> tuple[float, float]:
    """Interval of the mean over draws of heads, plus what every draw has in `extra`, per answer."""
    if min(hits.shape) < 2:
        return whole
    rng = np.random.default_rng(seed)
    heads, strips = (resampled(size, rng, draws) for size in hits.shape)
    totals = np.einsum("ns,ns->n", heads @ hits / len(hits) + extra, strips)
    low, high = ends(totals / (strips @ answers)).tolist()
    return low, high
