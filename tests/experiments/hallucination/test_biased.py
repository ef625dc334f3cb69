"""The world of the biased testbed: pairs that go together, twins that differ in one thing, batches that learn answers alone."""

import numpy as np
import pytest

from experiments.hallucination.biased.train import BATCH, ROOM, batch_of, draw_lesson
from experiments.hallucination.biased.world import (
    BASE,
    COMPANIONS,
    CONTROL_COMPANIONS,
    CONTROL_CUES,
    CUES,
    NAMES,
    SIDE,
    caption,
    cells_of,
    draw,
    draw_things,
    draw_twins,
    told,
)
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.processing.processor import Processor


@pytest.mark.parametrize("rho", [BASE, 0.9])
def test_companions_of_rules_come_with_their_cues_and_all_are_as_frequent(rho: float) -> None:
    rng = np.random.default_rng(0)
    there = np.stack([draw_things(rng, rho) for _ in range(6000)])
    rule, control = (
        there[:, [*companions]][there[:, [*cues]]].mean()
        for cues, companions in ((CUES, COMPANIONS), (CONTROL_CUES, CONTROL_COMPANIONS))
    )
    assert abs(rule - rho) < 0.06
    assert abs(control - BASE) < 0.04
    frequent = there.mean(axis=0)
    assert abs(frequent[[*COMPANIONS]].mean() - frequent[[*CONTROL_COMPANIONS]].mean()) < 0.02


def test_twins_differ_in_one_thing_alone() -> None:
    rng = np.random.default_rng(1)
    for rule in (True, False):
        twins = draw_twins(rng, rule)
        one, other = (np.asarray(draw(order, twins.seed), int) for order in (twins.without, twins.with_it))
        row, column = divmod(cells_of(twins.with_it, twins.seed)[twins.companion], 3)
        inside = np.zeros(one.shape[:2], bool)
        inside[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = True
        changed = (one != other).any(axis=2)
        assert changed[inside].mean() > 0.1
        assert not changed[~inside].any()
        assert twins.companion - twins.without[0] == len(CUES)


def test_captions_name_what_is_there_cues_first() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        things = np.flatnonzero(draw_things(rng, 0.9)).tolist()
        named = told(caption(rng, things))
        assert sorted(named) == things
        kinds = [0 if one in CUES else 2 if one in COMPANIONS else 1 for one in named]
        assert kinds == sorted(kinds)
    assert len({*NAMES}) == len(NAMES)


def test_what_is_learned_is_the_answer_and_blind_rows_see_no_picture() -> None:
    processor = Processor.load(CHECKPOINT)
    rng = np.random.default_rng(3)
    lessons = [draw_lesson(rng, 0.98, True) for _ in range(BATCH)]
    batch = batch_of(processor, rng, lessons)
    assert any(one.blind for one in lessons)
    for row, one in enumerate(lessons):
        said = processor.decode(np.asarray(batch.prompt.tokens)[row][batch.answer[row]])
        assert said.strip() == one.answer
        image = np.asarray(batch.prompt.image_cell)[row] >= 0
        seen = np.asarray(batch.prompt.valid)[row][image].mean()
        assert (seen == 0) == one.blind
    assert batch.answer.shape == (BATCH, ROOM)
