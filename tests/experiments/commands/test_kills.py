"""Killed at any write, or with anything it saved damaged or out of date, a run ends as one that was not."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.paper.experiment import experiment
from experiments.run.run import Run
from experiments.run.settings import presets
from gaze.heads import HeadSet
from gaze.testbed import SPARSE
from qwen3vl_jax.files.write import write_json

SETTINGS = replace(
    presets("testbed-sparse"), panels=3, discovery=2, selection=2, evaluation=2, draws=1, k=2, static=8, brief=8
)
NAMES = ("e1_discovery", "e5_static")


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.paper.e1_discovery.NULL_DRAWS", 20)
        yield


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Has the model, which need not be opened again."""
    return Run(tmp_path_factory.mktemp("opened") / "run", SETTINGS)


@pytest.fixture(scope="module")
def whole(opened: Run) -> Path:
    perform(opened)
    return opened.folder


def start(folder: Path, opened: Run, **changes: object) -> Run:
    run = Run(folder, replace(SETTINGS, **changes))
    run.__dict__["_opened"] = opened._opened
    return run


def perform(run: Run) -> None:
    """What `gaze run` does but for the figures."""
    for one in map(experiment, NAMES):
        one.collect(run)
        write_json(run.place(one.NAME) / "results.json", one.sum_up(run))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], list[Path]]:
    """`cut(folder)`: from here on, each write in it leaves a copy of what a kill in the middle of that write would leave."""
    replacing, syncing = Path.replace, os.fsync

    def begin(folder: Path) -> list[Path]:
        copies: list[Path] = []

        def copy() -> Path:
            copies.append(tmp_path / f"killed {len(copies)}")
            shutil.copytree(folder, copies[-1])
            return copies[-1]

        def replaced(self: Path, target: Path) -> Path:
            copy()
            return replacing(self, target)

        def synced(number: int) -> None:
            file = Path(os.readlink(f"/proc/self/fd/{number}"))
            if file.is_file() and file.is_relative_to(folder):
                os.truncate(copy() / file.relative_to(folder), max(file.stat().st_size - 40, 0))
            syncing(number)

        monkeypatch.setattr(Path, "replace", replaced)
        monkeypatch.setattr("os.fsync", synced)
        return copies

    return begin


def test_killed_at_any_write_it_ends_the_same(
    whole: Path,
    opened: Run,
    cut: Callable[[Path], list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = contents(whole)
    copies = cut(tmp_path / "run")
    perform(start(tmp_path / "run", opened))
    monkeypatch.undo()
    assert len(copies) > 20
    assert not any(contents(folder) == wanted for folder in copies)
    for folder in copies:
        perform(start(folder, opened))
        assert contents(folder) == wanted, folder


def test_other_heads_in_the_same_file_give_other_numbers(whole: Path, opened: Run, tmp_path: Path) -> None:
    best = HeadSet.load(SPARSE / "heads.json").heads
    folder, file, found = tmp_path / "run", tmp_path / "h.json", []
    for heads in (best[:6], ((0, 0), (0, 1)), best[:6]):
        HeadSet(heads).save(file)
        perform(start(folder, opened, heads=str(file), k=None))
        rows = json.loads((folder / "e5_static" / "results.json").read_text())["conditions"]
        assert rows["gaze"]["heads"] == HeadSet(heads).fingerprint == HeadSet.load(folder / "heads.json").fingerprint
        found.append(rows["gaze"]["accuracy"])
    assert found[0] == found[2] > found[1]


def test_what_is_damaged_is_named_and_made_again(
    whole: Path, opened: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    wanted = contents(whole)
    attention, shuffled = (folder / "e1_discovery" / name / "00000.npz" for name in ("attention", "shuffled"))
    answers = folder / "e5_static" / "answers.jsonl"
    attention.write_bytes(attention.read_bytes()[:1000])
    arrays = dict(np.load(shuffled))
    arrays["gaze"][0, 0, 0] = np.nan
    np.savez(shuffled, allow_pickle=False, **arrays)
    lines = answers.read_text().splitlines()
    lines[3] = lines[3].replace('"text": "', '"text": "x', 1)
    answers.write_text("\n".join(lines) + "\n")
    for name in ("heads.json", "ranking.json", "model.json", "e5_static/results.json"):
        (folder / name).write_text("{")
    capsys.readouterr()
    perform(start(folder, opened))
    told = capsys.readouterr().err
    for words in (
        f"{attention} cannot be read",
        f"{shuffled} holds numbers",
        f"{answers}:4 cannot be read",
        "model.json",
    ):
        assert words in told
    assert contents(folder) == wanted
