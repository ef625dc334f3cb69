"""Keys and values of what has been read so far."""

from dataclasses import replace

import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32, Shaped

from qwen3vl_jax.checks import known, require_shape
from qwen3vl_jax.config import TextConfig
from qwen3vl_jax.errors import InputError

BATCH_AXIS = "batch_axis"
"""Key of a field's metadata: which axis of its arrays counts the rows of a batch; see `generation.batch_axes`."""


@struct.dataclass
class Cache:
    """A fixed number of slots per row; rows are left-padded, so every row fills the same slots.

    Attributes:
      keys, values: rotated keys and values of every slot.
      valid: False at slots that hold padding or nothing yet.
      filled: number of slots in use.
      next_position: the M-RoPE position of each row's next text token.
    """

    keys: Float[Array, "layer batch kv head slot"] = struct.field(metadata={BATCH_AXIS: 1})
    values: Float[Array, "layer batch kv slot head"] = struct.field(metadata={BATCH_AXIS: 1})
    valid: Bool[Array, "batch slot"]
    filled: Int32[Array, ""] = struct.field(metadata={BATCH_AXIS: None})
    next_position: Int32[Array, " batch"]

    @classmethod
    def empty(cls, config: TextConfig, batch: int, slots: int, dtype: DTypeLike) -> "Cache":
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads)
        return cls(
            keys=jnp.zeros((*shape, config.head_dim, slots), dtype),
            values=jnp.zeros((*shape, slots, config.head_dim), dtype),
            valid=jnp.zeros((batch, slots), bool),
            filled=jnp.zeros((), jnp.int32),
            next_position=jnp.zeros((batch,), jnp.int32),
        )

    @classmethod
    def of(
        cls,
        keys: Float[Array, "layer batch kv head seq"],
        values: Float[Array, "layer batch kv seq head"],
        valid: Bool[Array, "batch seq"],
        positions: Int32[Array, "batch seq 3"],
    ) -> "Cache":
        """What a first pass leaves: every slot holds one of its tokens."""
        last = jnp.max(positions, axis=(1, 2), where=valid[:, :, None], initial=-1)
        return cls(keys, values, valid, jnp.asarray(valid.shape[1], jnp.int32), jnp.maximum(last + 1, 0))

    @property
    def slots(self) -> int:
        return self.keys.shape[4]

    def check_room(self, config: TextConfig, batch: int, count: int) -> None:
        """Raises InputError unless this is a cache of such a model with room for `count` more tokens in `batch` rows.

        How full it is is known on the host only; under `jit` the shapes alone are checked.
        """
        axes = dict(layer=config.num_hidden_layers, batch=batch, kv=config.num_key_value_heads)
        require_shape("cache.keys", self.keys, axes | dict(head=config.head_dim, slot=None))
        used = int(self.filled) if known(self.filled) else 0
        if used + count > self.slots:
            raise InputError(
                f"the cache has {self.slots} slots, {used} of them in use, and no room for {count} more tokens: "
                "give it more slots (`empty_cache`, `Cache.fork`)"
            )

    def write(
        self,
        keys: Float[Array, "layer batch kv head seq"],
        values: Float[Array, "layer batch kv seq head"],
        valid: Bool[Array, "batch seq"],
        positions: Int32[Array, "batch seq 3"],
    ) -> "Cache":
        """With more tokens in the next slots. Where there is no room for them, all that is read later is NaN, not just wrong."""
        fits = self.filled + valid.shape[1] <= self.slots
        keys, values = (jnp.where(fits, x, jnp.nan) for x in (keys, values))
        last = jnp.max(positions, axis=(1, 2), where=valid[:, :, None], initial=-1)
        return Cache(
            keys=lax.dynamic_update_slice_in_dim(self.keys, keys, self.filled, axis=4),
            values=lax.dynamic_update_slice_in_dim(self.values, values, self.filled, axis=3),
            valid=lax.dynamic_update_slice_in_dim(self.valid, valid, self.filled, axis=1),
            filled=self.filled + valid.shape[1],
            next_position=jnp.maximum(self.next_position, last + 1),
        )

    def upto(self, slots: int) -> "Cache":
        """Its first slots."""
        return replace(
            self, keys=self.keys[..., :slots], values=self.values[..., :slots, :], valid=self.valid[:, :slots]
        )

    def turned(self, count: int) -> "Cache":
        """Ready for one more token: if all slots are used, the last `count` of them are used again from the first on."""
        slots = self.slots
        return replace(self, filled=jnp.where(self.filled < slots, self.filled, slots - count))

    def fork(self, copies: int, room: int) -> "Cache":
        """Every row `copies` times in a row, with `room` more empty slots: several continuations of one prefix."""

        def roomy(x: Shaped[Array, "..."], rows: int, slots: int) -> Shaped[Array, "..."]:
            after = [(0, room if axis == slots else 0) for axis in range(x.ndim)]
            return jnp.pad(jnp.repeat(x, copies, axis=rows), after)

        keys, values, valid = roomy(self.keys, 1, 4), roomy(self.values, 1, 3), roomy(self.valid, 0, 1)
        return Cache(keys, values, valid, self.filled, jnp.repeat(self.next_position, copies))
