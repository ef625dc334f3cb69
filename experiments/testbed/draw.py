"""Draws scenes as 64 x 64 panels and six panels as a strip, fast enough to draw them while training.

A strip is assembled as the paper's code does it: panels edge to edge, then a white bar of 6 pixels painted *over* each seam. Three
pixels at each inner side of a panel are lost, so whatever carries meaning stays within 4 <= x < 60.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from experiments.testbed.scenes import COLOURS, OBJECTS, RELATIONS, SUBJECTS, Scene
from experiments.testbed.shapes import SHAPES

PANEL_SIDE = 64
GAP = 6
POSITION_JITTER = 1.5
COLOUR_JITTER = 8

RGB = {
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

# Centres of subject and object in pixels. A mirror image means the same, so half of the panels are mirrored.
PLACES = {
    "jumps over": ((32.0, 13.0), (32.0, 46.0)),
    "sits on": ((32.0, 27.0), (32.0, 46.0)),
    "hides under": ((32.0, 46.5), (32.0, 15.0)),
    "runs to": ((20.5, 46.5), (46.0, 46.0)),
}
# What tells the relation apart beyond the places: the path of the jump, the posts of the roof, the wind behind the runner.
MARKS = {
    "jumps over": ((8, 53, 9, 40, 12, 29, 17, 21), (56, 53, 55, 40, 52, 29, 47, 21)),
    "sits on": (),
    "hides under": ((21.5, 24, 21.5, 56), (42.5, 24, 42.5, 56)),
    "runs to": ((5.5, 41, 9.5, 41), (5.5, 46, 9.5, 46), (5.5, 51, 9.5, 51)),
}

Colour = tuple[int, int, int]


def draw_panel(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """One rendering of a scene, RGB 64 x 64: place, colour, background and mirroring vary with `rng`, the meaning does not."""
    noise = rng.random(16).tolist()
    image, draw = _backdrop(noise[0:4])
    mirror, mirror_object = noise[4] < 0.5, noise[5] < 0.5
    # Subject and object share the vertical jitter: a subject that sits keeps touching what it sits on.
    subject_x, object_x, y = (POSITION_JITTER * (2 * value - 1) for value in noise[6:9])
    relation = RELATIONS[scene.relation]
    for mark in MARKS[relation]:
        draw.line(_place(np.array(mark).reshape(-1, 2) + (subject_x, y), mirror), fill=DARK, width=SCALE)
    (subject_at, object_at) = PLACES[relation]
    target = OBJECT_HALF if mirror_object else (-OBJECT_HALF[0], OBJECT_HALF[1])
    figures = (
        (OBJECTS[scene.object], target, object_at, object_x, _jittered(COLOURS[scene.object_colour], noise[9:12])),
        (SUBJECTS[scene.subject], SUBJECT_HALF, subject_at, subject_x, _jittered(COLOURS[scene.subject_colour], noise[12:15])),
    )
    for name, half, at, x, colour in figures:
        paints = {"body": colour, "dark": DARK, "light": LIGHT}
        for paint, corners in SHAPES[name]:
            points = _place(corners * half + (at[0] + x, at[1] + y), mirror)
            draw.polygon(points, fill=paints[paint], outline=DARK)
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


def _backdrop(noise: list[float]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A pastel sky over a slightly deeper ground of the same hue."""
    sky = tuple(int(218 + 34 * value) for value in noise[:3])
    ground = tuple(int(channel - 14 - 16 * noise[3]) for channel in sky)
    side = PANEL_SIDE * SCALE
    image = Image.new("RGB", (side, side), sky)
    draw = ImageDraw.Draw(image)
    draw.rectangle((-1, GROUND * SCALE, side, side), fill=ground, outline=DARK)
    return image, draw


def _place(points: Float[np.ndarray, "corner 2"], mirror: bool) -> list[float]:
    """Flat x, y list in the pixels of the enlarged canvas."""
    flip = (PANEL_SIDE, 0) if mirror else (0, 0)
    sign = (-SCALE, SCALE) if mirror else (SCALE, SCALE)
    return (points * sign + np.multiply(flip, SCALE)).ravel().tolist()


def _jittered(name: str, noise: list[float]) -> Colour:
    """The named colour, each channel moved by at most `COLOUR_JITTER` levels and kept within a byte."""
    red, green, blue = (
        min(255, max(0, round(channel + COLOUR_JITTER * (2 * value - 1)))) for channel, value in zip(RGB[name], noise, strict=True)
    )
    return red, green, blue
