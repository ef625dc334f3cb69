"""`gaze reproduce` on the shipped testbed, with few strips: everything is there, the effect too, and nothing depends on luck."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.commands.reproduce import SHORT, reproduce
from experiments.paper import judge_calibration
from experiments.run.cache import read_arrays, write_arrays
from experiments.run.records import Records
from experiments.run.settings import Settings, presets
from gaze.heads import HeadSet

from ...environment import with_devices

Command = Callable[..., int]
STRIPS, DRAWS = 5, 2
ARGUMENTS = ("--discovery", 6, "--selection", 3, "--evaluation", STRIPS, "--draws", DRAWS)


@pytest.fixture(scope="module")
def settings() -> Settings:
    from dataclasses import replace

    return replace(presets("testbed"), discovery=6, selection=3, evaluation=STRIPS, draws=DRAWS)


@pytest.fixture(scope="module")
def folder(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reproduce(tmp_path_factory.mktemp("runs") / "run", settings, SHORT).parent


def results(folder: Path, name: str) -> dict:
    return json.loads((folder / name / "results.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that must not depend on how a run went."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timing.json" and "checkpoint" not in path.parts
    }


def test_gaze_heads_steer_and_the_controls_do_not(folder: Path) -> None:
    found = results(folder, "e5_static")["conditions"]
    assert found["gaze"]["accuracy"] >= 0.6
    assert found["random"]["accuracy"] <= 0.35
    assert found["all, paper"]["accuracy"] <= 0.15
    assert found["all"]["accuracy"] > found["all, paper"]["accuracy"]
    assert found["asked"]["accuracy"] >= 0.9
    assert found["random"]["against"]["above_all"]
    assert len(found["random"]["against"]["accuracies"]) == DRAWS
    assert found["gaze"]["n"] == found["asked"]["n"] == STRIPS * 6
    assert found["random"]["n"] == STRIPS * 6 * DRAWS
    for one in found.values():
        low, high = one["interval"]
        assert 0 <= low <= one["accuracy"] <= high <= 1
        counted = one["outcomes"]
        kinds = [counted[kind] for kind in ("hit", "wrong", "unattributable", "failed")]
        assert sum(kinds) == counted["answers"] == one["n"]
        assert counted["hit"] == round(one["accuracy"] * one["n"])


def test_scores_are_saved_as_the_papers_scripts_read_them(folder: Path) -> None:
    scores, ranking = np.load(folder / "gaze_scores.npy"), HeadSet.load(folder / "ranking.json")
    assert (scores.dtype, scores.shape) == (np.float32, (8, 12))
    assert [scores[head] for head in ranking.heads] == pytest.approx(ranking.scores)


def test_every_number_says_where_it_comes_from(folder: Path) -> None:
    heads = HeadSet.load(folder / "heads.json")
    for one in results(folder, "e5_static")["conditions"].values():
        for name in ("model", "revision", "question", "bias", "seed", "judge", "strength", "mode", "query_positions"):
            assert one[name] is not None, name
    assert results(folder, "e5_static")["conditions"]["gaze"]["heads"] == heads.fingerprint
    rows = [json.loads(line) for line in (folder / "e5_static" / "answers.jsonl").read_text().splitlines()]
    assert {row["revision"] for row in rows} == {json.loads((folder / "model.json").read_text())["revision"]}
    assert {row["heads"] for row in rows if row["condition"] == "gaze"} == {heads.fingerprint}
    assert all({"model", "question", "bias", "seed", "query_positions", "k", "tokens"} <= set(row) for row in rows)


def test_sets_of_strips_share_nothing(folder: Path) -> None:
    chosen = (folder / "e1_discovery" / "selection" / "answers.jsonl").read_text().splitlines()
    rows = (folder / "e5_static" / "answers.jsonl").read_text().splitlines()
    assert {json.loads(line)["strip"].split("-")[0] for line in chosen} == {"selection"}
    assert {json.loads(line)["strip"].split("-")[0] for line in rows} == {"evaluation"}


def test_the_report_has_its_figures_and_tables(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert HeadSet.load(folder / "heads.json").fingerprint in page
    assert len(list((folder / "figures").glob("*.png"))) >= 5
    assert len(list((folder / "tables").glob("*.csv"))) >= 5


def test_again_in_the_same_folder_changes_no_byte(folder: Path, settings: Settings) -> None:
    before = contents(folder)
    reproduce(folder, settings, SHORT)
    assert contents(folder) == before


def test_another_judge_is_a_second_pass(folder: Path, gaze: Command, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    assert gaze("judge", folder, "--judge", "caption") == 0
    assert results(folder, "e5_static")["conditions"]["gaze"]["judge"] == "caption"
    assert contents(folder)["e5_static/answers.jsonl"] == before["e5_static/answers.jsonl"]
    assert gaze("judge", folder, "--judge", "exact") == 0
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert gaze("judge", folder, "--judge", "chat:some-model", "--dry-run") == 0
    assert "requests" in capsys.readouterr().out
    assert contents(folder) == after


def test_judges_are_calibrated(
    folder: Path,
    gaze: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judge_calibration, "FREE", ("exact", "caption"))  # the third needs another program
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    assert gaze("run", "judge_calibration", "--out", run, *ARGUMENTS) == 0
    told, found = capsys.readouterr().out, results(run, "judge_calibration")
    judges = {one["judge"]: one for one in found["judges"]}
    assert {*judges} == {"exact", "caption"}
    assert (judges["exact"]["accuracy"], judges["exact"]["passed"], found["kappa"]["exact"]) == (1.0, True, 1.0)
    for name, one in judges.items():
        assert one["captions"] == STRIPS * 6
        assert f"The {name} judge finds" in told
        assert one["abstained"] + one["failed"] + sum(one["picks"]) == one["captions"]
    # Again: nothing is made anew; what other strips gave is told and dropped.
    saved = run / "judge_calibration" / "calibration.jsonl"
    before = saved.read_bytes()
    Records(saved).add({"exact @of other strips": [{"judge": "exact", "version": judges["exact"]["version"]}]})
    assert gaze("run", "judge_calibration", "--out", run, *ARGUMENTS) == 0
    assert "calibration.jsonl has 1 parts that other settings" in capsys.readouterr().err
    assert saved.read_bytes() == before
    assert results(run, "judge_calibration") == found


def test_stale_arrays_are_told_and_made_again(
    folder: Path, gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    arrays = sorted((run / "e1_discovery").rglob("*.npz"))[0]
    before = read_arrays(arrays)
    write_arrays(arrays, "another key", before)
    assert gaze("discover", "--out", run, *ARGUMENTS) == 0
    assert f"{arrays.name} holds what other settings, heads, pictures or weights gave" in capsys.readouterr().err
    made = read_arrays(arrays)
    assert all(np.array_equal(made[name], before[name]) for name in before)


def test_killed_it_ends_the_same(tmp_path: Path) -> None:
    """Kill -9 while experiment 5 is under way, then to the end."""
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        "from experiments.commands.cli import main; main()",
        "reproduce",
        "--out",
        str(out),
    ]
    command += map(str, ("--model", "testbed-sparse", *ARGUMENTS))
    environment, answers = with_devices(1), out / "e5_static" / "answers.jsonl"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (answers.exists() and answers.stat().st_size > 2000):
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "report.html").exists()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    killed = contents(out)
    shutil.rmtree(out)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert contents(out) == killed


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: (path / "x").write_text("x"), "exists already and is no run"),
        (lambda path: (path / "settings.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "settings.json").write_text('{"model": "other"}'), "holds a run with model other"),
    ],
)
def test_a_folder_that_is_not_this_run_is_not_touched(
    gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], prepare: Callable, message: str
) -> None:
    (tmp_path / "run").mkdir()
    prepare(tmp_path / "run")
    before = contents(tmp_path)
    assert gaze("reproduce", "--out", tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strips", "nonsense"), "names no source"),
        (("--judge", "nobody"), "there is no judge nobody"),
        (("--model", "/no/such/folder"), "no folder"),
        (("--heads", "/no/such/file.json"), "no head set"),
        (("--k", "49"), "49"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple, message: str
) -> None:
    few = ("--discovery", 2, "--selection", 2, "--evaluation", 2)
    assert gaze("reproduce", "--out", tmp_path / "run", *few, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert error.startswith("Error: ")
