"""`gaze reproduce` on the shipped testbed, with few strips: every file is there, and the effect is."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gaze.heads import HeadSet

Command = Callable[..., int]
STRIPS, DRAWS = 8, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from experiments.reproduce import Settings, reproduce

    out = tmp_path_factory.mktemp("runs") / "run"
    settings = Settings(strips=STRIPS, discovery_strips=10, selection_strips=6, draws=DRAWS)
    return reproduce("testbed", None, out, settings)


def test_gaze_heads_steer_and_the_controls_do_not(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    conditions = results["conditions"]
    assert conditions["gaze"]["accuracy"] >= 0.7
    assert conditions["random"]["accuracy"] <= 0.35
    assert conditions["all"]["accuracy"] <= 0.15
    assert results["panel_questions"]["accuracy"] >= 0.9
    assert results["k"] < results["heads_total"] == 48
    for name in ("gaze", "random", "all"):
        low, high = conditions[name]["interval"]
        assert 0 <= low <= conditions[name]["accuracy"] <= high <= 1
    assert conditions["gaze"]["n"] == conditions["all"]["n"] == STRIPS * 6
    assert conditions["random"]["n"] == STRIPS * 6 * DRAWS
    assert np.mean([draw["accuracy"] for draw in conditions["random"]["draws"]]) == pytest.approx(
        conditions["random"]["accuracy"]
    )
    assert (results["model"], results["seed"]) == ("testbed", 0)


def test_controls_are_matched_by_layer(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    layers = sorted(layer for layer, _ in results["heads"])
    for draw in results["conditions"]["random"]["draws"]:
        assert sorted(layer for layer, _ in draw["heads"]) == layers
        assert not {tuple(head) for head in draw["heads"]} & {tuple(head) for head in results["heads"]}


def test_the_folder_holds_everything(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    heads = HeadSet.load(folder / "heads.json")
    assert [list(head) for head in heads.heads] == results["heads"]
    ranking = HeadSet.load(folder / "gaze_head_ranking.json")
    assert ranking.heads[: len(heads)] == heads.heads
    with np.load(folder / "scores.npz") as saved:
        assert saved["mass"].shape == (10, 6, 6, 8, 6)
        assert saved["gaze"][heads.heads[0]] == saved["gaze"].max()
    rows = [json.loads(line) for line in (folder / "generations.jsonl").read_text().splitlines()]
    assert sum(row["condition"] == "random" for row in rows) == STRIPS * 6 * DRAWS
    hits = [row["panel"] == row["target"] for row in rows if row["condition"] == "gaze"]
    assert np.mean(hits) == results["conditions"]["gaze"]["accuracy"]
    assert "<svg" in (folder / "report.html").read_text() or "data:image" in (folder / "report.html").read_text()
    assert len(list((folder / "figures").glob("*.png"))) >= 3


def test_sets_of_strips_share_nothing(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "generations.jsonl").read_text().splitlines()]
    by_purpose = {row["strip"].split("-")[0] for row in rows if row["condition"] == "selection"}
    assert by_purpose == {"selection"}
    assert {row["strip"].split("-")[0] for row in rows if row["condition"] != "selection"} == {"evaluation"}


def test_a_run_folder_that_exists_is_not_touched(
    gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    assert gaze("reproduce", "--out", tmp_path / "run") == 2
    assert "exists already" in capsys.readouterr().err
    assert not list((tmp_path / "run").iterdir())
