"""Rotary positions: interleaved M-RoPE for text, row and column angles for image patches.

Matches `Qwen3VLTextRotaryEmbedding` and `Qwen3VLVisionRotaryEmbedding` of transformers' `modeling_qwen3_vl.py`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from qwen3vl_jax.config import TextConfig, VisionConfig


def inverse_frequencies(dim: int, theta: float) -> Float32[np.ndarray, " half"]:
    """`theta ** (-2j / dim)` for j below dim/2, rounded as float32 like transformers does."""
    exponent = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    frequencies: np.ndarray = (np.float32(1.0) / np.power(np.float32(theta), exponent)).astype(np.float32)
    return frequencies


def frequency_axes(config: TextConfig) -> Int[np.ndarray, " half"]:
    """Which of (time, row, column) drives each frequency: `THWTHW...TT`, interleaved, not in sections."""
    axes = np.zeros(config.head_dim // 2, np.int32)
    for axis in (1, 2):
        axes[axis : 3 * config.mrope_section[axis] : 3] = axis
    return axes


def text_angles(
    positions: Int[Array, "batch seq 3"], config: TextConfig
) -> tuple[Float32[Array, "batch seq head"], Float32[Array, "batch seq head"]]:
    """cos and sin of every token's rotation; `positions` are (time, row, column)."""
    chosen = jnp.take(positions, frequency_axes(config), axis=-1).astype(jnp.float32)
    frequencies = inverse_frequencies(config.head_dim, config.rope_theta)
    angle = chosen * jnp.broadcast_to(frequencies, chosen.shape)
    return _twice(angle)


def vision_angles(
    row_col: Int[Array, "image patch 2"], config: VisionConfig
) -> tuple[Float32[Array, "image patch head"], Float32[Array, "image patch head"]]:
    """cos and sin of every patch's rotation: the first half of the angles follows the row, the second the column."""
    head = config.hidden_size // config.num_heads
    frequencies = jnp.asarray(inverse_frequencies(head // 2, config.rope_theta))
    angle = jnp.einsum("ipa,f->ipaf", row_col.astype(jnp.float32), frequencies, precision="highest")
    return _twice(angle.reshape(*row_col.shape[:2], head // 2))


def rotate(
    x: Float[Array, "batch seq heads head"], cos: Float[Array, "batch seq head"], sin: Float[Array, "batch seq head"]
) -> Float[Array, "batch seq heads head"]:
    """Turns each (j, j + head/2) pair by its angle, in the dtype of `x`."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    return x * cos.astype(x.dtype)[:, :, None] + turned * sin.astype(x.dtype)[:, :, None]


def _twice(angle: Float32[Array, "*shape half"]) -> tuple[Float32[Array, "*shape head"], Float32[Array, "*shape head"]]:
    doubled = jnp.concatenate([angle, angle], axis=-1)
    return jnp.cos(doubled), jnp.sin(doubled)
