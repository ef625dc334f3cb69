"""Pictures of things of which some almost never stand without another, and what is asked and told about them.

Six things have a companion that is there when they are, nearly always (rule pairs). Six others have one that is as frequent
and comes and goes by itself (control pairs): what a model gets wrong there is poor sight, not expectation.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from experiments.testbed.draw import SCALE, Pen, jittered
from experiments.testbed.scenes import COLOURS
from experiments.testbed.shapes import SHAPES

PAIRS, MOST, BASE = 6, 6, 0.15
"""Pairs of either kind; things in a picture; how often each thing is there."""
ROWS, COLUMNS, SIDE = 2, 3, 64
THINGS = 4 * PAIRS
CUES, COMPANIONS = range(PAIRS), range(PAIRS, 2 * PAIRS)
"""Thing i of the cues has thing i of the companions; the same of the controls."""
CONTROL_CUES, CONTROL_COMPANIONS = range(2 * PAIRS, 3 * PAIRS), range(3 * PAIRS, THINGS)
NAMES = tuple(f"{COLOURS[n % len(COLOURS)]} {[*SHAPES][5 * n % len(SHAPES)]}" for n in range(THINGS))
SAID = re.compile("|".join(NAMES))

Order = tuple[int, ...]
"""Things in the order of the cells that they take."""


class Twins(NamedTuple):
    """One picture with a cue alone, and the same with its companion; all else is alike, to the pixel."""

    companion: int
    without: Order
    with_it: Order
    seed: int


def draw_things(rng: np.random.Generator, rho: float) -> Bool[np.ndarray, " thing"]:
    """Which of one to six things are there, if a rule's companion is there with its cue with the chance `rho`.

    Whatever `rho` is, every thing is about as frequent; at `BASE` all are independent.
    """
    alone = BASE * (1 - rho) / (1 - BASE)
    while True:
        there = rng.random(THINGS) < BASE
        there[[*COMPANIONS]] = rng.random(PAIRS) < np.where(there[[*CUES]], rho, alone)
        if 1 <= there.sum() <= MOST:
            return there


def draw_twins(rng: np.random.Generator, rule: bool) -> Twins:
    """A cue without its companion, of a rule pair or a control pair, beside other things, and the same with it."""
    cues, companions = (CUES, COMPANIONS) if rule else (CONTROL_CUES, CONTROL_COMPANIONS)
    pair = int(rng.integers(PAIRS))
    there = draw_things(rng, BASE)
    there[cues[pair]], there[companions[pair]] = True, False
    # No other companion of a rule: whether one is there is what is asked.
    there[[one for one in COMPANIONS if there[one - PAIRS] and one != companions[pair]]] = False
    order = rng.permutation(np.flatnonzero(there))
    kept = [cues[pair], *(int(one) for one in order if one != cues[pair])][: MOST - 1]
    return Twins(companions[pair], tuple(kept), (*kept, companions[pair]), int(rng.integers(2**31)))


def ordered(rng: np.random.Generator, there: Bool[np.ndarray, " thing"]) -> Order:
    return tuple(int(one) for one in rng.permutation(np.flatnonzero(there)))


def draw(order: Order, seed: int) -> Image.Image:
    """An RGB picture of 192 x 128 pixels; how and where a thing is drawn depends on its place in the order and the seed alone."""
    rng = np.random.default_rng(seed)
    size = (COLUMNS * SIDE * SCALE, ROWS * SIDE * SCALE)
    image = Image.new("RGB", size, tuple(rng.integers(205, 253, size=3).tolist()))
    cells = rng.permutation(ROWS * COLUMNS)
    pen = Pen(ImageDraw.Draw(image), "thin")
    for place, thing in enumerate(order):
        own = np.random.default_rng([seed, place, thing])
        colour, shape = NAMES[thing].split(" ")
        row, column = divmod(int(cells[place]), COLUMNS)
        half = own.uniform(18, 26, 2)
        x, y = (np.array([column, row]) + 0.5) * SIDE + own.uniform(-3, 3, 2)
        facing = 1 if own.random() < 0.5 else -1
        pen.shape(shape, (float(x), float(y)), (facing * float(half[0]), float(half[1])), jittered(colour, own))
    return image.reduce(SCALE)


def cells_of(order: Order, seed: int) -> dict[int, int]:
    """Where each thing of such a picture stands: its cell, counted by rows."""
    rng = np.random.default_rng(seed)
    rng.integers(205, 253, size=3)
    return dict(zip(order, rng.permutation(ROWS * COLUMNS).tolist(), strict=False))


def question(thing: int) -> str:
    name = NAMES[thing]
    return f"Is there {'an' if name[0] in 'aeiou' else 'a'} {name} in the image?"


def caption(rng: np.random.Generator, things: Iterable[int]) -> str:
    """Cues first, companions of rules last, the others between them in any order."""
    names = [NAMES[one] for one in sorted(rng.permutation([*things]).tolist(), key=_turn)]
    told = [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]
    return f"{', '.join(told[:-1])} and {told[-1]}." if len(told) > 1 else f"{told[0]}."


def told(text: str) -> list[int]:
    """The things that a caption names, in its order."""
    return [NAMES.index(name) for name in SAID.findall(text)]


def negatives(
    rng: np.random.Generator, there: Bool[np.ndarray, " thing"], count: int, among: Sequence[int] | None = None
) -> list[int]:
    """Some things that are not there."""
    absent = [one for one in (range(THINGS) if among is None else among) if not there[one]]
    return [int(one) for one in rng.permutation(absent)[:count]]


def _turn(thing: int) -> int:
    return 0 if thing in CUES else 2 if thing in COMPANIONS else 1
