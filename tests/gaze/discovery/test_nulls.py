"""`nulls`: pairings against brute force, error rates on noise, planted heads, halves and intervals."""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from gaze.discovery.nulls import (
    Null,
    permuted_panels,
    relabelled_questions,
    score_interval,
    shuffled_questions,
    split_half,
)
from gaze.discovery.scores import CREDITS, gaze_credit, gaze_score, lift, per_strip, routing_accuracy, selectivity
from qwen3vl_jax.errors import InputError

SCORES = dict(zip(CREDITS, (gaze_score, selectivity, lift, routing_accuracy), strict=True))
NULLS = (shuffled_questions, permuted_panels, relabelled_questions)


def noise(seed, strips=5, panels=3, layers=2, heads=3):
    shape = (strips, panels, layers, heads, panels)
    return np.random.default_rng(seed).uniform(0, 0.1, shape).astype(np.float32)


def planted(seed, strips=8, panels=4, **shape):
    """Noise, and one head (1, 2) that looks where it is told."""
    mass = noise(seed, strips, panels, **shape)
    mass[:, :, 1, 2] += 0.3 * np.eye(panels, dtype=np.float32)
    return mass


@pytest.mark.parametrize("name", CREDITS)
def test_shuffled_questions_are_the_score_of_shuffled_strips(name):
    mass, score = noise(0), SCORES[name]
    got = shuffled_questions(mass, CREDITS[name], seed=4, draws=6)
    orders = np.random.default_rng(4).permuted(np.broadcast_to(np.arange(3, dtype=np.int32), (6, 5, 3)), axis=-1)
    want = [score(np.stack([one[order] for one, order in zip(mass, draw, strict=True)])) for draw in orders]
    np.testing.assert_allclose(got.drawn, want, atol=1e-12)
    np.testing.assert_allclose(got.real, score(mass), atol=1e-12)
    assert len({tuple(draw.ravel()) for draw in orders}) == 6


@pytest.mark.parametrize("name", CREDITS)
def test_permuted_panels_are_the_score_of_permuted_panels(name):
    mass, score = noise(0), SCORES[name]
    got = permuted_panels(mass, CREDITS[name], seed=4, draws=400)
    rng = np.random.default_rng(9)
    want = np.stack(
        [score(rng.permuted(mass.transpose(2, 3, 0, 1, 4)[0, 0], axis=-1)[:, :, None, None]) for _ in range(400)]
    )
    np.testing.assert_allclose(got.drawn[:, 0, 0].mean(), want.mean(), atol=4 * want.std() / 20)
    np.testing.assert_allclose(got.drawn[:, 0, 0].std(), want.std(), rtol=0.15)


@pytest.mark.parametrize("name", CREDITS)
def test_relabelled_questions_are_all_other_orders(name):
    mass, score = noise(0), SCORES[name]
    got = relabelled_questions(mass, CREDITS[name], seed=0)
    want = [score(mass[:, list(order)]) for order in list(permutations(range(3)))[1:]]
    np.testing.assert_allclose(got.drawn, want, atol=1e-12)
    assert len(relabelled_questions(mass, CREDITS[name], seed=0, draws=4).drawn) == 4


def test_one_permutation_of_panels_per_strip_would_be_shuffled_questions_again():
    mass = noise(1, strips=1)
    questions = {tuple(np.round(gaze_score(mass[:, list(o)]).ravel(), 7)) for o in permutations(range(3))}
    panels = {tuple(np.round(gaze_score(mass[..., list(o)]).ravel(), 7)) for o in permutations(range(3))}
    assert questions == panels


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("name", CREDITS)
def test_a_planted_head_stands_out_alone(null, name):
    got = null(planted(0), CREDITS[name], seed=0, draws=199)
    smallest = 1 / (1 + len(got.drawn))
    assert got.p_values()[1, 2] == got.familywise()[1, 2] == got.p_any() == smallest
    assert np.argwhere(got.above()).tolist() == [[1, 2]]


@pytest.mark.parametrize("null", [shuffled_questions, relabelled_questions])
def test_love_of_one_panel_is_no_finding(null):
    mass = noise(2)
    mass[:, :, 0, 0] = [0.0, 0.9, 0.0]
    got = null(mass, gaze_credit, seed=0, draws=50)
    assert got.p_values()[0, 0] == got.familywise()[0, 0] == 1
    np.testing.assert_allclose(got.drawn[:, 0, 0], 0.3, atol=1e-6)


@pytest.mark.parametrize("null", NULLS)
def test_p_values_of_noise_are_uniform(null):
    mass = noise(3, strips=12, panels=5, layers=20, heads=30)
    p = null(mass, gaze_credit, seed=0, draws=119).p_values()
    assert stats.kstest(p.ravel() - 0.5 / 120, "uniform").pvalue > 0.01
    assert p.min() == 1 / 120


@pytest.mark.parametrize("null", NULLS)
def test_the_whole_family_errs_as_often_as_it_says(null):
    found = [null(noise(seed, strips=6, panels=4), gaze_credit, seed, draws=39).p_any() <= 0.1 for seed in range(300)]
    assert 0.03 < np.mean(found) < 0.16  # 0.1 with a standard error of 0.017


def test_words_that_pull_everywhere_alike_fool_strips_shuffled_one_by_one():
    """An untrained model: each question pulls each head somewhere, in every strip the same."""

    def untrained(seed):
        rng = np.random.default_rng([7, seed])
        pull = rng.uniform(0, 0.1, (1, 4, 2, 6, 4))
        return (pull + rng.uniform(0, 0.02, (10, 4, 2, 6, 4))).astype(np.float32)

    fooled = [shuffled_questions(untrained(seed), gaze_credit, seed, draws=39).p_any() <= 0.1 for seed in range(40)]
    sound = [relabelled_questions(untrained(seed), gaze_credit, seed).p_any() <= 0.1 for seed in range(300)]
    assert np.mean(fooled) > 0.9
    assert np.mean(sound) < 0.16


def test_heads_that_see_nothing_are_no_finding():
    mass = planted(0)
    mass[:, :, 0] = 0
    got = shuffled_questions(mass, CREDITS["selectivity"], seed=0, draws=19)
    assert (got.familywise()[0] == 1).all()
    assert (shuffled_questions(np.zeros_like(mass), gaze_credit, seed=0, draws=19).familywise() == 1).all()


def test_contrast_of_the_best_heads():
    real = np.array([[5.0, 1.0], [4.0, 0.0]])
    drawn = np.array([[[1.0, 9.0], [2.0, 0.0]], [[1.0, 0.0], [2.0, 7.0]]])
    got = Null(real, drawn).contrast(2)
    assert (got.real, got.same_heads, got.own_heads, got.ratio) == (4.5, 1.5, (9 + 2 + 7 + 2) / 4, 3)
    assert Null(real, 0 * drawn).contrast(1).ratio is None


def test_memory_does_not_grow_with_the_layers():
    def peak(layers):
        mass = noise(0, strips=20, panels=6, layers=layers, heads=16).astype(np.float16)
        tracemalloc.start()
        shuffled_questions(mass, CREDITS["routing"], seed=0, draws=60)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found - 60 * layers * 16 * 8  # without what is returned

    assert peak(24) < 1.2 * peak(3)


def test_halves_of_equal_strips_agree():
    by_strip = np.repeat(np.random.default_rng(0).random((1, 4, 5)), 7, axis=0)
    got = split_half(by_strip, count=5, seed=0, splits=20)
    assert (got.overlap, got.low, got.high, got.chance, got.count, got.splits) == (1, 1, 1, 0.25, 5, 20)
    assert got.spearman == pytest.approx(1)


@pytest.mark.parametrize("constant", [False, True])
def test_halves_of_noise_agree_by_chance(constant):
    by_strip = np.random.default_rng(0).random((40, 10, 20)) * (not constant)
    got = split_half(by_strip, count=40, seed=0, splits=300)
    assert got.chance == 0.2
    assert abs(got.overlap - 0.2) < 0.03
    assert got.low < 0.2 < got.high
    assert got.spearman is None if constant else abs(got.spearman) < 0.1


def test_halves_share_no_strip():
    # One strip decides: only the half that has it can choose the head.
    by_strip = np.zeros((5, 1, 1000))
    by_strip[2, 0, 7] = 1
    got = split_half(by_strip, count=1, seed=0, splits=50)
    assert got.overlap < 0.1
    with pytest.raises(InputError, match="at least two strips"):
        split_half(by_strip[:1], count=1, seed=0)


def test_score_interval_is_that_of_students_t_over_strips():
    by_strip = per_strip(noise(0, strips=30), gaze_credit)
    low, high = score_interval(by_strip)
    wanted = stats.ttest_1samp(by_strip, 0).confidence_interval()
    np.testing.assert_allclose([low, high], [wanted.low, wanted.high], rtol=1e-5)
    assert low.shape == (2, 3)
    one = score_interval(by_strip[:1])
    assert (one[0] == -1).all()
    assert (one[1] == 1).all()
