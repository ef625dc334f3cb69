"""The world of the sparse testbed: every scene it can draw, its caption, and which captions are kept out of training.

A scene says that one coloured subject does something to one coloured object. Its caption is six words and a full stop,
seven tokens, and opens with content ("red star jumps over blue box."): the last prompt token, which predicts the first
word, then already has a reason to look at the picture.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Int

from experiments.testbed.scenes import COLOURS, OBJECTS, PANELS, RELATIONS, SUBJECTS

SIZES = (len(COLOURS), len(SUBJECTS), len(RELATIONS), len(COLOURS), len(OBJECTS))
COUNT = int(np.prod(SIZES))

Split = Literal["train", "held_out", "all"]


@dataclass(frozen=True)
class Scene:
    """One of the 12,288 scenes; each field indexes the tuple of names of its attribute."""

    subject_colour: int
    subject: int
    relation: int
    object_colour: int
    object: int

    @property
    def caption(self) -> str:
        """Six words and a full stop, e.g. "red star jumps over blue box."."""
        subject = f"{COLOURS[self.subject_colour]} {SUBJECTS[self.subject]}"
        return f"{subject} {RELATIONS[self.relation]} {COLOURS[self.object_colour]} {OBJECTS[self.object]}."


def scene(index: int) -> Scene:
    """The scene of number `index` (0 to 12,287) in the order of the attributes, the object changing fastest."""
    return Scene(*(int(value) for value in np.unravel_index(index, SIZES)))


def held_out(scene: Scene) -> bool:
    """Whether the caption is kept out of training: one *combination* of the five attributes in eight.

    The rule is a linear congruence. Whatever two attributes are fixed, the others still take it through every residue:
    each attribute value and each pair appears in training: a held-out caption is new as a combination only.
    """
    mixed = scene.subject_colour + 3 * scene.subject + 2 * scene.relation + 5 * scene.object_colour + scene.object
    return mixed % 8 == 0


@cache
def split_indices(split: Split) -> Int[np.ndarray, " scene"]:
    """Numbers of the scenes in a split, ascending: 10,752 for training, 1,536 held out, 12,288 in all."""
    if split == "all":
        return np.arange(COUNT)
    wanted = split == "held_out"
    return np.array([index for index in range(COUNT) if held_out(scene(index)) == wanted])


def draw_scenes(rng: np.random.Generator, n: int = PANELS, split: Split = "train") -> tuple[Scene, ...]:
    """`n` different scenes of one split, in the order of their panels; a colour or a shape may repeat among them."""
    return tuple(scene(int(index)) for index in rng.choice(split_indices(split), size=n, replace=False))
