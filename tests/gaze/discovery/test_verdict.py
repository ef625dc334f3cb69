"""`verdict`: yes for heads that look and steer, no for heads that do only one of it, and uncertain where numbers cannot tell."""

import numpy as np
import pytest

from gaze.discovery.verdict import (
    ABOVE_CHANCE,
    EFFECT,
    LEVEL,
    LIFT,
    ROUTING,
    Asked,
    Steered,
    best_head,
    looking,
    verdict,
)
from qwen3vl_jax.errors import InputError

PANELS, SHAPE, STRIPS = 6, (3, 4), 12
LOOKING = ((2, 1), (1, 3))
STRIP, PANEL = np.repeat(np.arange(STRIPS), PANELS), np.tile(np.arange(PANELS), STRIPS)
RIGHT = Asked(PANEL, PANEL, STRIP)


def attention(seed, lift=0.3, heads=LOOKING, order=tuple(range(PANELS)), strips=STRIPS):
    """Attention of a model in which each question pulls each head to some panels, the same in every strip."""
    rng = np.random.default_rng(seed)
    pull = np.random.default_rng(99).uniform(0, 0.04, (1, PANELS, *SHAPE, PANELS))
    mass = pull + rng.uniform(0, 0.01, (strips, PANELS, *SHAPE, PANELS))
    for panel in range(PANELS):
        for head in heads:
            mass[:, panel, *head, order[panel]] += lift
    return mass


def answers(share, draws, seed=0):
    """Steered answers on target: a share with the heads, and one with each draw of random heads."""
    rng = np.random.default_rng(seed)
    return Steered(
        rng.random(len(STRIP)) < share, rng.random((len(draws), len(STRIP))) < np.array(draws)[:, None], STRIP
    )


STEERED, CUT = answers(0.9, [0.1, 0.2, 0.15] * 4), answers(0.1, [0.9] * 12)


def judge(discovery, held_out, asked=RIGHT, steered=STEERED, cut=CUT):
    heads = looking(discovery)
    return verdict(discovery, held_out, heads, asked, steered if heads else None, cut if heads else None, 0)


def states(found):
    said = {}
    for one in found.criteria:
        said.setdefault(one.about, []).append(one.state)
    return said


def test_heads_that_look_and_steer_are_gaze_heads():
    found = judge(attention(0), attention(1, strips=7))
    assert (found.answer, found.looks, found.beside) == ("yes", "asked", None)
    assert {(one.layer, one.head) for one in found.heads} == {*LOOKING}
    assert all({*some} == {"holds"} for some in states(found).values())
    assert [*states(found)] == ["answers", "look", "stability", "cause", "need"]
    assert found.reason.startswith("2 heads, in layers 1 to 2, look where the question says")


def test_thresholds_and_intervals_are_told():
    found = judge(attention(0), attention(1))
    by = [one.threshold for one in found.criteria]
    assert by[0] == pytest.approx(1 / 6 + ABOVE_CHANCE * 5 / 6)
    assert by[1:4] == [ROUTING, LIFT, LEVEL]
    assert by[4] == pytest.approx(2 / 12 + ABOVE_CHANCE * 10 / 12)
    assert by[5:] == [EFFECT, 0.0, EFFECT]
    assert all(one.low <= one.value <= one.high for one in found.criteria)
    routing, lift, p = found.criteria[1:4]
    assert routing.value == 1.0
    assert lift.value == pytest.approx(0.3, abs=0.03)
    assert lift.high - lift.low < 0.02
    assert p.value == pytest.approx(1 / 720)


def test_words_that_pull_are_no_gaze():
    found = judge(attention(0, 0), attention(1, 0))
    assert (found.answer, found.looks) == ("no", "nowhere")
    assert "cause" not in states(found)
    assert [(one.layer, one.head) for one in found.heads] == [best_head(attention(0, 0))]
    assert found.reason.startswith("No head looks where the question says: the best, L")


def test_a_certain_but_tiny_lift_is_not_enough():
    mass = attention(0, 0, strips=8)
    mass[:, :, 2, 1] = 0
    mass[:, range(PANELS), 2, 1, range(PANELS)] = 0.03
    found = judge(mass, mass)
    assert found.answer == "no"
    routing, lift, _ = found.criteria[1:4]
    assert (routing.value, routing.state) == (1.0, "holds")
    assert (lift.value, lift.state) == (pytest.approx(0.03), "fails")


def test_the_heads_that_steer_must_be_those_that_look():
    """What random heads do as well is no cause; nor is what heads do that do not look."""
    found = judge(attention(0), attention(1), steered=answers(0.12, [0.15, 0.2] * 6))
    assert found.answer == "no"
    assert states(found)["look"] == ["holds"] * 3
    assert states(found)["cause"][0] == "fails"
    assert "that is not what moves the answers" in found.reason
    assert judge(attention(0, 0), attention(1, 0), steered=STEERED).answer == "no"


def test_heads_are_judged_on_strips_that_did_not_choose_them():
    assert judge(attention(0), attention(1, 0)).answer == "no"
    assert judge(attention(0), attention(1, heads=((0, 0), (0, 1)))).answer == "no"
    half = judge(attention(0), attention(1, heads=((0, 0), LOOKING[0])))
    assert [one.value for one in half.criteria if one.about == "stability"] == [0.5]


def test_uncertain_where_the_interval_holds_the_threshold():
    found = judge(attention(0), attention(1), steered=answers(0.35, [0.15] * 12))
    assert (found.answer, states(found)["cause"][0]) == ("uncertain", "uncertain")
    assert found.reason.startswith("More strips or draws are needed to tell: steered answers on target")


def test_a_further_draw_that_may_do_as_well():
    """On average random heads do little; but two of ten do it all, so that these may be two such."""
    found = judge(attention(0), attention(1), steered=answers(0.9, [0.95, 0.9, *[0.05] * 8]))
    assert states(found)["cause"] == ["holds", "uncertain"]
    assert found.answer == "uncertain"


def test_a_single_draw_tells_nothing():
    found = judge(attention(0), attention(1), steered=answers(0.9, [0.1]))
    assert states(found)["cause"][0] == "uncertain"


def test_more_draws_never_make_it_harder():
    """The rule that asked for more than the best of all draws said yes in 79 % of runs with 3 draws, in 4 % with 50."""
    rng, yes = np.random.default_rng(3), {}
    look = attention(0), attention(1)
    for draws in (3, 10, 50):
        tries = [judge(*look, steered=answers(0.8, rng.beta(1, 4, draws), seed)).answer for seed in range(20)]
        yes[draws] = tries.count("yes")
    assert yes[3] <= yes[10] <= yes[50]
    assert yes[50] == 20


def test_without_the_heads_other_heads_may_stand_in():
    found = judge(attention(0), attention(1), cut=answers(0.9, [0.9] * 12))
    assert states(found)["need"] == ["fails"]
    assert found.answer == "yes"


def test_a_model_that_does_not_understand_the_question():
    nothing = RIGHT._replace(described=np.full_like(PANEL, -1))
    found = judge(attention(0), attention(1), asked=nothing)
    assert (found.answer, states(found)["answers"]) == ("uncertain", ["fails"])
    assert "does not answer about the panel asked for (0% of the answers" in found.reason
    found = judge(attention(0, 0), attention(1, 0), asked=nothing)
    assert found.answer == "no"
    assert "cannot be told" in found.reason


@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5, 0), (5, 0, 1, 2, 3, 4), (5, 4, 3, 2, 1, 0)])
def test_looking_beside_is_not_looking_nowhere(order):
    nothing = RIGHT._replace(described=np.full_like(PANEL, -1))
    found = judge(attention(0, order=order), attention(1, order=order), asked=nothing)
    assert (found.answer, found.looks) == ("no", "beside")
    assert found.beside == tuple(panel + 1 for panel in order)
    assert found.reason.startswith("The heads look beside: asked about panels 1 to 6, at ")


def test_the_last_panel_may_have_no_next():
    beside = [attention(seed, order=(1, 2, 3, 4, 5, 5)) for seed in (0, 1)]
    assert judge(*beside).beside == (2, 3, 4, 5, 6, 1)


def test_some_other_order_must_be_that_of_the_answers():
    """Any pull of words fits one of 720 orders best: unless the answers are about the same panels, it says nothing."""
    order = np.array((1, 0, 3, 2, 5, 4))
    beside = [attention(seed, order=order) for seed in (0, 1)]
    assert judge(*beside).looks == "nowhere"
    assert judge(*beside, asked=RIGHT._replace(described=order[PANEL])).beside == (2, 1, 4, 3, 6, 5)


def test_strong_pulls_are_seldom_taken_for_looking():
    """Heads that each question pulls to some panel, strongly, the same in every strip: there is no gaze in it."""
    said = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        pull = 0.3 * np.eye(PANELS)[rng.integers(PANELS, size=(PANELS, *SHAPE))]
        mass = [pull + np.random.default_rng([seed, half]).uniform(0, 0.01, (8, *pull.shape)) for half in (0, 1)]
        said.append(judge(*mass))
    assert sum(one.answer == "yes" for one in said) <= 1  # at a level of 1 %, if all else holds
    assert sum(one.looks == "beside" for one in said) <= 3


def test_what_cannot_be_tested():
    mass = attention(0)[..., :4][:, :4]
    with pytest.raises(InputError, match="at least five"):
        judge(mass, mass)
