"""Edits in, taps out: interventions are arrays beside the tokens, measurements arrays beside the logits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from qwen3vl_jax.checks import require_range, require_shape
from qwen3vl_jax.config import TextConfig
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.inputs import Array as AnyArray

# An edit may have length 1 on an axis where it is the same for all; jaxtyping's `#axis` says so. The layer axis is there
# when a caller builds an edit and gone (`*layer`) inside the scan over layers, which hands each layer its own slice.


@struct.dataclass
class Steer:
    """The paper's mask, rank one: which heads times which keys (arXiv 2606.14703, section 3).

    Attributes:
      heads: 1 for a steered head, 0 for the others.
      keys: what is added to a steered head's scores at each key: +strength, -strength or 0.
      replace_scores: where True the scores of a steered head at keys != 0 are *replaced* by that number, which is what adding
        10,000 in bfloat16 does (its spacing there is 64); if False it is added and the head keeps the order of its scores.
      query_mask: 1 where a query carries the mask, 0 where it does not; None where all do. A caller gives it per cache slot, as
        `keys`, a layer gets it per query of its pass.
    """

    heads: Float[Array, "*layer #batch heads"]
    keys: Float[Array, "#batch key"]
    replace_scores: Bool[Array, "#batch"]
    query_mask: Float[Array, "#batch query"] | None = None


@struct.dataclass
class Amplify:
    """Raises scores by a share of their own size: s + amount * |s| (PAI, arXiv 2407.21771).

    Attributes:
      heads: the amount of each head, 0 for those that are left alone.
      keys: 1 at the keys whose scores are raised, 0 at the others.
      mean: where True, |s| is the mean over all heads of the layer (CG-VLM, arXiv 2512.05546), else the head's own.
      query_mask: as that of `Steer`, but any factor.
    """

    heads: Float[Array, "*layer #batch heads"]
    keys: Float[Array, "#batch key"]
    mean: Bool[Array, "#batch"]
    query_mask: Float[Array, "#batch query"] | None = None


ByHead = TypeVar("ByHead", Steer, Amplify)


@struct.dataclass
class Edits:
    """Interventions of one forward pass; None costs nothing and changes nothing.

    Attributes:
      head_mask: added to the scaled attention scores before the softmax.
      steer: the same in two small factors.
      residual: added to the residual stream after each layer.
      amplify: raises scores in proportion to what they are without the other edits.
    """

    head_mask: Float[Array, "*#layer #batch #heads #query #key"] | None = None
    steer: Steer | None = None
    residual: Float[Array, "*#layer #batch #query embed"] | None = None
    amplify: Amplify | None = None

    def check(self, config: TextConfig, batch: int, queries: int, slots: int) -> None:
        """Raises InputError, naming the field, unless all fit a pass of `queries` tokens over `slots` keys.

        What is the same for all may have length 1 on the layer, batch, head and query axes, and on the key axis of a mask.
        """
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        if self.head_mask is not None:
            axes = dict(layer=layers, batch=batch, heads=heads, query=queries, key=slots)
            require_shape("edits.head_mask", self.head_mask, axes, ones="layer batch heads query key")
        if self.residual is not None:
            axes = dict(layer=layers, batch=batch, query=queries, embed=config.hidden_size)
            require_shape("edits.residual", self.residual, axes, ones="layer batch query")
        if self.steer is not None:
            require_shape("edits.steer.replace_scores", self.steer.replace_scores, dict(batch=batch), ones="batch")
        if self.amplify is not None:
            require_shape("edits.amplify.mean", self.amplify.mean, dict(batch=batch), ones="batch")
        for name, part in (("steer", self.steer), ("amplify", self.amplify)):
            if part is None:
                continue
            by_head = dict(layer=layers, batch=batch, heads=heads)
            require_shape(f"edits.{name}.heads", part.heads, by_head, ones="layer batch")
            require_shape(f"edits.{name}.keys", part.keys, dict(batch=batch, key=slots), ones="batch key")
            if part.query_mask is not None:
                require_shape(f"edits.{name}.query_mask", part.query_mask, dict(batch=batch, slot=slots), ones="batch")

    def upto(self, slots: int) -> "Edits":
        """The same without keys after the first `slots`."""

        def cut(x: Array) -> Array:
            return x if x.shape[-1] == 1 else x[..., :slots]

        def part(one: ByHead) -> ByHead:
            query_mask = None if one.query_mask is None else one.query_mask[:, :slots]
            return replace(one, keys=cut(one.keys), query_mask=query_mask)

        mask = None if self.head_mask is None else cut(self.head_mask)
        return replace(self, head_mask=mask, steer=_map(part, self.steer), amplify=_map(part, self.amplify))

    def at(self, step: int | Int[Array, "*row"], slots: int) -> "Edits":
        """Edits that never change are their own plan (see `generate`)."""
        del step, slots
        return self

    def slice_keys(self, past: int, first: int | Int[Array, ""], count: int) -> "Edits":
        """The same edits as a pass of `count` queries needs them, after a cache of `past` slots, into slot `first`."""

        def part(one: ByHead) -> ByHead:
            rows = one.query_mask
            rows = None if rows is None else lax.dynamic_slice_in_dim(rows, first, count, axis=1)
            return replace(one, keys=slice_keys(one.keys, past, first, count), query_mask=rows)

        mask = None if self.head_mask is None else slice_keys(self.head_mask, past, first, count)
        return replace(self, head_mask=mask, steer=_map(part, self.steer), amplify=_map(part, self.amplify))

    def stack(self, layers: int) -> tuple[Array | None, ...]:
        """What differs between layers, with a full leading layer axis, to be scanned beside the weights."""
        steer, amplify = (None if part is None else part.heads for part in (self.steer, self.amplify))
        parts = (self.head_mask, steer, self.residual, amplify)
        return tuple(None if x is None else jnp.broadcast_to(x, (layers, *x.shape[1:])) for x in parts)

    def layer(
        self, head_mask: Array | None, steer: Array | None, residual: Array | None, amplify: Array | None
    ) -> "Edits":
        """Those of one layer, which is given its slice of each part of `stack`."""
        return Edits(
            head_mask,
            None if self.steer is None or steer is None else replace(self.steer, heads=steer),
            residual,
            None if self.amplify is None or amplify is None else replace(self.amplify, heads=amplify),
        )

    def of_last_query(self) -> "Edits":
        """Those of a layer for the last query of its pass alone."""

        def part(one: ByHead) -> ByHead:
            return replace(one, query_mask=None if one.query_mask is None else one.query_mask[:, -1:])

        mask = None if self.head_mask is None else self.head_mask[:, :, -1:]
        residual = None if self.residual is None else self.residual[:, -1:]
        return Edits(mask, _map(part, self.steer), residual, _map(part, self.amplify))


@struct.dataclass
class Taps:
    """What to read.

    Attributes:
      query_positions: of the queries that are read, as indices into this pass's sequence; negative ones count from its end.
      groups: sets of keys (a panel, the sink, the text; the identity for single tokens) as weights, usually 0 or 1.
      weigh_values: also weigh each key's attention by the norm of its value vector (Kobayashi et al. 2020).
      residual: also read the residual stream after every layer.
    """

    query_positions: Int[AnyArray, "*#batch row"] | Sequence[Sequence[int]] | Sequence[int]
    groups: Num[AnyArray, "*#batch group key"] | Bool[AnyArray, "*#batch group key"]
    weigh_values: bool = struct.field(pytree_node=False, default=False)
    residual: bool = struct.field(pytree_node=False, default=False)

    def pick(self, x: Float[Array, "batch query embed"]) -> Float[Array, "batch row embed"]:
        """The tapped queries of a stream."""
        rows = jnp.asarray(self.query_positions)
        rows = jnp.broadcast_to(rows, (x.shape[0], rows.shape[1]))
        return jnp.take_along_axis(x, rows[:, :, None], axis=1)

    def checked(self, batch: int, queries: int, slots: int) -> "Taps":
        """The same for a pass of `queries` tokens over `slots` keys, positions counted from the start.

        Lists and arrays without a batch axis are accepted. Raises InputError for other shapes, and for positions that do not
        exist where they are known: under `jit` they are not.
        """
        positions, groups = _batched(self.query_positions, 2), _batched(self.groups, 3)
        require_shape("taps.query_positions", positions, dict(batch=batch, row=None), ones="batch")
        require_shape("taps.groups", groups, dict(batch=batch, group=None, key=slots), ones="batch key")
        if not jnp.issubdtype(positions.dtype, jnp.integer):
            raise InputError(f"taps.query_positions has dtype {positions.dtype}, but should hold integers")
        require_range("taps.query_positions", positions, -queries, queries, f"this pass has {queries} queries")
        positions = jnp.where(positions < 0, positions + queries, positions).astype(jnp.int32)
        return replace(self, query_positions=positions, groups=groups)


@struct.dataclass
class Readings:
    """What was read, per layer; never a query x key map.

    Attributes:
      mass: attention from each row onto each group of keys.
      value_mass: the same weighted by value norms.
      residual: the stream after each layer, edits included.
    """

    mass: Float[Array, "*layer batch row heads group"]
    value_mass: Float[Array, "*layer batch row heads group"] | None = None
    residual: Float[Array, "*layer batch row embed"] | None = None


def _map(change: Callable[[ByHead], ByHead], part: ByHead | None) -> ByHead | None:
    return None if part is None else change(part)


def slice_keys(
    x: Shaped[Array, "*rest #key"], past: int, first: int | Int[Array, ""], count: int
) -> Shaped[Array, "*rest #seen"]:
    """What is given per cache slot, as a pass sees its keys: the `past` slots of the cache, then its own, from `first` on."""
    if x.shape[-1] == 1:  # the same for all
        return x
    own = lax.dynamic_slice_in_dim(x, first, count, axis=-1)
    return jnp.concatenate([x[..., :past], own], axis=-1) if past else own


def _batched(x: Any, ndim: int) -> Any:
    """An array with a batch axis in front, from one without, or from nested lists."""
    array = x if hasattr(x, "ndim") else jnp.asarray(x)
    return array[None] if array.ndim == ndim - 1 else array
