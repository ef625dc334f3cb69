"""The text decoder: one block, scanned over the layers, with edits going in and readings coming out beside the weights.

Matches `Qwen3VLTextModel` of `transformers/models/qwen3_vl/modeling_qwen3_vl.py`.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32

from qwen3vl_jax import rope
from qwen3vl_jax.attention import attend
from qwen3vl_jax.cache import Cache
from qwen3vl_jax.config import TextConfig
from qwen3vl_jax.edits import Edits, Readings, Taps
from qwen3vl_jax.layers import ACTIVATIONS, Embedding, Linear, RMSNorm, stack

Angles = tuple[Float[Array, "batch query head"], Float[Array, "batch query head"]]
Slots = Float[Array, "batch slot kv head"]


class Attention(nnx.Module):
    """Grouped-query attention with normed queries and keys, against the cache."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        axes, bias = config.axes, config.attention_bias
        self.q_proj = Linear("embed -> heads head", axes, rngs, dtype, bias=bias)
        self.k_proj = Linear("embed -> kv head", axes, rngs, dtype, bias=bias)
        self.v_proj = Linear("embed -> kv head", axes, rngs, dtype, bias=bias)
        self.o_proj = Linear("heads head -> embed", axes, rngs, dtype, bias=bias)
        self.q_norm = RMSNorm("head", axes, config.rms_norm_eps, rngs, dtype)
        self.k_norm = RMSNorm("head", axes, config.rms_norm_eps, rngs, dtype)

    def __call__(
        self,
        x: Float[Array, "batch query embed"],
        angles: Angles,
        slots: tuple[Slots, Slots],
        filled: Int32[Array, ""],
        allowed: Bool[Array, "batch query slot"],
        edits: Edits | None,
        taps: Taps | None,
    ) -> tuple[Float[Array, "batch query embed"], tuple[Slots, Slots], Readings | None]:
        q = rope.rotate(self.q_norm(self.q_proj(x)), *angles)
        k = rope.rotate(self.k_norm(self.k_proj(x)), *angles)
        keys = lax.dynamic_update_slice_in_dim(slots[0], k, filled, axis=1)
        values = lax.dynamic_update_slice_in_dim(slots[1], self.v_proj(x), filled, axis=1)
        mixed, readings = attend(q, keys, values, allowed, edits, taps)
        return self.o_proj(mixed), (keys, values), readings


class MLP(nnx.Module):
    def __init__(self, config: TextConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.gate_proj = Linear("embed -> mlp", config.axes, rngs, dtype, bias=False)
        self.up_proj = Linear("embed -> mlp", config.axes, rngs, dtype, bias=False)
        self.down_proj = Linear("mlp -> embed", config.axes, rngs, dtype, bias=False)
        self.act = config.hidden_act

    def __call__(self, x: Float[Array, "batch query embed"]) -> Float[Array, "batch query embed"]:
        return self.down_proj(ACTIVATIONS[self.act](self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nnx.Module):
    def __init__(self, config: TextConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.input_layernorm = RMSNorm("embed", config.axes, config.rms_norm_eps, rngs, dtype)
        self.post_attention_layernorm = RMSNorm("embed", config.axes, config.rms_norm_eps, rngs, dtype)
        self.self_attn = Attention(config, rngs, dtype)
        self.mlp = MLP(config, rngs, dtype)

    def __call__(
        self, x: Float[Array, "batch query embed"], *attention_inputs: Any
    ) -> tuple[Float[Array, "batch query embed"], tuple[Slots, Slots], Readings | None]:
        """`attention_inputs` are those of `Attention` behind x."""
        mixed, slots, readings = self.self_attn(self.input_layernorm(x), *attention_inputs)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), slots, readings


class Decoder(nnx.Module):
    """Embedding table, layers, final norm."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.config = config
        self.unroll = 1  # layers per iteration of the loop: more is slower to compile and, on a CPU, faster to train
        self.embed_tokens = Embedding("vocab embed -> vocab embed", config.axes, rngs, dtype)
        self.layers = stack(config.num_hidden_layers, lambda rngs: DecoderLayer(config, rngs, dtype), rngs)
        self.norm = RMSNorm("embed", config.axes, config.rms_norm_eps, rngs, dtype)

    def __call__(
        self,
        x: Float[Array, "batch query embed"],
        positions: Int32[Array, "batch query 3"],
        valid: Bool[Array, "batch query"],
        deepstack: Float[Array, "tap batch query embed"] | None,
        cache: Cache,
        edits: Edits | None,
        taps: Taps | None,
    ) -> tuple[Float[Array, "batch query embed"], Cache, Readings | None]:
        """Reads `query` more tokens behind those in the cache.

        Returns:
          The final-normed stream, the filled cache and the readings with their layer axis in front.
        """
        count = x.shape[1]
        seen = lax.dynamic_update_slice_in_dim(cache.valid, valid, cache.filled, axis=1)
        # Causality goes by slot: M-RoPE positions repeat within an image.
        order = jnp.arange(cache.slots)[None, :] <= (cache.filled + jnp.arange(count))[:, None]
        allowed = seen[:, None, :] & order[None]
        angles = rope.text_angles(positions, self.config)

        def body(x: Array, layer: tuple) -> tuple:
            block, number, slots, edits = layer
            x, slots, readings = block(x, angles, slots, cache.filled, allowed, edits, taps)
            x = _behind_layer(x, number, deepstack, edits)
            if readings is not None and taps is not None and taps.residual:
                rows = jnp.broadcast_to(taps.rows, (x.shape[0], taps.rows.shape[1]))
                read = jnp.take_along_axis(x, rows[:, :, None], axis=1)
                readings = Readings(readings.mass, readings.value_mass, read)
            return x, (slots, readings)

        layers = self.config.num_hidden_layers
        by_layer = edits and edits.by_layer(layers, cache.filled, count)
        scanned = (self.layers, jnp.arange(layers), (cache.keys, cache.values), by_layer)
        outs: tuple[tuple[Slots, Slots], Readings | None]
        x, outs = lax.scan(body, x, scanned, unroll=self.unroll)
        (keys, values), readings = outs
        last = jnp.max(positions, axis=(1, 2), where=valid[:, :, None], initial=-1)
        next_position = jnp.maximum(cache.next_position, last + 1)
        return self.norm(x), Cache(keys, values, seen, cache.filled + count, next_position), readings


def _behind_layer(
    x: Float[Array, "batch query embed"],
    layer: Int32[Array, ""],
    deepstack: Float[Array, "tap batch query embed"] | None,
    edits: Edits | None,
) -> Float[Array, "batch query embed"]:
    """What joins the residual stream behind a layer: DeepStack features on the first few, then the residual edit."""
    if deepstack is not None and deepstack.shape[0] > 0:
        taps = deepstack.shape[0]
        x = x + jnp.where(layer < taps, deepstack[jnp.minimum(layer, taps - 1)], 0)
    if edits is not None and edits.residual is not None:
        x = x + edits.residual.astype(x.dtype)
    return x
