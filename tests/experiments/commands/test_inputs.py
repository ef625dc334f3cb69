"""What the commands say of input that they cannot use: one sentence, exit status 2, nothing changed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gaze.heads import HeadSet
from gaze.prompts import STATIC
from gaze.testbed import CHECKPOINT

Command = Callable[..., int]
GAZE = (sys.executable, "-c", "from experiments.commands.cli import main; main()")
FEW = ("--discovery", 2, "--selection", 2, "--evaluation", 2, "--draws", 1)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("Error: ")
    for word in words:
        assert word in told[-1]


@pytest.mark.parametrize("command", ["discover", "evaluate", "reproduce", "diagnose", "run"])
@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("", "names no run folder"),
        ("{tmp}/file", "exists already and is no run"),
        ("{tmp}/file/run", "cannot be a run folder"),
        ("{tmp}/thesis", "exists already and is no run"),
        ("{tmp}/" + "x" * 300, "cannot be a run folder"),
        ("{tmp}/\udcff", "is not UTF-8"),
        ("/proc/run", "cannot be a run folder"),
    ],
)
def test_folders_that_cannot_hold_a_run(
    gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, out: str, words: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    arguments = {"run": ["e4_vqa"]}.get(command, [])
    assert gaze(command, *arguments, "--out", out.format(tmp=tmp_path)) == 2
    refused(capsys, words)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "thesis", "thesis.tex"]


@pytest.mark.parametrize("out", ["", "{tmp}", "{tmp}/absent"])
def test_no_run_to_judge(gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    assert gaze("judge", out.format(tmp=tmp_path), "--judge", "exact") == 2
    refused(capsys, "run")


@pytest.mark.parametrize(
    "arguments",
    [("run", "e8"), ("run", "e8_natural"), ("reproduce", "--all"), ("diagnose", "--photos", "coco:a.json,b")],
)
def test_a_missing_package_is_told_before_anything_is_done(
    gaze: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    assert gaze(*arguments, "--out", tmp_path / "run") == 2
    refused(capsys, "reading COCO needs the extra `coco`: pip install 'gaze-jax[coco]'")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("panels", ["1", "13", "1000000000", "six"])
@pytest.mark.parametrize("command", ["ask", "discover", "evaluate", "reproduce", "diagnose", "run"])
def test_numbers_of_panels(
    gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, panels: str
) -> None:
    arguments = {"run": ["e4_vqa"], "ask": ["x.png", "?"]}.get(command, [])
    assert gaze(command, *arguments, "--panels", panels) == 2
    refused(capsys, panels)


def test_the_old_name_of_a_bias_is_told(gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("discover", "--out", tmp_path / "run", "--strips", "nonsense")
    for old, new in (("ordered", "add"), ("uniform", "replace")):
        assert gaze(*arguments, "--precision", old) == 2
        assert f"--precision {old} is now called --bias {new}" in capsys.readouterr().err
        saved = json.loads((tmp_path / "run" / "settings.json").read_text())
        assert saved["bias"] == new
        shutil.rmtree(tmp_path / "run")
    for bias in ("add", "replace"):
        assert gaze(*arguments, "--precision", "uniform", "--bias", bias) == 2
        refused(capsys, "--precision is what --bias was called before: give --bias alone")
    assert not (tmp_path / "run").exists()
    assert gaze("discover", "--help") == 0
    assert "--precision" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["e0", "e", "E1", "e1_", "discovery", "judge", ""])
def test_no_such_experiment(gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert gaze("run", name, "--out", tmp_path / "run") == 2
    refused(capsys, f"there is no experiment {name!r}", "e1_discovery, ", "e10_causes, ", "judge_calibration", "as e1")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["e1", "e1_discovery", "e10", "judge_calibration"])
def test_an_experiment_by_its_number_or_name(
    gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert gaze("run", name, "--out", tmp_path / "run", "--strips", "nonsense") == 2
    refused(capsys, "nonsense")


@pytest.mark.parametrize("strength", ["nan", "inf", "-1"])
def test_strengths_that_cannot_be(
    gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], strength: str
) -> None:
    assert gaze("discover", "--out", tmp_path / "run", "--strength", strength) == 2
    refused(capsys, "strength is")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Head sets: a ranking of all heads, one of other weights, and one that is as it should be."""
    heads = HeadSet.load(CHECKPOINT / "heads.json")
    everything = tuple((layer, head) for layer in range(8) for head in range(12))
    HeadSet(everything, tuple(1 - n / 96 for n in range(96)), "gaze").save_ranking(tmp_path / "ranking.json")
    HeadSet(heads.heads, model="other/model", revision="0123456789abcdef").save(tmp_path / "other.json")
    HeadSet(heads.heads).save(tmp_path / "good.json")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [("ranking", "ranks 96 of 96 heads"), ("other", "has heads of other/model with the weights 0123456789abcdef")],
)
def test_heads_that_are_no_choice_or_another_models(
    gaze: Command, files: Path, picture: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    heads = files / f"{name}.json"
    assert gaze("ask", picture, STATIC, "--look-at", 2, "--heads", heads) == 2
    refused(capsys, words)
    assert gaze("reproduce", "--out", files / "run", "--heads", heads, *FEW) == 2
    refused(capsys, words)
    assert not (files / "run" / "e1_discovery" / "attention").exists()


def test_heads_that_can_be_used(gaze: Command, files: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("--heads", files / "good.json"), ("--heads", files / "ranking.json", "--top", 3)):
        assert gaze("ask", picture, STATIC, "--look-at", 2, *arguments) == 0
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("place", ["/dev/full", None])
def test_nowhere_to_print(place: str | None, tmp_path: Path) -> None:
    command = " ".join(f"'{word}'" for word in (*GAZE, "--help"))
    done = subprocess.run(
        ["bash", "-c", f"{command} " + (f"> {place}" if place else ">&-")],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["discover", "reproduce", "evaluate"])
def test_a_judge_without_its_key_is_told_before_anything_is_done(
    gaze: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert gaze(command, "--out", tmp_path / "run", "--judge", "chat:model") == 2
    assert "needs a key: set OPENAI_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
