"""The vision tower: patches to image tokens, and to the DeepStack features that early decoder layers receive.

Matches `Qwen3VLVisionModel` of `transformers/models/qwen3_vl/modeling_qwen3_vl.py`. Every image is a row of a batch, so no
image sees another one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx, struct
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from qwen3vl_jax import rope
from qwen3vl_jax.attention import attend
from qwen3vl_jax.config import VisionConfig
from qwen3vl_jax.inputs import Images
from qwen3vl_jax.layers import ACTIVATIONS, Embedding, LayerNorm, Linear, Module, stack

Angles = tuple[Float[Array, "image patch head"], Float[Array, "image patch head"]]


@struct.dataclass
class Vision:
    """Encoded images.

    Attributes:
      embeds: what stands at the image placeholders of the prompt.
      deepstack: what is added there after decoder layers 0, 1, ...
      groups: see `Images`.
    """

    embeds: Float[Array, "image cell embed"]
    deepstack: Float[Array, "tap image cell embed"]
    groups: int = struct.field(pytree_node=False, default=1)

    def at(
        self, cells: Int[Array, "batch seq"]
    ) -> tuple[Float[Array, "batch seq embed"], Float[Array, "tap batch seq embed"]]:
        """What stands at the cells of a batch of prompts, and what is added there; anything where a cell is negative."""
        local = jnp.maximum(cells, 0).reshape(self.groups, -1) % (
            self.embeds.shape[0] // self.groups * self.embeds.shape[1]
        )

        def pick(parts: Float[Array, "image cell embed"]) -> Float[Array, "batch seq embed"]:
            grouped = parts.reshape(self.groups, -1, parts.shape[-1])
            return jnp.take_along_axis(grouped, local[:, :, None], axis=1).reshape(*cells.shape, -1)

        return pick(self.embeds), jax.vmap(pick)(self.deepstack)


class PatchEmbed(nnx.Module):
    """The patch convolution. Stride equals kernel, so on flattened patches it is one matrix."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        pattern = "width channel frame row col -> (channel frame row col) width"
        self.proj = Linear("pixel -> width", config.axes, rngs, dtype, bias=True, pattern=pattern)

    def __call__(self, patches: Float[Array, "image patch pixel"]) -> Float[Array, "image patch width"]:
        return self.proj(patches.astype(self.proj.weight.dtype))


class VisionAttention(nnx.Module):
    def __init__(self, config: VisionConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        # Heads first, so that a mesh can split what is computed between them.
        self.qkv = Linear("width -> heads three head", config.axes, rngs, dtype, bias=True, rows="three heads head")
        # The file's input columns are head-major, which is the vision width again.
        self.proj = Linear("heads head -> width", config.axes, rngs, dtype, bias=True)

    def __call__(
        self, x: Float[Array, "image patch width"], angles: Angles, valid: Bool[Array, "image patch"]
    ) -> Float[Array, "image patch width"]:
        q, k, v = jnp.unstack(self.qkv(x), axis=3)
        q, k = (rope.rotate(t.astype(jnp.float32), *angles).astype(x.dtype) for t in (q, k))
        k, v = rearrange(k, "b s h d -> b h d s"), rearrange(v, "b s h d -> b h s d")
        return self.proj(attend(q, ((k, v),), valid, causal=False))


class VisionMLP(nnx.Module):
    def __init__(self, config: VisionConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.linear_fc1 = Linear("width -> mlp", config.axes, rngs, dtype, bias=True)
        self.linear_fc2 = Linear("mlp -> width", config.axes, rngs, dtype, bias=True)
        self.act = config.hidden_act

    def __call__(self, x: Float[Array, "image patch width"]) -> Float[Array, "image patch width"]:
        return self.linear_fc2(ACTIVATIONS[self.act](self.linear_fc1(x)))


class VisionBlock(nnx.Module):
    def __init__(self, config: VisionConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.norm1 = LayerNorm("width", config.axes, rngs, dtype)
        self.norm2 = LayerNorm("width", config.axes, rngs, dtype)
        self.attn = VisionAttention(config, rngs, dtype)
        self.mlp = VisionMLP(config, rngs, dtype)

    def __call__(
        self, x: Float[Array, "image patch width"], angles: Angles, valid: Bool[Array, "image patch"]
    ) -> Float[Array, "image patch width"]:
        x = x + self.attn(self.norm1(x), angles, valid)
        return x + self.mlp(self.norm2(x))


class PatchMerger(nnx.Module):
    """Four neighbouring patches to one image token: the norm comes before the shuffle, or (DeepStack) after it."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs, dtype: DTypeLike, *, norm_after: bool) -> None:
        self.merge, self.norm_after = config.spatial_merge_size**2, norm_after
        self.norm = LayerNorm("block" if norm_after else "width", config.axes, rngs, dtype)
        axes = {**config.axes, "hidden": config.axes["block"]}
        self.linear_fc1 = Linear("block -> hidden", axes, rngs, dtype, bias=True)
        self.linear_fc2 = Linear("hidden -> embed", axes, rngs, dtype, bias=True)

    def __call__(self, x: Float[Array, "image patch width"]) -> Float[Array, "image cell embed"]:
        x = x if self.norm_after else self.norm(x)
        x = rearrange(x, "i (cell m) w -> i cell (m w)", m=self.merge)
        x = self.norm(x) if self.norm_after else x
        # Exact GELU here, tanh in the blocks: the two differ by 5e-4.
        return self.linear_fc2(jax.nn.gelu(self.linear_fc1(x), approximate=False))


class VisionTower(nnx.Module):
    """`depth` blocks, a main merger after the last one and a DeepStack merger after each tapped one."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs, dtype: DTypeLike) -> None:
        self.config = config
        self.patch_embed = PatchEmbed(config, rngs, dtype)
        self.pos_embed = Embedding("position width -> position width", config.axes, rngs, dtype)
        self.blocks = stack(config.depth, lambda rngs: VisionBlock(config, rngs, dtype), rngs)
        self.merger = PatchMerger(config, rngs, dtype, norm_after=False)
        count = len(config.deepstack_visual_indexes)
        build = lambda rngs: PatchMerger(config, rngs, dtype, norm_after=True)  # noqa: E731
        self.deepstack_merger_list = stack(count, build, rngs) if count else None

    def __call__(self, images: Images) -> Vision:
        """Encodes all images at once, a padded one into as many cells as the largest."""
        x = self.patch_embed(jnp.asarray(images.patches)) + self._positions(images)
        angles = rope.vision_angles(jnp.asarray(images.row_col), self.config)
        valid = jnp.asarray(images.valid)
        x, tapped = self._run(x, angles, valid)
        embeds = self.merger(x)
        if self.deepstack_merger_list is None:
            return Vision(embeds, jnp.zeros((0, *embeds.shape), embeds.dtype), images.groups)
        order = jnp.array([merger for _, merger in self.config.taps], jnp.int32)
        deepstack = lax.map(lambda tap: _at(self.deepstack_merger_list, tap[0])(tap[1]), (order, tapped))
        return Vision(embeds, deepstack, images.groups)

    def _run(
        self, x: Float[Array, "image patch width"], angles: Angles, valid: Bool[Array, "image patch"]
    ) -> tuple[Float[Array, "image patch width"], Float[Array, "tap image patch width"]]:
        """All blocks; returns the stream after the last one, and after each tapped one."""
        taps = self.config.taps
        slots = np.full(self.config.depth, len(taps), np.int32)
        slots[[block for block, _ in taps]] = np.arange(len(taps))

        def run(state: tuple[Array, Array], scanned: tuple[VisionBlock, Array]) -> tuple[tuple[Array, Array], None]:
            (x, tapped), (block, slot) = state, scanned
            x = block(x, angles, valid)
            return (x, tapped.at[slot].set(x, mode="drop") if taps else tapped), None

        # What is tapped is carried along: loops from tap to tap would copy the weights of their blocks.
        tapped = jnp.zeros((len(taps), *x.shape), x.dtype)
        return lax.scan(run, (x, tapped), (self.blocks, jnp.asarray(slots)))[0]

    def _positions(self, images: Images) -> Float[Array, "image patch width"]:
        taps = self.pos_embed(jnp.asarray(images.pos_index)).astype(jnp.float32)
        return jnp.einsum("iptw,ipt->ipw", taps, images.pos_weight, precision="highest").astype(
            self.pos_embed.weight.dtype
        )


def _at(stacked: Module, number: Int[Array, ""]) -> Module:
    layer: Module = jax.tree.map(lambda x: x[number], stacked)
    return layer
