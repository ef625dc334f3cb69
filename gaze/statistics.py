"""Numbers with their doubt: accuracies with intervals that know that answers about one strip hang together."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Num
from scipy import stats

from qwen3vl_jax.errors import InputError

UNATTRIBUTABLE = -1
"""The verdict on a text that describes no panel in particular."""


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval, from so many answers about so many strips."""

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


def accuracy(
    hit: Bool[np.ndarray, " answer"], strip: Int[np.ndarray, " answer"], seed: int, draws: int = 10_000
) -> Estimate:
    """Share of hits, with the percentile bootstrap interval over strips (all answers about a strip are drawn together).

    A single strip says nothing about others: its interval is 0 to 1. Raises InputError if there is no answer.
    """
    if not hit.size:
        raise InputError("there is no answer to take the accuracy of")
    _, number = np.unique(strip, return_inverse=True)
    hits, answers = np.bincount(number, hit), np.bincount(number)
    low, high = _interval(hits, answers, seed, draws) if len(answers) > 1 else (0.0, 1.0)
    return Estimate(float(hit.mean()), low, high, hit.size, len(answers))


def panel_accuracy(
    hit: Bool[np.ndarray, " answer"],
    target: Int[np.ndarray, " answer"],
    strip: Int[np.ndarray, " answer"],
    seed: int,
    draws: int = 10_000,
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


def _interval(
    hits: Num[np.ndarray, " strip"], answers: Num[np.ndarray, " strip"], seed: int, draws: int
) -> tuple[float, float]:
    def share(hits: np.ndarray, answers: np.ndarray, axis: int) -> np.ndarray:
        return hits.sum(axis=axis) / answers.sum(axis=axis)

    drawn = stats.bootstrap(
        (hits, answers),
        share,
        paired=True,
        n_resamples=draws,
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
