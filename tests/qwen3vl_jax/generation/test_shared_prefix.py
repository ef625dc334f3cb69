"""What variants share: the same answers as each by itself, whatever layer and row the edits begin at."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qwen3vl_jax.edits import Edits, Steer
from qwen3vl_jax.generation.shared_prefix import fork, prefill_shared
from qwen3vl_jax.inputs import Prompt

from ...toys import Toy, batch_rows, encode, make_row

COPIES, LAYERS, HEADS = 3, 4, 4
STRENGTHS = np.array([0.0, 5.0, -5.0, 20.0, 2.0, 7.0], np.float32)


@pytest.fixture(scope="module")
def scene(toy: Toy) -> tuple:
    """Two prompts of different lengths, each with a picture, and the same prompts three times over."""
    images, prompt = batch_rows([make_row([(4, 6)]), make_row([(4, 6)], words=7, seed=1)], toy.config)
    many: Prompt = jax.tree.map(lambda leaf: np.repeat(leaf, COPIES, axis=0), prompt)
    return encode(toy.model, images), prompt, many


def steer(prompt: Prompt, first: int, start: int) -> Edits:
    """Every variant with its own strength, all heads from a layer on, all rows from one on."""
    length = prompt.tokens.shape[1]
    heads = np.zeros((LAYERS, 1, HEADS), np.float32)
    heads[first:] = 1
    keys = STRENGTHS[:, None] * (np.arange(length) % 3 == 0)
    rows = np.arange(length)[None] >= start
    steered = Steer(jnp.asarray(heads), jnp.asarray(keys), jnp.zeros((1,), bool), jnp.asarray(rows, jnp.float32))
    return Edits(steer=steered)


@partial(jax.jit, static_argnames="start")
def shared(model, prompt, vision, edits, first, start):
    output = fork(model, prefill_shared(model, prompt, vision, first, start=start), edits, COPIES)
    return model.logits(output.hidden[:, -1]), output.cache


@jax.jit
def alone(model, prompt, vision, edits):
    output = model(prompt, vision, edits=edits)
    return model.logits(output.hidden[:, -1]), output.cache


@pytest.mark.parametrize(("first", "start"), [(0, 0), (2, 0), (4, 0), (0, 9), (1, 12), (3, -1), (4, -1)])
def test_equals_every_variant_by_itself(first: int, start: int, toy: Toy, scene: tuple) -> None:
    vision, prompt, many = scene
    start %= prompt.tokens.shape[1]
    edits = steer(many, first, start)
    want, cache = alone(toy.model, many, vision, edits)
    logits, ours = shared(toy.model, prompt, vision, edits, np.int32(first), start)
    np.testing.assert_allclose(logits, want, atol=2e-5, rtol=0)
    seen = np.asarray(cache.valid)[None, :, None, None, :]
    values = [np.asarray(one.values).swapaxes(3, 4) for one in (ours, cache)]
    for mine, theirs in ((ours.keys, cache.keys), values):
        np.testing.assert_allclose(np.where(seen, mine, 0), np.where(seen, theirs, 0), atol=2e-5, rtol=0)
    np.testing.assert_array_equal(ours.next_position, cache.next_position)
    np.testing.assert_array_equal(ours.valid, cache.valid)
    assert int(ours.filled) == int(cache.filled)


def test_a_prefix_that_is_too_long_is_wrong(toy: Toy, scene: tuple) -> None:
    """The control: edits that begin below it do not come out."""
    vision, prompt, many = scene
    edits = steer(many, 1, 0)
    want, _ = alone(toy.model, many, vision, edits)
    late, _ = shared(toy.model, prompt, vision, edits, np.int32(3), 0)
    assert np.abs(np.asarray(late - want)).max() > 0.01


def test_another_first_layer_compiles_nothing(toy: Toy, scene: tuple, decoder_traces: Callable[[int], None]) -> None:
    vision, prompt, many = scene
    shared(toy.model, prompt, vision, steer(many, 0, 0), np.int32(0), 0)
    decoder_traces(0)
    for first in (1, 3):
        shared(toy.model, prompt, vision, steer(many, first, 0), np.int32(first), 0)
