"""Draws scenes as 64 x 64 panels and six panels as a strip, fast enough to draw them while training.

A strip is assembled as the paper's code does it: panels edge to edge, then a white bar of 6 pixels painted *over* each
seam. Three pixels at each inner side of a panel are lost, so whatever carries meaning stays within 4 <= x < 60.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from experiments.testbed.scenes import COLOURS, OBJECTS, RELATIONS, SUBJECTS, Scene
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


class Pen(NamedTuple):
    """Draws in panel pixels, moved by the panel's jitter and mirrored left to right if the panel is."""

    draw: ImageDraw.ImageDraw
    shift: tuple[float, float]
    mirror: bool

    def lines(self, lines: tuple[tuple[float, ...], ...]) -> None:
        """Thin lines, each given as x, y, x, y, ..."""
        for line in lines:
            self.draw.line(self._on_canvas(np.reshape(line, (-1, 2))), fill=DARK, width=SCALE)

    def shape(self, name: str, centre: tuple[float, float], half: tuple[float, float], colour: Colour) -> None:
        """A named shape of half sizes `half`; a negative half width turns it to face the other way."""
        fills = {"body": colour, "dark": DARK, "light": LIGHT}
        for paint, corners in SHAPES[name]:
            self.draw.polygon(self._on_canvas(corners * half + centre), fill=fills[paint], outline=DARK)

    def _on_canvas(self, points: Float[np.ndarray, "point 2"]) -> list[float]:
        points = points + self.shift
        if self.mirror:
            points[:, 0] = PANEL_SIDE - points[:, 0]
        numbers: list[float] = (points * SCALE).ravel().tolist()
        return numbers


def draw_panel(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """One RGB rendering, 64 x 64: place, colour, background and mirroring vary with `rng`, the meaning does not."""
    x, y, apart = rng.uniform(-POSITION_JITTER, POSITION_JITTER, 3).tolist()
    mirror, turn_object = (rng.random(2) < 0.5).tolist()
    image = _backdrop(rng)
    pen = Pen(ImageDraw.Draw(image), (x, y), mirror)
    layout = LAYOUTS[RELATIONS[scene.relation]]
    width, height = OBJECT_HALF
    pen.lines(layout.lines)
    # The object's own jitter is sideways only: a subject that sits keeps touching what it sits on.
    pen.shape(
        OBJECTS[scene.object],
        (layout.object[0] + apart - x, layout.object[1]),
        (-width if turn_object else width, height),
        jittered(COLOURS[scene.object_colour], rng),
    )
    pen.shape(SUBJECTS[scene.subject], layout.subject, SUBJECT_HALF, jittered(COLOURS[scene.subject_colour], rng))
    return image.reduce(SCALE)


def compose_strip(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels side by side (six make 384 x 64) with the paper's white bar of 6 pixels over each inner seam."""
    strip = Image.new("RGB", (PANEL_SIDE * len(panels), PANEL_SIDE), "white")
    for index, panel in enumerate(panels):
        strip.paste(panel, (index * PANEL_SIDE, 0))
    draw = ImageDraw.Draw(strip)
    for seam in range(PANEL_SIDE, strip.width, PANEL_SIDE):
        draw.rectangle((seam - GAP // 2, 0, seam + GAP // 2 - 1, PANEL_SIDE - 1), fill="white")
    return strip


def draw_strip(scenes: Sequence[Scene], rng: np.random.Generator) -> Image.Image:
    """Strip of one new rendering of each scene, left to right."""
    return compose_strip([draw_panel(scene, rng) for scene in scenes])


def _backdrop(rng: np.random.Generator) -> Image.Image:
    """The enlarged canvas: a pastel sky over a slightly deeper ground of the same hue."""
    sky = rng.integers(218, 253, size=3)
    ground = sky - rng.integers(14, 31)
    side = PANEL_SIDE * SCALE
    image = Image.new("RGB", (side, side), tuple(sky.tolist()))
    ImageDraw.Draw(image).rectangle((-1, GROUND * SCALE, side, side), fill=tuple(ground.tolist()), outline=DARK)
    return image


def jittered(name: str, rng: np.random.Generator) -> Colour:
    """The named colour with each channel moved by at most `COLOUR_JITTER` levels, within a byte."""
    red, green, blue = rng.integers(-COLOUR_JITTER, COLOUR_JITTER + 1, size=3).tolist()
    base = RGB[name]
    return _byte(base[0] + red), _byte(base[1] + green), _byte(base[2] + blue)


def _byte(level: int) -> int:
    return min(255, max(0, level))
