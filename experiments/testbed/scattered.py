"""Pictures without panels: coloured things of many sizes, freely placed, with a box around each as a detector gives it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw

from experiments.testbed.draw import SCALE, Pen, jittered
from experiments.testbed.scenes import COLOURS, THINGS, unseen_colour
from experiments.testbed.shapes import SHAPES
from gaze.pictures.regions import Box, box_cells
from gaze.pictures.strips import Photo

WIDTH, HEIGHT = 192, 128
CELL = 32
GAP = 4  # pixels between two boxes, and between a box and the edge
MOST = 5
TRIES = 30
SMALL, LARGE = 32**2, 96**2  # COCO's bounds between small, medium and large things, in pixels of their masks
LEAST_BOX = 750  # pixels of the smallest box that the paper keeps
SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class DrawnObject:
    """One thing as drawn.

    Attributes:
      box: tight left, top, right, bottom in pixels.
      area: pixels that it covers.
    """

    colour: str
    shape: str
    box: Box
    area: float

    @property
    def caption(self) -> str:
        """E.g. "red star."."""
        return f"{self.colour} {self.shape}."

    @property
    def size(self) -> str:
        """COCO's class: "small", "medium" or "large"."""
        return SIZES[(self.area >= SMALL) + (self.area >= LARGE)]

    @property
    def cells(self) -> Bool[np.ndarray, "4 6"]:
        """The cells of the picture that show it, as `box_cells` counts them."""
        grid = (HEIGHT // CELL, WIDTH // CELL)
        return box_cells(grid, self.box, (WIDTH, HEIGHT), 1)[0].reshape(grid)


Draw = Callable[[np.random.Generator], tuple[Image.Image, tuple[DrawnObject, ...]]]


def draw_scattered(
    rng: np.random.Generator, only: Callable[[str], str] | None = None
) -> tuple[Image.Image, tuple[DrawnObject, ...]]:
    """An RGB picture of 192 x 128 pixels and its two to five things, no two of one colour, one shape or one cell.

    Args:
      only: the colour that a shape must have; any without.
    """
    while True:
        image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), tuple(rng.integers(205, 253, size=3).tolist()))
        count = int(rng.integers(2, MOST + 1))
        things: list[DrawnObject] = []
        sizes = [rng.choice(SIZES, p=(0.1, 0.4, 0.5)), *rng.choice(SIZES[:2], size=count - 1, p=(0.45, 0.55))]
        colours, shapes = rng.permutation(COLOURS), iter(rng.permutation(list(SHAPES)))
        for colour, size in zip(colours, sizes, strict=False):
            shape = str(next(name for name in shapes if size != "large" or _fill(name) >= 0.6))
            colour = str(colour) if only is None else only(shape)
            if colour not in {thing.colour for thing in things}:
                _place(image, things, colour, shape, str(size), rng)
        if len(things) >= 2:
            return image.reduce(SCALE), tuple(things)


def draw_held_out(rng: np.random.Generator) -> tuple[Image.Image, tuple[DrawnObject, ...]]:
    """As `draw_scattered`, but each thing is of the colour that training never gave it."""
    return draw_scattered(rng, lambda shape: COLOURS[unseen_colour(THINGS.index(shape))])


def draw_photos(seed: int, purpose: str, count: int, draw: Draw = draw_held_out) -> list[Photo]:
    """`count` pictures for one purpose, their regions in the order of their area, the largest first.

    The seed and the purpose together make the pictures: two purposes share none.
    """
    photos = []
    for number in range(count):
        image, things = draw(np.random.default_rng([seed, number, *purpose.encode()]))
        things = tuple(sorted(things, key=lambda thing: -thing.area))
        boxes, captions = tuple(thing.box for thing in things), tuple(thing.caption for thing in things)
        photos.append(Photo(f"{purpose}-{seed}-{number}", image, boxes, captions))
    return photos


def _place(
    image: Image.Image, things: list[DrawnObject], colour: str, shape: str, size: str, rng: np.random.Generator
) -> None:
    """Draws one more thing where it is free of the others; leaves it out if no place is found."""
    for _ in range(TRIES):
        half = _half(shape, size, rng)
        room = np.array((WIDTH, HEIGHT)) / 2 - half - GAP
        half[0] *= rng.choice((-1, 1))  # turned to face the other way
        centre = np.array((WIDTH, HEIGHT)) / 2 + rng.uniform(-1, 1, 2) * np.maximum(room, 0)
        box, area = _outline(shape, centre, half)
        thing = DrawnObject(colour, shape, box, area)
        if (room >= 0).all() and thing.size == size and _extent(box) >= LEAST_BOX and _free(thing, things):
            pen = Pen(ImageDraw.Draw(image), "thin")
            pen.shape(shape, (centre[0], centre[1]), (half[0], half[1]), jittered(colour, rng))
            things.append(thing)
            return


def _half(shape: str, size: str, rng: np.random.Generator) -> Float[np.ndarray, "2"]:
    """Half width and half height of a shape, for an area drawn within its class."""
    fill = _fill(shape)
    low, high = {"small": (LEAST_BOX * 1.05 * fill, 1010.0), "medium": (1100.0, 5000.0), "large": (9350.0, 11500.0)}[
        size
    ]
    area = np.exp(rng.uniform(np.log(low), np.log(high)))
    height = min(np.sqrt(area / fill / rng.uniform(0.85, 1.2)), HEIGHT - 2 * GAP - 1)
    return np.array((area / fill / height, height)) / 2


def _free(thing: DrawnObject, others: Sequence[DrawnObject]) -> bool:
    left, top, right, bottom = thing.box
    for other in others:
        x, y, to_x, to_y = other.box
        if left < to_x + GAP and x < right + GAP and top < to_y + GAP and y < bottom + GAP:
            return False
        if (thing.cells & other.cells).any():
            return False
    return True


@cache
def _fill(shape: str) -> float:
    """The share of its box that a shape covers."""
    box, area = _outline(shape, np.array((64.0, 64.0)), np.array((40.0, 40.0)))
    return area / _extent(box)


def _extent(box: Box) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _outline(shape: str, centre: Float[np.ndarray, "2"], half: Float[np.ndarray, "2"]) -> tuple[Box, float]:
    """Tight box and area, in pixels, of a shape as `Pen` draws it."""
    mask = Image.new("L", (WIDTH * SCALE, HEIGHT * SCALE))
    draw = ImageDraw.Draw(mask)
    for _, corners in SHAPES[shape]:
        points: list[float] = ((corners * half + centre) * SCALE).ravel().tolist()
        draw.polygon(points, fill=255, outline=255)
    left, top, right, bottom = (edge / SCALE for edge in mask.getbbox() or (0, 0, 0, 0))
    return (left, top, right, bottom), mask.histogram()[255] / SCALE**2
