"""Prompts for any checkpoint, tokenizer or not: random images through our own pipeline, random but valid text tokens."""

from dataclasses import dataclass

import numpy as np

from qwen3vl_jax.config import Config
from qwen3vl_jax.images import ImageSettings
from qwen3vl_jax.processing import Batch, Processor

Cells = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """One prompt: images, sized in merged cells (rows, cols), each behind some text; then `text` more tokens."""

    images: tuple[Cells, ...]
    text: int


@dataclass(frozen=True)
class Case:
    name: str
    rows: tuple[Row, ...]


CASES = (
    Case("one image", (Row(((2, 3),), 9),)),
    Case("three images", (Row(((2, 3), (4, 2), (3, 3)), 7),)),
    Case("two rows, left padding", (Row(((3, 2),), 24), Row(((2, 2), (2, 5)), 5))),
    Case("over 500 tokens", (Row(((4, 6),), 500),)),
)


def build(case: Case, config: Config) -> Batch:
    """The model's inputs, the same at every call."""
    rng = np.random.default_rng(0)
    vision = config.vision
    settings = ImageSettings(
        vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size, min_pixels=1, max_pixels=2**31
    )
    # The processor wants a tokenizer: these prompts are their token numbers, written out.
    processor = Processor(config, settings, tokenizer=lambda text: {"input_ids": [int(word) for word in text.split()]})
    images = [[_image(rng, cells, settings) for cells in row.images] for row in case.rows]
    return processor([_prompt(rng, row, config) for row in case.rows], images)


def _image(rng: np.random.Generator, cells: Cells, settings: ImageSettings) -> np.ndarray:
    height, width = (count * settings.factor for count in cells)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def _prompt(rng: np.random.Generator, row: Row, config: Config) -> str:
    """Some text, an image between its marks, some text, ..."""
    marks = {config.vision_start_token_id, config.vision_end_token_id, config.image_token_id, config.video_token_id}
    ordinary = np.setdiff1d(np.arange(config.text.vocab_size), list(marks))
    tokens: list[int] = []
    for _ in row.images:
        tokens += [
            *rng.choice(ordinary, 3),
            config.vision_start_token_id,
            config.image_token_id,
            config.vision_end_token_id,
        ]
    return " ".join(str(token) for token in [*tokens, *rng.choice(ordinary, row.text)])
