"""Attention with an additive per-head mask as an argument, and what is read of it as a value of its own.

Matches `eager_attention_forward` of `transformers/models/qwen3_vl/modeling_qwen3_vl.py`, except that queries are taken a
block at a time: memory grows with the number of keys, not with its square.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from qwen3vl_jax.edits import Amplify, Edits, Readings, Steer, Taps

SCORES, FEWEST = 2**22, 64
"""How many scores exist at once (16 MB of float32, about what a cache holds), but those of so many queries at least."""

KeysValues = tuple[Float[Array, "batch kv head _"], Float[Array, "batch kv _ head"]]
"""Each laid out as its product wants it: turning a cache round in every step would cost more than the step."""


def attend(
    q: Float[Array, "batch query heads head"],
    parts: Sequence[KeysValues],
    seen: Bool[Array, "batch key"],
    edits: Edits | None = None,
    *,
    causal: bool,
) -> Float[Array, "batch query heads head"]:
    """Softmax attention; query head i reads key/value head i // (heads / kv).

    Args:
      q: projected, normed and rotated; scores are scaled by head ** -0.5.
      parts: keys and values as they lie: those of the cache, if any, and after them those of this pass.
      seen: False at keys that no query may see. A query that may see nothing attends uniformly.
      edits: of this one layer (no layer axis).
      causal: whether queries see no keys of this pass after their own.
    """
    batch, count, heads, _ = q.shape
    if not count:  # a prompt of one token has none before its last
        return q
    blocks = -(-count // max(SCORES // (batch * heads * seen.shape[1]), FEWEST))
    size = -(-count // blocks)
    # Rows beyond the last one repeat it and are dropped.
    rows = np.minimum(np.arange(blocks * size), count - 1).astype(np.int32).reshape(blocks, 1, size)
    ends = np.cumsum([v.shape[2] for _, v in parts])[:-1].tolist()
    # Of a cache that is made empty inside a program, XLA for CPUs may read what nothing wrote (see `xla_flags`): a part
    # that no query may see adds nothing, whatever stands in it.
    used = [jnp.any(keys, axis=1)[:, None, None, None, None] for keys in jnp.split(seen, ends, axis=1)[:-1]]

    def mix(block: Int[Array, "1 row"]) -> Float[Array, "batch kv group row head"]:
        scores = _scores(q, parts, seen, edits, block, causal)
        raised = jnp.exp(scores - lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
        shares = zip(jnp.split(raised.astype(q.dtype), ends, axis=-1), parts, strict=True)
        *past, own = [
            jnp.einsum("bkgrs,bksd->bkgrd", share, v, preferred_element_type=jnp.float32) for share, (_, v) in shares
        ]
        mixed = sum((jnp.where(some, part, 0) for some, part in zip(used, past, strict=True)), own)
        # Divided after the product, where there is less to divide.
        return (mixed / jnp.sum(raised, axis=-1, keepdims=True)).astype(q.dtype)

    mixed: Array = lax.map(mix, jnp.asarray(rows))
    return rearrange(mixed, "n b kv g r d -> b (n r) (kv g) d")[:, :count]


def read(
    q: Float[Array, "batch query heads head"],
    parts: Sequence[KeysValues],
    seen: Bool[Array, "batch key"],
    edits: Edits | None,
    taps: Taps,
) -> Readings:
    """What the tapped queries look at, causally; arguments as of `attend`, keys of `taps` in the order of the parts."""
    weights = jax.nn.softmax(_scores(q, parts, seen, edits, jnp.asarray(taps.query_positions), causal=True), axis=-1)
    weights = weights.astype(q.dtype).astype(jnp.float32)
    groups = jnp.asarray(taps.groups, jnp.float32)
    groups = jnp.broadcast_to(groups, (len(q), *groups.shape[1:]))
    mass = jnp.einsum("bkgrs,bns->brkgn", weights, groups, precision="highest")
    value_mass = None
    if taps.weigh_values:
        norms = jnp.concatenate([jnp.linalg.norm(v.astype(jnp.float32), axis=-1) for _, v in parts], axis=-1)
        value_mass = jnp.einsum("bkgrs,bks,bns->brkgn", weights, norms, groups, precision="highest")
    by_head = "b r kv g n -> b r (kv g) n"
    return Readings(rearrange(mass, by_head), None if value_mass is None else rearrange(value_mass, by_head))


def _scores(
    q: Float[Array, "batch query heads head"],
    parts: Sequence[KeysValues],
    seen: Bool[Array, "batch key"],
    edits: Edits | None,
    rows: Int[Array, "#batch row"],
    causal: bool,
) -> Float[Array, "batch kv group row key"]:
    """What the softmax takes, for some rows of the queries and all keys; float32."""
    grouped = rearrange(_take(q, rows, 1), "b r (kv g) d -> b kv g r d", kv=parts[0][0].shape[1])
    scores = jnp.concatenate([jnp.einsum("bkgrd,bkds->bkgrs", grouped, k) for k, _ in parts], axis=-1)
    scores = (scores * q.shape[-1] ** -0.5).astype(jnp.float32)
    if edits is not None:
        scores = _edit(scores, edits, rows)
    allowed = seen[:, None, :]
    if causal:
        last = rows + (seen.shape[1] - q.shape[1])
        allowed = allowed & (jnp.arange(seen.shape[1])[None, None, :] <= last[:, :, None])
    return jnp.where(allowed[:, None, None], scores, jnp.finfo(jnp.float32).min)


def _edit(
    scores: Float[Array, "batch kv group row key"], edits: Edits, rows: Int[Array, "#batch row"]
) -> Float[Array, "batch kv group row key"]:
    kv = scores.shape[1]
    if edits.amplify is not None:
        size = jnp.abs(scores)
        mean = jnp.mean(size, axis=(1, 2), keepdims=True)
        size = jnp.where(edits.amplify.mean[:, None, None, None, None], mean, size)
        scores = scores + _bias(edits.amplify, rows, kv) * size
    if edits.steer is not None:
        bias = _bias(edits.steer, rows, kv)
        scores = jnp.where(edits.steer.replace_scores[:, None, None, None, None] & (bias != 0), 0, scores) + bias
    if edits.head_mask is not None:
        mask = edits.head_mask if edits.head_mask.shape[2] == 1 else _take(edits.head_mask, rows, 2)
        one = mask.shape[1] == 1
        mask = mask[:, :, None] if one else rearrange(mask, "b (kv g) r s -> b kv g r s", kv=kv)
        scores = scores + mask.astype(jnp.float32)
    return scores


def _bias(edit: Steer | Amplify, rows: Int[Array, "#batch row"], kv: int) -> Float[Array, "#batch kv group #row #key"]:
    """What an edit gives by head, query and key."""
    keys = edit.keys[:, None, :]
    keys = keys if edit.query_mask is None else keys * _take(edit.query_mask, rows, 1)[:, :, None]
    heads = rearrange(edit.heads, "b (kv g) -> b kv g 1 1", kv=kv)
    return (heads * keys[:, None, None]).astype(jnp.float32)


def _take(x: Array, rows: Int[Array, "#batch row"], axis: int) -> Array:
    """Some rows of an array along an axis, the same of every entry of the batch or its own of each."""
    if len(rows) == 1:
        return jnp.take(x, rows[0], axis=axis)
    return jax.vmap(lambda x, rows: jnp.take(x, rows, axis=axis - 1))(
        jnp.broadcast_to(x, (len(rows), *x.shape[1:])), rows
    )
