"""Prompts for any checkpoint, tokenizer or not: random images and videos through our own pipeline, random valid text."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from qwen3vl_jax.config import Config
from qwen3vl_jax.images import ImageSettings
from qwen3vl_jax.processing.processor import Batch, Processor
from qwen3vl_jax.processing.videos import Video, VideoSettings

Still = tuple[int, int]
Clip = tuple[int, int, int]


@dataclass(frozen=True)
class PromptSpec:
    """One prompt: images (rows, cols) and videos (frames, rows, cols), each after some text; then `text` more tokens.

    Rows and columns count merged cells.
    """

    shown: tuple[Still | Clip, ...]
    text: int

    @property
    def stills(self) -> list[Still]:
        return [size for size in self.shown if len(size) == 2]

    @property
    def clips(self) -> list[Clip]:
        return [size for size in self.shown if len(size) == 3]


@dataclass(frozen=True)
class Case:
    name: str
    rows: tuple[PromptSpec, ...]

    def fits(self, config: Config) -> bool:
        """Whether the vocabulary has what the case needs."""
        return config.video_token_id < config.text.vocab_size or not any(row.clips for row in self.rows)


CASES = (
    Case("one image", (PromptSpec(((2, 3),), 9),)),
    Case("three images", (PromptSpec(((2, 3), (4, 2), (3, 3)), 7),)),
    Case("two rows, left padding", (PromptSpec(((3, 2),), 24), PromptSpec(((2, 2), (2, 5)), 5))),
    Case("over 500 tokens", (PromptSpec(((4, 6),), 500),)),
    Case("a video", (PromptSpec(((5, 2, 3),), 9),)),
    Case(
        "videos and images", (PromptSpec(((2, 3), (5, 3, 2), (3, 2)), 7), PromptSpec(((4, 2, 2), (2, 2), (6, 2, 3)), 9))
    ),
)


def build(case: Case, config: Config) -> Batch:
    """The model's inputs, the same at every call: no picture is there twice, and all images stand before all videos."""
    rng = np.random.default_rng(0)
    vision = config.vision
    sizes = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
    settings = ImageSettings(*sizes, min_pixels=1, max_pixels=2**31)
    video_settings = VideoSettings(*sizes, min_pixels=1, max_pixels=2**31, fps=None)
    processor = Processor(config, settings, _tokenizer(config), video_settings=video_settings)
    images = [[_pixels(rng, still, settings) for still in row.stills] for row in case.rows]
    videos = [[Video(_pixels(rng, clip, settings), fps=3) for clip in row.clips] for row in case.rows]
    return processor([_prompt(rng, row, config) for row in case.rows], images, videos)


def _pixels(
    rng: np.random.Generator, size: Still | Clip, settings: ImageSettings
) -> UInt8[np.ndarray, "*frames y x 3"]:
    *frames, rows, cols = size
    return rng.integers(0, 256, (*frames, rows * settings.factor, cols * settings.factor, 3), np.uint8)


def _prompt(rng: np.random.Generator, row: PromptSpec, config: Config) -> str:
    """Some text, an image or a video between its marks, some text, ..."""

    def words(count: int) -> str:
        return " ".join(str(rng.integers(config.text.vocab_size)) for _ in range(count))

    pads = ["<|image_pad|>" if len(size) == 2 else "<|video_pad|>" for size in row.shown]
    return "".join(f"{words(3)}<|vision_start|>{pad}<|vision_end|>" for pad in pads) + words(row.text)


def _tokenizer(config: Config) -> Callable[[str], dict[str, list[int]]]:
    """Stands in for the checkpoint's own: a token for each number and for each sign of a timestamp."""
    marks = {
        "<|vision_start|>": config.vision_start_token_id,
        "<|vision_end|>": config.vision_end_token_id,
        "<|image_pad|>": config.image_token_id,
        "<|video_pad|>": config.video_token_id,
    }
    ordinary = np.setdiff1d(np.arange(config.text.vocab_size), list(marks.values()))

    def token(word: str) -> int:
        return (
            marks[word]
            if word in marks
            else int(ordinary[(int(word) if word.isdecimal() else ord(word)) % len(ordinary)])
        )

    return lambda text: {"input_ids": [token(word) for word in re.findall(r"<\|\w+\|>|\d+|\S", text)]}
