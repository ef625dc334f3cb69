"""Every experiment, stopped dead in the middle and started again, ends with the same bytes as one that was not."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.commands.runner import perform
from experiments.paper import EXPERIMENTS as NAMES
from experiments.paper.e7_sweeps import WORDINGS
from experiments.paper.experiment import experiment
from experiments.run.folder import is_leftover
from experiments.run.records import Records
from experiments.run.run import Run
from experiments.run.settings import Settings, presets

SETTINGS = replace(
    presets("testbed-sparse"),
    panels=3,
    discovery=2,
    selection=2,
    evaluation=2,
    draws=1,
    images=2,
    k=2,
    static=8,
    narration=24,
)

LITTLE = {
    "causes.causal_map.GROWN": 2,
    "causes.causal_map.GROWN_AT": (10_000.0,),
    "causes.causal_map.MOST_HEADS": 4,
    "causes.causal_map.STRENGTHS": (5.0, 10_000.0),
    "causes.controls.STRENGTHS": (5.0, 10_000.0),
    "causes.head_sets.DRAWS": 2,
    "causes.learned.LEARN": 2,
    "causes.learned.SEEDS": 1,
    "causes.learned.STEPS": 2,
    "e1_discovery.NULL_DRAWS": 20,
    "e2_layers.ORDERS": 2,
    "e7_sweeps.STRENGTHS": (1.0, 10.0, 10_000.0),
    "e7_sweeps.WORDINGS": WORDINGS[:2],
    "layer_steering.letter_probes.ROWS": 6,
}


class Killed(BaseException):
    """Like a kill, nothing catches it."""


@pytest.fixture(scope="module", autouse=True)
def little_of_each() -> Iterator[None]:
    """Every kind of file is saved, but no more of a kind than it takes to stop between two of them."""
    with pytest.MonkeyPatch.context() as patch:
        for place, value in LITTLE.items():
            patch.setattr(f"experiments.paper.{place}", value)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all experiments that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = Run(folder, SETTINGS)
    for name in NAMES:
        perform(experiment(name), run)
    return folder


def test_what_a_kill_leaves_of_any_file_is_known(whole: Path) -> None:
    drawn = {"checkpoint", "pictures", "weights"}  # folders that are written whole
    written = [path for path in whole.rglob("*.*") if path.is_file() and not drawn & {*path.relative_to(whole).parts}]
    assert len({path.name for path in written}) > 20
    unknown = {path.name for path in written if not is_leftover(path.with_name(f".{path.name}.partial-0123abcd"))}
    assert unknown == {".lock"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts what is saved, answers and arrays, and dies with the one whose number stands in the list."""
    deadly, seen = [], [0]

    def count() -> None:
        seen[0] += 1
        if seen[0] in deadly:
            raise Killed

    fsync, savez = os.fsync, np.savez

    def synced(number: int) -> None:
        size = os.fstat(number).st_size
        try:
            count()
        except Killed:
            os.ftruncate(number, max(size - 40, 0))  # half a line
            raise
        fsync(number)

    def saved(*arguments: object, **arrays: object) -> None:
        count()
        savez(*arguments, **arrays)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("numpy.savez", saved)
    yield deadly
    deadly.clear()


@pytest.mark.parametrize("name", NAMES)
def test_stopped_dead_it_ends_the_same(name: str, whole: Path, killer: list[int], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / name)
    if name == NAMES[0]:
        (folder / "heads.json").unlink()
        (folder / "ranking.json").unlink()
    killer += [1, 3]
    died = 0
    for _ in range(3):
        try:
            perform(experiment(name), Run(folder, SETTINGS))
        except Killed:
            died += 1
            assert not (folder / name / "results.json").exists()
    assert died >= 1
    made, wanted = contents(folder), contents(whole)
    assert made.keys() == wanted.keys()
    assert [path for path in wanted if made[path] != wanted[path]] == []


def test_what_other_settings_gave_is_told_and_dropped_in_every_file(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    files = [path for path in folder.rglob("*.jsonl") if "verdicts" not in path.parts]  # of every judge, for good
    assert {path.relative_to(folder).parts[0] for path in files} >= {
        "e2_layers",
        "e6_dynamic",
        "e9_checkpoints",
        "e10_causes",
    }
    for path in files:
        Records(path).add({"gaze @ other settings": [{"text": "of other settings"}]})
    run = Run(folder, SETTINGS)
    for name in NAMES:
        perform(experiment(name), run)
    told = capsys.readouterr().err
    assert [path for path in files if f"{path} has 1 parts that other settings" not in told] == []
    assert contents(folder) == contents(whole)


def test_settings_of_another_run_are_refused(whole: Path) -> None:
    from qwen3vl_jax.errors import InputError

    other: Settings = replace(SETTINGS, seed=1)
    with pytest.raises(InputError, match="seed 0 instead of 1"):
        Run(whole, other)
    Run(whole, replace(SETTINGS, judge="caption"))
