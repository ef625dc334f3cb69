"""Keys and values of what has been read so far."""

import jax
import jax.numpy as jnp
from flax import struct
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

    keys: Float[Array, "layer batch slot kv head"]
    values: Float[Array, "layer batch slot kv head"]
    valid: Bool[Array, "batch slot"]
    filled: Int32[Array, ""]
    next_position: Int32[Array, "batch"]

    @classmethod
    def empty(cls, config: TextConfig, batch: int, slots: int, dtype: DTypeLike) -> "Cache":
        shape = (config.num_hidden_layers, batch, slots, config.num_key_value_heads, config.head_dim)
        return cls(
            keys=jnp.zeros(shape, dtype),
            values=jnp.zeros(shape, dtype),
            valid=jnp.zeros((batch, slots), bool),
            filled=jnp.zeros((), jnp.int32),
            next_position=jnp.zeros((batch,), jnp.int32),
        )

    @property
    def slots(self) -> int:
        return self.keys.shape[2]

    def branch(self, copies: int, room: int) -> "Cache":
        """Every row `copies` times in a row, with `room` more empty slots: several continuations of one prefix."""
        copied: Cache = jax.tree.map(
            lambda x: x if x.ndim == 0 else jnp.repeat(x, copies, axis=1 if x.ndim == 5 else 0), self
        )
        roomy = [jnp.pad(x, ((0, 0), (0, 0), (0, room), (0, 0), (0, 0))) for x in (copied.keys, copied.values)]
        valid = jnp.pad(copied.valid, ((0, 0), (0, room)))
        return Cache(roomy[0], roomy[1], valid, copied.filled, copied.next_position)
