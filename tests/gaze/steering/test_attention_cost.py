"""`cost`: attention is shared out whole, steering sends it to the target, and what others lose is what it wins."""

import numpy as np
import pytest

from experiments.run.models import open_model
from experiments.testbed.sparse.strips import draw_strips
from gaze.heads import HeadSet
from gaze.prompts import DISCOVERY, fill
from gaze.steering.attention_cost import KEYS, alone, shares, steered_shares, taken
from gaze.steering.engine import Request, discover
from gaze.steering.masks import SIGNS
from gaze.testbed import SPARSE
from qwen3vl_jax.errors import InputError

ROOM = 6
TARGET = 2
SAID = [np.array([5, 9, 11, 3], np.int32), np.array([7], np.int32)]


@pytest.fixture(scope="module")
def testbed():
    return (*open_model("testbed-sparse", None), draw_strips(0, "cost", 2), HeadSet.load(SPARSE / "heads.json"))


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


def test_the_prompt_is_read_alike_one_by_one_and_all_together(testbed):
    model, processor, strips, heads = testbed
    requests = [Request(strip, heads, TARGET, strength) for strength in (0.0, 3.0) for strip in range(2)]
    found = steered_shares(model, processor, strips, "What is happening here?", requests)
    assert found.sum(axis=-1) == pytest.approx(np.ones(found.shape[:-1]), abs=1e-5)
    for strength, mine in zip((0.0, 3.0), found.reshape(2, 2, *found.shape[1:]), strict=True):
        wanted = read(testbed, strength)[0]
        assert np.mean([mine[:, layer, head].mean(axis=0) for layer, head in heads.heads], axis=0) == pytest.approx(
            wanted, abs=1e-5
        )


@pytest.mark.parametrize("mode", SIGNS)
def test_what_a_head_alone_sees_under_a_bias_follows_from_what_it_sees_without(testbed, mode):
    model, processor, strips, heads = testbed
    layer, head = heads.heads[0]
    strengths = (0.0, 0.5, 4.0, 10_000.0)
    requests = [Request(1, [(layer, head)], TARGET, strength, mode) for strength in strengths]
    before, *after = steered_shares(model, processor, strips, "What is happening here?", requests)[:, layer, head]
    for strength, found in zip(strengths[1:], after, strict=True):
        assert alone(before, strength, mode) == pytest.approx(found, abs=1e-5)
    # The negative control: no other strength explains it.
    assert np.abs(alone(before, 1.0, mode) - after[0]).max() > 1e-3


def test_a_head_that_is_cut_off_sees_no_picture(testbed):
    model, processor, strips, heads = testbed
    asked = "What is happening here?"
    requests = [
        Request(0, heads, TARGET, 10_000.0, "cut_image", query_positions="text"),
        Request(0, heads, TARGET, 0.0),
    ]
    cut, whole = steered_shares(model, processor, strips, asked, requests)[..., :2].sum(axis=-1)
    for place in heads.heads:
        assert cut[place] == pytest.approx(0, abs=1e-6)
        assert whole[place] > 0.1
    others = [place for place in np.ndindex(*cut.shape) if place[0] <= 4 and place not in heads.heads]
    assert [cut[place] for place in others] == pytest.approx([whole[place] for place in others], abs=1e-5)


def test_a_request_without_a_target_is_refused(testbed):
    model, processor, strips, heads = testbed
    with pytest.raises(InputError, match=r"requests\[1\] has no target"):
        steered_shares(model, processor, strips, "?", [Request(0, heads, 0), Request(0, heads, [-1, 2])])
