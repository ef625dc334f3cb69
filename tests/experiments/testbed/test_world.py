"""The second recipe's world: its captions, what training never shows, and how it is drawn."""

from itertools import pairwise

import numpy as np
import pytest

from experiments.testbed import draw, lessons
from experiments.testbed.draw import PLACES, STYLES, UNSEEN_STYLE, draw_panel, draw_strip
from experiments.testbed.scenes import COLOURS, COUNTS, THINGS, Scene, Thing, draw_scenes, words
from experiments.testbed.strips import draw_strips
from gaze.judges.judge import judge_exact

SPLITS = ("train", "held_out", "length", "style")
PAIRS = {thing.words for colour in range(8) for shape in range(14) if (thing := Thing(colour, shape)).held_out}


def scenes(split, count=200):
    rng = np.random.default_rng(3)
    return [scene for _ in range(count) for scene in draw_scenes(rng, split=split)]


def pairs(text):
    """Every two words that follow each other."""
    return {" ".join(pair) for pair in pairwise(text.replace(",", "").replace(".", "").split())}


def test_captions_have_three_to_fourteen_words_of_the_vocabulary():
    known = {word.strip() for word in words()}
    for scene in (one for split in SPLITS for one in scenes(split, 50)):
        one, other = scene.captions
        assert one != other
        for caption in scene.captions:
            said = caption.rstrip(".").replace(",", "").replace(":", "").split()
            assert 3 <= len(said) <= 14, caption
            assert set(said) <= known
    assert Scene((Thing(0, 0), Thing(4, 8)), "sits on").captions == (
        "red star sits on blue box.",
        "blue box with red star sitting on it.",
    )


def test_one_colour_of_each_thing_is_held_out():
    assert len(PAIRS) == len(THINGS)
    assert {pair.split()[1] for pair in PAIRS} == set(THINGS)
    assert {pair.split()[0] for pair in PAIRS} == set(COLOURS)


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_are_of_their_split(split):
    found = scenes(split)
    unseen = [bool(PAIRS & pairs(scene.caption)) for scene in found]
    lengths = {len(scene.things) for scene in found if scene.relation is None}
    assert all(unseen) if split == "held_out" else not any(unseen)
    assert lengths == ({4} if split == "length" else {1, 2, 3, 5})
    assert any(scene.relation for scene in found) == (split != "length")


@pytest.mark.parametrize("make", [lessons.comic, lessons.labelled, lessons.scattered, lessons.single])
def test_training_says_and_shows_nothing_that_is_held_out(make, monkeypatch):
    styles = []
    drawn = draw.Pen.shape
    monkeypatch.setattr(draw.Pen, "shape", lambda pen, *rest: (styles.append(pen.style), drawn(pen, *rest))[1])
    rng = np.random.default_rng(0)
    for _ in range(60):
        lesson = make(rng)
        for _, answer in (*lesson.short, lesson.long):
            assert not PAIRS & pairs(answer)
            assert "four" not in answer.split()
    assert UNSEEN_STYLE not in styles


def test_lists_are_drawn_in_reading_order():
    for count, (centres, half) in PLACES.items():
        assert len(centres) == count
        rows = sorted({y for _, y in centres})
        assert [*centres] == sorted(centres, key=lambda place: (rows.index(place[1]), place[0]))
        for x, y in centres:
            assert x - half - draw.LIST_JITTER >= 4
            assert x + half + draw.LIST_JITTER <= 60
            assert y + half + draw.LIST_JITTER <= 60


@pytest.mark.parametrize("style", [*STYLES, UNSEEN_STYLE])
def test_each_thing_shows_its_colour_in_every_style(style):
    for shape in range(len(THINGS)):
        one, other = (
            np.asarray(draw_panel(Scene((Thing(colour, shape),)), np.random.default_rng(0), style), np.int32)
            for colour in (0, 4)
        )
        assert (np.abs(one - other).max(axis=-1) > 60).sum() > 60, THINGS[shape]


def test_the_styles_differ():
    scene = Scene((Thing(0, 0), Thing(4, 8)), "sits on")
    drawn = [np.asarray(draw_panel(scene, np.random.default_rng(0), style), np.int32) for style in (*STYLES, "hollow")]
    for number, one in enumerate(drawn):
        for other in drawn[:number]:
            assert (np.abs(one - other).max(axis=-1) > 40).sum() > 50


def test_strips_of_a_split_repeat_and_know_both_captions():
    one, same = (draw_strips(0, "test", 2, "held_out") for _ in range(2))
    assert [strip.image.tobytes() for strip in one] == [strip.image.tobytes() for strip in same]
    other = draw_strips(0, "another", 1)[0]
    assert other.captions != one[0].captions
    strip = one[0]
    for panel, caption in enumerate(strip.captions):
        assert judge_exact(str(caption), strip.captions) == panel
        assert [judge_exact(text, strip.captions) for text in caption.others] == [panel]


def test_a_style_is_that_of_the_whole_strip(monkeypatch):
    seen = []
    panel = draw.draw_panel
    monkeypatch.setattr(draw, "draw_panel", lambda scene, rng, style: (seen.append(style), panel(scene, rng, style))[1])
    rng = np.random.default_rng(1)
    for _ in range(20):
        seen.clear()
        draw_strip(draw_scenes(rng), rng)
        assert len(set(seen)) == 1
        assert seen[0] in STYLES
    seen.clear()
    draw_strip(draw_scenes(rng, split="style"), rng, "style")
    assert set(seen) == {UNSEEN_STYLE}


def test_counts_name_the_lengths():
    assert COUNTS == ("one", "two", "three", "four", "five")
