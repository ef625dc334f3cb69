"""The shipped checkpoint: its size, and what it must be able to say.

Whether it does under the paper's protocol what the paper's code would do stands in `test_official.py`.
"""

import numpy as np

from experiments.run.models import open_model
from experiments.testbed.strips import draw_strips
from gaze.judges.judge import judge_exact
from gaze.prompts import DISCOVERY, fill
from gaze.steering import engine as asking
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.generation.sampling import Sampling

STRIPS = 8


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 16_000_000


def test_panel_questions_are_answered() -> None:
    model, processor = open_model("testbed", "float32")
    strips = draw_strips(1, "questions", STRIPS)
    requests = [asking.unsteered(model, number) for number in range(STRIPS)]
    settings = asking.GenerationOptions(Sampling.make(stop=processor.stop_tokens), max_new=24)
    hits = []
    for panel in range(6):
        said = asking.answers(model, processor, strips, fill(DISCOVERY, panel), requests, settings)
        texts = [processor.decode(tokens) for tokens in said]
        hits += [judge_exact(text, strip.captions) == panel for text, strip in zip(texts, strips, strict=True)]
    assert np.mean(hits) >= 0.95
