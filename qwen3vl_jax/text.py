"""The text decoder: one block, scanned over the layers, with edits going in and readings coming out beside the weights.

Matches `Qwen3VLTextModel` of `transformers/models/qwen3_vl/modeling_qwen3_vl.py`.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32

from qwen3vl_jax import rope
from qwen3vl_jax.attention import KeysValues, attend, read
from qwen3vl_jax.cache import Cache
from qwen3vl_jax.config import TextConfig
from qwen3vl_jax.edits import Edits, Readings, Taps, slice_keys
from qwen3vl_jax.layers import ACTIVATIONS, Embedding, Linear, RMSNorm, stack
from qwen3vl_jax.moe import MoE

Angles = tuple[Float[Array, "batch query head"], Float[Array, "batch query head"]]
LayersKeysValues = tuple[Float[Array, "layer batch kv head query"], Float[Array, "layer batch kv query head"]]
SKIP, KEYS, LAST, RUN = 0, 1, 2, 3
"""What a layer has to do in a pass: nothing, its keys and values, beside these all of the last row, or all of every row."""


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

    def keys_values(self, x: Float[Array, "batch query embed"], angles: Angles) -> KeysValues:
        k = rope.rotate(self.k_norm(self.k_proj(x)), *angles)
        return rearrange(k, "b s kv d -> b kv d s"), rearrange(self.v_proj(x), "b s kv d -> b kv s d")

    def __call__(
        self,
        x: Float[Array, "batch query embed"],
        angles: Angles,
        parts: tuple[KeysValues, ...],
        seen: Bool[Array, "batch key"],
        edits: Edits | None,
        taps: Taps | None,
    ) -> tuple[Float[Array, "batch query embed"], Readings | None]:
        """Returns what joins the stream, and what was read."""
        q = rope.rotate(self.q_norm(self.q_proj(x)), *angles)
        readings = None if taps is None else read(q, parts, seen, edits, taps)
        return self.o_proj(attend(q, parts, seen, edits, causal=True)), readings


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
        self.mlp = (MLP if config.experts is None else MoE)(config, rngs, dtype)

    def __call__(
        self, x: Float[Array, "batch query embed"], *attention_inputs: Any
    ) -> tuple[Float[Array, "batch query embed"], Readings | None]:
        """`attention_inputs` are those of `Attention` behind x."""
        mixed, readings = self.self_attn(self.input_layernorm(x), *attention_inputs)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), readings

    def keys_values(self, x: Float[Array, "batch query embed"], angles: Angles) -> KeysValues:
        return self.self_attn.keys_values(self.input_layernorm(x), angles)


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
        deepstack: Float[Array, "tap strip query embed"] | None,
        cache: Cache | None,
        edits: Edits | None,
        taps: Taps | None,
        work: Int32[Array, "layer"] | None = None,
    ) -> tuple[Float[Array, "batch query embed"], LayersKeysValues, Readings | None]:
        """Reads `query` more tokens behind those in the cache.

        Args:
          deepstack: of as many rows as x has, or of fewer, each of which then stands for several in a row of x.
          work: `SKIP`, `KEYS`, `LAST` or `RUN` for each layer; all of them run without. Nothing is read where not all runs.

        Returns:
          The stream behind the last layer (`norm` is the caller's), the keys and values of these tokens, 0 in layers that
          were skipped, and the readings. The last two have a layer axis in front.
        """
        count, layers = x.shape[1], self.config.num_hidden_layers
        past, first = (0, 0) if cache is None else (cache.slots, cache.filled)
        seen = valid if cache is None else jnp.concatenate([cache.valid, valid], axis=1)
        angles = rope.text_angles(positions, self.config)
        here = edits and edits.slice_keys(past, first, count)
        if taps is not None:
            taps = replace(taps, groups=slice_keys(taps.groups, past, first, count))

        def body(x: Array, scanned: tuple) -> tuple:
            block, number, before, own_edits, work = scanned
            edits = here and here.layer(*own_edits)

            def parts(own: KeysValues) -> tuple[KeysValues, ...]:
                return (own,) if before is None else (before, own)

            def run(x: Array) -> tuple:
                own = block.keys_values(x, angles)
                x, readings = block(x, angles, parts(own), seen, edits, taps)
                x = _behind_layer(x, number, deepstack, edits)
                if readings is not None and taps is not None and taps.residual:
                    rows = jnp.broadcast_to(taps.query_positions, (x.shape[0], taps.query_positions.shape[1]))
                    residual = jnp.take_along_axis(x, rows[:, :, None], axis=1)
                    readings = Readings(readings.mass, readings.value_mass, residual)
                return x, (own, readings)

            if work is None:
                return run(x)
            nothing = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(run, x)[1])
            only_keys = lambda x: (x, (block.keys_values(x, angles), nothing[1]))  # noqa: E731

            def run_last(x: Array) -> tuple:
                own = block.keys_values(x, angles)
                row, angle = (jax.tree.map(lambda leaf: leaf[:, -1:], rows) for rows in (x, angles))
                row, _ = block(row, angle, parts(own), seen, edits and edits.of_last_row(), None)
                return _behind_layer(x.at[:, -1:].set(row), number, deepstack, edits), (own, nothing[1])

            return lax.switch(work, [lambda x: (x, nothing), only_keys, run_last, run], x)

        before = None if cache is None else (cache.keys, cache.values)
        own_edits_by_layer = here and here.stack(layers)
        outs: tuple[LayersKeysValues, Readings | None]
        x, outs = lax.scan(
            body, x, (self.layers, jnp.arange(layers), before, own_edits_by_layer, work), unroll=self.unroll
        )
        return x, *outs


def _behind_layer(
    x: Float[Array, "batch query embed"],
    layer: Int32[Array, ""],
    deepstack: Float[Array, "tap strip query embed"] | None,
    edits: Edits | None,
) -> Float[Array, "batch query embed"]:
    """What joins the residual stream behind a layer: DeepStack features on the first few, then the residual edit."""
    if deepstack is not None and deepstack.shape[0] > 0:
        taps, strips = deepstack.shape[:2]
        feature = deepstack[jnp.minimum(layer, taps - 1)]
        x = lax.cond(layer < taps, lambda x: x + jnp.repeat(feature, len(x) // strips, axis=0), lambda x: x, x)
    if edits is not None and edits.residual is not None:
        x = x + edits.residual.astype(x.dtype)
    return x
