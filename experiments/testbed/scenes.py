"""The world of the testbed: what a panel can show, the two ways to tell it, and what is kept out of training.

A panel shows a relation (one thing does something to another) or lists one to five things, which are told in reading order.
Each can be told in two ways, of 3 to 14 words, and nothing in the picture or the question says which.

Three things never occur in training: one colour of each thing (*pairs of words*: no picture and no answer holds them), lists
of four (*a length*), and drawings that leave the inside of a thing white (*a style*, see `draw`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SUBJECTS = ("star", "heart", "moon", "ball", "cat", "fish", "kite", "robot")
RELATIONS = ("jumps over", "sits on", "hides under", "runs to")
OBJECTS = ("box", "table", "house", "tree", "car", "boat")
PANELS = 6
THINGS = (*SUBJECTS, *OBJECTS)
COUNTS = ("one", "two", "three", "four", "five")
MOST = len(COUNTS)
UNSEEN_LENGTH = 4
DOING = {"jumps over": "jumping over", "sits on": "sitting on", "hides under": "hiding under", "runs to": "running to"}

Split = Literal["train", "held_out", "length", "style"]
"""Training's own; scenes with pairs of words that training never showed; lists of the length that it never showed; and
scenes as in training, to be drawn in the style that it never showed."""


class Thing(NamedTuple):
    """A coloured thing; both fields count in `COLOURS` and `THINGS`."""

    colour: int
    shape: int

    @property
    def words(self) -> str:
        """E.g. "red star"."""
        return f"{COLOURS[self.colour]} {THINGS[self.shape]}"

    @property
    def held_out(self) -> bool:
        """Whether training never shows the two words together: one colour of each thing, no two neighbours' the same."""
        return self.colour == unseen_colour(self.shape)


def unseen_colour(shape: int) -> int:
    """The colour that training never gives to a shape."""
    return -3 * shape % len(COLOURS)


@dataclass(frozen=True)
class Scene:
    """What one panel shows.

    Attributes:
      things: one to five in reading order, all of different shapes; of a relation its subject and its object.
      relation: what the first does to the second, None for a list.
    """

    things: tuple[Thing, ...]
    relation: str | None = None

    @property
    def captions(self) -> tuple[str, str]:
        """Both ways to tell it, each ending in a full stop."""
        told = [thing.words for thing in self.things]
        if self.relation is not None:
            subject, thing = told
            return f"{subject} {self.relation} {thing}.", f"{thing} with {subject} {DOING[self.relation]} it."
        if len(told) == 1:
            return f"only {told[0]}.", f"{told[0]} stands alone."
        listed = f"{', '.join(told[:-1])} and {told[-1]}"
        return f"{listed}.", f"{COUNTS[len(told) - 1]} things: {listed}."

    @property
    def caption(self) -> str:
        """The first way to tell it."""
        return self.captions[0]

    @property
    def split(self) -> Split:
        """The split that it belongs to; "style" shares its scenes with training."""
        if any(thing.held_out for thing in self.things):
            return "held_out"
        return "length" if self.relation is None and len(self.things) == UNSEEN_LENGTH else "train"


def draw_scenes(rng: np.random.Generator, n: int = PANELS, split: Split = "train") -> tuple[Scene, ...]:
    """`n` scenes of one split, in the order of their panels, no two alike; words may repeat among them."""
    wanted = "train" if split == "style" else split
    scenes: list[Scene] = []
    while len(scenes) < n:
        scene = _any_scene(rng, wanted)
        if scene.split == wanted and scene not in scenes:
            scenes.append(scene)
    return tuple(scenes)


def tell(rng: np.random.Generator, scenes: Sequence[Scene]) -> list[str]:
    """One caption of each scene, either way with equal chance."""
    return [scene.captions[rng.integers(2)] for scene in scenes]


def _any_scene(rng: np.random.Generator, split: str) -> Scene:
    """A relation or a list with equal chance; of a list, every length that the split has with equal chance."""
    if split != "length" and rng.random() < 0.5:
        shapes = int(rng.integers(len(SUBJECTS))), len(SUBJECTS) + int(rng.integers(len(OBJECTS)))
        relation = RELATIONS[rng.integers(len(RELATIONS))]
        return Scene(tuple(Thing(int(rng.integers(len(COLOURS))), shape) for shape in shapes), relation)
    lengths = [count for count in range(1, MOST + 1) if (count == UNSEEN_LENGTH) == (split == "length")]
    listed = rng.choice(len(THINGS), size=lengths[rng.integers(len(lengths))], replace=False)
    return Scene(tuple(Thing(int(rng.integers(len(COLOURS))), int(shape)) for shape in listed))


def words() -> list[str]:
    """Every word of a caption, as it opens an answer and as it follows a space."""
    opening = {*COLOURS, *COUNTS, "only"}
    told = " ".join((*THINGS, *DOING.values(), *RELATIONS, "things with it stands alone and"))
    return sorted({*opening, *(f" {word}" for word in (*opening, *told.split()))})
