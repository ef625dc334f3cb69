"""The testbeds by name: their weights, what is drawn for them, and how long their answers are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from experiments.testbed import scattered, strips
from experiments.testbed.scattered import Draw
from experiments.testbed.sparse import strips as sparse_strips
from gaze.pictures.strips import Strip
from gaze.testbed import CHECKPOINT
from gaze.testbed import SPARSE as SPARSE_CHECKPOINT


@runtime_checkable
class DrawStrips(Protocol):
    def __call__(self, seed: int, purpose: str, count: int, *, panels: int) -> list[Strip]: ...


@dataclass(frozen=True)
class Testbed:
    """A testbed.

    Attributes:
      draw_strips, draw_scattered: strips, and pictures without panels, of words that its training never showed together.
      segment, static, narration: see `experiments.run.settings.Settings`.
    """

    checkpoint: Path
    draw_strips: DrawStrips
    draw_scattered: Draw
    segment: int
    static: int
    narration: int


TESTBED, SPARSE = "testbed", "testbed-sparse"
TESTBEDS = {
    TESTBED: Testbed(CHECKPOINT, strips.draw_strips, scattered.draw_held_out, segment=10, static=24, narration=132),
    SPARSE: Testbed(
        SPARSE_CHECKPOINT, sparse_strips.draw_strips, scattered.draw_scattered, segment=7, static=16, narration=84
    ),
}


def find_testbed(model: str | Path) -> str | None:
    """The name of the testbed that a model is: by its own name, or as a folder whose decoder has that shape."""
    if model in TESTBEDS:
        return str(model)
    shape = _shape(Path(model))
    return next((name for name, one in TESTBEDS.items() if shape is not None and _shape(one.checkpoint) == shape), None)


def _shape(folder: Path) -> object:
    """What a checkpoint's `config.json` says of the decoder; None if there is none, or nothing."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["text_config"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
