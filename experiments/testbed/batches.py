"""Training batches: drawn strips, and the questions about each strip as slots that share one image prefix.

A slot is a question with its answer. All slots of a strip branch from the same prefix (up to `<|vision_end|>`), none sees
another, and the positions of each go on from the prefix: to the model a slot is a prompt of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import struct
from jaxtyping import Bool, Int32

from experiments.testbed import wordings
from experiments.testbed.draw import draw_strip
from experiments.testbed.scenes import PANELS, Scene, draw_scenes
from qwen3vl_jax import layout
from qwen3vl_jax.config import Config
from qwen3vl_jax.images import ImageSettings, patchify
from qwen3vl_jax.inputs import Array, Images, Prompt

SHORT, LONG = 38, 108  # tokens of the longest question slot and of the longest narration slot
CAPTION = 7  # tokens of a caption
LABEL = 5  # tokens of "Panel 3:" and of the line break before it
PANEL_QUESTIONS = 4


@struct.dataclass
class Slots:
    """Questions with their answers, right-padded.

    Attributes:
      targets: the token that follows each token.
      answer: True where that token belongs to the answer.
      starts: rows that predict the first word of a caption.
    """

    prompt: Prompt
    targets: Int32[Array, "strip_slot seq"]
    answer: Bool[Array, "strip_slot seq"]
    starts: Int32[Array, "strip_slot caption"]


@struct.dataclass
class Batch:
    """One training step's data.

    Attributes:
      prefix: image prefixes, one row a strip.
      attributes: the five attributes of each panel's scene.
      short, long: the question slots (six a strip) and the narration slots (one a strip).
      hidden: image tokens that each strip hides from its slots.
      forgets: strips whose answers are given without a memory (see `objective`).
    """

    images: Images
    prefix: Prompt
    attributes: Int32[Array, "strip panel 5"]
    short: Slots
    long: Slots
    hidden: Bool[Array, "strip cell"]
    forgets: Bool[Array, "strip"]


@dataclass(frozen=True)
class Maker:
    """Makes batches; the same (seed, step) gives the same batch."""

    tokenizer: Any
    config: Config
    settings: ImageSettings
    strips: int

    def batch(self, seed: int, step: int, *, hide: float, forget: float) -> Batch:
        """`hide` and `forget`: shares of the strips that hide a random part of every panel, and that forget."""
        rng = np.random.default_rng([seed, step])
        scenes = [draw_scenes(rng, split="train") for _ in range(self.strips)]
        pictures = [patchify(_noisy(rng, draw_strip(strip, rng)), self.settings) for strip in scenes]
        images = layout.batch_images(pictures, self.config)
        prefix = self.prefix(pictures[0][1])
        start = int(prefix.positions.max()) + 1
        short = [question for strip in scenes for question in _questions(rng, strip)]
        long = [_narration(rng, strip) for strip in scenes]
        return Batch(
            images=images,
            prefix=prefix,
            attributes=np.array([[_attributes(scene) for scene in strip] for strip in scenes], np.int32),
            short=self.slots(short, SHORT, start),
            long=self.slots(long, LONG, start),
            hidden=_hidden(rng, self.strips, hide),
            forgets=rng.random(self.strips) < forget,
        )

    def prefix(self, grid: tuple[int, int]) -> Prompt:
        """Everything before the question, for every strip."""
        cells = grid[0] * grid[1] // self.settings.merge_size**2
        text = "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * cells + "<|vision_end|>"
        tokens = np.array(self.tokenizer.encode(text), np.int32)
        cell = layout.image_cells(tokens, [0], [grid], cells, self.config)
        offset = np.arange(self.strips, dtype=np.int32)[:, None] * cells
        rows = np.tile(cell, (self.strips, 1))
        return Prompt(
            tokens=np.tile(tokens, (self.strips, 1)),
            positions=np.tile(layout.rope_positions(tokens, [grid], self.config), (self.strips, 1, 1)),
            valid=np.ones(rows.shape, bool),
            image_cell=np.where(rows >= 0, rows + offset, -1).astype(np.int32),
        )

    def slots(self, questions: Sequence[tuple[str, str]], length: int, start: int) -> Slots:
        """Question-answer pairs as token rows of `length`, at positions from `start` on."""
        shape = (len(questions), length + 1)
        tokens, answer, filled = np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, bool)
        starts = []
        for row, (question, reply) in enumerate(questions):
            asked = self.tokenizer.encode(f"{question}<|im_end|>\n<|im_start|>assistant\n")
            said = self.tokenizer.encode(f"{reply}<|im_end|>")
            end = len(asked) + len(said)
            tokens[row, :end] = asked + said
            answer[row, len(asked) : end] = True
            filled[row, :end] = True
            starts.append(_caption_starts(reply) + len(asked) - 1)
        places = np.broadcast_to(
            np.arange(start, start + length, dtype=np.int32)[None, :, None], (*shape[:1], length, 3)
        )
        prompt = Prompt(tokens[:, :-1], np.ascontiguousarray(places), filled[:, :-1])
        return Slots(prompt, tokens[:, 1:], answer[:, 1:], np.array(starts, np.int32))


def _questions(rng: np.random.Generator, scenes: Sequence[Scene]) -> list[tuple[str, str]]:
    panels = rng.permutation(PANELS)[:PANEL_QUESTIONS]
    asked = [wordings.panel_question(rng, scenes, int(panel)) for panel in panels]
    # "This panel" means the first one half of the time: a clear default, and yet no certainty.
    this = 0 if rng.random() < 0.5 else int(rng.integers(1, PANELS))
    return [
        *asked,
        wordings.this_panel_question(rng, scenes, this),
        wordings.strip_question(rng, scenes, int(rng.integers(PANELS))),
    ]


def _narration(rng: np.random.Generator, scenes: Sequence[Scene]) -> tuple[str, str]:
    kind, forward = rng.random(), np.arange(PANELS)
    if kind < 0.35:
        return wordings.numbered_narration(rng, scenes, forward)
    if kind < 0.5:
        return wordings.numbered_narration(rng, scenes, forward[::-1])
    # Without numbers half of the narrations follow an order that nothing tells: where the model looks is then up to it.
    return wordings.free_narration(rng, scenes, forward if kind < 0.75 else rng.permutation(PANELS))


def _caption_starts(reply: str) -> Int32[np.ndarray, "caption"]:
    """Offsets, in tokens of the reply, of the first word of each caption."""
    count, label = reply.count("."), LABEL * reply.startswith("Panel")
    return (label and label - 1) + (CAPTION + label) * np.arange(count, dtype=np.int32)


def _attributes(scene: Scene) -> tuple[int, ...]:
    return (scene.subject_colour, scene.subject, scene.relation, scene.object_colour, scene.object)


def _noisy(rng: np.random.Generator, strip: Any) -> np.ndarray:
    pixels = np.asarray(strip, np.float32)
    return np.clip(pixels + 6.4 * rng.standard_normal(pixels.shape, np.float32), 0, 255).astype(np.uint8)


def _hidden(rng: np.random.Generator, strips: int, hide: float) -> Bool[np.ndarray, "strip cell"]:
    """For some strips, a random subset of every panel's four cells, never all of them (two rows of twelve cells)."""
    hidden = rng.random((strips, PANELS, 4)) < rng.random((strips, PANELS, 1))
    hidden &= (rng.random(strips) < hide)[:, None, None]
    kept = rng.integers(4, size=(strips, PANELS))
    np.put_along_axis(hidden, kept[..., None], False, axis=2)
    return hidden.reshape(strips, PANELS, 2, 2).transpose(0, 2, 1, 3).reshape(strips, -1)
