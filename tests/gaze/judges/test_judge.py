"""`judge`: exact and first captions, and what is known of a judge from captions whose region is known."""

import re
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from gaze.judges.judge import (
    Calibration,
    Exact,
    Failed,
    First,
    Item,
    Judge,
    agreement,
    calibrate,
    digest,
    judge_exact,
    judge_first,
    reorder,
)
from gaze.pictures.strips import Caption, Photo, Strip
from qwen3vl_jax.errors import InputError

CAPTIONS = ["A cat sleeps.", "A cat", "A dog (small) runs.", "A bird sings.", "A bird sings."]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("A cat sleeps.", 0),
        (" A cat\n", 1),
        ("a cat", None),
        ("A cat sleeps. So", None),
        ("", None),
        ("A bird sings.", None),
    ],
)
def test_exact(text, want):
    assert judge_exact(text, CAPTIONS) == want


def test_an_empty_text_describes_no_empty_caption():
    assert judge_exact(" ", ["", "x"]) is None


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Panel 1: A dog (small) runs. A cat sleeps.", 2),
        ("Here A cat sleeps.", 0),
        ("Here A cat runs.", 1),
        ("A category. A dog (small) runs.", 2),
        ("A bird sings. A cat", None),
        ("Nothing.", None),
        ("", None),
    ],
)
def test_first(text, want):
    assert judge_first(text, CAPTIONS) == want


@pytest.mark.parametrize(
    ("text", "exact", "first"),
    [
        ("It is asleep, a cat.", 0, 0),
        ("A cat sleeps.", 0, 0),
        ("So: It is asleep, a cat. A dog runs.", None, 0),
        ("A dog runs.", 1, 1),
        ("A dog", None, None),
    ],
)
def test_a_caption_may_have_several_wordings(text, exact, first):
    captions = [Caption("A cat sleeps.", ("It is asleep, a cat.", " ")), "A dog runs."]
    assert (judge_exact(text, captions), judge_first(text, captions)) == (exact, first)
    assert judge_exact("It is asleep, a cat.", [*map(str, captions)]) is None


def strip(name, captions, widths=None):
    """Every panel in a grey of its own, named after its caption."""
    widths = widths or (8,) * len(captions)
    image, left = Image.new("L", (sum(widths), 8)), 0
    for caption, width in zip(captions, widths, strict=True):
        image.paste(sum(caption.encode()) % 251, (left, 0, left + width, 8))
        left += width
    return Strip(name, image, tuple(widths), tuple(captions))


STRIPS = [
    strip(f"strip {number}", [f"{number} {word}" for word in ("sun", "moon", "star", "sea")]) for number in range(25)
]


@dataclass
class Scripted:
    """Says what a function of the item says; remembers what it was asked."""

    answer: object
    name: str = "scripted"
    version: str = digest("scripted")
    asked: list = field(default_factory=list)

    def __call__(self, items):
        self.asked += items
        return [self.answer(item) for item in items]


def true(item):
    return judge_exact(item.text, item.picture.captions)


@pytest.mark.parametrize("judge", [Exact(), First(), Scripted(true)])
def test_a_judge_that_knows_the_captions_passes(judge):
    assert isinstance(judge, Judge)
    assert re.fullmatch("[0-9a-f]{12}", judge.version)
    assert calibrate(judge, STRIPS) == Calibration(100, 1.0, (1.0,) * 4, (25,) * 4, 0, 0, 1.0, 0.0, True)


def test_exact_and_first_differ():
    assert Exact().version != First().version
    items = [Item(STRIPS[0], "0 moon and so on")]
    assert (Exact()(items), First()(items)) == ([None], [1])


def test_the_gate_is_on_each_panel():
    """Wrong on a quarter of one panel's captions: 94 % are right, but of one panel 76 % only."""
    judge = Scripted(lambda item: 2 if item.text in {f"{n} moon" for n in range(6)} else true(item))
    found = calibrate(judge, STRIPS)
    assert (found.accuracy, found.per_panel, found.picks) == (0.94, (1, 0.76, 1, 1), (25, 19, 31, 25))
    assert not found.passed


def test_the_gate_is_on_all_panels():
    judge = Scripted(lambda item: None if item.text.split()[0] in {"0", "1", "2"} else true(item))
    found = calibrate(judge, STRIPS)
    assert (found.accuracy, found.abstained, found.failed) == (0.88, 12, 0)
    assert min(found.per_panel) > 0.8
    assert not found.passed


def test_a_judge_that_goes_by_place_fails_in_another_order():
    home = {caption: place for some in STRIPS for place, caption in enumerate(some.captions)}
    found = calibrate(Scripted(lambda item: home[item.text]), STRIPS)
    assert (found.accuracy, found.shuffled_accuracy, found.passed) == (1, 0, False)


def test_failures_are_told_from_abstentions():
    judge = Scripted(
        lambda item: Failed("late") if item.text == "3 sea" else None if item.text == "4 sea" else true(item)
    )
    found = calibrate(judge, STRIPS)
    assert (found.failed, found.abstained, found.accuracy, found.per_panel[3]) == (1, 1, 0.98, 0.92)


def test_strangers_are_captions_of_other_pictures():
    found = calibrate(Scripted(lambda item: 0 if "moon" in item.text else true(item)), STRIPS)
    assert found.strangers == 0.25
    assert calibrate(Exact(), STRIPS[:1]).strangers is None


def test_the_other_order_depends_on_the_picture_alone():
    first, second = Scripted(true), Scripted(true)
    calibrate(first, STRIPS)
    calibrate(second, STRIPS[4:5])
    name = next(item.picture.name for item in second.asked if "as" in item.picture.name)
    assert name in {item.picture.name for item in first.asked}
    assert len({item.picture.name.split("as")[1] for item in first.asked if "as" in item.picture.name}) > 3


def test_captions_that_tell_nothing_are_left_out():
    judge = Scripted(true)
    found = calibrate(judge, [strip("a", ["x", "y", "y", "", "z"]), strip("b", ["p", "q", "r", "s", "t"])])
    assert (found.captions, found.per_panel) == (7, (1,) * 5)
    with pytest.raises(InputError, match="at every place"):
        calibrate(judge, [strip("a", ["x", "y", "y"])])
    with pytest.raises(InputError, match="give more"):
        calibrate(judge, [])


def test_captions_must_be_known():
    with pytest.raises(InputError, match="photo has 1 regions and 0 captions"):
        Exact()([Item(Photo("photo", Image.new("RGB", (8, 8)), ((0, 0, 4, 4),)), "text")])


def test_reorder_moves_panels_with_their_widths_and_captions():
    before = strip("s", ["one", "two", "three"], (8, 12, 20))
    after = reorder(before, [2, 0, 1])
    assert (after.widths, after.captions) == ((20, 8, 12), ("three", "one", "two"))
    for place, region in enumerate([2, 0, 1]):
        assert np.array_equal(np.asarray(after.crop(place)), np.asarray(before.crop(region)))


def test_reorder_numbers_boxes_anew():
    image = Image.new("RGB", (8, 8))
    before = Photo("p", image, ((0, 0, 4, 4), (2, 2, 8, 8)), ("cup", "dog"))
    after = reorder(before, [1, 0])
    assert (after.image, after.boxes, after.captions) == (image, before.boxes[::-1], ("dog", "cup"))


def test_agreement():
    """(.75 - .375) / (1 - .375), by hand: abstentions are verdicts, failures are not."""
    failed = Failed("x")
    assert agreement([0, 1, None, None, failed, 2], [0, 1, None, 1, 0, failed]) == pytest.approx(0.6364, abs=1e-4)
    assert agreement([0, 1, 2], [0, 1, 2]) == 1
    assert agreement([0, 1], [1, 0]) == -1
    assert agreement([0, 0], [0, 0]) is None
    assert agreement([], []) is None
