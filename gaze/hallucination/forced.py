"""An answer read again, token by token, in two passes: what each of its rows looks at, and what it would say next.

A token is chosen by the row before it: what belongs to token t is what the row shows that predicts it.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from gaze.steering.boosts import Boost
from qwen3vl_jax.edits import Edits, Readings, Taps
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.vision import Vision


class Forced(NamedTuple):
    """Of the rows that predict each token: the stream (see `Qwen3VL.logits`), and attention onto each group of keys."""

    hidden: Float[Array, "batch token embed"]
    mass: Float[Array, "layer batch token heads group"]


def forced(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    tokens: Int32[Array, "batch token"],
    groups: Float[Array, "#batch group slot"],
    edits: Edits | None = None,
) -> Forced:
    """Reads an answer as if the model wrote it again.

    Args:
      groups: of keys: those of the prompt, then those of all tokens but the last, which no row sees.
      edits: against as many slots; those of their rows.
    """
    length, more = prompt.tokens.shape[1], tokens.shape[1] - 1
    last = Taps(jnp.full((1, 1), length - 1, jnp.int32), groups[..., :length])
    first = model(prompt, vision, None, None if edits is None else edits.upto(length), last)
    hidden, mass = first.hidden[:, -1:], _mass(first.readings)
    if not more:
        return Forced(hidden, mass)
    later = Taps(jnp.arange(more, dtype=jnp.int32)[None], groups)
    rest = model.extend(tokens[:, :-1], first.cache.fork(1, more), edits, later)
    return Forced(jnp.concatenate([hidden, rest.hidden], axis=1), jnp.concatenate([mass, _mass(rest.readings)], axis=2))


def added_mass(
    model: Qwen3VL,
    prompt: Prompt,
    vision: Vision | None,
    boost: Boost,
    factors: Float[Array, "batch token"],
    tokens: Int32[Array, "batch token"],
) -> Float[Array, "batch token"]:
    """How much more of the attention goes to the boosted keys than without the boost: the mean over the boosted heads.

    Args:
      factors: how much of the boost acts on the row that predicts each token: 1 where a gate was open, 0 where it was not.
    """
    length, more = prompt.tokens.shape[1], tokens.shape[1] - 1
    slots, heads = length + more, jnp.asarray(boost.heads)
    groups = jnp.pad(jnp.asarray(boost.keys), ((0, 0), (0, more)))[:, None]
    edits = boost.scaled(jnp.pad(factors, ((0, 0), (length - 1, 0))), slots)
    raised = (
        forced(model, prompt, vision, tokens, groups, edits).mass - forced(model, prompt, vision, tokens, groups).mass
    )
    chosen = (heads != 0).astype(jnp.float32)
    shares = jnp.broadcast_to(chosen / jnp.sum(chosen, axis=(1, 2), keepdims=True), (len(tokens), *heads.shape[1:]))
    return jnp.einsum("lbth,blh->bt", raised[..., 0], shares)


def _mass(readings: Readings | None) -> Float[Array, "layer batch row heads group"]:
    assert readings is not None
    return readings.mass
