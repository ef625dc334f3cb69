"""Many questions about many strips: discovery and steered answers in batches of one shape, so that little is compiled.

Strips are encoded once and shared by all the prompts about them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from gaze.regions import region_keys
from gaze.score import Mass, panel_attention, split
from gaze.steer import steering
from gaze.strips import Photo, Picture
from qwen3vl_jax.generate import generate
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing import Batch, Processor
from qwen3vl_jax.sampling import Sampling
from qwen3vl_jax.vision import Vision

Item = TypeVar("Item")

Progress = Callable[[int], object]
"""Called with the number of prompts that have just been done."""


@dataclass(frozen=True)
class Ask:
    """One answer to be generated.

    Attributes:
      strip: its number in the list of strips.
      heads: 1 at the heads to steer.
      targets: panel to look at in each step, from 0, -1 for none; the last one holds (see `gaze.steer.schedule`).
    """

    strip: int
    heads: Float32[np.ndarray, "layer heads"]
    targets: Int32[np.ndarray, " step"]


@dataclass(frozen=True)
class Settings:
    """How answers are generated: the bias (see `gaze.steer.steering`), when to stop, and how many are made at once."""

    sampling: Sampling
    max_new: int
    strength: float = 10_000.0
    mode: str = "boost_suppress"
    precision: str = "ordered"
    rows: str = "all"
    batch: int = 96
    strips: int = 16


class Encoded(NamedTuple):
    """Some strips with one question each: prompts, cells of each strip and keys of each panel."""

    prompt: Prompt
    vision: Vision
    panels: Bool[np.ndarray, "strip panel key"]


def unsteered(model: Qwen3VL, strip: int) -> Ask:
    """The model left alone."""
    text = model.config.text
    heads = np.zeros((text.num_hidden_layers, text.num_attention_heads), np.float32)
    return Ask(strip, heads, np.full(1, -1, np.int32))


def discover(
    model: Qwen3VL,
    processor: Processor,
    strips: Sequence[Picture],
    questions: Sequence[str],
    *,
    batch: int = 10,
    progress: Progress = lambda done: None,
) -> Mass:
    """How much the last prompt token looks at each panel, for each of the `questions` (one per panel) about each strip.

    Returns:
      Mass [strip, question, layer, head, panel] of every head; see `gaze.score` for what to make of it.
    """
    found = []
    size = min(batch, len(strips))
    for piece in _cut(strips, size):
        chunk = _fill(piece, size)
        texts = [processor.chat(question) for question in questions] * len(chunk)
        pictures = [[strip.image] for strip in chunk for _ in questions]
        asked = processor(texts, pictures)
        assert asked.images is not None
        prefix, suffixes = split(asked.prompt, len(chunk))
        keys = _panel_keys(chunk, asked, prefix.image_cell, processor)
        mass = panel_attention(model, _on_device(asked.images), prefix, suffixes, keys)
        found.append(np.asarray(mass)[: len(piece)])
        progress(len(piece) * len(questions))
    return np.concatenate(found)


def answers(
    model: Qwen3VL,
    processor: Processor,
    strips: Sequence[Picture],
    question: str | Sequence[str],
    asks: Sequence[Ask],
    settings: Settings,
    progress: Progress = lambda done: None,
) -> list[Int32[np.ndarray, " token"]]:
    """The tokens of the answer to every ask, in their order.

    Args:
      question: for all strips, or one for each.
    """
    questions = [question] * len(strips) if isinstance(question, str) else list(question)
    steps = max(len(ask.targets) for ask in asks)
    size = min(settings.strips, len(strips))
    done: dict[int, np.ndarray] = {}
    for numbers in _cut(range(len(strips)), size):
        about = [number for number, ask in enumerate(asks) if ask.strip in numbers]
        chunk = _fill([strips[number] for number in numbers], size)
        asked = [questions[number] for number in numbers]
        encoded = encode(model, processor, chunk, asked + asked[-1:] * (size - len(asked)))
        for part in _cut(about, settings.batch):
            filled = [asks[number] for number in part]
            filled += filled[-1:] * (min(settings.batch, len(asks)) - len(part))
            places = [numbers.index(ask.strip) for ask in filled]
            done |= zip(part, _answer(model, encoded, places, filled, steps, settings), strict=False)
            progress(len(part))
    return [done[number] for number in range(len(asks))]


def encode(model: Qwen3VL, processor: Processor, strips: Sequence[Picture], questions: Sequence[str]) -> Encoded:
    """Prompts and image tokens of some strips, one question each."""
    asked = processor([processor.chat(text) for text in questions], [[strip.image] for strip in strips])
    assert asked.images is not None
    return Encoded(
        asked.prompt,
        _encode(model, _on_device(asked.images)),
        _panel_keys(strips, asked, asked.prompt.image_cell, processor),
    )


def _answer(
    model: Qwen3VL, encoded: Encoded, places: list[int], rows: list[Ask], steps: int, settings: Settings
) -> list[Int32[np.ndarray, " token"]]:
    where = np.array(places)
    targets = np.stack([np.pad(ask.targets, (0, steps - len(ask.targets)), mode="edge") for ask in rows])
    prompt: Prompt = jax.tree.map(lambda leaf: np.asarray(leaf)[where], encoded.prompt)
    plan = steering(
        np.stack([ask.heads for ask in rows], axis=1),
        prompt,
        encoded.panels[where],
        targets,
        settings.strength,
        settings.mode,
        settings.precision,
        settings.rows,
    )
    generation = generate(
        model, prompt, encoded.vision, plan, settings.sampling, jax.random.key(0), max_new=settings.max_new
    )
    tokens, length = np.asarray(generation.tokens), np.asarray(generation.length)
    return [row[:count] for row, count in zip(tokens, length, strict=True)]


@jax.jit
def _encode(model: Qwen3VL, images: Images) -> Vision:
    return model.encode(images)


def _on_device(images: Images) -> Images:
    return jax.tree.map(jnp.asarray, images)


def _panel_keys(
    strips: Sequence[Picture], asked: Batch, image_cell: Array | np.ndarray | None, processor: Processor
) -> Bool[np.ndarray, "strip panel key"]:
    """Which keys of each strip's row show each of its panels."""
    assert image_cell is not None
    assert asked.images is not None
    merge = processor.settings.merge_size
    stride = asked.images.patches.shape[1] // merge**2
    number = {id(strip.image): 0 for strip in strips}
    number = {key: place for place, key in enumerate(number)}
    keys = []
    for row, strip in zip(np.asarray(image_cell), strips, strict=True):
        picture = number[id(strip.image)]
        cells = strip.cells((int(asked.grids[picture][0]), int(asked.grids[picture][1])), merge)
        keys.append(region_keys(row, cells, picture * stride))
    # Regions that a picture does not have cover nothing.
    most = max(map(len, keys))
    return np.stack([np.pad(regions, ((0, most - len(regions)), (0, 0))) for regions in keys])


def _cut(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _fill(strips: Sequence[Picture], size: int) -> list[Picture]:
    """Some strips, filled up to `size`. A filler gets a picture of its own, as a picture seen twice is encoded once."""
    copies = [strips[-1].image.copy() for _ in range(size - len(strips))]
    return [*strips, *(Photo("", image, ((0, 0, *image.size),)) for image in copies)]
