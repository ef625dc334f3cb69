"""Masks learned by gradient: they steer, they leave out what they may not use, and their loss is what it says."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run.models import open_model
from experiments.testbed.sparse.strips import draw_strips
from gaze.heads import HeadSet
from gaze.judges.judge import judge_exact
from gaze.pictures.strips import Strip
from gaze.prompts import STATIC
from gaze.steering import learned_masks
from gaze.steering.engine import GenerationOptions, Request, answers
from gaze.steering.learned_masks import LearnedMask, caption_nats, learn_mask
from gaze.testbed import SPARSE
from qwen3vl_jax.edits import Edits
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

Library = tuple[Qwen3VL, Processor]
FEW = dict(batch=6, steps=25, price=0.003, rate=0.3)


@pytest.fixture(scope="module")
def library() -> Library:
    return open_model("testbed-sparse", "float32")


@pytest.fixture(scope="module")
def strips() -> list[Strip]:
    return draw_strips(0, "learn", 3, panels=3)


@pytest.fixture(scope="module")
def learned(library: Library, strips: list[Strip]) -> LearnedMask:
    return learn_mask(*library, strips, STATIC, **FEW)


def redirected(library: Library, strengths: np.ndarray, strips: list[Strip]) -> float:
    model, processor = library
    requests = [Request(strip, strengths, panel, 1.0) for strip in range(len(strips)) for panel in range(3)]
    options = GenerationOptions(Sampling.make(stop=processor.stop_tokens), 10)
    said = [processor.decode(tokens) for tokens in answers(model, processor, strips, STATIC, requests, options)]
    pairs = zip(said, requests, strict=True)
    return float(np.mean([judge_exact(text, strips[one.strip].captions) == one.steps[0] for text, one in pairs]))


def test_it_steers_strips_that_it_never_saw(library: Library, learned: LearnedMask) -> None:
    others = draw_strips(0, "others", 4, panels=3)
    assert redirected(library, np.zeros_like(learned.strengths), others) <= 0.5
    assert redirected(library, learned.strengths, others) >= 0.8
    assert learned.nats[-5:].mean() < 0.5 * learned.nats[0]
    assert learned.heads.scores == tuple(sorted(learned.heads.scores, reverse=True))
    assert learned.strengths.min() == 0


def test_it_is_the_same_each_time_and_another_with_another_seed(
    library: Library, strips: list[Strip], learned: LearnedMask
) -> None:
    short = FEW | dict(steps=3)
    one, same, other = (learn_mask(*library, strips, STATIC, **short, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.strengths, same.strengths)
    assert np.array_equal(one.nats, learned.nats[:3])
    assert not np.array_equal(one.strengths, other.strengths)


def test_it_uses_only_what_it_may_and_less_at_a_higher_price(library: Library, strips: list[Strip]) -> None:
    without = 1 - HeadSet.load(SPARSE / "heads.json").to_mask(6, 8)
    free, dear = (
        learn_mask(*library, strips, STATIC, **FEW | dict(price=price), among=without) for price in (0.003, 1.0)
    )
    assert not free.strengths[without == 0].any()
    assert free.strengths.any()
    assert not dear.strengths.any()
    with pytest.raises(InputError, match="lower price"):
        _ = dear.heads


def test_its_loss_is_that_of_the_caption_and_its_gradient_that_of_the_loss(
    library: Library, strips: list[Strip]
) -> None:
    """Against a mask given per head and key and the tokens of the captions by themselves, and against differences."""
    model, processor = library
    prompt, vision, plan, answer = learned_masks._examples(*library, strips[:1], STATIC, "boost_suppress", "all")
    loss = jax.jit(lambda strengths: caption_nats(model, strengths, prompt, vision, plan, jnp.asarray(answer)))
    strengths, each = jnp.full((6, 8), 0.5), []
    signs = jnp.asarray(plan.signs)[jnp.arange(3), jnp.arange(3), :-1]
    mask = strengths[:, None, :, None, None] * signs[None, :, None, None, :]
    logs = jax.nn.log_softmax(model.logits(model(prompt, vision, edits=Edits(head_mask=mask)).hidden))
    for row, caption in enumerate(strips[0].captions):
        tokens = processor.tokenizer(caption + "<|im_end|>", add_special_tokens=False)["input_ids"]
        each += [-float(logs[row, place - len(tokens) - 1, token]) for place, token in enumerate(tokens)]
    assert float(loss(strengths)) == pytest.approx(np.mean(each), abs=1e-5)
    gradient = np.asarray(jax.grad(loss)(strengths))
    for head in ((4, 3), (0, 2), (5, 2)):
        step = np.zeros((6, 8), np.float32)
        step[head] = 0.05
        slope = float(loss(strengths + step) - loss(strengths - step)) / 0.1
        assert gradient[head] == pytest.approx(slope, abs=2e-3, rel=0.05)
    assert np.abs(gradient).max() > 0.02


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(price=-1.0), "price is -1.0"),
        (dict(rate=float("nan")), "rate is nan"),
        (dict(steps=0), "steps"),
        (dict(batch=0), "batch"),
        (dict(among=np.ones((5, 8))), "among"),
        (dict(among=[(6, 0)]), "no head 0 in layer 6"),
        (dict(mode="push"), "no push steering"),
        (dict(query_positions="some"), "no some steering"),
    ],
)
def test_what_cannot_be_is_named(library: Library, strips: list[Strip], wrong: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        learn_mask(*library, strips, STATIC, **FEW | wrong)


def test_pictures_need_captions(library: Library, strips: list[Strip]) -> None:
    for some, says in ([], "no picture"), ([replace(strips[0], captions=())], "lacks captions"):
        with pytest.raises(InputError, match=says):
            learn_mask(*library, some, STATIC, **FEW)
