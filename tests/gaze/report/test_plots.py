"""The figures: every one is drawn from plausible and from degenerate arrays, without a warning and always alike."""

import warnings
from io import BytesIO

import numpy as np
import pytest
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from gaze.report.plots import Line, Measure, columns, conditions, highest, rows, sweep
from gaze.report.plots_compare import ComparedCheckpoint, checkpoints, picks
from gaze.report.plots_heads import depth_profile, score_distribution, score_map
from gaze.report.plots_layers import layer_effect, separation, spread
from gaze.report.plots_pictures import boxes, said, strip
from gaze.report.plots_time import Stairs, grid, staircase, switch_latency, trajectories

PANELS = 6
NAN = float("nan")
HOSTILE = r"$\frac{1}$ <b>&amp;"


def banded(name, role, value):
    value = np.asarray(value, np.float64)
    return Line(name, role, np.arange(1, len(value) + 1), value, value - 0.05, value + 0.05)


def grouped(value):
    return banded("gaze heads", "gaze", value)._replace(x=range(len(value)))


def plausible():
    """Every figure as the experiments would have it."""
    rng = np.random.default_rng(0)
    scores = rng.random((4, 5)).astype(np.float32)
    mass, told = rng.random((30, PANELS)), np.arange(30) // 5
    gaze = Measure("gaze heads", "gaze", 0.9, 0.85, 0.95)
    random = Measure(HOSTILE, "random", 0.1, 0.05, 0.2, [0.05, 0.1, 0.15])
    lines = [banded("gaze", "gaze", [0.2, 0.9, 0.4]), banded("random", "random", [0.1, 0.1, 0.1])]
    photo = Image.new("RGB", (40, 30), "teal")
    points = {layer: rng.normal(size=(12, 2)) for layer in range(5)}
    return {
        "score_map": score_map(scores, [(1, 2), (3, 4)]),
        "score_distribution": score_distribution(scores, rng.random((3, 4, 5))),
        "depth_profile": depth_profile(scores, [(1, 2), (1, 3)]),
        "conditions": conditions([gaze, random], 1 / PANELS),
        "sweep": sweep(lines, "heads", {"blind pick": 1 / 6, "unsteered": 0.2}, {"chosen: 2": 2}),
        "rows": rows(["all rows", HOSTILE], [grouped([0.9, 0.8])], 1 / PANELS),
        "columns": columns(["small", "large"], [grouped([0.9, 0.8])], "size"),
        "picks": picks({"captions": np.full(7, 1 / 7), "likelihood": np.eye(7)[0]}, [*"123456", "none"]),
        "checkpoints": checkpoints(
            [
                ComparedCheckpoint("one", [0.1, 0.9], 4, 48, gaze, random),
                ComparedCheckpoint("two", [0.1], NAN, 9, gaze, random),
            ]
        ),
        "layer_effect": layer_effect(lines, lines),
        "separation": separation(rng.random(5), points, np.arange(12) % 2 == 0),
        "spread": spread(rng.random(50), {"reverse": 0.94, "best other": 0.6}, "share", "orders"),
        "boxes": boxes(photo, [(1, 2, 20, 20), (5, 5, 40, 30)], "What?", "A cup.", [(HOSTILE, True), ("", False)]),
        "strip": strip(photo, "What? " * 60, "A cup.", [(HOSTILE, True), ("word " * 40, False)], (10, 30)),
        "staircase": staircase(
            [Stairs("gaze", mass, told), Stairs("control", mass / 9), Stairs(HOSTILE, mass, told - 1)]
        ),
        "trajectories": trajectories({"gaze": mass, "control": mass / 9}, told),
        "grid": grid(rng.random((6, 7)), [*"123456"], [*"123456", "none"], ("scheduled", "described")),
        "switch_latency": switch_latency({"first": rng.uniform(0, 50, 20), "official": rng.uniform(0, 50, 20)}, 50),
    }


def degenerate():
    """One strip, one draw, one panel, constants, nothing but NaN."""
    lost = np.full((3, 2), NAN)
    nowhere = Measure("lost", "gaze", NAN, NAN, NAN)
    alone = [banded("gaze", "gaze", [0.5])]
    gone = [banded("gaze", "gaze", [NAN, NAN])]
    still = {"constant": np.zeros(3), "lost": np.full(3, NAN)}
    return {
        "no score": score_map(np.zeros((2, 3)), []),
        "negative scores": score_map(-np.ones((1, 1)), [(0, 0)]),
        "lost scores": score_map(lost, [(0, 0)]),
        "lost null": score_distribution(np.zeros((3, 2)), lost[None]),
        "one draw": score_distribution(np.full((1, 1), 0.5), np.full((1, 1, 1), 0.5)),
        "nothing drawn": score_distribution(lost, np.zeros((0, 3, 2))),
        "flat depth": depth_profile(np.zeros((1, 1)), [(0, 0)]),
        "lost depth": depth_profile(lost, []),
        "one condition": conditions([Measure("one strip", "gaze", 1.0, 0.0, 1.0, [1.0])]),
        "lost condition": conditions([nowhere]),
        "one point": sweep(alone, "heads", marked={"chosen: 1": 1}),
        "lost points": sweep(gone, "heads"),
        "one row": rows(["all"], [grouped([1.0])], 0.0),
        "lost rows": rows(["a", "b"], [grouped([NAN, NAN])]),
        "one column": columns(["1"], [Line("x", "all", [0], [1.0])]),
        "lost columns": columns(["a", "b"], [grouped([NAN, 0.0])], chance=0.5),
        "no picks": picks(still, ["1", "2", "3"]),
        "one checkpoint": checkpoints([ComparedCheckpoint("one", [NAN], NAN, 8, nowhere, nowhere)], 0.2),
        "one layer": layer_effect(alone, alone),
        "lost layers": layer_effect(gone, gone),
        "one cloud": separation(np.array([NAN]), {0: np.zeros((2, 2))}, np.array([True, False])),
        "one class": separation(np.array([0.1, 0.2]), {1: np.zeros((2, 2))}, np.array([True, True])),
        "one case": spread(np.array([0.5]), {}, "share", "orders"),
        "no case": spread(np.array([NAN]), {"reverse": 1.0}, "share", "orders"),
        "unset strength": sweep([Line("zero", "gaze", [0, 0], [0.1, 0.2])], "strength"),
        "one panel": strip(Image.new("L", (4, 4)), "", "", [("", False)]),
        "no boxes": boxes(Image.new("L", (4, 4)), [], "", "", []),
        "one token": staircase([Stairs("one", np.zeros((1, 1)), np.array([-1]))]),
        "lost stairs": staircase([Stairs("lost", lost, np.array([0, 1, 1]))]),
        "one step": trajectories({"gaze": np.zeros((1, 1))}),
        "lost steps": trajectories({"gaze": lost}, np.array([0, 0, -1])),
        "no answers": grid(lost, ["1", "2", "3"], ["1", "2"], ("a", "b")),
        "no hits": grid(np.zeros((1, 1)), ["1"], ["1"], ("a", "b")),
        "never turned": switch_latency({"one": np.array([NAN, NAN]), "at once": np.array([0.0])}, 1),
        "no switch": switch_latency({"none": np.zeros(0)}, 50),
    }


@pytest.fixture(scope="module")
def drawn():
    return plausible()


def rendered(figure: Figure, kind="png") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=60, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def test_every_figure_shows_something(drawn):
    for name, figure in drawn.items():
        with Image.open(BytesIO(rendered(figure))) as picture:
            assert np.asarray(picture.convert("L")).std() > 5, name


def test_every_figure_says_what_it_shows(drawn):
    for name, figure in drawn.items():
        assert len(figure.get_label()) > 40, name
        assert "nan" not in figure.get_label(), name
    assert "gaze heads: 90.0% (85.0% to 95.0%)" in drawn["conditions"].get_label()
    assert "single draws 5.0% to 15.0%" in drawn["conditions"].get_label()
    assert "highest, 90.0% at 2" in drawn["sweep"].get_label()


def test_the_same_numbers_give_the_same_bytes_and_no_style_leaks(drawn):
    before = dict(rcParams)
    again = plausible()
    assert dict(rcParams) == before
    with rc_context({"svg.hashsalt": "gaze"}):
        for name in drawn:
            assert rendered(again[name], "svg") == rendered(drawn[name], "svg"), name


def test_what_is_missing_or_constant_is_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in degenerate().items():
            assert rendered(figure), name
            assert "nan" not in figure.get_label(), name


def test_a_dollar_is_a_dollar(drawn):
    assert r"\frac" in drawn["conditions"].axes[0].get_yticklabels()[1].get_text()
    assert rendered(drawn["conditions"], "svg")


def test_signs_that_the_font_lacks_become_boxes():
    assert said("  a \n 犬 ✓") == "a □ ✓"
    assert said(" ") == "(no text)"


def test_scores_beyond_the_null_are_counted():
    real, null = np.array([[0.9, 0.05], [0.3, 0.3]]), np.full((2, 2, 2), 0.2)
    assert "3 of 4 heads exceed" in score_distribution(real, null).get_label()


def test_chosen_heads_are_outlined_where_they_are():
    (axes, _) = score_map(np.ones((4, 5)), [(3, 1)]).axes
    (outline,) = axes.patches
    assert outline.get_xy() == (0.5, 2.5)


def test_bands_follow_the_values_in_whatever_order_they_come():
    line = Line("gaze", "gaze", [4, 1, 2], [0.4, 0.1, 0.2], [0.3, 0.0, 0.1], [0.5, 0.2, 0.3])
    (axes,) = sweep([line], "heads").axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.2], [4, 0.4]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]


def test_labels_of_many_places_do_not_crowd():
    line = Line("gaze", "gaze", range(1, 101), np.full(100, 0.5))
    (axes,) = sweep([line], "heads", marked={"chosen: 97": 97}).axes
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert {"1", "97"} <= set(shown)
    assert len(shown) < 25


def test_the_schedule_is_underlined_panel_by_panel():
    mass = np.zeros((6, 2))
    first, second = trajectories({"gaze": mass}, np.array([0, 0, 1, 1, 0, -1])).axes
    assert [(patch.get_x(), patch.get_width()) for patch in first.patches] == [(-0.5, 2.0), (3.5, 1.0)]
    assert [(patch.get_x(), patch.get_width()) for patch in second.patches] == [(1.5, 2.0)]


def test_switches_that_were_never_followed_are_not_counted_as_followed():
    label = switch_latency({"first": np.array([3.0, 5.0, NAN])}, 50).get_label()
    assert "2 of 3 switches followed, median 4" in label


def test_the_end_of_a_scale_is_above_its_beginning():
    assert highest(np.array([0.2, NAN, 0.7]), np.zeros((2, 2))) == 0.7
    assert highest(np.array([NAN])) == highest(np.zeros(2)) == highest(-np.ones(1)) == highest() == 1.0


def test_steps_without_numbers_are_no_panel():
    lost = np.full((4, 3), NAN)
    lost[1] = [0.1, 0.8, 0.1]
    lost[3] = [0.1, 0.1, 0.8]
    assert "most on panels 2, 3." in staircase([Stairs("some", lost)]).get_label()


BLANK = {
    "lost scores": "nothing was measured",
    "lost null": None,
    "nothing drawn": "nothing was measured",
    "lost depth": "nothing was measured",
    "lost points": "nothing was measured",
    "lost rows": "nothing was measured",
    "no picks": "nothing was measured",
    "one checkpoint": "nothing was measured",
    "lost layers": "nothing was measured",
    "one cloud": "nothing was measured",
    "no case": "nothing was measured",
    "one token": "zero everywhere",
    "lost stairs": "nothing was measured",
    "lost steps": "nothing was measured",
    "no answers": "nothing was measured",
    "never turned": "no switch was followed",
    "no switch": "no switch was followed",
    "one point": None,
}


def words(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_a_blank_figure_says_why_and_no_other_does():
    figures = degenerate()
    for name, why in BLANK.items():
        told = {text for text in words(figures[name]) if text in BLANK.values()}
        assert told == ({why} if why else set()), name


def test_shades_too_faint_to_be_seen_are_told():
    faint = staircase(
        [Stairs("gaze", np.eye(3)), Stairs("random", np.full((3, 3), 0.0123)), Stairs("none", np.eye(3) / 1e5)]
    )
    assert {"at most 0.012", "below 0.001"} <= set(words(faint))


def test_a_column_without_a_bar_says_whether_it_is_zero_or_unknown():
    assert {"0", "–"} <= set(words(columns(["a", "b", "c"], [Line("gaze", "gaze", range(3), [0.0, NAN, 0.5])])))


def test_layers_have_bars_and_nothing_joins_them():
    lines = [banded("gaze", "gaze", [0.2, 0.9, 0.4]), banded("random", "random", [0.1, 0.1, 0.1])]
    nothing = Measure("none", "gaze", NAN, NAN, NAN)
    figures = {
        "effect": layer_effect(lines, lines).axes,
        "depth": depth_profile(np.array([[0.1], [0.9], [0.2]]), []).axes[:1],
        "separation": separation(np.array([0.1, 0.9, 0.2]), {0: np.zeros((2, 2))}, np.array([True, False])).axes[:1],
        "checkpoints": checkpoints([ComparedCheckpoint("one", [0.1, 0.9, 0.2], 1, 3, nothing, nothing)]).axes[2:],
    }
    for name, plots in figures.items():
        for axes in plots:
            assert len(axes.patches) == 3, name
            joined = [line for line in axes.lines if line.get_linestyle() != "None" and len(line.get_xdata()) > 2]
            assert not joined, name


def test_zero_stands_apart_of_a_log_scale_that_begins_at_the_first_value():
    (axes,) = sweep(
        [Line("gaze", "gaze", [0, 0.25, 4], [0.1, 0.2, 0.9], [0.0, 0.1, 0.8], [0.2, 0.3, 1.0])], "strength"
    ).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.25", "4"]
    assert axes.lines[0].get_xdata().tolist() == [0.25, 4]
    (without,) = sweep([Line("gaze", "gaze", [0.25, 4], [0.2, 0.9])], "strength").axes
    assert 0.2 < without.get_xlim()[0] < 0.25


def test_counts_below_one_and_zero_have_a_place_on_the_log_axis():
    (axes, *_) = score_distribution(np.array([[0.9, 0.0]]), np.full((4, 1, 2), 0.2)).axes
    assert axes.get_yscale() == "symlog"
    assert axes.get_ylim()[0] == 0
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["0", "1"]


def test_lines_of_one_role_are_told_apart():
    lines = [Line("index", "localization", [1, 2], [0.1, 0.2]), Line("value", "localization", [1, 2], [0.2, 0.3])]
    one, other = sweep(lines, "heads").axes[0].lines[:2]
    assert (one.get_markerfacecolor(), one.get_linestyle()) != (other.get_markerfacecolor(), other.get_linestyle())
    one, other = columns(["a", "b"], [line._replace(x=[0, 1]) for line in lines]).axes[0].containers[0::2]
    assert one[0].get_hatch() != other[0].get_hatch()


def test_no_word_of_a_strip_runs_over_its_edge(drawn):
    figure = drawn["strip"]
    figure.draw_without_rendering()
    page = figure.bbox
    for text in figure.texts:
        box = text.get_window_extent()
        assert page.x0 - 1 <= box.x0, text
        assert box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0, text
        assert box.y1 <= page.y1 + 1, text


def test_numbers_in_figures_have_minus_signs():
    said = words(score_map(np.array([[-0.25, 0.5]]), []))
    assert "−0.25" in said
    assert "-0.25" not in said
