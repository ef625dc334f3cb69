"""Lessons and how they are packed: what a slot's row says must be what a prompt of its own would say."""

import chex
import numpy as np
import pytest

from experiments.testbed import questions, wordings
from experiments.testbed.scenes import PANELS
from experiments.testbed.sparse import lessons
from experiments.testbed.sparse.batches import AROUND, CELLS, LONG, SHORT, Maker, TrainingBatch
from experiments.testbed.sparse.train import config_json
from experiments.testbed.vocabulary import build_tokenizer
from gaze import prompts
from qwen3vl_jax.config import Config
from qwen3vl_jax.images import ImageSettings
from qwen3vl_jax.processing.processor import Processor

MAKERS = (lessons.comic, lessons.labelled, lessons.scattered, lessons.single)


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = build_tokenizer(folder)
    return Maker(tokenizer, Config.from_dict(config_json(tokenizer)), ImageSettings.load(folder), 16)


@pytest.fixture(scope="module")
def batch(maker) -> TrainingBatch:
    return maker.batch(3, 5, hide=1.0, forget=0.5, others=0.5)


def drawn(make, count=60):
    rng = np.random.default_rng(4)
    return [make(rng) for _ in range(count)]


@pytest.mark.parametrize("make", MAKERS)
def test_a_lesson_fits_its_slots(make, maker):
    for lesson in drawn(make):
        assert len(lesson.short) == 6
        width, height = lesson.image.size
        assert lesson.cells.shape == (width // 32 * (height // 32), 6)
        assert lesson.cells.shape[0] <= CELLS
        for asked, length in ((lesson.short, SHORT), ([lesson.long], LONG)):
            maker.slots(asked, length, np.zeros(len(asked), np.int32))  # would fail to fit


def test_letters_are_answered_in_the_order_asked_for():
    seen = set()
    for lesson in drawn(lessons.labelled):
        labels = [lessons.LETTERS[letter] for letter in lesson.cells[: 2 * lesson.panels : 2, -1]]
        assert len(set(labels)) == lesson.panels
        assert (lesson.cells[:, -1] >= 0).sum() == lesson.panels
        for question, answer in lesson.short[:4]:
            named = [
                k for k in range(PANELS) if prompts.ORDINALS[k] in question or prompts.ORDINAL_WORDS[k] in question
            ]
            order = labels
            if question.startswith(prompts.REVERSE_PREFIX):
                order = labels[::-1]
            elif question.startswith("Read the panels in the order"):
                order = [
                    labels[int(digit) - 1] for digit in question.split("order ")[1][: 3 * len(labels)].split(", ")[:-1]
                ]
            seen.add(question.split(" ")[2] if question.startswith("Read") else "")
            assert answer == order[named[0]], question
    assert seen == {"", "comic", "panels"}


def test_a_reverse_narration_runs_from_right_to_left():
    rng = np.random.default_rng(0)
    found = [lesson.long for lesson in (lessons.comic(rng) for _ in range(60))]
    backwards = [(question, answer) for question, answer in found if question in wordings.REVERSED.paper]
    assert backwards
    for number, (_, answer) in enumerate(backwards):
        assert len(answer.split(". ")) == PANELS, number
    scenes = lessons.draw_scenes(rng)
    _, answer = questions.reversed_narration(rng, scenes)
    assert answer == " ".join(scene.caption for scene in scenes[::-1])


def test_box_questions_name_the_cells_of_their_thing():
    for lesson in drawn(lessons.scattered, 30):
        colours = lesson.cells[:, 0].reshape(4, 6), lesson.cells[:, 3].reshape(4, 6)
        for question, answer in lesson.short[:3]:
            left, top, right, bottom = (int(mark) for mark in question if mark.isdigit())
            head = 0 if answer.split()[1][:-1] in lessons.SUBJECTS else 1
            inside = colours[head][top - 1 : bottom, left - 1 : right]
            assert (inside == lessons.COLOURS.index(answer.split()[0])).all()


def test_places_are_the_cells_that_tell_the_answer(batch):
    rng = np.random.default_rng(2)
    lesson = lessons.labelled(rng)
    for place, (_, answer) in zip(lesson.places[:4], lesson.short, strict=False):
        assert (lesson.cells[place, -1] == lessons.LETTERS.index(answer)).tolist() == [True]
    assert not lesson.places[4:].any()
    lesson = lessons.scattered(rng)
    for place, (question, _) in zip(lesson.places[:3], lesson.short, strict=False):
        left, top, right, bottom = (int(mark) for mark in question if mark.isdigit())
        rows, cols = np.nonzero(place.reshape(4, 6))
        assert (cols.min() + 1, rows.min() + 1, cols.max() + 1, rows.max() + 1) == (left, top, right, bottom)
    shown = np.repeat(batch.prefix.image_cell >= 0, 6, axis=0)
    assert batch.places.any()
    assert not batch.places[~shown].any()
    assert not (batch.places & np.repeat(batch.hidden, 6, axis=0)).any()


def test_a_single_panel_is_always_answered_with_its_caption():
    for lesson in drawn(lessons.single, 10):
        assert len({answer for _, answer in (*lesson.short, lesson.long)}) == 1
        assert (lesson.cells[0] == lesson.cells).all()


def test_shares_of_a_batch():
    rng = np.random.default_rng(0)
    assert [lesson.panels for lesson in lessons.draw_lessons(rng, 4, others=0.0)] == [PANELS] * 4
    mixed = lessons.draw_lessons(rng, 16, others=0.625)
    assert sorted(lesson.image.size[1] for lesson in mixed) == [64] * 12 + [128] * 4
    assert sum((lesson.cells[:, -1] >= 0).any() and lesson.panels > 0 for lesson in mixed) == 5
    assert sum(lesson.image.width == 64 for lesson in mixed) == 1


def test_batches_repeat_and_keep_their_shapes(maker, batch):
    same = maker.batch(3, 5, hide=1.0, forget=0.5, others=0.5)
    plain = maker.batch(3, 6, hide=0.5, forget=0.5, others=0.0)
    chex.assert_trees_all_equal(batch, same)
    chex.assert_trees_all_equal_shapes_and_dtypes(batch, plain)
    assert batch.images.patches.shape[:2] == (16, 4 * CELLS)
    assert batch.prefix.tokens.shape == (16, CELLS + AROUND)


def test_prefix_and_slot_are_what_the_processor_makes_of_the_prompt(maker):
    """Left padding, positions and image cells: a slot goes on where its picture's prefix ends."""
    rng = np.random.default_rng(1)
    taught = [make(rng) for make in MAKERS]
    processor = Processor(maker.config, maker.settings, maker.tokenizer)
    grids = [(lesson.image.height // 16, lesson.image.width // 16) for lesson in taught]
    prefix = maker.prefixes(grids)
    starts = prefix.positions.max(axis=(1, 2)) + 1
    for row, lesson in enumerate(taught):
        question, answer = lesson.short[0]
        slots = maker.slots([(question, answer)], SHORT, starts[row : row + 1])
        whole = processor([processor.chat(question)], [[lesson.image]]).prompt
        asked = int(slots.answer[0].argmax()) + 1
        valid = prefix.valid[row]
        tokens = np.concatenate([prefix.tokens[row][valid], slots.prompt.tokens[0, :asked]])
        positions = np.concatenate([prefix.positions[row][valid], slots.prompt.positions[0, :asked]])
        assert tokens.tolist() == whole.tokens[0].tolist()
        assert (positions == whole.positions[0]).all()
        cells = prefix.image_cell[row]
        assert (cells[cells >= 0] == row * CELLS + np.arange(len(lesson.cells))).all()
        said = slots.targets[0][slots.answer[0]]
        assert maker.tokenizer.decode(said) == f"{answer}<|im_end|>"


def test_sentences_span_each_caption(maker):
    for kind in ("numbered_narration", "free_narration"):
        rng = np.random.default_rng(0)
        scenes = lessons.draw_scenes(rng)
        question = getattr(questions, kind)(rng, scenes, np.arange(PANELS))
        slots = maker.slots([question], LONG, np.zeros(1, np.int32))
        for scene, (first, end) in zip(scenes, slots.sentences[0], strict=True):
            assert maker.tokenizer.decode(slots.targets[0, first:end]).strip() == scene.caption
    letter = maker.slots([("What is the letter on the 1st panel?", "A")], SHORT, np.zeros(1, np.int32))
    assert not letter.sentences.any()


def test_hidden_tokens_leave_every_panel_something_to_see(batch):
    image = batch.prefix.image_cell >= 0
    assert not batch.hidden[~image].any()
    for hidden, cells, shown in zip(batch.hidden, batch.cells, image, strict=True):
        kept = ~hidden[shown]
        if shown.sum() in (4, 24) and (cells[: shown.sum(), 2] < 0).any():
            assert kept.all()  # a picture without panels
        elif shown.sum() > 4:
            assert kept[cells[: shown.sum(), -1] >= 0].all()
            panels = kept.reshape(2, -1, 2).any(axis=(0, 2))
            assert panels.all()
    assert batch.hidden.any()
