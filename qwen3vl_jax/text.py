"""The text decoder: one block, scanned over the layers, with edits going in and readings coming out beside the weights.

Matches `Qwen3VLTextModel` of `transformers/models/qwen3_vl/modeling_qwen3_vl.py`.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

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
LayerOutput = tuple[KeysValues, Readings | None]
"""The keys and values of the tokens of a pass, and what the taps read."""


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
        """`attention_inputs` are those of `Attention` after x."""
        mixed, readings = self.self_attn(self.input_layernorm(x), *attention_inputs)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), readings

    def keys_values(self, x: Float[Array, "batch query embed"], angles: Angles) -> KeysValues:
        return self.self_attn.keys_values(self.input_layernorm(x), angles)


@dataclass(frozen=True, eq=False)  # JAX hashes what it traces, and arrays have no hash
class LayerPass:
    """One layer in one pass: all that it reads beside the stream.

    Attributes:
      number: of the layer, from 0.
      angles: rotations of the tokens of this pass.
      cached: keys and values of the tokens before; None if there are none.
      seen: False at keys, cached or own, that no token may see.
      deepstack: what joins the stream after the first layers, for as many rows as x has, or for fewer, each of which then
        stands for several in a row of x.
      edits: of this layer.
    """

    block: DecoderLayer
    number: Int32[Array, ""]
    angles: Angles
    cached: KeysValues | None
    seen: Bool[Array, "batch key"]
    deepstack: Float[Array, "tap strip query embed"] | None
    edits: Edits | None
    taps: Taps | None

    def __call__(self, x: Float[Array, "batch query embed"]) -> tuple[Float[Array, "batch query embed"], LayerOutput]:
        """The stream after this layer, and what the layer gives beside it."""
        own = self.keys_values(x)
        x, readings = self.attend(x, own)
        x = self.add(x)
        if readings is not None and self.taps is not None and self.taps.residual:
            readings = replace(readings, residual=self.taps.pick(x))
        return x, (own, readings)

    def keys_values(self, x: Float[Array, "batch query embed"]) -> KeysValues:
        return self.block.keys_values(x, self.angles)

    def attend(
        self, x: Float[Array, "batch query embed"], own: KeysValues
    ) -> tuple[Float[Array, "batch query embed"], Readings | None]:
        """Attention and MLP, against what is cached and the keys and values of this pass."""
        parts = (own,) if self.cached is None else (self.cached, own)
        return self.block(x, self.angles, parts, self.seen, self.edits, self.taps)

    def add(self, x: Float[Array, "batch query embed"]) -> Float[Array, "batch query embed"]:
        """With what joins the residual stream after a layer: DeepStack features on the first few, then the residual edit."""
        if self.deepstack is not None and self.deepstack.shape[0] > 0:
            taps, strips = self.deepstack.shape[:2]
            feature = self.deepstack[jnp.minimum(self.number, taps - 1)]
            join = lambda x: x + jnp.repeat(feature, len(x) // strips, axis=0)  # noqa: E731
            x = lax.cond(self.number < taps, join, lambda x: x, x)
        if self.edits is not None and self.edits.residual is not None:
            x = x + self.edits.residual.astype(x.dtype)
        return x

    def of_last_token(self) -> "LayerPass":
        """The same pass for its last token alone."""
        angles = (self.angles[0][:, -1:], self.angles[1][:, -1:])
        edits = self.edits and self.edits.of_last_query()
        return replace(self, angles=angles, deepstack=None, edits=edits, taps=None)


@runtime_checkable
class SomeLayers(Protocol):
    """Layers that need not do all of their work (see `qwen3vl_jax.generation.layer_modes`)."""

    @property
    def modes(self) -> Int32[Array, " layer"]: ...

    def run(self, layer: LayerPass, mode: Int32[Array, ""], x: Array) -> tuple[Array, LayerOutput]:
        """What `layer(x)` gives, as far as it is wanted."""


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
        some: SomeLayers | None = None,
    ) -> tuple[Float[Array, "batch query embed"], LayersKeysValues, Readings | None]:
        """Reads `query` more tokens after those in the cache.

        Args:
          deepstack: see `LayerPass`.
          some: what each layer has to do; all of its work without.

        Returns:
          The stream after the last layer (`norm` is the caller's), the keys and values of these tokens, and the readings.
          The last two have a layer axis in front.
        """
        layers = self.config.num_hidden_layers
        past, first = (0, 0) if cache is None else (cache.slots, cache.filled)
        seen = valid if cache is None else jnp.concatenate([cache.valid, valid], axis=1)
        angles = rope.text_angles(positions, self.config)
        edits = edits and edits.slice_keys(past, first, x.shape[1])
        if taps is not None:
            taps = replace(taps, groups=slice_keys(jnp.asarray(taps.groups), past, first, x.shape[1]))

        def body(x: Array, scanned: tuple[Any, ...]) -> tuple[Array, LayerOutput]:
            block, number, cached, own_edits, mode = scanned
            layer = LayerPass(block, number, angles, cached, seen, deepstack, edits and edits.layer(*own_edits), taps)
            return layer(x) if some is None else some.run(layer, mode, x)

        cached = None if cache is None else (cache.keys, cache.values)
        scanned = (self.layers, jnp.arange(layers), cached, edits and edits.stack(layers), some and some.modes)
        outs: LayerOutput
        x, outs = lax.scan(body, x, scanned, unroll=self.unroll)
        return x, *outs
