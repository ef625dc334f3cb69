"""Reading piece by piece into a cache equals reading at once: chunks, single tokens, branches, left-padded batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from qwen3vl_jax.edits import Taps
from qwen3vl_jax.inputs import Prompt

from ..toys import Row, Toy, batch_rows, encode, follow, make_row, read

TOLERANCE = 5e-5  # float32 rounding of programs of different shapes
MORE = np.random.default_rng(0).integers(1, 248, 12).astype(np.int32)


def cut(prompt: Prompt, part: slice) -> Prompt:
    """Some of the columns of a prompt."""
    return jax.tree.map(lambda x: x[:, part], prompt)


@jax.jit
def in_pieces(model, vision, pieces, tail):
    """Logits of prompts read one after the other, then of text, and the cache."""
    length = sum(piece.tokens.shape[1] for piece in pieces)
    cache, logits = model.empty_cache(pieces[0].tokens.shape[0], length + tail.shape[1] + 3), []
    for piece in pieces:
        output = model(piece, vision, cache)
        cache = output.cache
        logits.append(model.logits(output.hidden))
    output = model.extend(tail, cache)
    return jnp.concatenate([*logits, model.logits(output.hidden)], axis=1), output.cache


@pytest.fixture(scope="module")
def whole(toy: Toy, row: Row) -> np.ndarray:
    """Logits of the row with more text after it, read at once."""
    images, prompt = batch_rows([row.more(MORE)], toy.config)
    return np.asarray(read(toy.model, prompt, encode(toy.model, images))[0][0])


def test_token_by_token_equals_at_once(toy: Toy, row: Row, whole: np.ndarray) -> None:
    images, prompt = batch_rows([row], toy.config)
    logits = follow(toy.model, prompt, encode(toy.model, images), jnp.asarray(MORE[None]))
    np.testing.assert_allclose(logits[0], whole[len(row.tokens) - 1 :], atol=TOLERANCE, rtol=0)
    with torch.no_grad():
        want = toy.reference(**row.more(MORE).reference()).logits[0].numpy()
    np.testing.assert_allclose(logits[0], want[len(row.tokens) - 1 :], atol=1e-4, rtol=0)


def test_chunks_equal_at_once(toy: Toy, row: Row, whole: np.ndarray) -> None:
    """Cut in the middle of a picture, whose DeepStack features must follow it."""
    images, prompt = batch_rows([row], toy.config)
    pieces = [cut(prompt, slice(0, 8)), cut(prompt, slice(8, None))]
    assert (pieces[0].image_cell >= 0).any()
    assert (pieces[1].image_cell[:, 0] >= 0).all()
    logits, cache = in_pieces(toy.model, encode(toy.model, images), pieces, jnp.asarray(MORE[None]))
    np.testing.assert_allclose(logits[0], whole, atol=TOLERANCE, rtol=0)
    assert int(cache.filled) == len(row.tokens) + len(MORE) == int(cache.valid.sum())
    assert cache.slots == int(cache.filled) + 3


def test_next_position_follows_the_largest(toy: Toy) -> None:
    """A picture of 2 x 3 tokens takes 3 positions, one of 1 x 4 takes 4; counting tokens would be wrong."""
    rows = [make_row([(4, 6)]), make_row([(2, 8), (4, 6)], words=7), make_row([], words=3)]
    images, prompt = batch_rows(rows, toy.config)
    _, output = read(toy.model, prompt, encode(toy.model, images))
    lengths = np.array([len(row.tokens) for row in rows])
    np.testing.assert_array_equal(output.cache.next_position, lengths - [3, 3, 0])


def test_padded_batch_equals_its_rows(toy: Toy) -> None:
    """Also with more padding than the longest row needs."""
    rows = [make_row([(4, 6), (2, 8)]), make_row([(6, 4)], seed=1), make_row([], seed=2)]
    tokens = np.random.default_rng(1).integers(1, 248, (3, 6)).astype(np.int32)
    images, prompt = batch_rows(rows, toy.config, length=40)
    combined = follow(toy.model, prompt, encode(toy.model, images), jnp.asarray(tokens))
    for number, row in enumerate(rows):
        images, prompt = batch_rows([row.more(tokens[number])], toy.config)
        alone, _ = read(toy.model, prompt, None if images is None else encode(toy.model, images))
        np.testing.assert_allclose(combined[number], alone[0, len(row.tokens) - 1 :], atol=TOLERANCE, rtol=0)


def test_branches_equal_their_own_prompts(toy: Toy) -> None:
    """Two prefixes, three questions about each, all read after one prefill."""
    rows = [make_row([(4, 6)]), make_row([(6, 4)], words=6, seed=1)]
    questions = np.random.default_rng(2).integers(1, 248, (3, 5)).astype(np.int32)
    images, prompt = batch_rows(rows, toy.config)

    @jax.jit
    def ask(model, prompt, vision, questions):
        cache = model(prompt, vision).cache.fork(3, room=5)
        output = model.extend(jnp.tile(questions, (2, 1)), cache)
        return model.logits(output.hidden), output.cache

    logits, cache = ask(toy.model, prompt, encode(toy.model, images), jnp.asarray(questions))
    assert cache.slots == prompt.tokens.shape[1] + 5 == int(cache.filled)
    combined = [row.more(question) for row in rows for question in questions]
    images, prompt = batch_rows(combined, toy.config)
    want, _ = read(toy.model, prompt, encode(toy.model, images))
    np.testing.assert_allclose(logits, want[:, -5:], atol=TOLERANCE, rtol=0)


def test_taps_count_slots(toy: Toy, row: Row) -> None:
    """What a decoded token attends to: keys of the prompt, itself, and nothing in slots that are still empty."""
    images, prompt = batch_rows([row], toy.config)
    length = prompt.tokens.shape[1]

    @jax.jit
    def decode(model, prompt, vision, token):
        cache = model(prompt, vision, model.empty_cache(1, length + 4)).cache
        taps = Taps(jnp.zeros((1, 1), jnp.int32), jnp.eye(length + 4, dtype=jnp.float32)[None])
        return model.extend(token, cache, taps=taps).readings.mass

    mass = np.asarray(decode(toy.model, prompt, encode(toy.model, images), jnp.asarray(MORE[None, :1])))[:, 0, 0]
    with torch.no_grad():
        attentions = toy.reference(**row.more(MORE[:1]).reference(), output_attentions=True).attentions
    want = np.stack([layer[0, :, -1].numpy() for layer in attentions])
    np.testing.assert_allclose(mass[..., : length + 1], want, atol=1e-5, rtol=0)
    assert not mass[..., length + 1 :].any()
