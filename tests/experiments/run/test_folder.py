"""A run folder is one run's and one process's; what is in it that the run did not write stays."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.run.cache import SCHEMA
from experiments.run.folder import open_folder
from experiments.run.run import Run
from experiments.run.settings import Settings, as_saved
from qwen3vl_jax.errors import InputError

HOLD = """
import sys
from pathlib import Path
from experiments.run.folder import open_folder
from experiments.run.settings import Settings
open_folder(Path(sys.argv[1]), Settings())
print("open", flush=True)
sys.stdin.read()
"""
OLD = {"model": "testbed", "dtype": None, "strips": "testbed", "discovery_strips": None, "share": False}
OLD |= {"discovery": 60, "selection": 24, "evaluation": 60, "heads": None, "k": None, "draws": 10, "strength": 10000.0}
OLD |= {"mode": "boost_suppress", "precision": "ordered", "segment": 50, "brief": 15, "static": 100, "narration": 300}
OLD |= {"photos": "testbed", "images": 60, "models": [], "judge": None, "seed": 0}
"""What the first version wrote; its testbed is the sparse one now."""
SPARSE = {name: "testbed-sparse" for name in ("model", "strips", "photos")}


def unchecked(**changes: object) -> Settings:
    """Settings as anybody can make them; in tests the types of arguments are checked."""
    settings = Settings()
    for name, value in changes.items():
        object.__setattr__(settings, name, value)
    return settings


def written(folder: Path, content: object) -> Path:
    folder.mkdir()
    (folder / "settings.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_second_process_is_told_in_a_sentence_until_the_first_ends(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InputError, match=r"another process works in .*run: wait until it ends"):
            open_folder(folder, Settings())
        other.kill()
    open_folder(folder, Settings())
    open_folder(folder, Settings())  # this very process may


def test_only_what_a_kill_left_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    open_folder(folder, Settings())
    left = [folder / ".results.json.partial-0123abcd", folder / "e1_discovery" / ".00000.npz.partial-00000000"]
    left += [folder / "verdicts" / f".{'likelihood-0123456789ab.jsonl'[:40]}.partial-0123abcd"]
    own = [
        folder / "thesis.partial",
        folder / ".notes.partial-1",
        folder / ".thesis.tex.partial-0123abcd",
        folder / "x.json.partial-0123abcd",
        folder / ".x.json.partial-deadbeef",
        folder / ".my-results.json.partial-deadbeef",
        folder / "e1_discovery" / ".notes.npz.partial-deadbeef",
        folder / "e1_discovery" / ".answers.partial",
        folder / ".a.json.partial-0123abcd.bak",
        folder / ".draft.json.partial-0123abcd" / "chapter.txt",
    ]
    for path in (*left, *own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    open_folder(folder, Settings())
    assert not any(path.exists() for path in left)
    assert all(path.read_text() == "x" for path in own)


def test_a_folder_left_by_a_kill_before_its_first_file_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / ".settings.json.partial-0123abcd").write_text("{")
    open_folder(folder, Settings())
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "settings.json"]


def test_a_run_of_the_first_version_is_opened_and_told_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "run", OLD)
    open_folder(folder, Settings(**SPARSE))
    assert capsys.readouterr().err == f"{folder} was made by an earlier version: what it holds is made again\n"
    saved = json.loads((folder / "settings.json").read_text())
    assert (saved["version"], saved["bias"], saved["panels"], saved["strength"]) == (SCHEMA, "add", 6, None)
    open_folder(folder, Settings(**SPARSE))
    assert capsys.readouterr().err == ""
    uniform = written(tmp_path / "uniform", {**OLD, "precision": "uniform"})
    assert as_saved(uniform, {}).bias == "replace"
    with pytest.raises(InputError, match="holds a run with bias replace instead of add"):
        open_folder(uniform, Settings(**SPARSE))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as the settings of a run"),
        ("[]", "is not the settings of a run"),
        ("[" * 100_000, "cannot be read as the settings of a run"),
        ('{"seed": 0, "seed": 1}', "gives 'seed' twice"),
        ({**OLD, "colour": "red"}, "has a setting 'colour', which this version does not know"),
        ({**OLD, "version": 2}, "has a setting 'precision', which this version does not know"),
        ({"version": SCHEMA + 1}, f"is of version {SCHEMA + 1}, later than this program's {SCHEMA}"),
        ({"version": "2"}, "has the version '2'"),
        ({"version": True}, "has the version True"),
        ({**OLD, "seed": "0"}, "seed is '0'"),
        ({**OLD, "precision": "exact"}, "bias is None"),
        ({**OLD, "k": 2.5}, "k is 2.5"),
        ({**OLD, "models": "a"}, "models is 'a'"),
        ({**OLD, "seed": 1}, "holds a run with seed 1 instead of 0"),
        ({**OLD, "model": "mine"}, "holds a run with model mine instead of testbed-sparse"),
        ({**OLD, "strength": 100.0}, r"holds a run with strength 100.0 instead of None"),
    ],
)
def test_settings_that_cannot_be_are_named_and_nothing_is_touched(
    tmp_path: Path, content: object, message: str
) -> None:
    folder = written(tmp_path / "run", content)
    before = (folder / "settings.json").read_bytes()
    with pytest.raises(InputError, match=r"settings\.json|holds a run") as refused:
        open_folder(folder, Settings(**SPARSE))
    assert message in str(refused.value)
    assert "give another --out" in str(refused.value)
    assert [path.name for path in folder.iterdir()] == ["settings.json"]
    assert (folder / "settings.json").read_bytes() == before


def test_a_missing_setting_has_its_default(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", {"version": SCHEMA, "seed": 3})
    assert as_saved(folder, {"judge": "caption", "mesh": None}) == replace(Settings(seed=3), judge="caption")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strength": float("nan")}, "strength is nan, but should be a finite number"),
        ({"strength": float("inf")}, "strength is inf"),
        ({"strength": -1.0}, "strength is -1.0"),
        ({"strength": "1"}, "strength is '1'"),
        ({"k": True}, "k is True"),
        ({"k": 0}, "k is 0"),
        ({"panels": 13}, "panels is 13"),
        ({"models": "a"}, "models is 'a'"),
        ({"model": Path("x")}, "model is PosixPath('x')"),
        ({"mode": "boost"}, "mode is 'boost'"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"judge": None}, "judge is None"),
    ],
)
def test_settings_of_another_kind_open_no_run(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match="the settings of a run cannot be") as refused:
        Run(tmp_path / "run", unchecked(**changes))
    assert message in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_whole_number_is_a_strength(tmp_path: Path) -> None:
    assert repr(Run(tmp_path / "run", unchecked(strength=2)).settings.strength) == "2.0"


@pytest.mark.parametrize("place", ["file", "file/run", "x" * 300, "pipe"])
def test_places_that_cannot_be_a_run(tmp_path: Path, place: str) -> None:
    import os

    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="give another --out"):
        open_folder(tmp_path / place, Settings())
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="exists already and is no run"):
        open_folder(tmp_path, Settings())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
