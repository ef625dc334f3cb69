"""The two programs that a run spends its time in, with inputs that have shapes and places but no values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike

from gaze.discovery.scores import panel_attention
from gaze.steering.masks import Steering
from qwen3vl_jax.config import Config
from qwen3vl_jax.generation.decoding import generate
from qwen3vl_jax.generation.layer_modes import LayerMode
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.sharding import shardings
from qwen3vl_jax.vision import Vision

PANELS = 6
PATCHES = 96 * 16
"""Of a strip of 1536 x 256 pixels; four of them are one image token."""
PREFIX, QUESTION = 404, 16
"""Tokens of a prompt up to the word that names the panel, and from there on."""
ANSWER = 15
"""Tokens of a steered answer."""
TAKEN = {2: 0, 4: LayerMode.FULL}
"""Of two branches the first, which takes the likeliest token; of four the one in which a layer does all its work."""


@dataclass(frozen=True)
class Program:
    """Something to compile.

    Attributes:
      lower: from an abstract model, its mesh and a number of strips.
      passes: how often its loop over tokens runs, whose end depends on data; 1 without one.
    """

    name: str
    lower: Callable[[Qwen3VL, Mesh, int], jax.stages.Lowered]
    passes: int


def abstract_model(config: Config, mesh: Mesh) -> Qwen3VL:
    """A bfloat16 model without weights, laid out on the mesh."""
    model = nnx.eval_shape(lambda: Qwen3VL(config, nnx.Rngs(0), jnp.bfloat16))
    placed: Qwen3VL = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), model, shardings(model, mesh)
    )
    return placed


def lower_discovery(model: Qwen3VL, mesh: Mesh, strips: int) -> jax.stages.Lowered:
    """`gaze.discovery.scores.panel_attention`: each strip encoded and read once, and six questions asked about it."""
    put = Placer(mesh)
    pixels = model.model.visual.patch_embed.proj.weight.shape[0]
    images = Images(
        patches=put((strips, PATCHES, pixels), jnp.float32),
        valid=put((strips, PATCHES), bool),
        pos_index=put((strips, PATCHES, 4), jnp.int32),
        pos_weight=put((strips, PATCHES, 4), jnp.float32),
        row_col=put((strips, PATCHES, 2), jnp.int32),
        groups=strips,
    )
    prefix, questions = put.prompt(strips, PREFIX, True), put.prompt(strips * PANELS, QUESTION, False)
    groups = put((strips, PANELS, PREFIX), bool)
    # Unused arguments are kept: they take room on the chip, too.
    return jax.jit(panel_attention, keep_unused=True).lower(model, images, prefix, questions, groups)


def lower_steering(model: Qwen3VL, mesh: Mesh, strips: int) -> jax.stages.Lowered:
    """`generate` with a `gaze.steering.masks.Steering`: per strip one answer steered to each panel."""
    put, rows = Placer(mesh), strips * PANELS
    text, length = model.config.text, PREFIX + QUESTION
    cells = PATCHES // model.config.vision.spatial_merge_size**2
    taps = len(model.config.vision.taps)
    vision = Vision(
        embeds=put((strips, cells, text.hidden_size), jnp.bfloat16),
        deepstack=put((taps, strips, cells, text.hidden_size), jnp.bfloat16, axis=1),
        groups=strips,
    )
    plan = Steering(
        heads=put((rows, text.num_hidden_layers, text.num_attention_heads), jnp.float32),
        signs=put((rows, PANELS, length + 1), jnp.float32),
        targets=put((rows, 2), jnp.int32),
        strength=put((rows,), jnp.float32),
        replace_scores=put((rows,), bool),
        query_mask=put((rows, length + 1), jnp.float32),
    )
    sampling = jax.tree.map(lambda leaf: put(leaf.shape, leaf.dtype, axis=None), Sampling.make(stop=[0, 1]))
    key = put((), jax.random.key(0).dtype)
    run = jax.jit(generate, static_argnames="max_new", keep_unused=True)
    return run.lower(model, put.prompt(rows, length, True), vision, plan, sampling, key, max_new=ANSWER)


PROGRAMS = (Program("discovery", lower_discovery, 1), Program("steering", lower_steering, ANSWER - 1))


@dataclass(frozen=True)
class Placer:
    """Makes abstract arrays whose rows are split over the data axis."""

    mesh: Mesh

    def __call__(self, shape: tuple[int, ...], dtype: DTypeLike, axis: int | None = 0) -> Any:
        split = P() if axis is None or not shape else P(*[None] * axis, "data")
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, split))

    def prompt(self, rows: int, length: int, pictures: bool) -> Prompt:
        shape = (rows, length)
        cells = self(shape, jnp.int32) if pictures else None
        return Prompt(self(shape, jnp.int32), self((*shape, 3), jnp.int32), self(shape, bool), cells)
