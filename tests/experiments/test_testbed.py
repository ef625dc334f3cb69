"""The shipped checkpoint: its size, transformers' word on it, and the paper's protocol done independently with transformers."""

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from convert.verify import verify
from experiments.bench import Bench
from experiments.models import open_model
from experiments.testbed.strips import CHECKPOINT, draw_strips
from experiments.testbed.wordings import DISCOVERY, fill
from gaze.heads import HeadSet
from gaze.score import gaze_score, rank

STRIPS = 3


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 16_000_000


def test_it_agrees_with_transformers() -> None:
    assert verify(CHECKPOINT).passed


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(*open_model("testbed", "float32"))


def test_the_official_protocol_finds_the_same_heads(bench: Bench) -> None:
    """Six full passes per strip with all attention kept, panels as column ranges, as the paper's code does it."""
    strips = draw_strips(1, "protocol", STRIPS)
    reference = Qwen3VLForConditionalGeneration.from_pretrained(
        CHECKPOINT, dtype=torch.float32, attn_implementation="eager"
    )
    scores = np.zeros(bench.shape)
    for strip in strips:
        for panel in range(6):
            batch = bench.processor([bench.processor.chat(fill(DISCOVERY, panel))], [[strip.image]])
            tokens = torch.tensor(batch.prompt.tokens).long()
            image = tokens == bench.processor.config.image_token_id
            with torch.no_grad():
                output = reference(
                    input_ids=tokens,
                    mm_token_type_ids=image.long(),
                    attention_mask=torch.ones_like(tokens),
                    pixel_values=torch.tensor(batch.images.patches[0]),
                    image_grid_thw=torch.tensor([[1, *batch.grids[0].tolist()]]),
                    output_attentions=True,
                )
            last = np.stack([layer[0, :, -1].numpy() for layer in output.attentions])
            grid = last[:, :, image[0].numpy()].reshape(*bench.shape, 2, 12)
            scores += grid[..., 2 * panel : 2 * panel + 2].sum(axis=(2, 3)) / (6 * STRIPS)
    ours = gaze_score(bench.discover(strips))
    assert np.abs(ours - scores).max() <= 1e-5
    known = HeadSet.load(CHECKPOINT / "heads.json")
    assert {row[:2] for row in rank(scores)[: len(known)]} == set(known.heads)


def test_panel_questions_are_answered(bench: Bench) -> None:
    rows = bench.panel_questions(draw_strips(1, "questions", 8))
    assert np.mean([row["panel"] == row["target"] for row in rows]) >= 0.95
