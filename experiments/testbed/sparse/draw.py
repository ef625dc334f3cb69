"""Draws the scenes of the sparse testbed as 64 x 64 panels and six panels as a strip."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from experiments.testbed.draw import (
    DARK,
    GROUND,
    LAYOUTS,
    OBJECT_HALF,
    PANEL_SIDE,
    POSITION_JITTER,
    SCALE,
    SUBJECT_HALF,
    Pen,
    compose_strip,
    jittered,
)
from experiments.testbed.scenes import COLOURS, OBJECTS, RELATIONS, SUBJECTS
from experiments.testbed.sparse.scenes import Scene


def draw_panel(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """One RGB rendering, 64 x 64: place, colour, background and mirroring vary with `rng`, the meaning does not."""
    x, y, apart = rng.uniform(-POSITION_JITTER, POSITION_JITTER, 3).tolist()
    mirror, turn_object = (rng.random(2) < 0.5).tolist()
    image = _backdrop(rng)
    pen = Pen(ImageDraw.Draw(image), "thin", (x, y), mirror)
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
