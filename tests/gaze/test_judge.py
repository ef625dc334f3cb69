"""`judge`: exact and first captions."""

import pytest

from gaze.judge import judge_exact, judge_first

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
