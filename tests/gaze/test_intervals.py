"""`intervals`: shares and means of many quantities at once; `test_coverage` measures how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from gaze.intervals import means, shares, variance
from gaze.statistics import accuracy
from qwen3vl_jax.errors import InputError


def test_shares_have_the_interval_of_accuracy():
    rng = np.random.default_rng(0)
    strip = np.repeat(np.arange(40), 6)
    hit = rng.random((240, 2, 3)) < np.repeat(rng.beta(2, 1, 40), 6)[:, None, None]
    found, wanted = shares(hit, strip), accuracy(hit[:, 1, 2], strip)
    assert found.value.shape == (2, 3)
    assert (found.value[1, 2], found.low[1, 2], found.high[1, 2]) == pytest.approx(
        (wanted.value, wanted.low, wanted.high)
    )


def test_means_are_students_t():
    values = np.random.default_rng(0).normal(size=(12, 2))
    found, wanted = means(values, np.arange(12)), stats.ttest_1samp(values, 0).confidence_interval()
    np.testing.assert_allclose(found, [values.mean(axis=0), wanted.low, wanted.high])


def test_crossed_clusters_add_up():
    """Numbers that are the sum of what is due to the strip and to the draw: both variances, less what both count."""
    rng = np.random.default_rng(0)
    strip, draw = np.tile(np.arange(40), 20), np.repeat(np.arange(20), 40)
    of_strip, of_draw = rng.normal(size=40), rng.normal(size=20)
    values = of_strip[strip] + of_draw[draw]
    both = of_strip.var(ddof=1) / 40 + of_draw.var(ddof=1) / 20
    np.testing.assert_allclose(variance(values[:, None], strip, draw), both - values.var(ddof=1) / 800)


def test_answers_about_a_strip_are_drawn_together():
    """Six copies of one answer are as sure as that one answer, not as six."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50, 2, 3))
    six = means(np.repeat(one, 6, axis=0), np.repeat(np.arange(50), 6))
    single = means(one, np.arange(50))
    assert six.value.shape == (2, 3)
    for ours, theirs in zip(six, single, strict=True):
        np.testing.assert_allclose(ours, theirs)
    width = single.high - single.low
    np.testing.assert_allclose(width, 2 * 1.96 * one.std(axis=0) / np.sqrt(50), rtol=0.1)


def test_a_single_strip_has_no_interval():
    found = means(np.ones((4, 2)), np.zeros(4, np.int64))
    assert (found.value == 1).all()
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()


def test_nothing_has_no_mean():
    with pytest.raises(InputError, match="no answer"):
        means(np.zeros((0, 2)), np.zeros(0, np.int64))
