"""Strips of many sizes in batches of few shapes: what has one shape is compiled once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

import numpy as np

from gaze.pictures.strips import Picture
from qwen3vl_jax.images import smart_resize
from qwen3vl_jax.processing.processor import Processor

SHAPES = 3
"""Programs that a mixed corpus may cost."""


@dataclass(frozen=True)
class Shape:
    """What a batch is padded to.

    Attributes:
      patches: of a picture.
      prefix: tokens of a prompt up to where those about one picture part, or up to the end of the picture if there is one.
      suffix: tokens after that.
    """

    patches: int
    prefix: int
    suffix: int

    @property
    def length(self) -> int:
        """Of a whole prompt."""
        return self.prefix + self.suffix


def shapes(
    processor: Processor, strips: Sequence[Picture], texts: Sequence[Sequence[str]], most: int = SHAPES
) -> list[Shape]:
    """What to pad each strip and its prompts to, such that there are at most `most` shapes and as little waste as can be.

    Args:
      texts: the prompts about each strip, as `Processor.chat` makes them.
    """
    needed = [_needed(processor, strip, about) for strip, about in zip(strips, texts, strict=True)]
    bounds = buckets([shape.patches for shape in needed], most)
    rank = np.searchsorted(bounds, [shape.patches for shape in needed]).tolist()
    inside = [[shape for shape, of in zip(needed, rank, strict=True) if of == number] for number in range(len(bounds))]
    made = [
        Shape(bound, max(shape.prefix for shape in some), max(shape.suffix for shape in some))
        for bound, some in zip(bounds, inside, strict=True)
    ]
    return [made[number] for number in rank]


def chunks(fits: Sequence[Shape], size: int) -> Iterator[tuple[Shape, list[int]]]:
    """Numbers of at most `size` strips at a time that have one shape, by that shape."""
    for shape in sorted(set(fits), key=lambda shape: shape.patches):
        numbers = [number for number, fit in enumerate(fits) if fit == shape]
        for start in range(0, len(numbers), size):
            yield shape, numbers[start : start + size]


def buckets(sizes: Sequence[int], most: int) -> list[int]:
    """At most `most` sizes, ascending, that waste the least when everything is padded to the next of them."""
    distinct, counts = np.unique(np.asarray(sizes, np.int64), return_counts=True)
    before = [0, *np.cumsum(counts).tolist()]
    # What the n smallest sizes cost at least, and the bounds that make it so.
    best: list[tuple[float, list[int]]] = [(0.0, []), *[(np.inf, [])] * len(distinct)]
    for _ in range(most):
        best = [
            min(
                [best[end]]
                + [_with(best[start], int(distinct[end - 1]), before[end] - before[start]) for start in range(end)]
            )
            for end in range(len(best))
        ]
    return best[-1][1]


def _with(cheapest: tuple[float, list[int]], bound: int, count: int) -> tuple[float, list[int]]:
    cost, bounds = cheapest
    return cost + bound * count, [*bounds, bound]


def _needed(processor: Processor, strip: Picture, texts: Sequence[str]) -> Shape:
    settings = processor.settings
    width, height = strip.size
    size = smart_resize(height, width, settings.factor, settings.min_pixels, settings.max_pixels)
    patches = math.prod(size) // settings.patch_size**2
    shared, longest = _parts(processor, tuple(texts))
    return Shape(patches, shared - 1 + patches // settings.merge_size**2, longest - shared)


@lru_cache
def _parts(processor: Processor, texts: tuple[str, ...]) -> tuple[int, int]:
    """How many tokens texts share, a picture counting as one, and how many the longest has."""
    rows = [processor.tokenizer(text)["input_ids"] for text in texts]
    image = len(rows[0]) - rows[0][::-1].index(processor.config.image_token_id)
    same = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False)))
    return image if len(rows) == 1 else min(same, min(map(len, rows)) - 1), max(map(len, rows))
