"""From places in a picture (panels, boxes) to groups of its cells, and from cells to the keys of a prompt.

A cell is what one image token shows: `merge` x `merge` patches. Cells are counted row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.positions import Grid

Pixels = float | int
Box = tuple[Pixels, Pixels, Pixels, Pixels]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Regions:
    """The places of one picture that can be asked about or looked at; people count them from 1, arrays from 0."""

    cells: Bool[np.ndarray, "region cell"]

    def __post_init__(self) -> None:
        _require_covered(self.cells, "cell of the picture")

    def __len__(self) -> int:
        return len(self.cells)

    def index(self, number: int) -> int:
        """The row of `cells` that people call region `number`; InputError unless it is one of 1 to n."""
        if not 1 <= number <= len(self):
            raise InputError(f"there is no panel {number}: give a number from 1 to {len(self)}")
        return number - 1


def panel_cells(grid: Grid, widths: Sequence[int], merge: int) -> Bool[np.ndarray, "panel cell"]:
    """The cells of panels that stand side by side, as `assign_panels_to_tokens` of the paper's code.

    Columns of cells are shared out in proportion to the panels' widths in pixels, at least one to each.

    Args:
      grid: (rows, cols) of the picture in patches.
      widths: of the panels, from left to right, in pixels.
      merge: patches per side of a cell.

    Raises InputError if there are fewer columns than panels, no panel, or a panel without width.
    """
    rows, cols = grid[0] // merge, grid[1] // merge
    if not widths or min(widths) <= 0:
        raise InputError(f"panel widths must be positive numbers of pixels, got {list(widths)}")
    if cols < len(widths):
        raise InputError(
            f"the picture has {cols} columns of image tokens, too few for {len(widths)} panels: make it wider"
        )
    bounds = [0]
    for panel, end in enumerate(np.cumsum(widths)[:-1].tolist(), start=1):
        fair = round(cols * end / sum(widths))
        bounds.append(min(max(fair, bounds[-1] + 1), cols - (len(widths) - panel)))
    panel_of_column = np.repeat(np.arange(len(widths)), np.diff([*bounds, cols]))
    on_panel: np.ndarray = np.tile(panel_of_column, rows) == np.arange(len(widths))[:, None]
    return on_panel


def box_cells(grid: Grid, box: Box, image_size: tuple[int, int], merge: int) -> tuple[Bool[np.ndarray, " cell"], bool]:
    """The cells whose centre lies in a box, edges included, as `bbox_to_token_positions` of the paper's code.

    Args:
      grid: (rows, cols) of the picture in patches.
      box: in pixels of a picture of `image_size` (width, height); it may reach over the picture's edge.
      merge: patches per side of a cell.

    Returns:
      The cells, and whether the box held at least one centre. If not, the cells are the one it overlaps most.

    Raises InputError for a box that is inverted, empty or outside the picture.
    """
    left, top, right, bottom = box
    width, height = image_size
    if not (left < right and top < bottom):
        raise InputError(f"the box {box} is empty: give left < right and top < bottom, in pixels")
    if not (left < width and top < height and right > 0 and bottom > 0):
        raise InputError(f"the box {box} lies outside the picture of {width} x {height} pixels")
    down = _axis_cells(grid[0] // merge, height, top, bottom)
    across = _axis_cells(grid[1] // merge, width, left, right)
    inside = (down[0][:, None] & across[0]).ravel()
    if inside.any():
        return inside, True
    overlap = (down[1][:, None] * across[1]).ravel()
    return np.arange(overlap.size) == overlap.argmax(), False


def region_keys(
    image_cell: Int[np.ndarray, " key"], cells: Bool[np.ndarray, "region cell"], first_cell: int = 0
) -> Bool[np.ndarray, "region key"]:
    """The keys of one prompt row that show each region of a picture.

    Args:
      image_cell: a row of `Prompt.image_cell`.
      cells: each region's cells.
      first_cell: number of the picture's first cell: its place in `Images` times the cells per padded picture.

    Raises InputError if a region has no key in this row, and for arrays of other shapes.
    """
    if np.ndim(image_cell) != 1 or np.asarray(image_cell).dtype.kind not in "iu":
        raise InputError(
            f"image_cell has shape {list(np.shape(image_cell))}, but should be one row of integers: `prompt.image_cell[0]`"
        )
    if np.ndim(cells) != 2 or np.asarray(cells).dtype != bool:
        raise InputError(f"cells has shape {list(np.shape(cells))}, but should be booleans [region, cell]")
    cell = image_cell - first_cell
    shown = (image_cell >= 0) & (cell >= 0) & (cell < cells.shape[1])
    keys: np.ndarray = cells[:, np.where(shown, cell, 0)] & shown
    _require_covered(keys, "token of the prompt")
    return keys


def _require_covered(groups: Bool[np.ndarray, "region item"], item: str) -> None:
    empty = np.flatnonzero(~groups.any(axis=1))
    if empty.size:
        raise InputError(f"region {empty[0] + 1} covers no {item}: give a region of this picture that does")


def _axis_cells(
    count: int, size: int, low: Pixels, high: Pixels
) -> tuple[Bool[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Along one axis of `count` cells over `size` pixels: whose centre is in [low, high], and each one's overlap."""
    edges = np.arange(count + 1) * size / count
    centre = (np.arange(count) + 0.5) * size / count
    overlap = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return (low <= centre) & (centre <= high), np.maximum(overlap, 0.0)
