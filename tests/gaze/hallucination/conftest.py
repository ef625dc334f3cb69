"""A toy as transformers' module, which tests hook into, and as ours; and prompts about pictures of different shapes."""

from typing import NamedTuple

import numpy as np
import pytest

from gaze.hallucination.arms import ArmModel
from gaze.heads import HeadSet
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.vision import Vision

from ...toys import IMAGE, Row, Toy, batch_rows, encode, make_row, make_toy, raw_config
from . import official

LAYERS, ENDS = 3, 7
HEADS = HeadSet(((1, 0), (2, 3)))


class Scene(NamedTuple):
    """Two prompts of different lengths about pictures of different shapes, as rows and as a batch."""

    toy: Toy
    rows: list[Row]
    images: Images
    prompt: Prompt
    vision: Vision
    known: ArmModel


@pytest.fixture(scope="session")
def scene() -> Scene:
    toy = make_toy(raw_config(text=dict(num_hidden_layers=LAYERS)))
    toy.reference.config.text_config._attn_implementation = official.NAME
    rows = []
    for seed, grid, words in ((1, (4, 6), 4), (2, (6, 4), 7)):
        row = make_row([grid], words, seed)
        tokens = np.where(row.tokens == ENDS, 8, row.tokens)  # a turn ends once, after the question
        rows.append(row._replace(tokens=np.append(tokens, [ENDS, 9, 10]).astype(np.int32)))
    images, prompt = batch_rows(rows, toy.config)
    assert images is not None
    return Scene(toy, rows, images, prompt, encode(toy.model, images), ArmModel(toy.config, (ENDS,), HEADS))


def image_places(row: Row) -> list[int]:
    return np.flatnonzero(row.tokens == IMAGE).tolist()
