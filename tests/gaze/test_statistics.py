"""`statistics`: shares, intervals that respect strips, counts."""

import numpy as np
import pytest

from gaze.statistics import (
    UNATTRIBUTABLE,
    accuracy,
    against_controls,
    average,
    correlation,
    difference,
    follows,
    group_accuracy,
    panel_accuracy,
    spearman,
    tally,
)
from qwen3vl_jax.errors import InputError


def test_interval_is_the_cluster_bootstrap():
    rng = np.random.default_rng(0)
    strip = rng.integers(0, 40, 300)
    hit = rng.random(300) < 0.3 + 0.4 * (strip % 2)
    got = accuracy(hit, strip, seed=1)
    shares = []
    for _ in range(4000):
        drawn = np.concatenate(
            [np.flatnonzero(strip == s) for s in rng.choice(np.unique(strip), len(np.unique(strip)))]
        )
        shares.append(hit[drawn].mean())
    assert got.value == hit.mean()
    assert (got.answers, got.strips) == (300, len(np.unique(strip)))
    np.testing.assert_allclose([got.low, got.high], np.percentile(shares, [2.5, 97.5]), atol=0.01)


def test_answers_that_hang_together_widen_the_interval():
    strip = np.arange(240) // 6
    combined = strip % 2 == 0
    apart = np.arange(240) % 2 == 0
    wide, narrow = accuracy(combined, strip, seed=0), accuracy(apart, strip, seed=0)
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 0.2
    assert narrow.high == narrow.low == 0.5


def test_the_seed_decides():
    hit, strip = np.arange(60) % 3 == 0, np.arange(60) // 7
    assert accuracy(hit, strip, seed=3, draws=500) == accuracy(hit, strip, seed=3, draws=500)
    assert accuracy(hit, strip, seed=3, draws=500) != accuracy(hit, strip, seed=4, draws=500)


def test_one_strip_says_nothing_about_others():
    got = accuracy(np.array([True, False]), np.array([8, 8]), seed=0)
    assert (got.value, got.low, got.high, got.strips) == (0.5, 0, 1, 1)


def test_no_answer_is_an_error():
    with pytest.raises(InputError, match="no answer"):
        accuracy(np.zeros(0, bool), np.zeros(0, int), seed=0)


def test_per_panel():
    target, strip = np.tile([0, 1], 10), np.arange(20) // 2
    got = panel_accuracy(target == 0, target, strip, seed=0, draws=100)
    assert {panel: estimate.value for panel, estimate in got.items()} == {0: 1.0, 1: 0.0}
    assert got[1].answers == got[1].strips == 10


def test_tally_counts_every_answer_once():
    got = tally(np.array([0, 2, UNATTRIBUTABLE, 2, 1]), np.array([0, 1, 1, 2, 0]), panels=4)
    assert (got.hit, got.wrong, got.unattributable) == (2, 2, 1)
    assert got.picks == (1, 1, 2, 0)


def test_average_of_anything():
    values, strip = np.array([1.0, 5.0, 3.0]), np.array([0, 0, 1])
    got = average(values, strip, seed=0, whole=(0.0, 9.0))
    assert (got.value, got.low, got.high) == (3, 3, 3)
    alone = average(values[:2], strip[:2], seed=0, whole=(0.0, 9.0))
    assert (alone.value, alone.low, alone.high) == (3, 0, 9)


def test_difference_is_paired_by_strip():
    rng = np.random.default_rng(0)
    strip = np.repeat(np.arange(50), 6)
    ease = rng.random(50)
    first = rng.random(300) < np.clip(ease[strip] + 0.2, 0, 1)
    second = rng.random(300) < ease[strip]
    got = difference(first, strip, second, strip, seed=1)
    gaps = (first.reshape(50, 6).mean(axis=1) - second.reshape(50, 6).mean(axis=1))[rng.integers(50, size=(4000, 50))]
    assert got.value == pytest.approx(first.mean() - second.mean())
    np.testing.assert_allclose([got.low, got.high], np.percentile(gaps.mean(axis=1), [2.5, 97.5]), atol=0.01)
    apart = difference(first, strip, second, strip[::-1].copy(), seed=1)
    assert apart.value == got.value
    assert apart.high - apart.low > 1.3 * (got.high - got.low)


def test_difference_of_conditions_with_other_numbers_of_answers():
    got = difference(
        np.array([True, True, False]), np.array([4, 4, 9]), np.array([True, False]), np.array([9, 4]), seed=0
    )
    assert got.value == pytest.approx(2 / 3 - 1 / 2)
    assert (got.answers, got.strips) == (5, 2)
    with pytest.raises(InputError, match="same strips"):
        difference(np.array([True]), np.array([4]), np.array([True]), np.array([5]), seed=0)
    with pytest.raises(InputError, match="same strips"):
        difference(np.zeros(0, bool), np.zeros(0, int), np.zeros(0, bool), np.zeros(0, int), seed=0)


def test_equal_conditions_and_one_strip_are_no_trouble():
    hit, strip = np.ones(12, bool), np.arange(12) // 6
    got = difference(hit, strip, hit, strip, seed=0)
    assert (got.value, got.low, got.high) == (0, 0, 0)
    got = difference(hit[:6], strip[:6], ~hit[:6], strip[:6], seed=0)
    assert (got.value, got.low, got.high, got.strips) == (1, -1, 1, 1)


def test_groups_by_name():
    group = np.array(["S", "L", "S", "L", "M", "S"])
    got = group_accuracy(group == "S", group, np.array([0, 0, 1, 1, 2, 2]), seed=0, draws=100)
    assert {name: (found.value, found.answers) for name, found in got.items()} == {
        "L": (0, 2),
        "M": (0, 1),
        "S": (1, 3),
    }
    assert got["M"].high == 1


@pytest.fixture
def draws():
    """Twelve draws that differ a lot, 30 strips of six answers that differ too."""
    rng = np.random.default_rng(0)
    strip = np.repeat(np.arange(30), 6)
    luck = rng.uniform(0, 0.5, 12)[:, None] + rng.uniform(-0.1, 0.1, 30)[strip]
    return rng.random((12, 180)) < luck, rng.random(180) < 0.8, strip


def test_controls_are_a_distribution(draws):
    controls, gaze, strip = draws
    got = against_controls(gaze, controls, strip, seed=1)
    each = controls.mean(axis=1)
    np.testing.assert_allclose(got.accuracies, each)
    assert (got.lowest, got.highest, got.gaze) == (each.min(), each.max(), gaze.mean())
    assert got.sd == pytest.approx(np.std(each, ddof=1))
    assert got.mean.value == pytest.approx(controls.mean())
    assert got.advantage.value == pytest.approx(gaze.mean() - controls.mean())
    assert got.above_all
    assert got.p == pytest.approx(1 / 13)
    assert (got.mean.answers, got.mean.strips) == (12 * 180, 30)


def test_controls_interval_is_over_draws_and_strips(draws):
    controls, gaze, strip = draws
    got = against_controls(gaze, controls, strip, seed=1)
    rng = np.random.default_rng(5)
    means, gaps = [], []
    for _ in range(2000):
        answers = (rng.integers(30, size=30)[:, None] * 6 + np.arange(6)).ravel()
        some = controls[rng.integers(12, size=12)][:, answers]
        means.append(some.mean())
        gaps.append(gaze[answers].mean() - some.mean())
    np.testing.assert_allclose([got.mean.low, got.mean.high], np.percentile(means, [2.5, 97.5]), atol=0.015)
    np.testing.assert_allclose([got.advantage.low, got.advantage.high], np.percentile(gaps, [2.5, 97.5]), atol=0.015)
    # Strips alone would promise too much.
    pooled = accuracy(controls.ravel(), np.tile(strip, 12), seed=1)
    assert got.mean.high - got.mean.low > 2 * (pooled.high - pooled.low)


def test_gaze_heads_that_are_nothing_special_are_told(draws):
    controls, _, strip = draws
    got = against_controls(controls[0], controls, strip, seed=1, draws=200)
    better = int((controls.mean(axis=1) >= controls[0].mean()).sum())
    assert not got.above_all
    assert got.p == (1 + better) / 13


def test_one_draw_or_one_strip_says_little(draws):
    controls, gaze, strip = draws
    for some, other, about in ((controls[:1], gaze, strip), (controls[:, :6], gaze[:6], strip[:6])):
        got = against_controls(other, some, about, seed=0)
        assert (got.mean.low, got.mean.high, got.advantage.low, got.advantage.high) == (0, 1, -1, 1)
    assert against_controls(gaze, controls[:1], strip, seed=0).sd is None
    with pytest.raises(InputError, match="no answers"):
        against_controls(gaze, controls[:0], strip, seed=0)


def test_spearman_is_scipys_where_there_is_one():
    assert spearman(np.array([3, 1, 2, 0]), np.array([9.0, 1, 2, 0.5])) == pytest.approx(1)
    assert spearman(np.array([0, 1, 2, 2]), np.array([2, 1, 0, 0])) == pytest.approx(-1)
    assert spearman(np.array([0, 1, 2]), np.array([4, 4, 4])) is None
    assert spearman(np.array([0, 1]), np.array([0, 1])) is None


def test_segments_without_a_panel_do_not_count():
    wanted = np.array([3, 1, 0, 5, 4, 2])
    lost = UNATTRIBUTABLE
    assert follows(wanted, wanted) == pytest.approx(1)
    assert follows(wanted, np.array([3, lost, 0, lost, 4, lost])) == pytest.approx(1)
    assert follows(wanted, np.array([3, lost, lost, lost, 4, lost])) is None
    assert follows(wanted, np.full(6, 2)) is None


def test_undefined_correlations_are_counted():
    got = correlation([1.0, None, 0.5, None], np.array([0, 1, 2, 3]), seed=0)
    assert (got.value, got.zero_filled, got.defined, got.undefined, got.strips) == (0.75, 0.375, 2, 2, 2)
    assert (got.low, got.high) == (0.5, 1)
    none = correlation([None, None], np.array([0, 1]), seed=0)
    assert (none.value, none.low, none.zero_filled, none.undefined) == (None, None, 0, 2)
    alone = correlation([0.4], np.array([7]), seed=0)
    assert (alone.value, alone.low, alone.high) == (0.4, -1, 1)
    assert correlation([], np.zeros(0, int), seed=0).zero_filled is None
