"""`verdict`: yes for heads that look and steer, no for heads that do only one of it, and each threshold matters."""

from dataclasses import replace

import numpy as np
import pytest

from gaze.discovery.nulls import split_half
from gaze.discovery.scores import gaze_credit, per_strip
from gaze.discovery.verdict import LEVEL, LIFT, ROUTING, verdict
from gaze.heads import HeadSet
from gaze.statistics import Estimate
from qwen3vl_jax.errors import InputError

PANELS, SHAPE = 6, (3, 4)
HEADS = HeadSet(((2, 1), (1, 3)))
STEERED, DRAWS, ALL = Estimate(0.8, 0.7, 0.9, 96, 16), (0.1, 0.3, 0.2), 0.05


def attention(seed, lift=0.0, head=(2, 1), strips=12):
    """Attention of a model in which each question pulls each head to some panels, the same in every strip."""
    rng = np.random.default_rng(seed)
    pull = np.random.default_rng(99).uniform(0, 0.06, (1, PANELS, *SHAPE, PANELS))
    mass = pull + rng.uniform(0, 0.01, (strips, PANELS, *SHAPE, PANELS))
    for panel in range(PANELS):
        mass[:, panel, *head, panel] += lift
    return mass


def judge(discovery, held_out, steered=STEERED, draws=DRAWS, everything=ALL, heads=HEADS):
    stability = split_half(per_strip(discovery, gaze_credit), len(heads), 0)
    return verdict(discovery, held_out, heads, stability, steered, draws, everything, 0)


def passed(found):
    return {
        about: all(one.passed for one in found.criteria if one.about == about)
        for about in ("attention", "stability", "cause")
    }


def test_heads_that_look_and_steer_are_gaze_heads():
    found = judge(attention(0, 0.3), attention(1, 0.3, strips=7))
    assert found.has_gaze_heads
    assert all(one.passed for one in found.criteria)
    best, other = found.looks
    assert (best.layer, best.head, best.gazes) == (2, 1, True)
    assert best.p == pytest.approx(1 / 720)
    assert best.lift == pytest.approx(0.3, abs=0.05)
    assert not other.gazes
    assert "L2H1" in found.reason


def test_words_that_pull_are_no_gaze():
    found = judge(attention(0), attention(1))
    assert not found.has_gaze_heads
    assert not passed(found)["attention"]
    assert "No head looks where the question says" in found.reason


def test_a_certain_but_tiny_lift_is_not_enough():
    mass = [attention(seed, 0.03) for seed in (0, 1)]
    for one in mass:  # nothing but the small lift
        one[:, :, 2, 1] = 0
        one[:, range(PANELS), 2, 1, range(PANELS)] = 0.03
    found = judge(*mass)
    routing, lift, p = found.criteria[:3]
    assert routing.value == 1.0
    assert routing.passed
    assert p.passed
    assert lift.value == pytest.approx(0.03)
    assert not lift.passed
    assert not found.has_gaze_heads


def test_heads_are_judged_on_strips_that_did_not_choose_them():
    found = judge(attention(0, 0.3), attention(1))
    assert not passed(found)["attention"]
    # The best is the best in discovery, not the one that happens to be best on the others.
    found = judge(attention(0, 0.3), attention(1, 0.3, head=(1, 3)))
    assert found.looks[0].head == 1
    assert not found.has_gaze_heads
    assert found.looks[1].gazes


def test_heads_that_look_but_do_not_steer():
    look = attention(0, 0.3), attention(1, 0.3)
    for steered, draws, everything in (
        (Estimate(0.25, 0.2, 0.3, 96, 16), DRAWS, ALL),
        (STEERED, (*DRAWS, 0.75), ALL),
        (STEERED, DRAWS, 0.72),
    ):
        found = judge(*look, steered, draws, everything)
        assert not found.has_gaze_heads
        assert passed(found) == {"attention": True, "stability": True, "cause": False}
        assert found.reason.startswith("The heads look where the question says, but steering")


def test_heads_that_no_two_halves_agree_on():
    found = attention(0, 0.3)
    stability = replace(split_half(per_strip(found, gaze_credit), 2, 0), overlap=0.2, low=0.0, high=0.5)
    said = verdict(found, attention(1, 0.3), HEADS, stability, STEERED, DRAWS, ALL, 0)
    assert passed(said) == {"attention": True, "stability": False, "cause": True}
    assert "Halves of the strips" in said.reason


def test_thresholds_are_told():
    found = judge(attention(0, 0.3), attention(1, 0.3))
    thresholds = [one.threshold for one in found.criteria]
    assert thresholds[:3] == [ROUTING, LIFT, LEVEL]
    assert thresholds[3:] == [pytest.approx(2 / 12 + 0.25 * 10 / 12), max(DRAWS), ALL]
    assert [one.value for one in found.criteria[4:]] == [STEERED.low] * 2


def test_what_cannot_be_tested():
    mass = attention(0)[..., :4][:, :4]
    with pytest.raises(InputError, match="at least five"):
        judge(mass, mass)
    with pytest.raises(InputError, match="no draw"):
        judge(attention(0), attention(1), draws=())
