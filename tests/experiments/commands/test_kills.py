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
from gaze.testbed import CHECKPOINT
from qwen3vl_jax.files.write import write_json

SETTINGS = replace(presets("testbed"), discovery=2, selection=2, evaluation=2, draws=1, k=2, static=8, brief=8)
NAMES = ("e1_discovery", "e5_static")


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.paper.e1_discovery.NULL_DRAWS", 20)
        yield


class Killed(BaseException):
    """Like a kill, nothing catches it and nothing is tidied up."""


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
def deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Callable[[], int]]]:
    """`deadly(n)` kills at the n-th write: before a file gets its name, or in the middle of lines that are added."""
    replacing, syncing, left = Path.replace, os.fsync, [0, 0]

    def count() -> bool:
        left[0] -= 1
        left[1] += 1
        return left[0] == 0

    def replaced(self: Path, target: Path) -> Path:
        if count():
            raise Killed
        return replacing(self, target)

    def synced(number: int) -> None:
        if count():
            os.ftruncate(number, max(os.fstat(number).st_size - 40, 0))
            raise Killed
        syncing(number)

    def arm(number: int) -> Callable[[], int]:
        left[:] = [number, 0]
        monkeypatch.setattr(Path, "replace", replaced)
        monkeypatch.setattr("qwen3vl_jax.files.write._quietly_unlink", lambda _: None)
        monkeypatch.setattr("os.fsync", synced)
        return lambda: left[1]

    yield arm
    left[:] = [0, 0]


def test_killed_at_any_write_it_ends_the_same(
    whole: Path, opened: Run, deadly: Callable[[int], Callable[[], int]], tmp_path: Path
) -> None:
    wanted, died = contents(whole), 0
    for number in range(1, 200):
        folder = tmp_path / str(number)
        deadly(number)
        try:
            perform(start(folder, opened))
            break
        except Killed:
            died += 1
        if number > 1:
            assert contents(folder).keys() != wanted.keys() or contents(folder) == wanted
        perform(start(folder, opened))
        assert contents(folder) == wanted, number
    assert died > 10


def test_other_heads_in_the_same_file_give_other_numbers(whole: Path, opened: Run, tmp_path: Path) -> None:
    best = HeadSet.load(CHECKPOINT / "heads.json").heads
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
