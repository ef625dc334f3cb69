"""Answers counted both ways, and the least strength that is enough, on records made up by hand."""

import numpy as np
import pytest

from experiments.run import summaries
from experiments.run.formatting import both, on_target

SAID = [f"a {thing} here" for thing in ("dog", "cat", "cow", "owl", "fox", "bee")]
STRIPS, PANELS = 6, len(SAID)


def row(strip, target, panel):
    """The answer that describes a panel, both from 0."""
    text = "nothing" if panel is None else SAID[panel]
    place = None if panel is None else panel + 1
    return {"strip": str(strip), "target": target + 1, "panel": place, "text": text, "strength": 1.0}


ALONE = [{**row(strip, 0, 2), "target": None} for strip in range(STRIPS)]
"""Left alone, the model describes the third panel."""


def answers(says):
    return [row(strip, target, says(strip, target)) for strip in range(STRIPS) for target in range(PANELS)]


ALWAYS = answers(lambda strip, target: target)
NEVER_MOVED = answers(lambda strip, target: 2)
WRONG = answers(lambda strip, target: (target + 1) % PANELS)


def test_an_unchanged_answer_is_a_hit_as_judged_and_a_miss_by_the_paper():
    found = summaries.condition(ALWAYS, ALONE, PANELS)
    assert found["accuracy"] == 1
    assert found["by_paper"]["accuracy"] == pytest.approx(5 / 6)
    assert [panel["by_paper"]["accuracy"] for panel in found["per_panel"]] == [1, 1, 0, 1, 1, 1]
    assert {panel["accuracy"] for panel in found["per_panel"]} == {1}
    assert found["by_paper"]["n"] == found["n"] == STRIPS * PANELS
    assert found["picks"] == [STRIPS] * PANELS
    assert found["outcomes"]["same_code"] == STRIPS
    assert on_target(found) == ["100.0%", "54.1 to 100.0", "83.3%", "71.0 to 91.9"]
    assert both(found) == "100.0% (54.1 to 100.0), or 83.3% (71.0 to 91.9) by the paper's counting"


def test_steering_that_does_nothing_hits_by_luck_as_judged_and_never_by_the_paper():
    found = summaries.estimated(NEVER_MOVED, ALONE)
    assert (found["outcomes"]["hit"], found["outcomes"]["wrong"]) == (STRIPS, STRIPS * (PANELS - 1))
    assert found["accuracy"] == pytest.approx(1 / 6)
    assert found["by_paper"]["accuracy"] == 0


def test_draws_of_controls_are_placed_under_both_rules():
    found = summaries.controls([NEVER_MOVED, WRONG], ALWAYS, ALONE, PANELS)
    assert found["n"] == 2 * STRIPS * PANELS
    assert list(found["against"]["accuracies"]) == pytest.approx([1 / 6, 0])
    assert list(found["by_paper"]["against"]["accuracies"]) == [0, 0]
    assert (found["against"]["gaze"], found["by_paper"]["against"]["gaze"]) == (1, pytest.approx(5 / 6))


def test_draws_of_controls_have_an_interval_over_draws_and_strips():
    """Two draws of four do it all: over strips alone that would be half of the answers, almost for certain."""
    none = answers(lambda strip, target: None)
    draws = [[{**row, "draw": draw} for row in (ALWAYS if draw % 2 else none)] for draw in range(4)]
    found = summaries.controls(draws, ALWAYS, ALONE, PANELS)
    for share in (found, *found["per_panel"]):
        assert share["interval"][0] < 0.1 < 0.9 < share["interval"][1]
    mean = found["against"]["mean"]
    assert found["interval"] == [mean["low"], mean["high"]]
    untold = [[{**row, "draw": 0} for row in draw] for draw in draws]
    alone = summaries.condition([row for draw in untold for row in draw], ALONE, PANELS)
    assert alone["interval"][0] > 0.3


def curve(*sets):
    return [(float(size), summaries.estimated(records, ALONE)) for size, records in enumerate(sets, start=1)]


def test_the_least_strength_that_is_enough():
    assert summaries.least_sufficient(curve(NEVER_MOVED, ALWAYS, ALWAYS)) == 2
    assert summaries.least_sufficient(reversed(curve(NEVER_MOVED, WRONG, ALWAYS))) == 3


@pytest.mark.parametrize("sets", [(NEVER_MOVED, NEVER_MOVED), (WRONG, WRONG), (ALWAYS, WRONG), ()])
def test_no_strength_is_enough_where_the_greatest_moves_nothing(sets):
    assert summaries.least_sufficient(curve(*sets)) is None


def test_one_answer_that_moved_by_luck_is_no_plateau():
    lucky = answers(lambda strip, target: 1 if (strip, target) == (0, 1) else 2)
    assert summaries.least_sufficient(curve(NEVER_MOVED, lucky)) is None


def test_a_word_that_fails_everywhere_widens_the_interval_over_words():
    """The same misses, once all of one word and once of words by chance."""
    rng = np.random.default_rng(0)
    things = np.stack([rng.permutation(24)[:PANELS] for _ in range(60)])
    captions = {str(strip): [f"a thing{thing} here" for thing in some] for strip, some in enumerate(things)}
    bad = things == 0
    assert 0 < bad.sum() < 30
    rows = [
        [
            row(strip, target, None if missed[strip, target] else target)
            for strip in range(60)
            for target in range(PANELS)
        ]
        for missed in (bad, rng.permutation(bad.ravel()).reshape(bad.shape))
    ]
    word, chance = (summaries.over_words(some, captions) for some in rows)
    assert word["accuracy"] == chance["accuracy"]
    assert word["interval"][0] < chance["interval"][0]
    assert word["interval"][0] < summaries.condition(rows[0], ALONE_ALL, PANELS)["interval"][0] - 0.02


ALONE_ALL = [{**row(strip, 0, 2), "target": None} for strip in range(60)]
