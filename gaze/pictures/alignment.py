"""How the regions of a picture fall on the grid of image tokens: a token that lies across an edge shows two of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from gaze.pictures.regions import Box, box_cells
from gaze.pictures.strips import Photo, Picture, Strip
from qwen3vl_jax.images import ImageSettings, smart_resize
from qwen3vl_jax.positions import Grid

TOLERANCE = 0.5
"""Pixels by which an edge may miss the grid."""


@dataclass(frozen=True)
class Alignment:
    """One picture.

    Attributes:
      size, processed: its (width, height) in pixels, and that of what the model gets.
      cell: side of what one image token shows, in pixels of the latter.
      tokens: image tokens of each region.
      off: how far each inner edge of each region is from the nearest edge of the tokens, in pixels of the processed picture.
      centreless: boxes that hold the centre of no token.
    """

    size: tuple[int, int]
    processed: tuple[int, int]
    cell: int
    tokens: tuple[int, ...]
    off: tuple[float, ...]
    centreless: int

    @property
    def resized(self) -> bool:
        return self.size != self.processed

    @property
    def aligned(self) -> bool:
        return max(self.off, default=0.0) <= TOLERANCE


def alignment(picture: Strip | Photo, settings: ImageSettings) -> Alignment:
    """Where a picture's panels or boxes lie; edges on the rim of the picture always fit, and are left out."""
    grid = token_grid(picture, settings)
    width, height = picture.size
    patch = settings.patch_size
    processed = grid[1] * patch, grid[0] * patch
    scale = processed[0] / width, processed[1] / height
    across, down = _edges(picture)
    boxes = picture.boxes if isinstance(picture, Photo) else ()
    return Alignment(
        size=(width, height),
        processed=processed,
        cell=settings.factor,
        tokens=tuple(picture.cells(grid, settings.merge_size).sum(axis=1).tolist()),
        off=(*_off(across, width, scale[0], settings.factor), *_off(down, height, scale[1], settings.factor)),
        centreless=sum(not centred(picture, box, settings) for box in boxes),
    )


def token_grid(picture: Picture, settings: ImageSettings) -> Grid:
    """(rows, cols) of the processed picture in patches."""
    width, height = picture.size
    rows, cols = smart_resize(height, width, settings.factor, settings.min_pixels, settings.max_pixels)
    return rows // settings.patch_size, cols // settings.patch_size


def centred(picture: Picture, box: Box, settings: ImageSettings) -> bool:
    """Whether a box holds the centre of an image token; if not, it has but the token that it overlaps most."""
    return box_cells(token_grid(picture, settings), box, picture.size, settings.merge_size)[1]


def _edges(picture: Strip | Photo) -> tuple[list[float], list[float]]:
    """Of panels and boxes in pixels, across and down."""
    if isinstance(picture, Strip):
        return [*map(float, accumulate(picture.widths))], []
    sides = np.array(picture.boxes, np.float64)
    return sides[:, ::2].ravel().tolist(), sides[:, 1::2].ravel().tolist()


def _off(edges: Sequence[float], size: int, scale: float, cell: int) -> list[float]:
    inner = np.array([edge for edge in edges if 0 < edge < size]) * scale
    off: list[float] = np.abs(inner - np.round(inner / cell) * cell).tolist()
    return off
