"""`outcomes`: what became of answers."""

import pytest

from gaze.judges.judge import Failed
from gaze.judges.outcomes import Counts, Outcome, count, is_junk, outcome, same_by_code, same_by_paper

STRIP = "red star jumps over blue box."
NARRATION = "\n".join(
    f"Panel {number}: {colour} {thing} jumps over {other} box."
    for number, colour, thing, other in zip(
        range(1, 7), ["red", "blue", "red", "pink", "blue", "red"], ["star", "cat", "cat", "star", "fish", "moon"],
        ["blue", "red", "pink", "blue", "red", "red"], strict=True,
    )
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "red star.",
        "A dog",
        "banana",
        "Cat and cat.",
        "No, no, no!",
        STRIP,
        f"{STRIP} {STRIP} {STRIP}",
        NARRATION,
        "The cat sits on the mat, and the dog on the mat beside the cat.",
        "Une étoile rouge saute.",
        "红色的星星跳过蓝色的盒子",
        "In panel 3, 2 men fly.",
        "It's 3:15 pm now.",
        "",
        " \n",
    ],
)
def test_language_is_no_junk(text):
    assert not is_junk(text)


@pytest.mark.parametrize(
    "text",
    [
        "red red red red",
        "red star red star",
        "the the the the the cat",
        "1. 2. 3.",
        "!!!!",
        "a",
        "aaaaaaaaaaaa",
        "hahahahahaha",
        "?? -- the ###",
        " ".join([STRIP] * 6),
        "panel panel panel panel panel one two panel panel panel panel panel panel panel panel",
        "\ufffd\ufffd\ufffd of",
    ],
)
def test_junk(text):
    assert is_junk(text)


@pytest.mark.parametrize(
    ("text", "baseline", "paper", "code"),
    [
        (STRIP, STRIP, True, True),
        (STRIP, "Red star jumps over blue box!", False, True),
        (" ".join("abcdefghijklmnopqrs"), " ".join("abcdefghijklmnopqrst"), True, True),
        (" ".join("abcdefghi"), " ".join("abcdefghij"), False, True),
        (" ".join("abcdef"), " ".join("abcdefg"), False, True),
        (" ".join("abcde"), " ".join("abcdef"), False, False),
        ("a dog", "a cat", False, False),
        ("", "", True, True),
        ("", "a", False, False),
        ("...", "!", False, True),
    ],
)
def test_the_same_answer(text, baseline, paper, code):
    """Overlaps 19/20, 9/10 (not above .9), 6/7 = .857 and 5/6 = .833."""
    assert (same_by_paper(text, baseline), same_by_code(text, baseline)) == (paper, code)
    assert (same_by_paper(baseline, text), same_by_code(baseline, text)) == (paper, code)


@pytest.mark.parametrize(
    ("verdict", "kind"), [(2, "hit"), (0, "wrong"), (None, "unattributable"), (Failed("late"), "failed")]
)
def test_kinds(verdict, kind):
    assert outcome(STRIP, verdict, 2) == Outcome(kind, False, False, False, False, False)


@pytest.mark.parametrize("verdict", [2, 0, Failed("late")])
def test_what_is_no_answer_is_no_hit(verdict):
    assert outcome(" ", verdict, 2) == Outcome("unattributable", True, False, False, False, False)
    assert outcome("star star star star", verdict, 2).kind == "unattributable"


def test_a_hit_that_the_baseline_was_already():
    """The papers' rules would make a miss of it."""
    assert outcome(STRIP, 0, 0, STRIP, 0) == Outcome("hit", False, False, True, True, True)
    assert outcome(STRIP, 1, 0, "a cat", 0) == Outcome("wrong", False, False, False, False, True)
    assert not outcome(STRIP, 0, 0, "a cat", Failed("late")).baseline_on_target
    assert not outcome(STRIP, 0, 0, "a cat", None).baseline_on_target


def test_counts():
    rows = [
        outcome(STRIP, 0, 0, STRIP, 0),
        outcome(STRIP, 1, 0, "a cat", None),
        outcome("", None, 0, "a cat", None),
        outcome("a a a a", 0, 0),
        outcome("a dog", Failed("late"), 0),
    ]
    assert count(rows) == Counts(
        answers=5, hit=1, wrong=1, unattributable=2, failed=1, empty=1, junk=1, same_paper=1, same_code=1, baseline_on_target=1
    )  # fmt: skip
    assert count([]) == Counts(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
