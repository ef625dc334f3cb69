"""What is taught about one picture: what its cells show, six short questions and a long one with their answers.

Half of a late stage's pictures are not plain comics: some wear a letter on every panel, some have no panels at all, some are
a panel shown alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32
from PIL import Image, ImageDraw

from experiments.paper.layer_steering.panel_labels import LETTERS, label_panels
from experiments.testbed import questions, wordings
from experiments.testbed.draw import GAP, PANEL_SIDE
from experiments.testbed.scattered import CELL, HEIGHT, WIDTH, DrawnObject, draw_scattered
from experiments.testbed.scenes import COLOURS, OBJECTS, PANELS, SUBJECTS
from experiments.testbed.sparse.draw import draw_panel, draw_strip
from experiments.testbed.sparse.scenes import SIZES, Scene, draw_scenes
from gaze.pictures.strips import Strip

Question = tuple[str, str]
"""A question and its answer."""

ATTRIBUTES = (*SIZES, len(LETTERS))
"""How many values each attribute of a cell has: the five of its scene, and the letter it shows."""

PANEL_QUESTIONS = 4
REVERSED = 0.1  # of the questions that name a panel, share that counts from the right
SHORT = 6  # short questions about a picture


@dataclass(frozen=True)
class Lesson:
    """A picture and what is asked about it.

    Attributes:
      cells: the attributes each cell shows, -1 for those that it does not; cells row by row.
      panels: how many panels stand side by side, so that parts of each may be hidden; 0 if nothing may.
      short: six questions with short answers.
      long: a question with a long answer.
      places: for each short question the cells that alone tell its answer, none where the question names no place.
    """

    image: Image.Image
    cells: Int32[np.ndarray, "cell 6"]
    panels: int
    short: tuple[Question, ...]
    long: Question
    places: Bool[np.ndarray, "6 cell"]


def comic(rng: np.random.Generator) -> Lesson:
    """Six panels."""
    scenes = draw_scenes(rng)
    panels = [
        questions.counted_question(rng, wordings.COUNTED, _captions(scenes), np.arange(PANELS)[::-1])
        if rng.random() < REVERSED
        else questions.panel_question(rng, scenes, int(panel))
        for panel in rng.permutation(PANELS)[:PANEL_QUESTIONS]
    ]
    short = (*panels, *_unnamed(rng, scenes))
    cells = _panel_cells(scenes)
    return Lesson(draw_strip(scenes, rng), cells, PANELS, short, _narration(rng, scenes), _no_places(cells))


def labelled(rng: np.random.Generator) -> Lesson:
    """Three, four or six panels, each with a letter of its own."""
    scenes = draw_scenes(rng, n=int(rng.choice((3, 4, PANELS), p=(0.125, 0.125, 0.75))))
    count = len(scenes)
    letters = rng.choice(len(LETTERS), size=count, replace=False)
    names = [LETTERS[letter] for letter in letters]
    strip = label_panels(Strip("", draw_strip(scenes, rng), (PANEL_SIDE,) * count), names)
    cells = _panel_cells(scenes)
    cells[np.arange(count) * (PANEL_SIDE // CELL), -1] = letters
    asked = [questions.counted_question(rng, wordings.LETTERS, names, _order(rng, count)) for _ in range(4)]
    order = np.arange(count)[::-1] if rng.random() < 0.3 else None
    asked.append(questions.counted_question(rng, wordings.COUNTED, _captions(scenes), order))
    short = (*asked, _unnamed(rng, scenes)[rng.integers(2)])
    places = _no_places(cells)
    for place, (_, letter) in zip(places, asked[:4], strict=False):
        place[:] = cells[:, -1] == LETTERS.index(letter)
    return Lesson(strip.image, cells, count, short, _narration(rng, scenes), places)


def scattered(rng: np.random.Generator) -> Lesson:
    """Things without panels."""
    image, things = draw_scattered(rng)
    cells = np.full((HEIGHT // CELL * (WIDTH // CELL), len(ATTRIBUTES)), -1, np.int32)
    for thing in things:
        cells[thing.cells.ravel()] = _thing_attributes(thing)
    # The default is the leftmost, as that of a strip is its first panel: one by size would favour large boxes.
    first = min(range(len(things)), key=lambda number: things[number].box[0] + things[number].box[2])
    asked = [things[int(number)] for number in rng.integers(len(things), size=3)]
    boxed = [_boxed(rng, thing) for thing in asked]
    places = _no_places(cells)
    places[: len(asked)] = [thing.cells.ravel() for thing in asked]
    parts = [
        (wordings.PART.draw(rng, wordings.VERBATIM), things[number].caption)
        for number in (first if rng.random() < 0.5 else int(rng.integers(len(things))) for _ in range(2))
    ]
    row = sorted(things, key=lambda thing: thing.box[0] + thing.box[2])
    listed = wordings.LISTED.draw(rng, wordings.VERBATIM), " ".join(thing.caption for thing in row)
    return Lesson(image, cells, 0, (*boxed, _by_trait(rng, things), *parts), listed, places)


def single(rng: np.random.Generator) -> Lesson:
    """One panel, as it looks when cut out of a comic: perhaps with half a white bar at a side, or a letter."""
    scenes = draw_scenes(rng, n=1)
    image = draw_panel(scenes[0], rng)
    if rng.random() < 0.25:
        letter = LETTERS[rng.integers(len(LETTERS))]
        image = label_panels(Strip("", image, (PANEL_SIDE,)), letter).image
    for left in (0, PANEL_SIDE - GAP // 2):
        if rng.random() < 0.7:
            ImageDraw.Draw(image).rectangle((left, 0, left + GAP // 2 - 1, PANEL_SIDE - 1), fill="white")
    short = tuple(
        questions.this_panel_question(rng, scenes, 0)
        if rng.random() < 0.7
        else questions.strip_question(rng, scenes, 0)
        for _ in range(SHORT)
    )
    cells = _panel_cells(scenes)
    return Lesson(image, cells, 0, short, questions.free_narration(rng, scenes, (0,)), _no_places(cells))


Maker = Callable[[np.random.Generator], Lesson]
OTHERS: tuple[Maker, ...] = (*(labelled, scattered) * 4, labelled, single)


def draw_lessons(rng: np.random.Generator, count: int, others: float) -> list[Lesson]:
    """`count` lessons, the share `others` of them not on plain comics."""
    special = round(others * count)
    return [OTHERS[number % len(OTHERS)](rng) if number < special else comic(rng) for number in range(count)]


def _unnamed(rng: np.random.Generator, scenes: Sequence[Scene]) -> tuple[Question, Question]:
    # "This panel" means the first one half of the time: a clear default, and yet no certainty.
    this = 0 if rng.random() < 0.5 else int(rng.integers(1, len(scenes)))
    return (
        questions.this_panel_question(rng, scenes, this),
        questions.strip_question(rng, scenes, int(rng.integers(len(scenes)))),
    )


def _narration(rng: np.random.Generator, scenes: Sequence[Scene]) -> Question:
    kind, forward = rng.random(), np.arange(len(scenes))
    if kind < 0.25:
        return questions.numbered_narration(rng, scenes, forward)
    if kind < 0.35:
        return questions.numbered_narration(rng, scenes, forward[::-1])
    if kind < 0.55:
        return questions.reversed_narration(rng, scenes)
    # Without numbers half of the narrations follow an order that nothing tells: where the model looks is then up to it.
    return questions.free_narration(rng, scenes, forward if kind < 0.775 else rng.permutation(len(scenes)))


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


def _captions(scenes: Sequence[Scene]) -> list[str]:
    return [scene.caption for scene in scenes]


def _panel_cells(scenes: Sequence[Scene]) -> Int32[np.ndarray, "cell 6"]:
    side = PANEL_SIDE // CELL
    row = [
        [scene.subject_colour, scene.subject, scene.relation, scene.object_colour, scene.object, -1] for scene in scenes
    ]
    return np.tile(np.repeat(np.array(row, np.int32), side, axis=0), (side, 1))


def _no_places(cells: Int32[np.ndarray, "cell 6"]) -> Bool[np.ndarray, "6 cell"]:
    return np.zeros((SHORT, len(cells)), bool)


def _thing_attributes(thing: DrawnObject) -> list[int]:
    colour = COLOURS.index(thing.colour)
    if thing.shape in SUBJECTS:
        return [colour, SUBJECTS.index(thing.shape), -1, -1, -1, -1]
    return [-1, -1, -1, colour, OBJECTS.index(thing.shape), -1]
