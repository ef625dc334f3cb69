"""`statistics`: shares, intervals that respect strips, counts."""

import numpy as np
import pytest
from scipy import stats

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


def test_interval_is_that_of_as_many_independent_answers():
    """Strips that do not matter: about the interval of so many coins, as scipy has it."""
    rng = np.random.default_rng(0)
    hit, strip = rng.random(3000) < 0.3, np.repeat(np.arange(500), 6)
    got = accuracy(hit, strip)
    assert got.value == hit.mean()
    assert (got.answers, got.strips) == (3000, 500)
    wanted = stats.binomtest(int(hit.sum()), 3000).proportion_ci()
    np.testing.assert_allclose([got.low, got.high], [wanted.low, wanted.high], atol=0.004)


def test_one_answer_a_strip_is_the_binomial_test():
    for hits in (0, 1, 25, 40):
        got = accuracy(np.arange(40) < hits, np.arange(40))
        wanted = stats.binomtest(hits, 40).proportion_ci()
        assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high))


def test_where_nothing_varies_strips_count_as_answers():
    """360 of 360 answers about 60 strips say no more than 60 strips that may each be all right or all wrong."""
    strip = np.repeat(np.arange(60), 6)
    all_right, none_right = accuracy(np.ones(360, bool), strip), accuracy(np.zeros(360, bool), strip)
    assert (all_right.low, all_right.high) == pytest.approx((0.025 ** (1 / 60), 1))
    assert (none_right.low, none_right.high) == pytest.approx((0, 1 - 0.025 ** (1 / 60)))


def test_more_strips_or_answers_are_never_less_sure():
    few = accuracy(np.arange(60) != 7, np.arange(60) // 6)
    more_strips = accuracy(np.arange(600) % 60 != 7, np.arange(600) // 6)
    assert few.low < more_strips.low < few.value < more_strips.high < few.high


def test_answers_that_hang_together_widen_the_interval():
    strip = np.arange(240) // 6
    wide, narrow = accuracy(strip % 2 == 0, strip), accuracy(np.arange(240) % 2 == 0, strip)
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 0.3
    assert 0 < narrow.high - narrow.low < 0.1


def test_a_mirror_image_has_the_mirrored_interval():
    rng = np.random.default_rng(0)
    hit, strip = rng.random(90) < 0.9, rng.integers(0, 20, 90)
    right, wrong = accuracy(hit, strip), accuracy(~hit, strip)
    assert (wrong.low, wrong.high) == pytest.approx((1 - right.high, 1 - right.low))


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_a_share_is_between_nothing_and_all(value):
    with pytest.raises(InputError, match="between 0 and 1"):
        average(np.array([0.5, value]), np.arange(2))


def test_one_strip_says_nothing_about_others():
    got = accuracy(np.array([True, False]), np.array([8, 8]))
    assert (got.value, got.low, got.high, got.strips) == (0.5, 0, 1, 1)


def test_no_answer_is_an_error():
    with pytest.raises(InputError, match="no answer"):
        accuracy(np.zeros(0, bool), np.zeros(0, int))


def test_per_panel():
    target, strip = np.tile([0, 1], 10), np.arange(20) // 2
    got = panel_accuracy(target == 0, target, strip)
    assert {panel: estimate.value for panel, estimate in got.items()} == {0: 1.0, 1: 0.0}
    assert got[1].answers == got[1].strips == 10


def test_tally_counts_every_answer_once():
    got = tally(np.array([0, 2, UNATTRIBUTABLE, 2, 1]), np.array([0, 1, 1, 2, 0]), panels=4)
    assert (got.hit, got.wrong, got.unattributable) == (2, 2, 1)
    assert got.picks == (1, 1, 2, 0)


def test_average_of_anything():
    values, strip = np.array([1.0, 5.0, 3.0]), np.array([0, 0, 1])
    got = average(values, strip, whole=(0.0, 9.0))
    assert got.low < got.value == 3 < got.high
    alone = average(values[:2], strip[:2], whole=(0.0, 9.0))
    assert (alone.value, alone.low, alone.high) == (3, 0, 9)
    sure = average(np.tile([2.9, 3.1], 200), np.arange(400) // 4, whole=(0.0, 9.0))
    assert 2.9 < sure.low < 3 < sure.high < 3.1


def test_difference_is_paired_by_strip():
    rng = np.random.default_rng(0)
    strip = np.repeat(np.arange(50), 6)
    ease = rng.random(50)
    first = rng.random(300) < np.clip(ease[strip] + 0.2, 0, 1)
    second = rng.random(300) < ease[strip]
    got = difference(first, strip, second, strip)
    gaps = (first.reshape(50, 6).mean(axis=1) - second.reshape(50, 6).mean(axis=1))[rng.integers(50, size=(4000, 50))]
    assert got.value == pytest.approx(first.mean() - second.mean())
    np.testing.assert_allclose([got.low, got.high], np.percentile(gaps.mean(axis=1), [2.5, 97.5]), atol=0.02)
    apart = difference(first, strip, second, strip[::-1].copy())
    assert apart.value == got.value
    assert apart.high - apart.low > 1.3 * (got.high - got.low)


def test_difference_of_conditions_with_other_numbers_of_answers():
    got = difference(np.array([True, True, False]), np.array([4, 4, 9]), np.array([True, False]), np.array([9, 4]))
    assert got.value == pytest.approx(2 / 3 - 1 / 2)
    assert (got.answers, got.strips) == (5, 2)
    with pytest.raises(InputError, match="same strips"):
        difference(np.array([True]), np.array([4]), np.array([True]), np.array([5]))
    with pytest.raises(InputError, match="same strips"):
        difference(np.zeros(0, bool), np.zeros(0, int), np.zeros(0, bool), np.zeros(0, int))


def test_equal_conditions_and_one_strip_are_no_trouble():
    hit, strip = np.ones(12, bool), np.arange(12) // 6
    got = difference(hit, strip, hit, strip)
    assert got.low < got.value == 0 < got.high
    got = difference(hit[:6], strip[:6], ~hit[:6], strip[:6])
    assert (got.value, got.low, got.high, got.strips) == (1, -1, 1, 1)


def test_groups_by_name():
    group = np.array(["S", "L", "S", "L", "M", "S"])
    got = group_accuracy(group == "S", group, np.array([0, 0, 1, 1, 2, 2]))
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
    got = against_controls(gaze, controls, strip)
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
    got = against_controls(gaze, controls, strip)
    rng = np.random.default_rng(5)
    means, gaps = [], []
    for _ in range(2000):
        answers = (rng.integers(30, size=30)[:, None] * 6 + np.arange(6)).ravel()
        some = controls[rng.integers(12, size=12)][:, answers]
        means.append(some.mean())
        gaps.append(gaze[answers].mean() - some.mean())
    np.testing.assert_allclose([got.mean.low, got.mean.high], np.percentile(means, [2.5, 97.5]), atol=0.05)
    np.testing.assert_allclose([got.advantage.low, got.advantage.high], np.percentile(gaps, [2.5, 97.5]), atol=0.05)
    # Strips alone would promise too much.
    pooled = accuracy(controls.ravel(), np.tile(strip, 12))
    assert got.mean.high - got.mean.low > 2 * (pooled.high - pooled.low)


def test_gaze_heads_that_are_nothing_special_are_told(draws):
    controls, _, strip = draws
    got = against_controls(controls[0], controls, strip)
    better = int((controls.mean(axis=1) >= controls[0].mean()).sum())
    assert not got.above_all
    assert got.p == (1 + better) / 13


def test_one_draw_or_one_strip_says_little(draws):
    controls, gaze, strip = draws
    got = against_controls(gaze[:6], controls[:, :6], strip[:6])
    assert (got.mean.low, got.mean.high, got.advantage.low, got.advantage.high) == (0, 1, -1, 1)
    got = against_controls(gaze, controls[:1], strip)
    assert got.sd is None
    assert got.mean == accuracy(controls[0], strip)
    assert got.advantage == difference(gaze, strip, controls[0], strip)
    with pytest.raises(InputError, match="no answers"):
        against_controls(gaze, controls[:0], strip)


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
    got = correlation([1.0, None, 0.5, None], np.array([0, 1, 2, 3]))
    assert (got.value, got.zero_filled, got.defined, got.undefined, got.strips) == (0.75, 0.375, 2, 2, 2)
    assert -1 < got.low < 0.75 < got.high <= 1
    none = correlation([None, None], np.array([0, 1]))
    assert (none.value, none.low, none.zero_filled, none.undefined) == (None, None, 0, 2)
    alone = correlation([0.4], np.array([7]))
    assert (alone.value, alone.low, alone.high) == (0.4, -1, 1)
    assert correlation([], np.zeros(0, int)).zero_filled is None
