"""Toy Qwen3-VL models, the same weights as transformers' module and as ours, and prompts for both."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import (
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from qwen3vl_jax.config import Config
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.positions import batch_images, image_cells, rope_positions
from qwen3vl_jax.vision import Vision
from qwen3vl_jax.weights import assemble

# On toys, threads that wait for each other cost a hundred times the work.
torch.set_num_threads(1)

IMAGE, VIDEO, START, END = 250, 251, 248, 249
TEXT = dict(
    vocab_size=256,
    hidden_size=48,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=4096,
    rms_norm_eps=1e-6,
)
ROPE = dict(rope_type="default", rope_theta=5_000_000, mrope_section=[4, 2, 2], mrope_interleaved=True)
VISION = dict(
    depth=4,
    hidden_size=32,
    intermediate_size=56,
    num_heads=2,
    patch_size=4,
    temporal_patch_size=2,
    spatial_merge_size=2,
    out_hidden_size=48,
    num_position_embeddings=36,
    deepstack_visual_indexes=[0, 1, 2],
    hidden_act="gelu_pytorch_tanh",
)
EXPERTS = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=20)
REFERENCES = {
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLForConditionalGeneration),
    "qwen3_vl_moe": (Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration),
}
SPECIAL = dict(image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END)

Grid = tuple[int, int]
Clip = tuple[int, int, int]
"""Temporal patches, and the grid of each."""


def raw_config(
    text: dict[str, Any] | None = None,
    rope: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    tied: bool = True,
) -> dict[str, Any]:
    """`config.json` of a toy that differs from the usual one in the given entries."""
    return dict(
        model_type="qwen3_vl",
        text_config=TEXT | {"rope_parameters": ROPE | (rope or {})} | (text or {}),
        vision_config=VISION | (vision or {}),
        tie_word_embeddings=tied,
        **SPECIAL,
    )


def moe_config(text: dict[str, Any] | None = None, tied: bool = False) -> dict[str, Any]:
    """The same with a mixture of experts in each layer."""
    return raw_config(EXPERTS | (text or {}), tied=tied) | dict(model_type="qwen3_vl_moe")


class Toy(NamedTuple):
    """The same weights twice."""

    reference: Any
    model: Qwen3VL

    @property
    def config(self) -> Config:
        return self.model.config


def make_toy(
    raw: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    noise: float = 0.25,
    adjust: Callable[[Any], None] = lambda reference: None,
) -> Toy:
    """Transformers' model with noise on every parameter (biases start at 0 and norms at 1), and ours with its weights."""
    config_of, model_of = REFERENCES[raw["model_type"]]
    config = config_of(**{key: value for key, value in raw.items() if key != "model_type"})
    config._attn_implementation = config._experts_implementation = "eager"
    torch.manual_seed(0)
    # Not `.to(dtype)`, which would round the rotary frequencies too.
    reference = model_of._from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
        adjust(reference)
    state = {name: value.float().numpy() for name, value in reference.state_dict().items()}
    ours = jnp.bfloat16 if dtype == torch.bfloat16 else jnp.float32
    return Toy(reference, assemble(Config.from_dict(raw), lambda tensor: tensor.to_flax(state[tensor.name]), ours))


class Row(NamedTuple):
    """One prompt, without padding: tokens, its pictures as (patch rows, grid), and which of them make a video."""

    tokens: np.ndarray
    pictures: list[tuple[np.ndarray, Grid]]
    videos: tuple[slice, ...] = ()

    def more(self, tokens: Sequence[int]) -> "Row":
        """The same row with text after it."""
        return self._replace(tokens=np.concatenate([self.tokens, np.asarray(tokens, np.int32)]))

    def reference(self) -> dict[str, torch.Tensor]:
        """What transformers' model takes."""
        ids = torch.tensor(self.tokens).long()[None]
        given = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
        if self.pictures:
            given["mm_token_type_ids"] = (ids == IMAGE) + 2 * (ids == VIDEO)
        clips = [self.pictures[part] for part in self.videos]
        moving = {number for part in self.videos for number in range(part.start, part.stop)}
        stills = [[picture] for number, picture in enumerate(self.pictures) if number not in moving]
        for kind, pixels, groups in (("image", "pixel_values", stills), ("video", "pixel_values_videos", clips)):
            if groups:
                given[pixels] = torch.tensor(np.concatenate([rows for group in groups for rows, _ in group]))
                given[f"{kind}_grid_thw"] = torch.tensor([[len(group), *group[0][1]] for group in groups])
        return given


def make_row(shown: Sequence[Grid | Clip], words: int = 4, seed: int = 0, pixels: int = 96) -> Row:
    """`words` random words, then each picture or video with two words after it, then `words` more.

    A video's temporal patches stand after three words each, its timestamp.
    """
    rng = np.random.default_rng(seed)
    text = lambda count: rng.integers(1, START, count).tolist()  # noqa: E731
    tokens, grids, videos = text(words), [], []
    for *time, rows, cols in shown:
        cells, count = rows * cols // 4, sum(time)
        clip = [token for _ in range(count) for token in (*text(3), START, *[VIDEO] * cells, END)]
        tokens += [START, *(clip or [IMAGE] * cells), END, *text(2)]
        videos += [slice(len(grids), len(grids) + count)] * len(time)
        grids += [(rows, cols)] * (count or 1)
    pictures = [(rng.normal(size=(rows * cols, pixels)).astype(np.float32), (rows, cols)) for rows, cols in grids]
    return Row(np.array(tokens + text(words), np.int32), pictures, tuple(videos))


def batch_rows(rows: Sequence[Row], config: Config, length: int | None = None) -> tuple[Images | None, Prompt]:
    """Our inputs for rows of different lengths, padded on the left."""
    pictures = [picture for row in rows for picture in row.pictures]
    images = batch_images(pictures, config) if pictures else None
    stride = images.patches.shape[1] // 4 if images is not None else 0
    positions, cells, number = [], [], 0
    for row in rows:
        grids = [grid for _, grid in row.pictures]
        numbers = range(number, number + len(grids))
        positions.append(rope_positions(row.tokens, grids, config))
        cells.append(image_cells(row.tokens, numbers, grids, stride, config))
        number += len(grids)
    room = length or max(len(row.tokens) for row in rows)
    tokens = _pad([row.tokens for row in rows], room, 0)
    valid = _pad([np.ones(len(row.tokens), bool) for row in rows], room, False)
    prompt = Prompt(tokens, _pad(positions, room, 0), valid, _pad(cells, room, -1) if pictures else None)
    return images, prompt


def last_row(length: int) -> Taps:
    """The attention of the last token, key by key."""
    return Taps(jnp.array([[length - 1]], jnp.int32), jnp.eye(length, dtype=jnp.float32)[None])


def encode(model: Qwen3VL, images: Images) -> Vision:
    """`model.encode`, compiled once for all models with the same vision tower."""
    return _encode(model.model.visual, images)


_encode = jax.jit(lambda visual, images: visual(images))


@jax.jit
def read(model, prompt, vision, edits=None, taps=None):
    """One pass: logits of every token, and the rest of the output."""
    output = model(prompt, vision, edits=edits, taps=taps)
    return model.logits(output.hidden), output


@jax.jit
def follow(model, prompt, vision, tokens, plan=None):
    """Logits after the prompt and after each of `tokens` [batch, step], read one by one into a cache."""
    batch, length = prompt.tokens.shape
    slots = length + tokens.shape[1]
    at = lambda step: None if plan is None else plan.at(step, slots)  # noqa: E731
    first = model(prompt, vision, model.empty_cache(batch, slots), at(jnp.int32(0)))

    def body(cache, reading):
        step, token = reading
        output = model.extend(token[:, None], cache, at(step))
        return output.cache, model.logits(output.hidden[:, 0])

    steps = jnp.arange(1, tokens.shape[1] + 1, dtype=jnp.int32)
    _, rest = jax.lax.scan(body, first.cache, (steps, tokens.T))
    return jnp.concatenate([model.logits(first.hidden[:, -1])[:, None], rest.transpose(1, 0, 2)], axis=1)


def _pad(rows: Sequence[np.ndarray], room: int, fill: int) -> np.ndarray:
    widths = [[(room - len(row), 0), *[(0, 0)] * (row.ndim - 1)] for row in rows]
    return np.stack([np.pad(row, width, constant_values=fill) for row, width in zip(rows, widths, strict=True)])
