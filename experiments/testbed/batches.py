"""Training batches: drawn pictures, and the questions about each as slots that share one image prefix.

A slot is a question with its answer. All slots of a picture branch from the same prefix (up to `<|vision_end|>`), none sees
another, and the positions of each go on from the prefix: to the model a slot is a prompt of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import struct
from jaxtyping import Bool, Int32
from PIL import Image

from experiments.testbed.lessons import Question, draw_lessons
from qwen3vl_jax.config import Config
from qwen3vl_jax.images import ImageSettings, patchify
from qwen3vl_jax.inputs import Array, Images, Prompt
from qwen3vl_jax.positions import Grid, batch_images, image_cells, rope_positions

ROOMS = ((1 / 2, 30), (1 / 4, 38), (1 / 4, 48))
"""Of the short questions with their answers, the shorter half has room for 30 tokens, and so on; what is longer is cut."""
LONG = 120  # tokens of a narration, which is cut there
CELLS = 24  # of the largest picture
AROUND = 5  # tokens of the prefix that are not the picture's


@struct.dataclass
class Slots:
    """Questions with their answers, right-padded.

    Attributes:
      strip: the row of the prefix that each belongs to.
      targets: the token that follows each token.
      answer: True where that token belongs to the answer.
    """

    prompt: Prompt
    strip: Int32[Array, " slot"]
    targets: Int32[Array, "slot seq"]
    answer: Bool[Array, "slot seq"]


@struct.dataclass
class TrainingBatch:
    """One training step's data; a strip is any picture.

    Attributes:
      prefix: image prefixes, one row a strip.
      slots: all questions about them, in groups of about equal length.
    """

    images: Images
    prefix: Prompt
    slots: tuple[Slots, ...]


@dataclass(frozen=True)
class Maker:
    """Makes batches; the same (seed, step) gives the same batch."""

    tokenizer: Any
    config: Config
    settings: ImageSettings
    strips: int

    def batch(self, seed: int, step: int, others: float) -> TrainingBatch:
        """The share `others` of the pictures are no plain comics."""
        rng = np.random.default_rng([seed, step])
        lessons = draw_lessons(rng, self.strips, others)
        pictures = [patchify(_noisy(rng, lesson.image), self.settings) for lesson in lessons]
        prefix = self.prefixes([grid for _, grid in pictures])
        short = sorted(
            ((strip, *self._tokens(question)) for strip, lesson in enumerate(lessons) for question in lesson.short),
            key=lambda slot: len(slot[2]),
        )
        long = [(strip, *self._tokens(lesson.long)) for strip, lesson in enumerate(lessons)]
        ends = np.cumsum([round(share * len(short)) for share, _ in ROOMS]).tolist()
        groups = [(short[begin:end], room) for begin, end, (_, room) in zip([0, *ends], ends, ROOMS, strict=False)]
        starts = np.max(prefix.positions, axis=(1, 2)) + 1
        return TrainingBatch(
            images=batch_images(pictures, self.config, CELLS * self.settings.merge_size**2),
            prefix=prefix,
            slots=tuple(_slots(group, room, starts) for group, room in [*groups, (long, LONG)]),
        )

    def prefixes(self, grids: Sequence[Grid]) -> Prompt:
        """Everything before the question, left-padded, for pictures of these sizes in patches."""
        length = CELLS + AROUND
        rows = [self._prefix(number, grid) for number, grid in enumerate(grids)]
        tokens, positions, cells, valid = (np.stack(column) for column in zip(*rows, strict=True))
        assert tokens.shape[1] == length
        return Prompt(tokens, positions, valid, cells)

    def _tokens(self, question: Question) -> tuple[int, list[int]]:
        """How many tokens ask, and all tokens of a question and its answer."""
        asked = self.tokenizer.encode(f"{question[0]}<|im_end|>\n<|im_start|>assistant\n")
        return len(asked), [*asked, *self.tokenizer.encode(f"{question[1]}<|im_end|>")]

    def _prefix(self, number: int, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        count = grid[0] * grid[1] // self.settings.merge_size**2
        text = "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>"
        tokens = np.array(self.tokenizer.encode(text), np.int32)
        room = CELLS + AROUND - len(tokens)
        cells = image_cells(tokens, [number], [grid], CELLS, self.config)
        positions = rope_positions(tokens, [grid], self.config)
        return (
            np.pad(tokens, (room, 0)),
            np.pad(positions, ((room, 0), (0, 0))),
            np.pad(cells, (room, 0), constant_values=-1),
            np.arange(CELLS + AROUND) >= room,
        )


def _slots(group: Sequence[tuple[int, int, list[int]]], room: int, starts: Int32[np.ndarray, " strip"]) -> Slots:
    """Questions as token rows, each at the positions from the end of its prefix on."""
    shape = (len(group), room + 1)
    tokens, answer, filled = np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, bool)
    for row, (_, asked, told) in enumerate(group):
        said = told[: room + 1]
        tokens[row, : len(said)] = said
        answer[row, asked : len(said)] = True
        filled[row, : len(said)] = True
    strips = np.array([strip for strip, _, _ in group], np.int32)
    places = starts[strips][:, None] + np.arange(room, dtype=np.int32)
    prompt = Prompt(tokens[:, :-1], np.repeat(places[:, :, None], 3, axis=2), filled[:, :-1])
    return Slots(prompt, strips, tokens[:, 1:], answer[:, 1:])


def _noisy(rng: np.random.Generator, picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture, np.float32)
    return np.clip(pixels + 6.4 * rng.standard_normal(pixels.shape, np.float32), 0, 255).astype(np.uint8)
