"""Draws scenes as 64 x 64 panels, in one of four styles a strip, and six panels as a strip."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from experiments.testbed.draw import (
    DARK,
    GROUND,
    LAYOUTS,
    LIGHT,
    OBJECT_HALF,
    PANEL_SIDE,
    POSITION_JITTER,
    SCALE,
    SUBJECT_HALF,
    Colour,
    compose_strip,
    jittered,
)
from experiments.testbed.scenes import COLOURS, SUBJECTS
from experiments.testbed.shapes import SHAPES
from experiments.testbed.v2.scenes import THINGS, Scene, Split, Thing

Style = Literal["thin", "bold", "bare", "hollow"]
STYLES: tuple[Style, ...] = ("thin", "bold", "bare")
"""Those of training: thin dark outlines, thick ones, none."""
UNSEEN_STYLE: Style = "hollow"
"""A thick outline in the thing's colour around a white inside."""

# Where the things of a list stand, by how many there are, in reading order: centres, half size.
PLACES: dict[int, tuple[tuple[tuple[float, float], ...], float]] = {
    1: (((32.0, 32.0),), 13.0),
    2: (((19.0, 32.0), (45.0, 32.0)), 11.5),
    3: (((19.0, 18.0), (45.0, 18.0), (32.0, 46.0)), 10.5),
    4: (((19.0, 18.0), (45.0, 18.0), (19.0, 46.0), (45.0, 46.0)), 10.5),
    5: (((13.5, 18.0), (32.0, 18.0), (50.5, 18.0), (21.0, 46.0), (43.0, 46.0)), 8.5),
}
LIST_JITTER = 0.75


class Pen(NamedTuple):
    """Draws things in panel pixels, moved by the panel's jitter and mirrored left to right if the panel is."""

    draw: ImageDraw.ImageDraw
    style: Style
    shift: tuple[float, float] = (0.0, 0.0)
    mirror: bool = False

    def lines(self, lines: tuple[tuple[float, ...], ...]) -> None:
        """Thin lines, each given as x, y, x, y, ..."""
        for line in lines:
            self.draw.line(self._on_canvas(np.reshape(line, (-1, 2))), fill=DARK, width=SCALE)

    def shape(self, name: str, centre: tuple[float, float], half: tuple[float, float], colour: Colour) -> None:
        """A named shape of half sizes `half`; a negative half width turns it to face the other way."""
        hollow = self.style == "hollow"
        fills = {"body": LIGHT if hollow else colour, "dark": DARK, "light": LIGHT}
        width = {"thin": 1, "bold": 3, "bare": 0, "hollow": 5}[self.style]
        for paint, corners in SHAPES[name]:
            points = self._on_canvas(corners * half + centre)
            self.draw.polygon(points, fill=fills[paint])
            if width:
                line = colour if hollow and paint == "body" else DARK
                self.draw.line([*points, *points[:4]], fill=line, width=width, joint="curve")

    def _on_canvas(self, points: np.ndarray) -> list[float]:
        points = points + self.shift
        if self.mirror:
            points[:, 0] = PANEL_SIDE - points[:, 0]
        numbers: list[float] = (points * SCALE).ravel().tolist()
        return numbers


def draw_panel(scene: Scene, rng: np.random.Generator, style: Style) -> Image.Image:
    """One RGB rendering, 64 x 64: place, colours and background vary with `rng`, the meaning does not."""
    image = _backdrop(rng, ground=scene.relation is not None)
    draw = ImageDraw.Draw(image)
    if scene.relation is None:
        _draw_list(Pen(draw, style), scene.things, rng)
    else:
        x, y = rng.uniform(-POSITION_JITTER, POSITION_JITTER, 2).tolist()
        _draw_relation(Pen(draw, style, (x, y), bool(rng.random() < 0.5)), scene, rng)
    return image.reduce(SCALE)


def draw_strip(scenes: Sequence[Scene], rng: np.random.Generator, split: Split = "train") -> Image.Image:
    """Strip of one new rendering of each scene, left to right, all in one style."""
    style = UNSEEN_STYLE if split == "style" else STYLES[rng.integers(len(STYLES))]
    return compose_strip([draw_panel(scene, rng, style) for scene in scenes])


def _draw_relation(pen: Pen, scene: Scene, rng: np.random.Generator) -> None:
    subject, thing = scene.things
    layout = LAYOUTS[str(scene.relation)]
    pen.lines(layout.lines)
    # The object's own jitter is sideways only: a subject that sits keeps touching what it sits on.
    apart = float(rng.uniform(-POSITION_JITTER, POSITION_JITTER)) - pen.shift[0]
    _draw_thing(pen, thing, (layout.object[0] + apart, layout.object[1]), OBJECT_HALF, rng)
    _draw_thing(pen, subject, layout.subject, SUBJECT_HALF, rng)


def _draw_list(pen: Pen, things: Sequence[Thing], rng: np.random.Generator) -> None:
    centres, half = PLACES[len(things)]
    for thing, (x, y) in zip(things, centres, strict=True):
        dx, dy = rng.uniform(-LIST_JITTER, LIST_JITTER, 2).tolist()
        _draw_thing(pen, thing, (x + dx, y + dy), (half, half), rng)


def _draw_thing(
    pen: Pen, thing: Thing, centre: tuple[float, float], half: tuple[float, float], rng: np.random.Generator
) -> None:
    name = THINGS[thing.shape]
    turned = name not in SUBJECTS and rng.random() < 0.5
    pen.shape(name, centre, (-half[0] if turned else half[0], half[1]), jittered(COLOURS[thing.colour], rng))


def _backdrop(rng: np.random.Generator, ground: bool) -> Image.Image:
    """The enlarged canvas: a pastel sky, in a relation over a slightly deeper ground of the same hue."""
    sky = rng.integers(218, 253, size=3)
    deeper = sky - rng.integers(14, 31)
    side = PANEL_SIDE * SCALE
    image = Image.new("RGB", (side, side), tuple(sky.tolist()))
    if ground:
        ImageDraw.Draw(image).rectangle((-1, GROUND * SCALE, side, side), fill=tuple(deeper.tolist()), outline=DARK)
    return image
