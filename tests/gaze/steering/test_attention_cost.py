"""`cost`: attention is shared out whole, steering sends it to the target, and what others lose is what it wins."""

import numpy as np
import pytest

from experiments.run.models import open_model
from experiments.testbed.strips import draw_strips
from gaze.heads import HeadSet
from gaze.prompts import DISCOVERY, fill
from gaze.steering.attention_cost import KEYS, shares, taken
from gaze.steering.engine import discover
from gaze.testbed import CHECKPOINT

ROOM = 6
TARGET = 2
SAID = [np.array([5, 9, 11, 3], np.int32), np.array([7], np.int32)]


@pytest.fixture(scope="module")
def testbed():
    return (*open_model("testbed", None), draw_strips(0, "cost", 2), HeadSet.load(CHECKPOINT / "heads.json"))


def read(testbed, strength=0.0, said=SAID, question="What is happening here?", **how):
    model, processor, strips, heads = testbed
    return shares(model, processor, strips, question, TARGET, said, heads, ROOM, strength, **how)


def test_all_attention_is_somewhere(testbed):
    for strength in (0.0, 3.0):
        assert read(testbed, strength).sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_steering_leaves_only_the_target(testbed):
    found = read(testbed, 10_000.0)
    assert found[:, 0] == pytest.approx([1, 1], abs=1e-6)
    # Heads that only look away from other panels keep their attention on words.
    found = read(testbed, 10_000.0, mode="suppress_image")
    assert found[:, KEYS.index("rest of the picture")] == pytest.approx([0, 0], abs=1e-6)


def test_heads_left_alone_look_as_discovery_says(testbed):
    model, processor, strips, heads = testbed
    questions = [fill(DISCOVERY, panel) for panel in range(6)]
    mass = discover(model, processor, strips, questions)[:, TARGET].mean(axis=0)
    wanted = np.mean([mass[layer, head, TARGET] for layer, head in heads.heads])
    assert read(testbed, question=questions[TARGET])[0, 0] == pytest.approx(wanted, abs=1e-5)


def test_what_stands_behind_an_answer_does_not_count(testbed):
    both = read(testbed)[1]
    one = read(testbed, said=[SAID[0], np.zeros(0, np.int32)])[1]
    other = read(testbed, said=[np.zeros(0, np.int32), SAID[1]])[1]
    assert both == pytest.approx((4 * one + other) / 5, abs=1e-5)


def test_without_an_answer_there_is_no_row_of_it(testbed):
    found = read(testbed, said=[np.zeros(0, np.int32)] * 2)
    assert np.isnan(found[1]).all()
    assert set(taken(found, found)) == {"prompt"}


def test_what_the_target_wins_others_lose():
    before = np.array([[0.2, 0.3, 0.4, 0.1, 0.0], [0.5, 0.1, 0.1, 0.2, 0.1]])
    after = np.array([[1.0, 0.0, 0.0, 0.0, 0.0], [0.5, 0.1, 0.1, 0.2, 0.1]])
    found = taken(before, after)
    assert found["prompt"].before == dict(zip(KEYS, before[0], strict=True))
    assert found["prompt"].taken == pytest.approx(
        {"rest of the picture": 0.375, "sink": 0.5, "text": 0.125, "answer": 0.0}
    )
    assert found["answer"].taken is None
