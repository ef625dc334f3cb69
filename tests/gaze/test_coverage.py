"""How often intervals of `gaze.intervals` hold the truth, by simulation; the percentile bootstrap is what fails.

`python tests/gaze/test_coverage.py` prints the table of `gaze/coverage.md`, in a minute or more.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product

import numpy as np
import pytest

from gaze.intervals import Means, ends, means, resampled, shares, shares_over_words
from gaze.statistics import average, difference

TIMES = 500
AT_ONCE = 100
"""Simulated experiments that are in memory at the same time."""
LEAST = 0.93
NOISE = 0.01
"""Standard error of a coverage of 95 % over `TIMES`."""

Interval = Callable[[np.ndarray, np.ndarray], Means]


def hits(rng: np.random.Generator, share: float, strips: int, answers: int, alike: float, times: int) -> np.ndarray:
    """Beta-binomial hits [strip * answer, time]; two answers about a strip have the correlation `alike`."""
    spread = (1 - alike) / max(alike, 1e-9)
    ease = rng.beta(share * spread, (1 - share) * spread, (strips, times)) if alike else np.full((strips, times), share)
    return rng.random((strips, answers, times)).reshape(-1, times) < np.repeat(ease, answers, axis=0)


def percentile(values: np.ndarray, strip: np.ndarray) -> Means:
    """The middle of bootstrap means over strips: what these intervals once were."""
    by_strip = values.reshape(strip.max() + 1, -1, values.shape[1]).mean(axis=1)
    drawn = resampled(len(by_strip), np.random.default_rng(0), 1000) / len(by_strip)
    return Means(values.mean(axis=0), *ends(drawn @ by_strip))


def measured(
    interval: Interval, share: float, strips: int, answers: int, alike: float, times: int = TIMES, seed: int = 0
) -> tuple[float, float]:
    """Returns how often an interval holds the share, and its mean width."""
    rng, strip = np.random.default_rng(seed), np.repeat(np.arange(strips), answers)
    held, width = [], []
    for _ in range(0, times, AT_ONCE):
        found = interval(hits(rng, share, strips, answers, alike, AT_ONCE), strip)
        held.append((found.low <= share + 1e-9) & (found.high >= share - 1e-9))
        width.append(found.high - found.low)
    return float(np.mean(held)), float(np.mean(width))


@pytest.mark.parametrize("alike", [0, 0.2, 0.8])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.989, 0.998, 0.002])
def test_intervals_of_shares_hold_the_truth(share, alike):
    for strips, answers in ((8, 6), (30, 60), (60, 6)):
        held, _ = measured(shares, share, strips, answers, alike)
        assert held >= LEAST - NOISE, (strips, answers)


def test_the_percentile_bootstrap_does_not():
    """The negative control: the same measurement finds what was wrong."""
    assert measured(percentile, 0.998, 60, 6, 0.2)[0] < 0.5
    assert measured(percentile, 0.989, 60, 6, 0)[0] < 0.92
    assert measured(percentile, 0.002, 60, 6, 0.2)[0] < 0.5


def test_without_a_prior_neither_does_this(monkeypatch):
    """Where one strip in fifty fails, too few do in one experiment to say how alike answers are."""
    case = 0.98, 30, 60, 0.5
    assert measured(shares, *case)[0] >= LEAST
    monkeypatch.setattr("gaze.intervals.PRIOR", 1e-9)
    assert measured(shares, *case)[0] < 0.88


def test_intervals_are_no_wider_than_they_must_be():
    """Where strips do not matter, the interval is about that of independent answers; where they decide, that of strips."""
    assert measured(shares, 0.5, 60, 6, 0)[1] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 360), rel=0.15)
    assert measured(shares, 0.5, 60, 6, 0.999)[1] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 60), rel=0.15)


def test_strips_that_all_fail_alike():
    """One answer of six that never hits, as by the paper's counting: less uncertain than independent answers."""
    rng, strip = np.random.default_rng(0), np.repeat(np.arange(60), 6)
    values = rng.random((360, TIMES)) < 0.989
    values[::6] = False
    found, truth = shares(values, strip), 0.989 * 5 / 6
    assert np.mean((found.low <= truth) & (truth <= found.high)) >= LEAST
    assert np.mean(found.high - found.low) < 0.06


def crossed(rng: np.random.Generator, share: float, draws: int, strips: int, good: bool) -> np.ndarray:
    """Hits [draw, strip]; where `good`, draws do all or nothing."""
    heads = rng.random((draws, 1)) < share if good else np.full((draws, 1), share)
    return rng.random((draws, strips)) < heads if not good else np.broadcast_to(heads, (draws, strips))


@pytest.mark.parametrize("good", [False, True], ids=["no head matters", "some draws do it all"])
@pytest.mark.parametrize("share", [0.5, 0.05, 0.002])
def test_draws_of_heads_count_as_draws(share, good):
    rng, held, strips_alone = np.random.default_rng(1), [], []
    for _ in range(200):
        some = crossed(rng, share, 10, 60, good)
        strip, draw = np.tile(np.arange(60), 10), np.repeat(np.arange(10), 60)
        both, one = shares(some.ravel(), strip, draw), shares(some.ravel(), strip)
        held.append(both.low <= share <= both.high)
        strips_alone.append(one.low <= share <= one.high)
    assert np.mean(held) >= LEAST
    if good and share > 0.01:
        assert np.mean(strips_alone) < 0.9


@pytest.mark.parametrize(("share", "other"), [(0.998, 0.998), (0.989, 0.5), (0.9, 0.8), (0.002, 0.002)])
def test_differences_hold_the_truth(share, other):
    rng, strip, held = np.random.default_rng(2), np.repeat(np.arange(40), 6), []
    for _ in range(150):
        luck = np.where(rng.random((2, 40, 6)) < 0.5, rng.random((40, 1)), rng.random((2, 40, 6))).reshape(2, -1)
        found = difference(luck[0] < share, strip, luck[1] < other, strip)
        held.append(found.low <= share - other <= found.high)
    assert np.mean(held) >= LEAST


def test_equal_conditions_may_differ_all_the_same():
    strip = np.repeat(np.arange(60), 6)
    for hit in (np.ones(360, bool), np.zeros(360, bool)):
        found = difference(hit, strip, hit, strip)
        assert -0.07 < found.low < -0.05
        assert 0.05 < found.high < 0.07
        apart = percentile(np.zeros((360, 1)), strip)
        assert apart.low[0] == apart.high[0] == 0  # what the bootstrap says of 100 % against 100 %


def test_means_hold_the_truth():
    """Of numbers without ends, by strip: even and skewed ones."""
    assert coverage_of_means(means, 8, skewed=False) >= LEAST
    assert coverage_of_means(means, 60, skewed=True) >= 0.91
    assert coverage_of_means(percentile, 8, skewed=False) < 0.92


def coverage_of_means(interval: Interval, strips: int, skewed: bool) -> float:
    rng, strip = np.random.default_rng(3), np.repeat(np.arange(strips), 6)
    shape = (strips, TIMES)
    luck = rng.exponential(size=shape) - 1 if skewed else rng.normal(size=shape)
    found = interval(np.repeat(luck, 6, axis=0) + rng.normal(size=(strips * 6, TIMES)), strip)
    return float(np.mean((found.low <= 0) & (found.high >= 0)))


@pytest.mark.parametrize("middle", [0.9, 0.4])
def test_correlations_hold_the_truth(middle):
    held = []
    for seed in range(200):
        some = 2 * np.random.default_rng(seed).beta(4 * (1 + middle), 4 * (1 - middle), 30) - 1
        found = average(some, np.arange(30), whole=(-1.0, 1.0))
        held.append(found.low <= middle <= found.high)
    assert np.mean(held) >= LEAST


def worded(rng: np.random.Generator, fails: float) -> tuple[np.ndarray, np.ndarray, list[set[str]]]:
    """360 answers about captions with two of 24 words and one that all have; each word fails with this chance."""
    bad = rng.random(24) < fails
    pairs = np.stack([rng.permutation(24)[:2] for _ in range(360)])
    words = [{"over", *map(str, pair)} for pair in pairs]
    return ~bad[pairs].any(axis=1), np.repeat(np.arange(60), 6), words


@pytest.mark.parametrize("fails", [0.1, 0.04, 0.005])
def test_words_that_fail_everywhere(fails):
    rng, truth, crossed, alone = np.random.default_rng(4), (1 - fails) ** 2, [], []
    for _ in range(150):
        hit, strip, words = worded(rng, fails)
        both, one = shares_over_words(hit, strip, words), shares(hit, strip)
        crossed.append(both.low <= truth <= both.high)
        alone.append(one.low <= truth <= one.high)
    assert np.mean(crossed) >= LEAST
    if fails > 0.01:
        assert np.mean(alone) < 0.8


def table(lines: Iterable[Sequence[float]]) -> Iterable[str]:
    """Yields the rows of the page in Markdown."""
    yield "| true share | strips | answers a strip | correlation | holds it | mean width | percentile bootstrap holds it |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for share, strips, answers, alike in lines:
        case = float(share), int(strips), int(answers), float(alike)
        (held, width), (before, _) = measured(shares, *case), measured(percentile, *case)
        yield f"| {share:g} | {strips} | {answers} | {alike:g} | {held:.1%} | {100 * width:.1f} points | {before:.1%} |"


def cases() -> Iterable[tuple[float, int, int, float]]:
    for share, strips, answers in product((0.5, 0.9, 0.989, 0.998, 0.002), (8, 60, 500), (1, 6, 60)):
        for alike in (0, 0.2, 0.8) if answers > 1 else (0,):
            yield share, strips, answers, alike


if __name__ == "__main__":
    for row in table(cases()):
        print(row, flush=True)
