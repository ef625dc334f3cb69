"""Keys and values of what has been read so far."""

from dataclasses import replace

import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32

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

    keys: Float[Array, "layer batch kv slot head"]
    values: Float[Array, "layer batch kv slot head"]
    valid: Bool[Array, "batch slot"]
    filled: Int32[Array, ""]
    next_position: Int32[Array, "batch"]

    @classmethod
    def empty(cls, config: TextConfig, batch: int, slots: int, dtype: DTypeLike) -> "Cache":
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, slots, config.head_dim)
        return cls(
            keys=jnp.zeros(shape, dtype),
            values=jnp.zeros(shape, dtype),
            valid=jnp.zeros((batch, slots), bool),
            filled=jnp.zeros((), jnp.int32),
            next_position=jnp.zeros((batch,), jnp.int32),
        )

    @property
    def slots(self) -> int:
        return self.keys.shape[3]

    def write(
        self,
        keys: Float[Array, "layer batch kv seq head"],
        values: Float[Array, "layer batch kv seq head"],
        valid: Bool[Array, "batch seq"],
        positions: Int32[Array, "batch seq 3"],
    ) -> "Cache":
        """With more tokens in the next slots; there must be room for them."""
        last = jnp.max(positions, axis=(1, 2), where=valid[:, :, None], initial=-1)
        return Cache(
            keys=lax.dynamic_update_slice_in_dim(self.keys, keys, self.filled, axis=3),
            values=lax.dynamic_update_slice_in_dim(self.values, values, self.filled, axis=3),
            valid=lax.dynamic_update_slice_in_dim(self.valid, valid, self.filled, axis=1),
            filled=self.filled + valid.shape[1],
            next_position=jnp.maximum(self.next_position, last + 1),
        )

    def upto(self, slots: int) -> "Cache":
        """Its first slots."""
        return replace(
            self, keys=self.keys[:, :, :, :slots], values=self.values[:, :, :, :slots], valid=self.valid[:, :slots]
        )

    def turned(self, count: int) -> "Cache":
        """Ready for one more token: if all slots are used, the last `count` of them are used again from the first on."""
        slots = self.slots
        return replace(self, filled=jnp.where(self.filled < slots, self.filled, slots - count))

    def branch(self, copies: int, room: int) -> "Cache":
        """Every row `copies` times in a row, with `room` more empty slots: several continuations of one prefix."""

        def roomy(x: Float[Array, "layer batch kv slot head"]) -> Float[Array, "layer rows kv slots head"]:
            return jnp.pad(jnp.repeat(x, copies, axis=1), ((0, 0), (0, 0), (0, 0), (0, room), (0, 0)))

        valid = jnp.pad(jnp.repeat(self.valid, copies, axis=0), ((0, 0), (0, room)))
        next_position = jnp.repeat(self.next_position, copies)
        return Cache(roomy(self.keys), roomy(self.values), valid, self.filled, next_position)
