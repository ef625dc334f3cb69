"""Choosing the next token. All settings are data: changing them compiles nothing.

Matches the order of `transformers/generation`: repetition penalty, then temperature, top-k, top-p.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, Key

from qwen3vl_jax.errors import InputError


@struct.dataclass
class Sampling:
    """How to sample, and where to stop.

    Attributes:
      stop: token ids that end a row.
      temperature: 0 takes the most likely token.
      top_k: keep so many tokens; 0 keeps all.
      top_p: keep the smallest set of tokens that holds this much probability.
      repetition_penalty: divides positive and multiplies negative scores of tokens already in the row.
    """

    stop: Int32[Array | np.ndarray, " stops"]
    temperature: Float32[Array | np.ndarray, ""]
    top_k: Int32[Array | np.ndarray, ""]
    top_p: Float32[Array | np.ndarray, ""]
    repetition_penalty: Float32[Array | np.ndarray, ""]

    @classmethod
    def make(
        cls,
        stop: Sequence[int] = (),
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
    ) -> "Sampling":
        """Greedy unless a temperature is given. Raises InputError for numbers that make no sense."""
        rules = {
            f"temperature is {temperature}, but should be 0 or more": 0 <= temperature < np.inf,
            f"top_k is {top_k}, but should be a whole number from 0": top_k >= 0 and top_k == int(top_k),
            f"top_p is {top_p}, but should be above 0 and at most 1": 0 < top_p <= 1,
            f"repetition_penalty is {repetition_penalty}, but should be above 0": 0 < repetition_penalty < np.inf,
            f"stop is {list(stop)}, but should hold token ids": all(one == int(one) >= 0 for one in stop),
        }
        for wrong, holds in rules.items():
            if not holds:
                raise InputError(wrong)
        scalars = [np.asarray(x, np.float32) for x in (temperature, top_p, repetition_penalty)]
        return cls(np.asarray(stop, np.int32), scalars[0], np.asarray(top_k, np.int32), scalars[1], scalars[2])


def choose(
    logits: Float[Array, "batch vocab"],
    seen: Bool[Array, "batch vocab"],
    sampling: Sampling,
    keys: Key[Array, " batch"],
) -> Int32[Array, " batch"]:
    """The next token of every row, drawn with its own key; `seen` marks tokens that stand in the row already."""
    scores = penalise(logits.astype(jnp.float32), seen, sampling)
    token: Array = lax.cond(
        sampling.temperature > 0,
        lambda: jax.vmap(jax.random.categorical)(keys, truncate(scores, sampling)).astype(jnp.int32),
        lambda: jnp.argmax(scores, axis=-1).astype(jnp.int32),
    )
    return token


def penalise(
    logits: Float32[Array, "batch vocab"], seen: Bool[Array, "batch vocab"], sampling: Sampling
) -> Float32[Array, "batch vocab"]:
    """Makes tokens that were seen less likely."""
    penalty = sampling.repetition_penalty
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


def truncate(scores: Float32[Array, "batch vocab"], sampling: Sampling) -> Float32[Array, "batch vocab"]:
    """Scores at the temperature, with -inf where top-k or top-p leave a token out."""
    scores = scores / sampling.temperature
    ordered, order = lax.top_k(scores, scores.shape[-1])
    rank = jnp.broadcast_to(jnp.arange(scores.shape[-1]), scores.shape)
    kept = (sampling.top_k == 0) | (rank < sampling.top_k)
    chances = jax.nn.softmax(jnp.where(kept, ordered, -jnp.inf), axis=-1)
    before = jnp.cumsum(chances, axis=-1) - chances
    # Rounding may bring the sum to 1 before the last token.
    kept &= (before < sampling.top_p) | (sampling.top_p >= 1) | (rank == 0)
    return jnp.put_along_axis(scores, order, jnp.where(kept, ordered, -jnp.inf), axis=-1, inplace=False)
