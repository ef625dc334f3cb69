"""Text inertia: does an answer go on from its own words rather than from the picture?

What an answer looks at while it is written, free of sinks and relative to how many keys there are; and, as looking proves
little, what the picture does to it: how far each next word depends on the picture being there, and what is written when the
picture changes in mid-answer.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32

from gaze.hallucination.forced import forced
from gaze.steering.gates import divergence
from qwen3vl_jax.cache import Cache
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.generation.decoding import Generation, begin, go_on, vocabulary
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.vision import Vision

SINK, SAMPLED, CANDIDATES = 0.3, 8, 16
"""A key is a sink of a head that gives it more than this share in most of so many rows; that many keys are looked at."""

Curve = Float32[Array, "layer batch token heads"]
Tokens = Int32[Array, "batch token"] | Int32[np.ndarray, "batch token"]


class Looks(NamedTuple):
    """Attention to the picture of the rows that predict each token.

    Attributes:
      share: of all attention.
      sink_free: the share when the first key and each head's sinks, image or not, are left out of both sides.
      lift: the share over that of the picture's keys among all keys that the row sees; 1 if it looks evenly.
    """

    share: Curve
    sink_free: Curve
    lift: Curve


@jax.jit
def looks(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision,
    image: Bool[Array, "batch key"] | Bool[np.ndarray, "batch key"],
    tokens: Tokens,
    lengths: Int32[Array, " batch"] | Int32[np.ndarray, " batch"],
    sink: float | Float[Array, ""] = SINK,
) -> Looks:
    """Where every head looks while it predicts each token of an answer; what stands after `lengths` tokens means nothing.

    Args:
      image: the keys of the picture, see `gaze.steering.boosts.image_keys`.
      sink: the share of attention that makes a key a sink.
    """
    tokens, more = jnp.asarray(tokens), tokens.shape[1] - 1
    valid = jnp.pad(jnp.asarray(prompt.valid), ((0, 0), (0, more)), constant_values=True)
    shown = jnp.pad(jnp.asarray(image), ((0, 0), (0, more)))
    sinks = _sinks(model, prompt, vision, tokens, jnp.asarray(lengths), valid, jnp.asarray(sink, jnp.float32))
    _, keys = lax.top_k(jnp.sum(sinks, axis=(0, 2)), min(CANDIDATES, valid.shape[1]))  # of each row of the batch
    picked = jax.nn.one_hot(keys, valid.shape[1])
    mass = forced(
        model, prompt, vision, tokens, jnp.concatenate([shown[:, None].astype(picked.dtype), picked], axis=1)
    ).mass
    place = jnp.broadcast_to(keys[None, :, None, :], (*sinks.shape[:3], keys.shape[1]))
    own = jnp.take_along_axis(sinks, place, axis=3).astype(mass.dtype)
    on_image = jnp.take_along_axis(shown, keys, axis=1).astype(mass.dtype)
    share, gone = mass[..., 0], jnp.einsum("lbthc,lbhc->lbth", mass[..., 1:], own)
    gone_image = jnp.einsum("lbthc,lbhc,bc->lbth", mass[..., 1:], own, on_image)
    seen = jnp.sum(jnp.asarray(prompt.valid), axis=1)[:, None] + jnp.arange(more + 1)[None, :]
    even = jnp.sum(shown, axis=1)[:, None] / seen
    # A head that gives all to its sinks looks at nothing else.
    sink_free = jnp.clip((share - gone_image) / jnp.maximum(1 - gone, 1e-5), 0, 1)
    return Looks(share, sink_free, share / even[None, :, :, None])


def _sinks(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision,
    tokens: Int32[Array, "batch token"],
    lengths: Int32[Array, " batch"],
    valid: Bool[Array, "batch slot"],
    sink: Float[Array, ""],
) -> Bool[Array, "layer batch heads slot"]:
    """The first key, and those that a head gives more than `sink` in most of some rows that are spread over the answer."""
    text, slots, more = model.config.text, valid.shape[1], tokens.shape[1] - 1
    first = valid & (jnp.cumsum(valid, axis=1) == 1)
    if not more:
        return jnp.broadcast_to(
            first[None, :, None, :], (text.num_hidden_layers, len(valid), text.num_attention_heads, slots)
        )
    read = model(prompt, vision)
    spread = jnp.linspace(0, 1, SAMPLED)[None, :] * jnp.maximum(lengths - 2, 0).astype(jnp.float32)[:, None]
    taps = Taps(jnp.round(spread).astype(jnp.int32), jnp.eye(slots, dtype=jnp.float32)[None])
    readings = model.extend(tokens[:, :-1], read.cache.fork(1, more), None, taps).readings
    assert readings is not None
    often = jnp.mean((readings.mass > sink).astype(jnp.float32), axis=2) > 0.5
    return often | first[None, :, None, :]


@jax.jit
def dependence(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision,
    image: Bool[Array, "batch key"] | Bool[np.ndarray, "batch key"],
    tokens: Tokens,
) -> Float32[Array, "batch token"]:
    """KL(next word with the picture || with its keys masked for all rows), of each token of an answer, in nats."""
    tokens, nothing = jnp.asarray(tokens), jnp.zeros((1, 1, prompt.tokens.shape[1] + tokens.shape[1] - 1))
    blind = replace(prompt, valid=jnp.asarray(prompt.valid) & ~jnp.asarray(image))
    seeing, unseeing = (forced(model, one, vision, tokens, nothing).hidden.swapaxes(0, 1) for one in (prompt, blind))
    # Token by token, as the scores of a large vocabulary for all tokens at once would fill the memory.
    found: Array = lax.map(lambda both: divergence(*map(model.logits, both)), (seeing, unseeing))
    return found.T


@partial(jax.jit, static_argnames="max_new")
def swapped(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision,
    other: Vision,
    image: Bool[Array, "batch key"] | Bool[np.ndarray, "batch key"],
    tokens: Tokens,
    starts: Int32[Array, " batch"] | Int32[np.ndarray, " batch"],
    sampling: Sampling,
    *,
    max_new: int,
) -> Generation:
    """What is written after the first `starts` tokens of an answer if the picture is another one from there on.

    What was read so far, question and answer, stays as it was read; only the picture's own keys and values are those that the
    other picture has in its place. With the same picture the answer goes on as it did.

    Args:
      other: pictures of the same sizes, in the same order.
    """
    tokens, starts = jnp.asarray(tokens), jnp.asarray(starts)
    batch, more = tokens.shape
    cache = model.extend(tokens, model(prompt, vision).cache.fork(1, more)).cache
    instead = model(prompt, other).cache.fork(1, more)
    shown = jnp.pad(jnp.asarray(image), ((0, 0), (0, more)))[None, :, None]
    keys = jnp.where(shown[..., None, :], instead.keys, cache.keys)
    values = jnp.where(shown[..., None], instead.values, cache.values)
    # The row that predicts the next token is read again: it stands before all that was written after it.
    row = prompt.tokens.shape[1] - 1 + starts
    written = jnp.concatenate([jnp.asarray(prompt.tokens), tokens], axis=1)
    valid = cache.valid & (jnp.arange(cache.slots)[None, :] < row[:, None])
    back = cache.next_position - (more - starts) - 1
    rewound = Cache(keys, values, valid, cache.filled, back).fork(1, 1)
    output = model.extend(jnp.take_along_axis(written, row[:, None], axis=1), rewound)
    keys_of_rows = jax.random.split(jax.random.key(0), batch)
    limit = jnp.full((batch,), max_new)
    state = begin(model, output, vocabulary(model, prompt), sampling, keys_of_rows, limit, max_new=max_new)
    return go_on(model, state, None, sampling)
