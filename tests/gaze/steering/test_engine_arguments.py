"""Arguments of discovery, answers and steering vectors that do not fit are named in a sentence."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gaze.heads import HeadSet
from gaze.pictures.strips import Strip
from gaze.steering import attention_cost, engine
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load import load

QUESTIONS = [f"What is happening in panel {number} of the comic strip?" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def library() -> tuple:
    return load(CHECKPOINT, "float32")


@pytest.fixture(scope="module")
def strips() -> list[Strip]:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 384, 3), np.uint8)
    return [Strip.even("a", Image.fromarray(pixels), 3)]


def test_every_wrong_argument_is_named() -> None:
    """In a process of its own, as a user has it: the shape checks of this suite would come first."""
    script = Path(__file__).with_name("wrong_requests.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "64 cases, 0 faults\n"


def test_attention_that_is_not_a_number_is_refused(
    library: tuple, strips: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = library
    once = engine.panel_attention

    def spoiled(*given: Any) -> Any:
        return once(*given).at[0, 0, 1, 0, 0].set(jnp.nan)

    monkeypatch.setattr(engine, "panel_attention", spoiled)
    with pytest.raises(InputError, match="attention on panels has 1 of"):
        engine.discover(model, processor, strips, QUESTIONS)


def test_attention_cost_refuses_what_is_not_a_number(
    library: tuple, strips: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = library
    once = attention_cost._read
    monkeypatch.setattr(attention_cost, "_read", lambda *given: once(*given).at[1, 0, 0, 0, 0].set(jnp.nan))
    with pytest.raises(InputError, match="attention of the steered heads has 1 of"):
        attention_cost.shares(model, processor, strips, QUESTIONS[0], 0, [np.array([5])], HeadSet([(1, 0)]), 2)


def test_strips_of_different_numbers_of_panels(library: tuple, strips: list) -> None:
    """Read together or apart, panels that a strip does not have get nothing."""
    model, processor = library
    image = strips[0].image
    mixed = [Strip.even("three", image, 3), Strip.even("two", image, 2)]
    together = engine.discover(model, processor, mixed, QUESTIONS)
    apart = engine.discover(model, processor, mixed, QUESTIONS, batch=1)
    np.testing.assert_allclose(together, apart, atol=1e-5)
    assert not apart[1, ..., 2].any()
    assert apart[0, ..., 2].all()
