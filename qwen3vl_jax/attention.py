"""Attention with an additive per-head mask as an argument and the asked readings as a value.

Matches `eager_attention_forward` of `transformers/models/qwen3_vl/modeling_qwen3_vl.py`.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from qwen3vl_jax.edits import Edits, Readings, Taps


def attend(
    q: Float[Array, "batch query heads head"],
    k: Float[Array, "batch key kv head"],
    v: Float[Array, "batch key kv head"],
    allowed: Bool[Array, "#batch #query key"],
    edits: Edits | None = None,
    taps: Taps | None = None,
) -> tuple[Float[Array, "batch query heads head"], Readings | None]:
    """Softmax attention; query head i reads key/value head i // (heads / kv).

    Args:
      q, k, v: projected, normed and rotated; scores are scaled by head ** -0.5.
      allowed: which keys a query may see.
      edits: of this one layer (no layer axis).
      taps: what to read from the weights.

    Returns:
      The mixed values and, if asked, the readings of this layer. A row that may see nothing attends uniformly.
    """
    kv = k.shape[2]
    grouped = rearrange(q, "b q (kv g) d -> b q kv g d", kv=kv)
    scores = jnp.einsum("bqkgd,bskd->bkgqs", grouped, k) * q.shape[-1] ** -0.5
    scores = rearrange(scores, "b kv g q s -> b (kv g) q s").astype(jnp.float32)
    scores = _edit(scores, edits)
    scores = jnp.where(allowed[:, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    mixed = jnp.einsum("bkgqs,bskd->bqkgd", rearrange(weights, "b (kv g) q s -> b kv g q s", kv=kv), v)
    return rearrange(mixed, "b q kv g d -> b q (kv g) d"), _read(weights, v, taps)


def _edit(scores: Float[Array, "batch heads query key"], edits: Edits | None) -> Float[Array, "batch heads query key"]:
    if edits is None:
        return scores
    if edits.steer is not None:
        steer = edits.steer
        bias = steer.heads[:, :, None, None] * steer.keys[:, None, None, :]
        bias = bias if steer.rows is None else bias * steer.rows[:, None, :, None]
        scores = jnp.where(steer.uniform & (bias != 0), 0, scores) + bias.astype(jnp.float32)
    if edits.head_mask is not None:
        scores = scores + edits.head_mask.astype(jnp.float32)
    return scores


def _read(
    weights: Float[Array, "batch heads query key"], v: Float[Array, "batch key kv head"], taps: Taps | None
) -> Readings | None:
    if taps is None:
        return None
    batch, heads, _, keys = weights.shape
    rows = jnp.broadcast_to(taps.rows, (batch, taps.rows.shape[1]))
    groups = jnp.broadcast_to(taps.groups, (batch, taps.groups.shape[1], keys)).astype(jnp.float32)
    read = jnp.take_along_axis(weights, rows[:, None, :, None], axis=2).astype(jnp.float32)
    mass = jnp.einsum("bhrs,bgs->brhg", read, groups, precision="highest")
    if not taps.weigh_values:
        return Readings(mass)
    norms = jnp.repeat(jnp.linalg.norm(v.astype(jnp.float32), axis=-1), heads // v.shape[2], axis=2)
    return Readings(mass, jnp.einsum("bhrs,bsh,bgs->brhg", read, norms, groups, precision="highest"))
