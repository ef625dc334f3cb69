"""Schedules and what became of them, on texts made by hand; and where tokens, sentences and lines stand in a text."""

import numpy as np
import pytest

from gaze.pictures.strips import Caption
from gaze.statistics import UNATTRIBUTABLE
from gaze.steering import schedules
from gaze.steering.schedules import (
    CONVENTIONS,
    blind_match,
    cut,
    derangement,
    named_order,
    nearest,
    numbers,
    paper_orders,
    sentence_latency,
    switch_pairs,
    targets,
    visits,
    word_latency,
)
from gaze.text_spans import between, narrated, numbered, sentences, token_ends, words

CAPTIONS = ("red fox sits on blue box.", "blue cat runs to red tree.", "red dog sits on green box.")
SEGMENT = 7
OLD = Caption("red star, blue box and pink cat.", ("three things: red star, blue box and pink cat.",))
NEW = Caption("green moon sits on blue car.", ("blue car with green moon sitting on it.",))


def spoken(text):
    """A text's tokens as the testbed has them, a word with the space before it and the full stop: their ends."""
    pieces = []
    for number, word in enumerate(text.split(" ")):
        said = ("" if number == 0 else " ") + word
        pieces += [said[:-1], "."] if said.endswith(".") else [said]
    return np.cumsum([len(piece) for piece in pieces]).astype(np.int32)


def told(*panels):
    text = " ".join(CAPTIONS[panel] for panel in panels)
    return text, spoken(text)


def test_ends_follow_tokens_through_spaces_and_split_characters():
    pieces = {1: " \n", 2: "A", 3: "\N{REPLACEMENT CHARACTER}", 4: " b", 5: " "}

    def decode(tokens):
        return "".join(pieces[token] for token in tokens).replace("\N{REPLACEMENT CHARACTER}" * 2, "é")

    assert token_ends(decode, [1, 2, 3, 3, 4, 5]).tolist() == [0, 1, 1, 2, 4, 4]
    assert token_ends(decode, []).shape == (0,)
    assert token_ends(decode, [1, 5]).tolist() == [0, 0]


def test_sentences_know_their_tokens():
    text, ends = told(0, 1)
    first, second = sentences(text, ends)
    assert (first.text, first.start, first.stop) == (CAPTIONS[0], 0, 7)
    assert (second.text, second.start, second.stop) == (CAPTIONS[1], 7, 14)
    assert [(word.text, word.start) for word in words(second, ends)][:3] == [("blue", 7), ("cat", 8), ("runs", 9)]
    assert words(second, ends)[-1].stop == 14
    assert between(text, ends, 5, 9) == "box. blue cat"
    assert between(text, ends, 20, 30) == ""


def test_sentences_pass_over_bullets_and_split_at_lines():
    text = '1. Hello "there." He paid 3.50 dollars!\n2. No end'
    found = [one.text for one in sentences(text, np.arange(1, len(text) + 1))]
    assert found == ['Hello "there."', "He paid 3.50 dollars!", "No end"]


def test_lines_are_known_by_their_numbers_or_else_by_their_order():
    text = "Sure.\n**Panel 2:** A cat.\nPanel 1: A dog. It barks.\npanel 2: Again."
    ends = np.arange(1, len(text) + 1)
    lines = numbered(text, ends)
    assert {panel: line.text for panel, line in lines.items()} == {1: "A cat.", 0: "A dog. It barks."}
    assert lines[1].start == text.index("**Panel")
    assert lines[1].stop == lines[0].start == text.index("Panel 1")
    assert narrated(text, ends, [0, 1]) == lines
    assert {*narrated(text, ends, [1])} == {1}
    free = "One. Two. Three."
    assert {panel: line.text for panel, line in narrated(free, np.arange(1, 17), [2, 0, 1]).items()} == {
        2: "One.",
        0: "Two.",
        1: "Three.",
    }
    assert narrated(free, np.arange(1, 17), [1, 0]) == {}


def test_orders_leave_no_panel_in_its_place_and_depend_on_the_strip_alone():
    orders = [named_order(0, f"strip-{number}", 6) for number in range(50)]
    for order in orders:
        assert sorted(order) == [*range(6)]
        assert (order != np.arange(6)).all()
    assert len({tuple(order) for order in orders}) > 25
    assert np.array_equal(named_order(0, "strip-7", 6), orders[7])
    assert not np.array_equal(named_order(1, "strip-7", 6), orders[7])


def test_paper_orders_are_one_sequence_of_the_old_generator():
    rng = np.random.RandomState(42)
    want = [derangement(rng, 6).tolist() for _ in range(4)]
    assert [order.tolist() for order in paper_orders([6] * 4)] == want
    # By hand: the first permutation has fixed points, and is drawn again until it has none.
    rng = np.random.RandomState(42)
    drawn = [rng.permutation(6) for _ in range(20)]
    assert want[0] == next(order for order in drawn if (order != np.arange(6)).all()).tolist()


def test_switch_pairs_differ():
    pairs = switch_pairs(0, "strip", 6, 40)
    assert all(old != new for old, new in pairs)
    assert len(set(pairs)) > 10
    assert pairs == switch_pairs(0, "strip", 6, 40)


@pytest.mark.parametrize(
    ("convention", "steps"),
    [
        ("official", [-1, 2, 2, 0, 0, 1, 1]),
        ("full sequence", [2, 2, 2, 0, 0, 1, 1]),
        ("first token", [2, 2, 0, 0, 1, 1, 1]),
        ("all steps", [2, 2, 0, 0, 1, 1, 1]),
    ],
)
def test_targets_by_convention(convention, steps):
    _, delay, early = CONVENTIONS[convention]
    assert targets(np.array([2, 0, 1]), 2, delay, early).tolist() == steps


def test_cut_by_tokens_and_by_sentences():
    text, ends = told(2, 0, 1)
    parts = cut(text, ends, SEGMENT, 4)
    assert parts.segments == [CAPTIONS[2], CAPTIONS[0], CAPTIONS[1], ""]
    assert parts.central == [CAPTIONS[2], CAPTIONS[0], CAPTIONS[1], ""]
    shifted = cut("oh " + text, spoken("oh " + text), SEGMENT, 3)
    assert shifted.segments[1] == ". " + CAPTIONS[0].removesuffix(".")
    assert shifted.central[1:] == [CAPTIONS[0], CAPTIONS[1]]
    # Segments that come late still have the sentences that are mostly told while they last.
    assert cut(text, ends, SEGMENT, 3, delay=1).central == [CAPTIONS[2], CAPTIONS[0], CAPTIONS[1]]


def test_nearest_caption_needs_half_of_the_words_and_no_rival():
    assert nearest("blue fox sits on blue box.", CAPTIONS) == 0
    assert nearest(CAPTIONS[1], CAPTIONS) == 1
    assert nearest("red", CAPTIONS) is None
    assert nearest("red bird sits on pink box.", CAPTIONS) is None  # as near to 0 as to 2
    assert nearest("", CAPTIONS) is None


def test_nearest_caption_in_any_of_its_wordings():
    assert nearest("blue car with green moon sitting on it.", (OLD, NEW)) == 1
    assert nearest("green moon sits on red car.", (OLD, NEW)) == 1
    assert nearest("three things: red star, blue box and pink kite.", (OLD, NEW)) == 0


def test_visits_and_the_blind_reader():
    assert visits([2, None, 2, 0, None, 1, 0]) == [2, 0, 1, 0]
    assert visits([None]) == []
    order = np.array([2, 0, 1, 3])
    assert blind_match(order, [2, 0, 1, 3]) == (1.0, pytest.approx(1.0))
    assert blind_match(order, [2, 0]) == (0.5, None)
    match, rho = blind_match(order, [1, 0, 2, 3, 5])
    assert match == 0.5
    assert rho == pytest.approx(0.8)


def test_latency_in_words():
    text, _ = told(0, 1, 2)

    def latency(text, new, begin, end):
        ends = spoken(text)
        return word_latency(sentences(text, ends), ends, CAPTIONS, new, begin, end)

    assert latency(text, 1, 7, 14) == 0
    ends = spoken("blue car with green moon sitting on it.")
    assert word_latency(sentences("blue car with green moon sitting on it.", ends), ends, (OLD, NEW), 1, 3, 9) == 0
    assert latency(text, 2, 7, 14) is None  # told, but only after the next switch
    assert latency(text, 2, 7, 21) == 7
    # Two words of the old panel, then the new one's; "sits on" is the old one's too.
    mixed = "blue cat sits on blue box."
    assert latency(mixed, 0, 0, 7) == 2
    assert latency(mixed, 1, 0, 7) is None
    # From the switch on the rest is the new panel's, though the words before it are not.
    assert latency(mixed, 0, 3, 10) == 0
    # "sits on blue box." is no other caption's, "box." is.
    assert latency("red dog sits on red box.", 0, 0, 7) is None
    assert latency("red dog", 0, 0, 7) is None


def test_latency_in_sentences():
    text, ends = told(0, 1, 2)
    found = sentences(text, ends)
    assert sentence_latency(found, [0, 1, 2], 1, 6, 13) == 1
    assert sentence_latency(found, [0, 1, 1], 1, 8, 15) == 6
    assert sentence_latency(found, [0, 1, 2], 2, 7, 14) is None


def test_numbers():
    assert numbers([2, None]).tolist() == [2, UNATTRIBUTABLE]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("red star, blue box and pink cat.", (0, 2, 0)),  # "and" is of the grace
        ("red star, green moon sits on blue car.", (2, 0, 0)),  # "blue" tells nothing, "moon sits" come too early
        ("red star, blue car with green moon sitting on it.", (5, 0, 0)),
        ("red star, blue box and green moon.", (2, 0, 0)),
        ("red star, blue box, green moon and pink cat.", (1, 3, 0)),
        ("red star, blue box and yellow kite on it.", (2, 0, 2)),
        ("red star", (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_words_that_follow_a_target(text, counts):
    assert schedules.followed(text, OLD, NEW, at=2) == counts


def test_words_of_both_panels_tell_nothing():
    assert schedules.followed(str(OLD), OLD, OLD, at=0, grace=0) == (0, 0, 0)
    assert schedules.followed("star moon", "a star", "a moon", at=0, grace=0) == (1, 1, 0)
