"""Our inputs as transformers' model takes them, so that both sides read the same."""

import numpy as np

from experiments.bench.reference import Question
from gaze.pictures.regions import region_keys
from gaze.pictures.strips import Strip
from qwen3vl_jax.processing.processor import Processor


def question(processor: Processor, strip: Strip, text: str) -> Question:
    """One question about one strip."""
    prompt, images, grids = processor([processor.chat(text)], [[strip.image]])
    assert images is not None
    assert prompt.image_cell is not None
    rows, cols = (int(length) for length in grids[0])
    cells = np.asarray(prompt.image_cell[0])
    tokens = np.asarray(prompt.tokens, np.int64)
    inputs = dict(
        input_ids=tokens,
        attention_mask=np.ones_like(tokens),
        mm_token_type_ids=(cells >= 0).astype(np.int64)[None],
        pixel_values=np.asarray(images.patches[0]),
        image_grid_thw=np.array([[1, rows, cols]], np.int64),
    )
    panels = region_keys(cells, strip.cells((rows, cols), processor.settings.merge_size))
    return Question(inputs, [np.flatnonzero(panel) for panel in panels])
