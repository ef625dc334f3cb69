"""`statistics`: shares, intervals that respect strips, counts."""

import numpy as np
import pytest

from gaze.statistics import UNATTRIBUTABLE, accuracy, panel_accuracy, tally
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
    together = strip % 2 == 0
    apart = np.arange(240) % 2 == 0
    wide, narrow = accuracy(together, strip, seed=0), accuracy(apart, strip, seed=0)
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
