"""Keys and values of what has been read so far."""

from dataclasses import replace

import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32, Shaped

from qwen3vl_jax.config import TextConfig


@struct.dataclass
class Cache:
    """A fixed number of slots per row; rows are left-padded, so every row fills the same slots.

    Attributes:
      keys, values: rotated keys and values of every slot.
      valid: False at slots that hold padding or nothing yet.
      filled: number of slots in use.
      next_position: the M-RoPE position of each row's next text token.
    """

    keys: Float[Array, "layer batch kv head slot"]
    values: Float[Array, "layer batch kv slot head"]
    valid: Bool[Array, "batch slot"]
    filled: Int32[Array, ""]
    next_position: Int32[Array, "batch"]

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

    @property
    def slots(self) -> int:
        return self.keys.shape[4]

    def write(
        self,
        keys: Float[Array, "layer batch kv head seq"],
        values: Float[Array, "layer batch kv seq head"],
        valid: Bool[Array, "batch seq"],
        positions: Int32[Array, "batch seq 3"],
    ) -> "Cache":
        """With more tokens in the next slots; there must be room for them."""
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
            behind = [(0, room if axis == slots else 0) for axis in range(x.ndim)]
            return jnp.pad(jnp.repeat(x, copies, axis=rows), behind)

        keys, values, valid = roomy(self.keys, 1, 4), roomy(self.values, 1, 3), roomy(self.valid, 0, 1)
        return Cache(keys, values, valid, self.filled, jnp.repeat(self.next_position, copies))
