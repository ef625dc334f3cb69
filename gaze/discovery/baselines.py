"""Heads that others have found by how they look at pictures, whatever the question: what gaze heads must beat.

Image Heads (MaskCD, arXiv 2510.02790) look at the picture a lot, for their layer. Localization Heads (Kang et al.,
CVPR 2025) look at it enough, and at few connected places of it.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from scipy import ndimage

from gaze.discovery.scores import Scores, panel_attention, rank, split
from gaze.heads import HeadSet
from gaze.pictures.strips import Picture
from gaze.steering.engine import Progress
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Batch, Processor
from qwen3vl_jax.sharding import across, fetch, mesh_of

THRESHOLD = 2.5
"""Standard deviations above its layer's mean from which a head is an Image Head."""
BRIGHT = 0.001
"""Attention above the map's mean from which a cell belongs to a component."""

Elbow = Literal["index", "value"]


class ImageAttention(NamedTuple):
    """How the last prompt token looks at the picture.

    Attributes:
      mass: on all of it.
      entropy: of the components of its map, in nats; infinite for a map without contrast (see `component_entropy`).
    """

    mass: Float32[np.ndarray, "strip question layer heads"]
    entropy: Float32[np.ndarray, "strip question layer heads"]


def image_attention(
    model: Qwen3VL,
    processor: Processor,
    strips: Sequence[Picture],
    questions: Sequence[str],
    *,
    batch: int = 10,
    progress: Progress = lambda done: None,
) -> ImageAttention:
    """Reads the attention to every cell of the pictures, cell by cell, for each of the `questions` about each strip.

    The maps, 11 MB per strip of an 8B model, are reduced at once and never kept.
    """
    found = []
    size = min(batch, len(strips))
    for start in range(0, len(strips), size):
        # The last batch reaches back, so that all have one shape.
        first = min(start, len(strips) - size)
        maps, shapes = _maps(model, processor, strips[first : first + size], questions)
        for strip in range(start - first, size):
            found.append(_reduced(maps[strip], shapes[strip]))
            progress(len(questions))
    return ImageAttention(*map(np.stack, zip(*found, strict=True)))


def component_entropy(
    maps: Float[np.ndarray, "map cell"], shape: tuple[int, int], bright: float = BRIGHT
) -> Float64[np.ndarray, " map"]:
    """Over how many places attention is spread, as the public code of Localization Heads has it.

    A map's mean is taken off and what is left below 0 dropped. Cells above `bright` form components, also over corners;
    each has its share of all that is left, and the entropy of these shares is taken: 0 for one place. The cells too dark
    for a component are part of the total, and a map with nothing but such cells has entropy 0, too.

    Args:
      shape: (rows, cols) of the picture in cells: its own grid, where the public code takes every picture for a square.

    Returns:
      In nats; infinite for a map without contrast.
    """
    exact = maps.astype(np.float64)
    above = np.maximum(exact - exact.mean(axis=1, keepdims=True), 0)
    # Neighbours in all eight directions of the same map, none in the next.
    around = np.zeros((3, 3, 3), int)
    around[1] = 1
    labels, count = ndimage.label((above > bright).reshape(-1, *shape), around)
    labels = labels.reshape(above.shape)
    owner = np.zeros(count + 1, int)
    owner[labels] = np.arange(len(maps))[:, None]
    total = above.sum(axis=1)
    share = np.bincount(labels.ravel(), above.ravel(), minlength=count + 1)[1:] / total[owner[1:]]
    entropy = np.bincount(owner[1:], -share * np.log(share), minlength=len(maps))
    return np.where(total > 0, entropy, np.inf)


def image_z(mass: Float[np.ndarray, "strip question layer heads"]) -> Scores:
    """Mass on the picture in standard deviations above the mean of its layer's heads, averaged over prompts.

    A layer of n heads reaches at most sqrt(n - 1): with fewer than eight heads none is above the threshold of 2.5.
    """
    exact = mass.astype(np.float64)
    centred = exact - exact.mean(axis=-1, keepdims=True)
    spread = centred.std(axis=-1, keepdims=True)
    z: Scores = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0).mean(axis=(0, 1))
    return z


def image_heads(attention: ImageAttention) -> HeadSet:
    """All heads by `image_z`; the first `settings["above"]` are Image Heads by their own rule, z > 2.5."""
    scores = image_z(attention.mass)
    settings = {"threshold": THRESHOLD, "above": int((scores > THRESHOLD).sum())}
    return _ranking(scores, np.ones(scores.shape, bool), "image", settings)


def localization_heads(attention: ImageAttention, elbow: Elbow) -> HeadSet:
    """The heads with enough mass on the picture, those with the lowest entropy first; both are means over prompts.

    How much is enough is where the sorted masses bend the most. By "value", as in the paper, heads need the mass of the
    head at the elbow; by "index", as in the public code, they need to come after it, counted through all layers. Layers
    0 and 1 and heads that look at the bottom row are not left out, as they are not in the public code.

    Scores are minus the entropy. Fewer heads than asked for may be left. Raises InputError if there is none.
    """
    mass = attention.mass.mean(axis=(0, 1), dtype=np.float64)
    bend = elbow_head(mass.ravel())
    kept = mass >= mass.flat[bend] if elbow == "value" else np.arange(mass.size).reshape(mass.shape) >= bend
    known = np.isfinite(attention.entropy)
    times = known.sum(axis=(0, 1))
    total = np.where(known, attention.entropy, 0).sum(axis=(0, 1), dtype=np.float64)
    settings = {
        "elbow_head": [int(n) for n in np.unravel_index(bend, mass.shape)],
        "elbow_mass": float(mass.flat[bend]),
    }
    return _ranking(0 - total / np.maximum(times, 1), kept & (times > 0), f"localization-{elbow}", settings)


def elbow_head(values: Float[np.ndarray, " head"]) -> int:
    """Which head stands where the sorted values are farthest from the straight line between their ends."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return int(order[np.abs(ordered - np.linspace(ordered[0], ordered[-1], len(ordered))).argmax()])


def _ranking(scores: Scores, kept: Bool[np.ndarray, "layer heads"], name: str, settings: dict[str, Any]) -> HeadSet:
    rows = [row for row in rank(scores) if kept[row[0], row[1]]]
    if not rows:
        raise InputError("no head looks at any place of the pictures more than at others: give other pictures")
    return HeadSet(
        tuple((layer, head) for layer, head, _ in rows), tuple(score for *_, score in rows), name, settings=settings
    )


def _maps(
    model: Qwen3VL, processor: Processor, strips: Sequence[Picture], questions: Sequence[str]
) -> tuple[Float32[np.ndarray, "strip question layer heads cell"], list[tuple[int, int]]]:
    """Attention of the last token to each cell, and each picture's (rows, cols) of cells; the others are 0."""
    texts = [processor.chat(question) for question in questions] * len(strips)
    numbers = list(range(len(strips)))
    shown = [[number] for number in numbers for _ in questions]
    asked = processor(texts, shown, pictures=[strip.image for strip in strips])
    assert asked.images is not None
    prefix, suffixes = split(asked.prompt, len(strips))
    merge = processor.settings.merge_size
    keys = _cell_keys(asked, np.asarray(prefix.image_cell), numbers, merge)
    attention = panel_attention(model, *across((asked.images, prefix, suffixes, keys), mesh_of(model)))
    shapes = [(int(rows) // merge, int(cols) // merge) for rows, cols in asked.grids[numbers]]
    return fetch(attention), shapes


def _cell_keys(
    asked: Batch, image_cell: np.ndarray, numbers: Sequence[int], merge: int
) -> Bool[np.ndarray, "strip cell key"]:
    """A group of keys for each cell, which is one key."""
    assert asked.images is not None
    stride = asked.images.patches.shape[1] // merge**2
    cells = np.array(numbers)[:, None] * stride + np.arange(stride)
    keys: np.ndarray = image_cell[:, None, :] == cells[:, :, None]
    return keys


def _reduced(
    maps: Float32[np.ndarray, "question layer heads cell"], shape: tuple[int, int]
) -> tuple[Float32[np.ndarray, "question layer heads"], Float32[np.ndarray, "question layer heads"]]:
    flat = maps[..., : shape[0] * shape[1]].reshape(-1, shape[0] * shape[1])
    entropy = component_entropy(flat, shape).astype(np.float32)
    return flat.sum(axis=1).reshape(maps.shape[:-1]), entropy.reshape(maps.shape[:-1])
