"""`judge_caption`: words that tell captions apart."""

import pytest
from PIL import Image

from gaze.judges.caption import Caption, judge_caption, stem, stems
from gaze.judges.judge import Item
from gaze.pictures.strips import Strip

CAPTIONS = (
    "A girl in a red coat chases a dog through the park.",
    "The girl in a red coat sits on a bench and reads a book.",
    "The dog runs into a flower shop.",
    "A florist in a red apron shouts at the dog.",
    "The girl pays the florist for broken vases.",
    "The girl in a red coat carries flowers home.",
)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        *((caption, index) for index, caption in enumerate(CAPTIONS)),
        ("She is reading on the benches.", 1),
        ("The florist is shouting!", 3),
        ("PAYING FOR A VASE", 4),
        ("She carried a flower.", 5),
        ("", None),
        ("Red.", None),
        ("The image shows the third panel of the comic strip.", None),
        ("A spaceship lands on Mars.", None),
        ("Someone is in a park or a shop.", None),
        ("The florist.", None),
    ],
)
def test_verdicts(text, want):
    assert judge_caption(text, CAPTIONS) == want


def test_a_word_that_half_of_them_share_is_too_little():
    """log 2 / log 6 = .39; two such words are enough."""
    assert judge_caption("red", ("red", "red", "red fox", "b", "c", "d")) is None
    captions = ("red hen", "red", "red hat", "hen", "hen", "hat")
    assert judge_caption("red", captions) is None
    assert judge_caption("red hen", captions) == 0


def test_words_count_once_and_common_words_not_at_all():
    assert judge_caption("dog dog dog cat", ("the dog is big", "a cat is big")) is None
    assert judge_caption("big big", ("the dog is big", "a cat is big")) is None
    assert judge_caption("big dog", ("the dog is big", "a cat is big")) == 0


def test_a_single_caption():
    assert judge_caption("dogs", ("A dog.",)) == 0
    assert judge_caption("cats", ("A dog.",)) is None
    assert judge_caption("cats", ()) is None


@pytest.mark.parametrize(
    "family",
    [
        "chase chases chased chasing",
        "run runs running",
        "carry carries carried carrying",
        "dress dresses dressed",
        "box boxes boxing",
        "tree trees",
        "fall falls falling",
        "jump jumps jumped jumping",
    ],
)
def test_forms_of_a_word_are_one(family):
    assert len({stem(word) for word in family.split()}) == 1


@pytest.mark.parametrize("word", ["red", "bus", "string", "king", "e", "grass", "sea"])
def test_what_is_no_ending_stays(word):
    assert stem(word)
    assert stem(word) not in {stem(other) for other in ("r", "bu", "str", "k", "gra", "see")}


def test_stems():
    assert stems("Panel 3: the Café's 12 dogs_barking") == {stem("café"), stem("dog"), stem("bark")}


def test_the_judge():
    strip = Strip("s", Image.new("L", (60, 10)), (10,) * 6, CAPTIONS)
    assert Caption()([Item(strip, "a book"), Item(strip, "nothing")]) == [1, None]
    assert Caption().name == "caption"
