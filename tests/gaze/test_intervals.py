"""`intervals`: the means and intervals of `statistics.accuracy`, for many quantities and for numbers of any kind."""

import numpy as np
import pytest

from gaze.intervals import means
from gaze.statistics import accuracy
from qwen3vl_jax.errors import InputError


def test_shares_have_the_interval_of_accuracy():
    rng = np.random.default_rng(0)
    strip = np.repeat(np.arange(40), 6)
    hit = rng.random(240) < np.repeat(rng.beta(2, 1, 40), 6)
    found, wanted = means(hit[:, None], strip, seed=1), accuracy(hit, strip, seed=2)
    assert found.value[0] == pytest.approx(wanted.value)
    assert found.low[0] == pytest.approx(wanted.low, abs=0.012)
    assert found.high[0] == pytest.approx(wanted.high, abs=0.012)


def test_answers_about_a_strip_are_drawn_together():
    """Six copies of one answer are as sure as that one answer, not as six."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50, 2, 3))
    six = means(np.repeat(one, 6, axis=0), np.repeat(np.arange(50), 6), seed=0)
    single = means(one, np.arange(50), seed=0)
    assert six.value.shape == (2, 3)
    for ours, theirs in zip(six, single, strict=True):
        np.testing.assert_allclose(ours, theirs)
    width = single.high - single.low
    np.testing.assert_allclose(width, 2 * 1.96 * one.std(axis=0) / np.sqrt(50), rtol=0.1)


def test_a_single_strip_has_no_interval():
    found = means(np.ones((4, 2)), np.zeros(4, np.int64), seed=0)
    assert (found.value == 1).all()
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()


def test_nothing_has_no_mean():
    with pytest.raises(InputError, match="no answer"):
        means(np.zeros((0, 2)), np.zeros(0, np.int64), seed=0)
