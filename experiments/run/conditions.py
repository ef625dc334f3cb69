"""Ways of asking and steering, as data: what is asked, where each answer is to look, with which heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from gaze.heads import HeadSet
from gaze.steering.masks import schedule


@dataclass(frozen=True)
class Aim:
    """Where one answer is to look: its target (from 0, None if it has none) and the region of each step.

    See `gaze.steering.masks.schedule`; `Aim.at(2)` looks at region 2 all along.
    """

    target: int | None
    steps: Int32[np.ndarray, " step"]

    @classmethod
    def at(cls, target: int) -> "Aim":
        return cls(target, schedule([(0, target)]))


NOWHERE = np.full(1, -1, np.int32)
"""The steps of an answer that is not steered."""


@dataclass(frozen=True)
class Condition:
    """One way of asking and steering, for many pictures.

    Attributes:
      name: unique within the experiment.
      question: one for all pictures, or one each.
      aims: for each picture the answers to make, all of the same number of steps.
      heads: None leaves the model alone.
      weights: of the heads, each a factor of the strength; none if all have the same.
      strength, mode, bias: the run's own if None.
      query_positions: see `gaze.steering.masks.QUERY_POSITIONS`.
      tags: what else each row of output shall say.
    """

    name: str
    question: str | Sequence[str]
    max_new: int
    aims: Sequence[Sequence[Aim]]
    heads: HeadSet | None = None
    weights: Sequence[float] = ()
    strength: float | None = None
    mode: str | None = None
    bias: str | None = None
    query_positions: str = "all"
    tags: Mapping[str, Any] = field(default_factory=dict)

    def mask(self, layers: int, heads: int) -> Float32[np.ndarray, "layer heads"]:
        """The weight of every head of a model of this shape, 0 of those that are not steered."""
        if self.heads is None:
            return np.zeros((layers, heads), np.float32)
        mask = self.heads.to_mask(layers, heads)
        for head, weight in zip(self.heads.heads, self.weights, strict=bool(self.weights)):
            mask[head] = weight
        return mask

    def about(self, picture: int) -> str:
        """What is asked about a picture."""
        return self.question if isinstance(self.question, str) else self.question[picture]


TOGETHER = 256
"""The most conditions that are answered, and saved, at once."""


def alike(conditions: Sequence[Condition]) -> list[list[int]]:
    """Numbers of the conditions that ask the same and for as long, in groups of at most `TOGETHER`."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, condition in enumerate(conditions):
        asked = condition.question if isinstance(condition.question, str) else tuple(condition.question)
        groups.setdefault((asked, condition.max_new), []).append(number)
    return [some[start : start + TOGETHER] for some in groups.values() for start in range(0, len(some), TOGETHER)]
