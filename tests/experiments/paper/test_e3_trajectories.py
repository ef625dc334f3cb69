"""Experiment 3 on a few strips: the staircase is there, what is saved is what was read, and a run cut short ends the same."""

import json
import shutil

import numpy as np
import pytest

from experiments.paper import e1_discovery, e3_trajectories
from experiments.run.records import Records
from experiments.run.run import Run
from experiments.run.settings import Settings
from gaze.discovery.narration_attention import attended, by_line, line_mass, watch
from gaze.discovery.scores import gaze_score
from gaze.testbed import SPARSE

PANELS, DRAWS = 6, 2
SETTINGS = Settings(
    model="testbed-sparse",
    strips="testbed-sparse",
    strength=10_000.0,
    segment=7,
    static=16,
    narration=76,
    discovery=2,
    evaluation=3,
    draws=DRAWS,
    heads="shipped",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("run"), SETTINGS)
    (run.folder / "heads.json").write_bytes((SPARSE / "heads.json").read_bytes())
    e1_discovery.attend(run, "attention", run.pictures("discovery"))
    e1_discovery.ranking(run, gaze_score(e1_discovery.mass(run)), "gaze").save(run.folder / "ranking.json")
    e3_trajectories.collect(run)
    return run


@pytest.fixture(scope="module")
def results(run):
    return e3_trajectories.sum_up(run)


def test_gaze_heads_draw_a_staircase_and_random_heads_none(results):
    for name in e3_trajectories.NUMBERED:
        one = results["narrations"][name]
        assert one["lines_found"] == one["lines"] == 3 * PANELS
        assert one["lines_right"]["accuracy"] > 0.8
        for weight in e3_trajectories.WEIGHTS:
            looked = one[weight]
            assert looked["own_panel"]["accuracy"] > 0.9
            assert looked["against"]["highest"] < 0.6
            assert len(looked["against"]["accuracies"]) == DRAWS
            assert looked["with_panel"][0]["value"] > 0.9
    forward, reverse = (results["narrations"][name]["mass"]["with_time"][0]["value"] for name in ("forward", "reverse"))
    assert forward > 0.9
    assert reverse < -0.9


def test_results_are_plain_and_name_where_they_come_from(run, results):
    assert json.dumps(results, allow_nan=False)
    for one in results["narrations"].values():
        assert (one["model"], one["revision"], one["judge"], one["heads"]) == (
            "testbed-sparse",
            run.revision,
            "exact",
            None,
        )


def test_saved_is_what_was_read(run):
    saved, heads = e3_trajectories.watched(run, "reverse"), run.heads()
    assert saved["mass/sets"].shape == (3, 1 + DRAWS, 76, PANELS)
    assert saved["mass/lines"].shape == (3, PANELS, *run.shape, PANELS)
    rows = [row for row in run.answers(e3_trajectories.NAME) if row["condition"] == "reverse"]
    question = e3_trajectories.narrations(run)["reverse"].question
    said = [np.array(rows[1]["tokens"], np.int32)]
    read = watch(run.model, run.processor, [run.pictures("evaluation")[1]], question, said, room=76, size=3)
    lines = saved["lines"][1:2].astype(np.int32)
    # Which head is which, which strip and which weight: by hand, from the reading of one strip.
    for weight in e3_trajectories.WEIGHTS:
        mass = getattr(read, weight)
        whole = by_line(mass, lines)
        np.testing.assert_allclose(saved[f"{weight}/lines"][1], whole[0], rtol=2e-3, atol=1e-4)
        mean = np.mean([mass[0, :, layer, head] for layer, head in heads.heads], axis=0)
        np.testing.assert_allclose(saved[f"{weight}/sets"][1, 0], mean, rtol=2e-3, atol=1e-4)
    assert attended(line_mass(saved["mass/sets"][1:2, 0].astype(np.float32), lines)).tolist() == [[*range(PANELS)]]
    # The line about the last panel comes first.
    assert lines[0, 0] == PANELS - 1


def test_scores_while_narrating_find_the_same_heads(results):
    generation = results["generation"]
    assert (generation["strips"], generation["incomplete"]) == (3, 0)
    gaze = generation["scores"]["gaze"]
    assert gaze["shared"] == gaze["k"]
    assert gaze["narrating"]["gaze"] > 10 * gaze["narrating"]["others"]
    assert generation["scores"]["gaze, by value"]["asked"] is None


def test_summing_up_needs_no_model_and_a_lost_part_comes_back(run, results):
    again = Run(run.folder, SETTINGS)
    files = sorted(path for path in run.place(e3_trajectories.NAME).rglob("*") if path.is_file())
    before = [path.read_bytes() for path in files]
    assert e3_trajectories.sum_up(again) == results
    assert "_opened" not in vars(again)
    lost = next(path for path in files if path.suffix == ".npz")
    lost.unlink()
    answers = run.place(e3_trajectories.NAME) / "answers.jsonl"
    lines = answers.read_bytes().splitlines(keepends=True)
    lines[0] = b"spoiled\n"  # of the first part, which is made again after all others
    answers.write_bytes(b"".join(lines)[:-100])
    again.__dict__["_opened"] = run._opened  # no need to read the weights once more
    e3_trajectories.collect(again)
    assert [path.read_bytes() for path in files] == before


def test_chapter(run, results):
    chapter = e3_trajectories.chapter(run, results)
    assert {plot.name for plot in chapter.plots} == {"staircase", "staircase_by_value", "one_strip"}
    assert all(len(row) == len(table.columns) for table in chapter.tables for row in table.rows)
    assert "100.0%" in chapter.findings[0]


def test_lines_that_were_not_written_are_counted_and_left_out(run, tmp_path):
    """A narration that breaks off after two lines: not taken for one that looks at the wrong panels."""
    shutil.copytree(run.folder, tmp_path, dirs_exist_ok=True)
    cut = Run(tmp_path, SETTINGS)
    answers = cut.place(e3_trajectories.NAME) / "answers.jsonl"
    chunks: dict[str, list[dict]] = {}
    for row in Records(answers).rows():
        row["text"] = "\n".join(row["text"].split("\n")[:2])
        chunks.setdefault(row["chunk"], []).append(row)
    answers.unlink()
    Records(answers).add(chunks)
    for path in (cut.place(e3_trajectories.NAME) / "forward").glob("*.npz"):
        arrays = dict(np.load(path))
        arrays["lines"][arrays["lines"] > 1] = -1
        arrays["mass/lines"][:, 2:] = np.nan
        np.savez(path, **arrays)
    results = e3_trajectories.sum_up(cut)
    one = results["narrations"]["forward"]
    assert one["lines_found"] == 3 * 2
    assert one["lines_right"]["accuracy"] == pytest.approx(2 / PANELS)
    assert one["mass"]["own_panel"]["n"] == 6
    assert one["mass"]["own_panel"]["accuracy"] == 1
    assert one["mass"]["with_panel"][0]["undefined"] == 3
    assert results["generation"] == {"strips": 0, "incomplete": 3, "scores": {}}
    chapter = e3_trajectories.chapter(cut, results)
    assert any("undefined" in finding for finding in chapter.findings)
