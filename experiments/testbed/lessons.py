"""What is taught about one picture: six short questions and a long one, with their answers.

Half of the pictures are not plain comics: some wear a letter on every panel, some have no panels at all, some are a panel
shown alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32
from PIL import Image, ImageDraw

from experiments.paper.layer_steering.panel_labels import LETTERS, label_panels
from experiments.testbed import questions, wordings
from experiments.testbed.draw import GAP, PANEL_SIDE, STYLES, draw_panel, draw_strip
from experiments.testbed.scattered import DrawnObject, draw_scattered
from experiments.testbed.scenes import COLOURS, PANELS, THINGS, Thing, draw_scenes, tell
from gaze.pictures.strips import Strip

Question = tuple[str, str]
"""A question and its answer."""

PANEL_QUESTIONS = 4
REVERSED = 0.1  # of the questions that name a panel, share that counts from the right
SHORT = 6  # short questions about a picture


class Panel(NamedTuple):
    """A panel as one answer tells it."""

    caption: str


@dataclass(frozen=True)
class Lesson:
    """A picture and what is asked about it: six questions with short answers, and one with a long answer."""

    image: Image.Image
    short: tuple[Question, ...]
    long: Question


def comic(rng: np.random.Generator) -> Lesson:
    """Six panels."""
    scenes = draw_scenes(rng)

    def told() -> list[Panel]:
        return [Panel(caption) for caption in tell(rng, scenes)]

    panels = [
        questions.counted_question(rng, wordings.COUNTED, tell(rng, scenes), np.arange(PANELS)[::-1])
        if rng.random() < REVERSED
        else questions.panel_question(rng, told(), int(panel))
        for panel in rng.permutation(PANELS)[:PANEL_QUESTIONS]
    ]
    return Lesson(draw_strip(scenes, rng), (*panels, *_unnamed(rng, told())), _narration(rng, told()))


def labelled(rng: np.random.Generator) -> Lesson:
    """Three, four or six panels, each with a letter of its own."""
    scenes = draw_scenes(rng, n=int(rng.choice((3, 4, PANELS), p=(0.125, 0.125, 0.75))))
    count = len(scenes)
    names = [LETTERS[letter] for letter in rng.choice(len(LETTERS), size=count, replace=False)]
    strip = label_panels(Strip("", draw_strip(scenes, rng), (PANEL_SIDE,) * count), names)
    asked = [questions.counted_question(rng, wordings.LETTERS, names, _order(rng, count)) for _ in range(4)]
    order = np.arange(count)[::-1] if rng.random() < 0.3 else None
    asked.append(questions.counted_question(rng, wordings.COUNTED, tell(rng, scenes), order))
    told = [Panel(caption) for caption in tell(rng, scenes)]
    return Lesson(strip.image, (*asked, _unnamed(rng, told)[rng.integers(2)]), _narration(rng, told))


def scattered(rng: np.random.Generator) -> Lesson:
    """Things without panels."""
    image, things = draw_scattered(rng)
    while any(held_out(thing) for thing in things):
        image, things = draw_scattered(rng)
    # The default is the leftmost, as that of a strip is its first panel: one by size would favour large boxes.
    row = sorted(things, key=lambda thing: thing.box[0] + thing.box[2])
    boxed = [_boxed(rng, things[int(number)]) for number in rng.integers(len(things), size=3)]
    parts = [
        (wordings.PART.draw(rng, wordings.VERBATIM), thing.caption)
        for thing in (row[0] if rng.random() < 0.5 else row[rng.integers(len(row))] for _ in range(2))
    ]
    listed = wordings.LISTED.draw(rng, wordings.VERBATIM), " ".join(thing.caption for thing in row)
    return Lesson(image, (*boxed, _by_trait(rng, things), *parts), listed)


def single(rng: np.random.Generator) -> Lesson:
    """One panel, as it looks when cut out of a comic: perhaps with half a white bar at a side, or a letter."""
    scenes = draw_scenes(rng, n=1)
    image = draw_panel(scenes[0], rng, STYLES[rng.integers(len(STYLES))])
    if rng.random() < 0.25:
        letter = LETTERS[rng.integers(len(LETTERS))]
        image = label_panels(Strip("", image, (PANEL_SIDE,)), letter).image
    for left in (0, PANEL_SIDE - GAP // 2):
        if rng.random() < 0.7:
            ImageDraw.Draw(image).rectangle((left, 0, left + GAP // 2 - 1, PANEL_SIDE - 1), fill="white")

    def told() -> list[Panel]:
        return [Panel(caption) for caption in tell(rng, scenes)]

    short = tuple(
        questions.this_panel_question(rng, told(), 0)
        if rng.random() < 0.7
        else questions.strip_question(rng, told(), 0)
        for _ in range(SHORT)
    )
    return Lesson(image, short, questions.free_narration(rng, told(), (0,)))


Maker = Callable[[np.random.Generator], Lesson]
OTHERS: tuple[Maker, ...] = (*(labelled, scattered) * 4, labelled, single, single)


def draw_lessons(rng: np.random.Generator, count: int, others: float) -> list[Lesson]:
    """`count` lessons, the share `others` of them not on plain comics: letters, boxes, single panels as 5 : 4 : 2."""
    special = round(others * count)
    kinds = np.resize(rng.permutation(len(OTHERS)), special)
    return [OTHERS[kind](rng) for kind in kinds] + [comic(rng) for _ in range(count - special)]


def held_out(thing: DrawnObject) -> bool:
    """Whether training never shows this colour of this thing."""
    return Thing(COLOURS.index(thing.colour), THINGS.index(thing.shape)).held_out


def _unnamed(rng: np.random.Generator, told: Sequence[Panel]) -> tuple[Question, Question]:
    # "This panel" means the first one half of the time: a clear default, and yet no certainty.
    this = 0 if rng.random() < 0.5 else int(rng.integers(1, len(told)))
    return (
        questions.this_panel_question(rng, told, this),
        questions.strip_question(rng, told, int(rng.integers(len(told)))),
    )


def _narration(rng: np.random.Generator, told: Sequence[Panel]) -> Question:
    kind, forward = rng.random(), np.arange(len(told))
    if kind < 0.25:
        return questions.numbered_narration(rng, told, forward)
    if kind < 0.35:
        return questions.numbered_narration(rng, told, forward[::-1])
    if kind < 0.55:
        return questions.reversed_narration(rng, told)
    # Without numbers half of the narrations follow an order that nothing tells: where the model looks is then up to it.
    return questions.free_narration(rng, told, forward if kind < 0.775 else rng.permutation(len(told)))


def _order(rng: np.random.Generator, count: int) -> Int32[np.ndarray, " panel"] | None:
    """Reading order for two letter questions in five (None), its reverse for two, any order for one."""
    kind = rng.random()
    if kind < 0.4:
        return None
    forward = np.arange(count, dtype=np.int32)
    return forward[::-1] if kind < 0.8 else rng.permutation(forward)


def _boxed(rng: np.random.Generator, thing: DrawnObject) -> Question:
    rows, cols = np.nonzero(thing.cells)
    places = {"left": cols.min() + 1, "top": rows.min() + 1, "right": cols.max() + 1, "bottom": rows.max() + 1}
    return wordings.BOXED.draw(rng, wordings.VERBATIM).format(**places), thing.caption


def _by_trait(rng: np.random.Generator, things: Sequence[DrawnObject]) -> Question:
    by_area = sorted(things, key=lambda thing: thing.area)
    kind = rng.random()
    if kind < 0.3:
        return wordings.LARGEST, by_area[-1].caption
    if kind < 0.4:
        return wordings.SMALLEST, by_area[0].caption
    thing = things[int(rng.integers(len(things)))]
    return wordings.COLOURED.draw(rng, wordings.VERBATIM).format(colour=thing.colour), thing.caption
