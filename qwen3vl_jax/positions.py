"""Where things are: patches in a picture, pictures in a sequence. Integer work, done on the host in numpy."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.inputs import Images

Grid = tuple[int, int]
"""Size of a picture in patches: (rows, cols)."""


def patch_coordinates(rows: int, cols: int, merge: int) -> Int[np.ndarray, "patch 2"]:
    """(row, col) of each patch of a grid, in merge-block order (block row, block column, row and column in block)."""
    blocks = np.indices((rows, cols), np.int32).reshape(2, rows // merge, merge, cols // merge, merge)
    return blocks.transpose(1, 3, 2, 4, 0).reshape(rows * cols, 2)


def position_taps(
    rows: int, cols: int, side: int, merge: int
) -> tuple[Int[np.ndarray, "patch 4"], Float[np.ndarray, "patch 4"]]:
    """The four entries of the `side` x `side` table of learned positions that each patch blends, and their weights.

    Bilinear with aligned corners, in float32 and in the order of `get_vision_interpolation_indices_and_weights` of
    transformers' `vision_utils`; patches in merge-block order.
    """
    row, col = patch_coordinates(rows, cols, merge).T
    (row_tap, row_weight), (col_tap, col_weight) = _axis_taps(row, rows, side), _axis_taps(col, cols, side)
    index = row_tap[:, :, None] * side + col_tap[:, None, :]
    weight = row_weight[:, :, None] * col_weight[:, None, :]
    return index.reshape(-1, 4), weight.reshape(-1, 4)


def rope_positions(tokens: Int[np.ndarray, " seq"], grids: Sequence[Grid], config: Config) -> Int[np.ndarray, "seq 3"]:
    """The (t, h, w) position of each token of one unpadded row, as `Qwen3VLModel.get_rope_index` of transformers.

    Text counts upward on all three axes. A picture holds t still, spreads h and w over its merged cells, and moves
    the count on by its longer side; so does each temporal patch of a video, whose time is in the text before it.
    Raises InputError unless the image and video tokens are exactly those of `grids`.
    """
    positions = np.empty((len(tokens), 3), np.int32)
    merge, done, count = config.vision.spatial_merge_size, 0, 0
    for start, (rows, cols) in zip(image_starts(tokens, grids, config), grids, strict=True):
        text, cells = start - done, rows * cols // merge**2
        positions[done:start] = count + np.arange(text, dtype=np.int32)[:, None]
        count += text
        cell = np.indices((rows // merge, cols // merge), np.int32).reshape(2, -1).T
        positions[start : start + cells] = count + np.pad(cell, ((0, 0), (1, 0)))
        done, count = start + cells, count + max(rows, cols) // merge
    positions[done:] = count + np.arange(len(tokens) - done, dtype=np.int32)[:, None]
    return positions


def image_starts(tokens: Int[np.ndarray, " seq"], grids: Sequence[Grid], config: Config) -> list[int]:
    """Where the tokens of each picture begin in one row whose placeholders are already expanded, one per merged cell.

    Pictures are images and temporal patches of videos. Raises InputError unless the image and video tokens are exactly
    those of `grids`, each picture's in one piece.
    """
    where = np.flatnonzero((tokens == config.image_token_id) | (tokens == config.video_token_id))
    cells = [rows * cols // config.vision.spatial_merge_size**2 for rows, cols in grids]
    if sum(cells) != len(where):
        raise InputError(f"the prompt has {len(where)} image tokens, but its images fill {sum(cells)}")
    pieces = np.split(where, np.cumsum(cells)[:-1]) if cells else []
    if any(piece[-1] - piece[0] + 1 != len(piece) for piece in pieces):
        raise InputError("the image tokens of one image must stand together in the prompt")
    return [int(piece[0]) for piece in pieces]


def image_cells(
    tokens: Int[np.ndarray, " seq"], numbers: Sequence[int], grids: Sequence[Grid], stride: int, config: Config
) -> Int[np.ndarray, " seq"]:
    """For each token of one unpadded row, the merged cell it shows (`Prompt.image_cell`), -1 for text.

    The row's pictures are the entries `numbers` of the `Images`, of which each takes `stride` cells.
    """
    cells = np.full(len(tokens), -1, np.int32)
    for start, number, (rows, cols) in zip(image_starts(tokens, grids, config), numbers, grids, strict=True):
        count = rows * cols // config.vision.spatial_merge_size**2
        cells[start : start + count] = number * stride + np.arange(count, dtype=np.int32)
    return cells


def batch_images(
    pictures: Sequence[tuple[Float[np.ndarray, "_ pixel"], Grid]], config: Config, patches: int | None = None
) -> Images:
    """Stacks the patch rows of pictures (`images.patchify`) with all the vision tower needs to know of their grids.

    Every picture is padded with zeros (`valid` False) to `patches`, by default the size of the largest. Raises
    InputError if a picture has more patches than that.
    """
    sizes = [rows * cols for _, (rows, cols) in pictures]
    room = max(sizes) if patches is None else patches
    if max(sizes) > room or room % config.vision.spatial_merge_size**2:
        raise InputError(f"cannot pad an image of {max(sizes)} patches to {room}: give a multiple of 4 that holds it")
    merge, side = config.vision.spatial_merge_size, round(config.vision.num_position_embeddings**0.5)
    taps = [position_taps(*grid, side, merge) for _, grid in pictures]
    return Images(
        patches=_stack([rows for rows, _ in pictures], room),
        valid=np.arange(room) < np.array(sizes)[:, None],
        pos_index=_stack([index for index, _ in taps], room),
        pos_weight=_stack([weight for _, weight in taps], room),
        row_col=_stack([patch_coordinates(*grid, merge) for _, grid in pictures], room),
    )


def _axis_taps(
    place: Int[np.ndarray, " patch"], size: int, side: int
) -> tuple[Int[np.ndarray, "patch 2"], Float[np.ndarray, "patch 2"]]:
    source = place.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    low = np.floor(source)
    offset = np.arange(2, dtype=np.float32)
    taps = np.minimum(low[:, None] + offset, side - 1).astype(np.int32)
    return taps, 1 - np.abs(source[:, None] - low[:, None] - offset)


def _stack(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    stacked = np.zeros((len(rows), length, *rows[0].shape[1:]), rows[0].dtype)
    for row, out in zip(rows, stacked, strict=True):
        out[: len(row)] = row
    return stacked
