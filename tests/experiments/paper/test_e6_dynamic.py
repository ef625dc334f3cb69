"""Experiment 6 on a few strips: the text follows the gaze, what is read is what was said, a run cut short ends the same."""

import json

import numpy as np
import pytest

from experiments.paper import e6_dynamic, schedule_adherence
from experiments.run.run import Run
from experiments.run.settings import Settings
from gaze.heads import HeadSet
from gaze.steering import schedules
from gaze.testbed import SPARSE

PANELS, SEGMENT, DRAWS, STRIPS = 6, 7, 1, 3
SETTINGS = Settings(
    model="testbed-sparse",
    strips="testbed-sparse",
    strength=10_000.0,
    segment=SEGMENT,
    static=16,
    narration=76,
    discovery=2,
    evaluation=STRIPS,
    draws=DRAWS,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("run"), SETTINGS)
    (run.folder / "heads.json").write_bytes((SPARSE / "heads.json").read_bytes())
    scores = np.linspace(1, 0, 48)
    HeadSet((*np.ndindex(6, 8),), (*scores.tolist(),), "made up").save(run.folder / "ranking.json")
    e6_dynamic.collect(run)
    return run


@pytest.fixture(scope="module")
def results(run):
    return e6_dynamic.sum_up(run)


def test_conditions_differ_in_heads_steps_and_rows(run):
    conditions = {one.name: one for one in e6_dynamic.conditions(run)}
    order = schedules.named_order(0, run.pictures("evaluation")[0].name, PANELS)
    in_time, official, whole = (conditions[f"gaze, {steps}"] for steps in ("first token", "official", "all steps"))
    assert (in_time.query_positions, official.query_positions, whole.query_positions) == ("answer", "all", "all")
    assert in_time.aims[0][0].steps[:8].tolist() == [order[0]] * 7 + [order[1]]
    assert official.aims[0][0].steps[:9].tolist() == [-1] + [order[0]] * 7 + [order[1]]
    assert np.array_equal(whole.aims[0][0].steps, in_time.aims[0][0].steps)
    assert (conditions["unsteered"].aims[0][0].steps == -1).all()
    assert conditions["unsteered"].heads is None
    scripts = conditions["gaze, official, the script's schedules"].aims
    assert [aims[0].steps[1::SEGMENT][:PANELS].tolist() for aims in scripts] == [
        one.tolist() for one in schedules.paper_orders([PANELS] * STRIPS)
    ]
    drawn = [one for one in conditions.values() if one.tags["kind"] == "random"]
    assert len(drawn) == 2 * DRAWS
    assert len([one for one in conditions.values() if one.tags["kind"] == "paper"]) == DRAWS
    assert len({len(one.aims[0][0].steps) for one in conditions.values()}) == 1  # one compilation for all


def test_text_follows_the_gaze_heads_and_nothing_else(results):
    gaze = results["conditions"]["gaze, first token"]
    assert gaze["readings"]["segment"]["accuracy"] > 0.7
    assert gaze["readings"]["segment"]["rho"]["value"] > 0.5
    assert gaze["blind"]["accuracy"] > 0.5
    assert gaze["latency"]["turned"]["accuracy"] > 0.7
    assert gaze["readings"]["segment"]["beyond_unsteered"]["value"] > 0.3
    for name in ("unsteered", "all, first token"):
        assert results["conditions"][name]["readings"]["segment"]["accuracy"] < 0.3
    for drawn in results["drawn"].values():
        assert drawn["readings"]["segment"]["highest"] < 0.3
    assert results["conditions"]["all, first token"]["readings"]["segment"]["outcomes"]["junk"] > 0


def test_readings_are_of_what_was_said(run):
    rows = run.answers(e6_dynamic.NAME)
    strips = {strip.name: strip for strip in run.pictures("evaluation")}
    orders = [schedules.named_order(0, row["strip"], PANELS) for row in rows]
    found = schedule_adherence.read(run, e6_dynamic.NAME, rows, orders, [True] * len(rows))
    decode = run.processor.decode
    for row, order, one in zip(rows, orders, found, strict=True):
        # The paper's segments, from the tokens themselves.
        parts = [
            decode(row["tokens"][start : start + SEGMENT]).strip() for start in range(0, PANELS * SEGMENT, SEGMENT)
        ]
        assert one.texts["segment"] == parts
        captions = strips[row["strip"]].captions
        known = [captions.index(part) if part in captions else None for part in parts]
        assert one.panels["segment"] == known
        if row["condition"] == "unsteered":
            assert one.visited == [*range(PANELS)]
            assert schedule_adherence.hit([one], "segment").tolist() == [
                [panel == place for place, panel in enumerate(order)]
            ]


def test_results_are_plain_and_name_where_they_come_from(run, results):
    assert json.dumps(results, allow_nan=False)
    for name, one in results["conditions"].items():
        assert (one["model"], one["revision"], one["judge"]) == ("testbed-sparse", run.revision, "exact")
        assert (one["heads"] is None) == (name == "unsteered")
        for reading in one["readings"].values():
            counted = reading["outcomes"]
            assert sum(counted[kind] for kind in ("hit", "wrong", "unattributable", "failed")) == STRIPS * PANELS
            assert counted["hit"] == round(reading["accuracy"] * STRIPS * PANELS)
            assert reading["rho"]["defined"] + reading["rho"]["undefined"] == STRIPS


def test_answers_whose_target_moves_are_compared_with_both_captions(run, results):
    rows = [row for row in run.answers(e6_dynamic.MOVED) if row["kind"] == "gaze"]
    assert len(rows) == STRIPS * PANELS
    strip = run.pictures("evaluation")[1]
    pairs = schedules.switch_pairs(0, strip.name, PANELS, PANELS)
    own = [row for row in rows if row["strip"] == strip.name]
    assert [row["target"] for row in own] == [new + 1 for _, new in pairs]
    # Its first words are the first panel's.
    begun = [
        row["text"].split()[:2] == strip.captions[old].split()[:2] for row, (old, _) in zip(own, pairs, strict=True)
    ]
    assert np.mean(begun) > 0.6
    moved = results["moved"]["gaze"]
    assert moved["answers"] == len(rows)
    told = []
    for strip in run.pictures("evaluation"):
        pairs = schedules.switch_pairs(0, strip.name, PANELS, PANELS)
        texts = [row["text"] for row in rows if row["strip"] == strip.name]
        for text, (old, new) in zip(texts, pairs, strict=True):
            told.append(schedules.followed(text, strip.captions[old], strip.captions[new], e6_dynamic.SWITCH))
    told = np.array([one for one in told if any(one)], float)
    assert moved["words_new"]["n"] == len(told) > 0
    shares = (told / told.sum(axis=1, keepdims=True)).mean(axis=0)
    assert (moved["words_new"]["accuracy"], moved["words_old"]["accuracy"]) == pytest.approx((shares[0], shares[1]))


def test_summing_up_needs_no_model_and_a_run_cut_short_ends_the_same(run, results):
    again = Run(run.folder, SETTINGS)
    assert e6_dynamic.sum_up(again) == results
    assert "_opened" not in vars(again)
    place = run.place(e6_dynamic.NAME)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    before = [path.read_bytes() for path in files]
    for path in files:
        lines = path.read_bytes().splitlines(keepends=True)
        lines[STRIPS] = b"spoiled\n"  # of the second part, which is made again after all others
        path.write_bytes(b"".join(lines)[:-20])
    again.__dict__["_opened"] = run._opened  # no need to read the weights once more
    e6_dynamic.collect(again)
    assert [path.read_bytes() for path in files] == before


def test_chapter(run, results):
    chapter = e6_dynamic.chapter(run, results)
    assert {plot.name for plot in chapter.plots} == {"conditions", "schedule", "segments", "latency"}
    assert all(len(row) == len(table.columns) for table in chapter.tables for row in table.rows)
    assert len(chapter.findings) == 6
