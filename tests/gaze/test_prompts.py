"""Prompts about one panel: only panels that the strip has, and sentences for everything else."""

from typing import Any

import numpy as np
import pytest

from gaze.prompts import DISCOVERY, LETTER, REVERSE_PREFIX, REVERSE_TRAJECTORY, fill, prefixed
from qwen3vl_jax.errors import InputError


@pytest.mark.parametrize("panels", [2, 6, 12, np.int64(5)])
def test_every_panel_of_a_strip_is_asked_about(panels: Any) -> None:
    asked = [fill(DISCOVERY, panel, panels) for panel in range(panels)]
    assert len({*asked}) == panels
    assert "in the 1st panel" in asked[0]
    assert fill(DISCOVERY, np.int32(1), panels) == asked[1]


def test_the_words_are_those_of_the_panel() -> None:
    assert "four-panel comic strip" in fill(DISCOVERY, 3, 4)
    assert "4th panel" in fill(DISCOVERY, 3, 4)
    assert "'Panel 5:', 'Panel 4:'" in fill(REVERSE_TRAJECTORY, 0, 5)
    assert fill("{word} {number} {{x}}", 1) == "second 2 {x}"


@pytest.mark.parametrize(
    ("panel", "panels", "said"),
    [
        (7, 4, "panel is 7, but should be a whole number from 0 to 3"),
        (4, 4, "panel is 4"),
        (6, 6, "panel is 6"),
        (-1, 6, "panel is -1"),
        (np.int64(12), 12, "panel is"),
        (True, 6, "panel is True"),
        (0, 1, "panels is 1, but should be a whole number from 2 to 12"),
        (0, 13, "panels is 13"),
        (0, 10**9, "panels is 1000000000"),
        (0, -6, "panels is -6"),
    ],
)
def test_panels_that_a_strip_has_not(panel: Any, panels: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fill(DISCOVERY, panel, panels)


@pytest.mark.parametrize(
    "template", ["{", "}", "{}", "{0}", "{panel}", "{word.x}", "{word[x]}", "{number:y}", "{word!z}"]
)
def test_templates_that_cannot_be_filled(template: str) -> None:
    with pytest.raises(InputError, match="its fields may be"):
        fill(template, 0)


def test_a_prefix_opens_the_sentence() -> None:
    assert prefixed(REVERSE_PREFIX, LETTER) == "Read the comic in reverse, what is" + LETTER[len("What is") :]
    assert prefixed(REVERSE_PREFIX, "") == REVERSE_PREFIX
