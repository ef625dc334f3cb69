"""Questions with their answers, about the panels of a comic. Panels count from 0 in arguments and from 1 in words."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from experiments.testbed import wordings
from experiments.testbed.wordings import VERBATIM, Wordings
from gaze import prompts
from gaze.prompts import fill, prefixed


@runtime_checkable
class Told(Protocol):
    """A panel as an answer tells it."""

    @property
    def caption(self) -> str: ...


Panel = int | np.integer
Order = Sequence[int] | Int[np.ndarray, " line"]


def panel_question(
    rng: np.random.Generator, scenes: Sequence[Told], panel: Panel, verbatim: float = VERBATIM
) -> tuple[str, str]:
    """Question that names `panel` (0 to 5) by its place, and the caption of that panel."""
    return fill(wordings.PANEL.draw(rng, verbatim), panel), scenes[int(panel)].caption


def this_panel_question(
    rng: np.random.Generator, scenes: Sequence[Told], panel: Panel, verbatim: float = VERBATIM
) -> tuple[str, str]:
    """Question about an unnamed "this panel", and the caption of `panel`, which the words do not give away."""
    return wordings.THIS_PANEL.draw(rng, verbatim), scenes[int(panel)].caption


def strip_question(
    rng: np.random.Generator, scenes: Sequence[Told], panel: Panel, verbatim: float = VERBATIM
) -> tuple[str, str]:
    """Question about the whole strip, and the caption of the one `panel` chosen to answer it."""
    return wordings.STRIP.draw(rng, verbatim), scenes[int(panel)].caption


def numbered_narration(
    rng: np.random.Generator, scenes: Sequence[Told], order: Order, verbatim: float = VERBATIM
) -> tuple[str, str]:
    """Request to narrate the panels in `order`, and lines "Panel 3: caption" in that order.

    `order` holds panels counted from 0. Reading order and its reverse are asked for by name, any other by its numbers.
    """
    panels = [int(panel) for panel in order]
    numbers = ", ".join(str(panel + 1) for panel in panels)
    question = _ordered_wordings(panels).draw(rng, verbatim).format(order=numbers)
    return question, "\n".join(f"Panel {panel + 1}: {scenes[panel].caption}" for panel in panels)


def free_narration(
    rng: np.random.Generator, scenes: Sequence[Told], order: Order, verbatim: float = VERBATIM
) -> tuple[str, str]:
    """Request to narrate without numbers, and the captions in `order` (panels counted from 0) joined by single spaces.

    The words do not give the order away, so that gaze is all that tells the model which panel comes next.
    """
    return wordings.FREE_ORDER.draw(rng, verbatim), " ".join(scenes[int(panel)].caption for panel in order)


def reversed_narration(rng: np.random.Generator, scenes: Sequence[Told], verbatim: float = VERBATIM) -> tuple[str, str]:
    """Request to read in reverse, and the captions from right to left joined by single spaces."""
    return wordings.REVERSED.draw(rng, verbatim), " ".join(scene.caption for scene in reversed(scenes))


def counted_question(
    rng: np.random.Generator, templates: Wordings, answers: Sequence[str], order: Order | None
) -> tuple[str, str]:
    """One of `templates` (`COUNTED` or `LETTERS`) about a panel counted in reading order, in reverse or in another order.

    `answers` belong to the panels from left to right. An `order` (panels from 0) other than the reverse is spelled out.
    """
    place = int(rng.integers(len(answers)))
    question = fill(templates.draw(rng, VERBATIM), place)
    if order is None:
        return question, answers[place]
    panels = [int(panel) for panel in order]
    backwards = panels == list(reversed(range(len(panels))))
    prefix = (
        prompts.REVERSE_PREFIX
        if backwards
        else prompts.ORDER_PREFIX.format(order=", ".join(str(panel + 1) for panel in panels))
    )
    return prefixed(prefix, question), answers[panels[place]]


def _ordered_wordings(panels: list[int]) -> Wordings:
    if panels == sorted(panels):
        return wordings.READING_ORDER
    if panels == sorted(panels, reverse=True):
        return wordings.REVERSE_ORDER
    return wordings.GIVEN_ORDER
