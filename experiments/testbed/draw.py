"""Draws scenes as 64 x 64 panels, in one of four styles a strip, and six panels as a strip, fast enough to draw while training.

A strip is assembled as the paper's code does it: panels edge to edge, then a white bar of 6 pixels painted *over* each
seam. Three pixels at each inner side of a panel are lost, so whatever carries meaning stays within 4 <= x < 60.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from experiments.testbed.scenes import COLOURS, SUBJECTS, THINGS, Scene, Split, Thing
from experiments.testbed.shapes import SHAPES

PANEL_SIDE = 64
GAP = 6
POSITION_JITTER = 1.5
COLOUR_JITTER = 8

Colour = tuple[int, int, int]
RGB: dict[str, Colour] = {
    "red": (222, 32, 38),
    "orange": (255, 140, 10),
    "yellow": (250, 226, 30),
    "green": (40, 165, 70),
    "blue": (30, 80, 230),
    "purple": (130, 45, 175),
    "pink": (255, 120, 190),
    "black": (36, 36, 42),
}
DARK = (78, 68, 64)
LIGHT = (250, 250, 248)

# Drawn twice as large and averaged down, so that edges are smooth and half a pixel of jitter shows.
SCALE = 2
GROUND = 55
SUBJECT_HALF = (9.5, 9.5)
OBJECT_HALF = (12.0, 10.0)


class SceneLayout(NamedTuple):
    """Centres of subject and object, and lines that tell the relation; x and y in pixels of the unmirrored panel."""

    subject: tuple[float, float]
    object: tuple[float, float]
    lines: tuple[tuple[float, ...], ...]


_JUMP = (8.0, 53.0, 9.0, 40.0, 12.0, 29.0, 17.0, 21.0)
_LANDING = (56.0, 53.0, 55.0, 40.0, 52.0, 29.0, 47.0, 21.0)
_POSTS = ((21.5, 24.0, 21.5, 56.0), (42.5, 24.0, 42.5, 56.0))
_WIND = ((6.0, 41.0, 9.5, 41.0), (6.0, 46.0, 9.5, 46.0), (6.0, 51.0, 9.5, 51.0))

LAYOUTS = {
    "jumps over": SceneLayout((32.0, 13.0), (32.0, 46.0), (_JUMP, _LANDING)),
    "sits on": SceneLayout((32.0, 27.0), (32.0, 46.0), ()),
    "hides under": SceneLayout((32.0, 46.5), (32.0, 15.0), _POSTS),
    "runs to": SceneLayout((20.5, 46.5), (46.0, 46.0), _WIND),
}

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


def compose_strip(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels side by side (six make 384 x 64) with the paper's white bar of 6 pixels over each inner seam."""
    strip = Image.new("RGB", (PANEL_SIDE * len(panels), PANEL_SIDE), "white")
    for index, panel in enumerate(panels):
        strip.paste(panel, (index * PANEL_SIDE, 0))
    draw = ImageDraw.Draw(strip)
    for seam in range(PANEL_SIDE, strip.width, PANEL_SIDE):
        draw.rectangle((seam - GAP // 2, 0, seam + GAP // 2 - 1, PANEL_SIDE - 1), fill="white")
    return strip


def jittered(name: str, rng: np.random.Generator) -> Colour:
    """The named colour with each channel moved by at most `COLOUR_JITTER` levels, within a byte."""
    red, green, blue = rng.integers(-COLOUR_JITTER, COLOUR_JITTER + 1, size=3).tolist()
    base = RGB[name]
    return _byte(base[0] + red), _byte(base[1] + green), _byte(base[2] + blue)


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


def _byte(level: int) -> int:
    return min(255, max(0, level))
