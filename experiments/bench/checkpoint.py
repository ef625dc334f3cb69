"""Random models as checkpoints that both sides open, and random strips to show them."""

import json
import math
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import DTypeLike
from PIL import Image

from convert.safetensors_writer import write_safetensors
from gaze.pictures.strips import Strip
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.config import Config
from qwen3vl_jax.load.checkpoint import SIDE_FILES
from qwen3vl_jax.weights import tensors

PANELS, SIZE = 6, (1536, 256)
SPECIAL: dict[str, int] = {
    name: json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))[name]
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
}
"""Tokens of the testbed's tokenizer, which goes with every model."""

# 250 million parameters.
MEDIUM: dict[str, Any] = dict(
    model_type="qwen3_vl",
    **SPECIAL,
    text_config=dict(
        model_type="qwen3_vl_text",
        vocab_size=8192,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=14,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=128,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_theta=5_000_000.0,
        rope_scaling=dict(rope_type="default", mrope_section=[24, 20, 20], mrope_interleaved=True),
    ),
    vision_config=dict(
        model_type="qwen3_vl",
        depth=12,
        hidden_size=512,
        intermediate_size=2048,
        num_heads=8,
        out_hidden_size=1024,
        num_position_embeddings=2304,
        deepstack_visual_indexes=[2, 5, 8],
        patch_size=16,
        spatial_merge_size=2,
        temporal_patch_size=2,
    ),
    tie_word_embeddings=True,
)

Draw = Callable[[str, tuple[int, ...]], Shaped[np.ndarray, "..."]]
"""Makes a tensor of a name and a shape."""


def normal(seed: int = 0) -> Draw:
    """Float32: matrices that keep the size of what they are given, and noise on norms and biases, so that all of them matter."""
    seeds = count(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = np.random.default_rng(next(seeds)).standard_normal(shape, np.float32)
        if len(shape) > 1:
            return values * np.float32(math.prod(shape[1:]) ** -0.5)
        is_scale = "norm" in name and name.endswith("weight")
        return values * np.float32(0.1) + np.float32(is_scale)

    return draw


def write_checkpoint(
    folder: Path, raw: dict[str, Any], dtype: DTypeLike = np.float32, draw: Draw | None = None
) -> None:
    """A folder as Hugging Face has them, with the testbed's tokenizer; never more than one tensor in memory."""
    raw = raw | SPECIAL
    declared = tensors(Config.from_dict(raw))
    make, kind = draw or normal(), np.dtype(dtype)
    for name in SIDE_FILES:
        if (CHECKPOINT / name).is_file():
            shutil.copyfile(CHECKPOINT / name, folder / name)
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    parts = {name: (tensor.shape, kind) for name, tensor in declared.items()}
    write_safetensors(folder, parts, lambda name: make(name, declared[name].shape).astype(kind, copy=False))


def strip(seed: int, size: tuple[int, int] = SIZE) -> Strip:
    """Coloured squares in six panels; `size` is width and height."""
    width, height = size
    squares = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return Strip.even(f"random {seed}", Image.fromarray(squares).resize(size, Image.Resampling.NEAREST), PANELS)
