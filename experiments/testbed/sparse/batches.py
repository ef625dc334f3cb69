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

from experiments.testbed.scenes import PANELS
from experiments.testbed.sparse.lessons import ATTRIBUTES, Lesson, Question, draw_lessons
from qwen3vl_jax.config import Config
from qwen3vl_jax.images import ImageSettings, patchify
from qwen3vl_jax.inputs import Array, Images, Prompt
from qwen3vl_jax.positions import Grid, batch_images, image_cells, rope_positions

SHORT, LONG = 48, 108  # tokens of the longest short question and of the longest narration, with their answers
CELLS = 24  # of the largest picture
AROUND = 5  # tokens of the prefix that are not the picture's
CAPTION = 7  # tokens of a caption


@struct.dataclass
class Slots:
    """Questions with their answers, right-padded.

    Attributes:
      targets: the token that follows each token.
      answer: True where that token belongs to the answer.
      sentences: of each sentence in the answer, the row that predicts its first word and the row after the one that
        predicts its full stop; 0, 0 where an answer has fewer.
    """

    prompt: Prompt
    targets: Int32[Array, "strip_slot seq"]
    answer: Bool[Array, "strip_slot seq"]
    sentences: Int32[Array, "strip_slot sentence 2"]


@struct.dataclass
class TrainingBatch:
    """One training step's data; a strip is any picture.

    Attributes:
      prefix: image prefixes, one row a strip.
      cells: the attributes each cell shows, -1 for those that it does not show.
      short, long: the question slots (six a strip) and the narration slots (one a strip).
      hidden: tokens of the prefix that each strip hides from its slots.
      places: tokens of the prefix that alone tell the answer of each short slot, none where it names no place.
      forgets: strips whose answers are given without a memory (see `objective`).
    """

    images: Images
    prefix: Prompt
    cells: Int32[Array, "strip cell 6"]
    short: Slots
    long: Slots
    hidden: Bool[Array, "strip prefix"]
    places: Bool[Array, "strip_slot prefix"]
    forgets: Bool[Array, " strip"]


@dataclass(frozen=True)
class Maker:
    """Makes batches; the same (seed, step) gives the same batch."""

    tokenizer: Any
    config: Config
    settings: ImageSettings
    strips: int

    def batch(self, seed: int, step: int, *, hide: float, forget: float, others: float) -> TrainingBatch:
        """Shares of the strips: `hide` hide a random part of every panel, `forget` forget, `others` are no plain comics."""
        rng = np.random.default_rng([seed, step])
        lessons = draw_lessons(rng, self.strips, others)
        pictures = [patchify(_noisy(rng, lesson.image), self.settings) for lesson in lessons]
        prefix = self.prefixes([grid for _, grid in pictures])
        starts = np.max(prefix.positions, axis=(1, 2)) + 1
        short = [question for lesson in lessons for question in lesson.short]
        long = [lesson.long for lesson in lessons]
        patches = CELLS * self.settings.merge_size**2
        return TrainingBatch(
            images=batch_images(pictures, self.config, patches),
            prefix=prefix,
            cells=np.stack([_padded(lesson.cells) for lesson in lessons]),
            short=self.slots(short, SHORT, np.repeat(starts, len(short) // len(lessons))),
            long=self.slots(long, LONG, starts),
            hidden=np.stack([_hidden(rng, lesson, hide) for lesson in lessons]),
            places=np.concatenate([_in_prefix(lesson.places) for lesson in lessons]),
            forgets=rng.random(self.strips) < forget,
        )

    def prefixes(self, grids: Sequence[Grid]) -> Prompt:
        """Everything before the question, left-padded, for pictures of these sizes in patches."""
        length = CELLS + AROUND
        rows = [self._prefix(number, grid) for number, grid in enumerate(grids)]
        tokens, positions, cells = (np.stack(column) for column in zip(*rows, strict=True))
        valid = np.arange(length) >= length - np.array([len(self._text(grid)) for grid in grids])[:, None]
        return Prompt(tokens, positions, valid, cells)

    def slots(self, questions: Sequence[Question], length: int, starts: Int32[np.ndarray, " slot"]) -> Slots:
        """Question-answer pairs as token rows of `length`, each at the positions from its start on."""
        shape = (len(questions), length + 1)
        tokens, answer, filled = np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, bool)
        sentences = np.zeros((len(questions), PANELS, 2), np.int32)
        marks = self.tokenizer.convert_tokens_to_ids([".", ":"])
        for row, (question, reply) in enumerate(questions):
            asked = self.tokenizer.encode(f"{question}<|im_end|>\n<|im_start|>assistant\n")
            said = self.tokenizer.encode(f"{reply}<|im_end|>")
            end = len(asked) + len(said)
            tokens[row, :end] = asked + said
            answer[row, len(asked) : end] = True
            filled[row, :end] = True
            found = _sentences(said, *marks) + len(asked) - 1
            sentences[row, : len(found)] = found
        places = starts[:, None] + np.arange(length, dtype=np.int32)
        prompt = Prompt(tokens[:, :-1], np.repeat(places[:, :, None], 3, axis=2), filled[:, :-1])
        return Slots(prompt, tokens[:, 1:], answer[:, 1:], sentences)

    def _text(self, grid: Grid) -> list[int]:
        cells = grid[0] * grid[1] // self.settings.merge_size**2
        text = "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * cells + "<|vision_end|>"
        tokens: list[int] = self.tokenizer.encode(text)
        return tokens

    def _prefix(
        self, number: int, grid: Grid
    ) -> tuple[Int32[np.ndarray, " seq"], Int32[np.ndarray, "seq 3"], Int32[np.ndarray, " seq"]]:
        tokens = np.array(self._text(grid), np.int32)
        room = CELLS + AROUND - len(tokens)
        cells = image_cells(tokens, [number], [grid], CELLS, self.config)
        positions = rope_positions(tokens, [grid], self.config)
        return (
            np.pad(tokens, (room, 0)),
            np.pad(positions, ((room, 0), (0, 0))),
            np.pad(cells, (room, 0), constant_values=-1),
        )


def _sentences(said: Sequence[int], stop: int, colon: int) -> Int32[np.ndarray, "sentence 2"]:
    """Where each sentence of an answer begins (after the colon of its label if it has one) and ends, in its tokens."""
    marks = [-1, *(place for place, token in enumerate(said) if token in (stop, colon))]
    ends = [number for number, place in enumerate(marks) if place >= 0 and said[place] == stop]
    return np.array([(marks[number - 1] + 1, marks[number] + 1) for number in ends], np.int32).reshape(-1, 2)


def _padded(cells: Int32[np.ndarray, "cell 6"]) -> Int32[np.ndarray, "room 6"]:
    padded = np.full((CELLS, len(ATTRIBUTES)), -1, np.int32)
    padded[: len(cells)] = cells
    return padded


def _noisy(rng: np.random.Generator, picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture, np.float32)
    return np.clip(pixels + 6.4 * rng.standard_normal(pixels.shape, np.float32), 0, 255).astype(np.uint8)


def _hidden(rng: np.random.Generator, lesson: Lesson, hide: float) -> Bool[np.ndarray, " prefix"]:
    """In the prefix of some comics, a random subset of every panel's cells (two rows of two), never all nor a letter."""
    cells = np.zeros(len(lesson.cells), bool)
    if rng.random() < hide and lesson.panels:
        count = lesson.panels
        hidden = rng.random((count, 4)) < rng.random((count, 1))
        hidden[np.arange(count), rng.integers(4, size=count)] = False
        cells = hidden.reshape(count, 2, 2).transpose(1, 0, 2).ravel() & (lesson.cells[:, -1] < 0)
    return _in_prefix(cells[None]).ravel()


def _in_prefix(cells: Bool[np.ndarray, "row cell"]) -> Bool[np.ndarray, "row prefix"]:
    """Cells of a picture as tokens of its left-padded prefix, of which one follows them."""
    return np.pad(cells, ((0, 0), (CELLS + AROUND - 1 - cells.shape[1], 1)))
