"""What is looked at: a picture, its regions, and what each of them shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from PIL import Image

from gaze.pictures.regions import Box, box_cells, panel_cells
from qwen3vl_jax.checks import require_count
from qwen3vl_jax.positions import Grid


class Caption(str):
    """What a region shows, in one sentence, and other sentences that say the same.

    Attributes:
      others: those; whoever says one of them has said the caption.
    """

    others: tuple[str, ...]

    def __new__(cls, text: str, others: Sequence[str] = ()) -> "Caption":
        caption = super().__new__(cls, text)
        caption.others = tuple(others)
        return caption

    def __repr__(self) -> str:
        return repr((str(self), *self.others))


def wordings(caption: str) -> tuple[str, ...]:
    """A caption and, if it is a `Caption`, the other ways to say it; without surrounding white space, empty ones left out."""
    every = (caption, *caption.others) if isinstance(caption, Caption) else (caption,)
    return tuple(text.strip() for text in every if text.strip())


@runtime_checkable
class Picture(Protocol):
    """Anything with regions that can be asked about.

    `captions` has one text per region if they are known, else it is empty.
    """

    @property
    def name(self) -> str: ...

    @property
    def image(self) -> Image.Image: ...

    @property
    def captions(self) -> tuple[str, ...]: ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels; reads none of them."""

    def __len__(self) -> int:
        """The number of regions."""

    def cells(self, grid: Grid, merge: int) -> Bool[np.ndarray, "region cell"]:
        """The cells of each region in a picture of `grid` (rows, cols) patches."""

    def crop(self, region: int) -> Image.Image:
        """One region (from 0) by itself."""


@dataclass(frozen=True)
class Strip:
    """A comic strip: its panels stand side by side.

    Attributes:
      widths: of the panels in pixels, from left to right; they add up to the width of the picture.
      captions: what each panel shows.
    """

    name: str
    image: Image.Image
    widths: tuple[int, ...]
    captions: tuple[str, ...] = ()

    @classmethod
    def even(cls, name: str, image: Image.Image, panels: int) -> "Strip":
        """A picture cut into `panels` columns of (nearly) equal width; InputError for more than its columns of pixels."""
        require_count("panels", panels, 1, image.width)
        edges = [round(image.width * number / panels) for number in range(panels + 1)]
        return cls(name, image, tuple(right - left for left, right in pairwise(edges)))

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size

    def __len__(self) -> int:
        return len(self.widths)

    def cells(self, grid: Grid, merge: int) -> Bool[np.ndarray, "region cell"]:
        return panel_cells(grid, self.widths, merge)

    def crop(self, region: int) -> Image.Image:
        left, right = list(pairwise(accumulate(self.widths, initial=0)))[region]
        return self.image.crop((left, 0, right, self.image.height))


class Unread(Strip):
    """A strip whose pixels are read when they are first looked at, so that a process reads only what it needs.

    `read` gives a picture of the panels' widths and this height, or raises InputError then.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Image.Image],
        widths: tuple[int, ...],
        height: int,
        captions: tuple[str, ...] = (),
    ) -> None:
        vars(self).update(name=name, widths=widths, captions=captions, _read=read, _height=height)

    @cached_property
    def image(self) -> Image.Image:
        image: Image.Image = vars(self)["_read"]()
        return image

    @property
    def size(self) -> tuple[int, int]:
        return sum(self.widths), vars(self)["_height"]


@dataclass(frozen=True)
class Photo:
    """A picture with boxes, which may overlap and leave parts of it uncovered.

    Attributes:
      boxes: left, top, right, bottom in pixels.
      captions: what each box shows.
    """

    name: str
    image: Image.Image
    boxes: tuple[Box, ...]
    captions: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size

    def __len__(self) -> int:
        return len(self.boxes)

    def cells(self, grid: Grid, merge: int) -> Bool[np.ndarray, "region cell"]:
        """As `box_cells`: a box that holds no cell's centre has the cell that it overlaps most."""
        return np.stack([box_cells(grid, box, self.size, merge)[0] for box in self.boxes])

    def crop(self, region: int) -> Image.Image:
        left, top, right, bottom = self.boxes[region]
        return self.image.crop((int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom))))
