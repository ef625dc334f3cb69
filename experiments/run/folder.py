"""Opens a run folder: it is this run's alone, for as long as the process lives."""

import dataclasses
import re
from pathlib import Path

import click
from filelock import FileLock, Timeout

from experiments.run.cache import SCHEMA
from experiments.run.settings import FILE, Settings, read_settings
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import reason
from qwen3vl_jax.files.write import write_json

LOCK = ".lock"
WRITTEN = (
    r"(settings|model|heads|strengths|ranking|gaze_head_ranking|results|selection|timing)\.json",
    r"gaze_scores\.npy",
    r"(answers|ends|calibration)\.jsonl",
    r"([0-9]+(-[0-9]+)*|letters-[0-9]+|(all-heads|all-but-the-gaze-heads)-[0-9]+)\.npz",
    r"(boxes|narration|cost|discovery|selection|evaluation|choice|attention|dose|moved)\.npz",
)
"""Names of the files that runs write; what else lies in a run folder is somebody's own."""
LEFTOVER = re.compile(rf"\.({'|'.join(WRITTEN)})\.partial-[0-9a-f]{{8}}")
"""Name of what `qwen3vl_jax.files.write.whole_file` was writing when it was killed."""
OWN_FOLDERS = ("verdicts", "rankings")
"""Folders of runs in which files are called by their judge or score."""
OWN_LEFTOVER = re.compile(r"\..+\.partial-[0-9a-f]{8}")
HINT = "give another --out"

_locks: dict[Path, tuple[FileLock, int]] = {}
"""The locks that this process holds, and of which file: the folder may have been deleted since."""


def open_folder(folder: Path, settings: Settings, quiet: bool = False) -> None:
    """Makes the folder this run's, or finds that it is; locks it; and clears away what a kill has left half-written.

    Args:
      quiet: do not tell that the run is of an earlier version.

    Raises InputError for a folder that holds something else, a run that depends on other settings or in which another
    process works, and for one that cannot be made. Nothing in it is touched then.
    """
    try:
        version = _check(folder, settings)
        folder.mkdir(parents=True, exist_ok=True)
        lock(folder)
        version = _check(folder, settings)  # another process may have had it until now
        for left in _leftovers(folder):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be a run folder ({reason(error)}): {HINT}") from None
    if version is not None and version < SCHEMA and not quiet:
        click.echo(f"{folder} was made by an earlier version: what it holds is made again", err=True)
    if version != SCHEMA:
        write_settings(folder, settings)


def lock(folder: Path) -> None:
    """Keeps other processes out of a folder until this one ends. Raises InputError if one is in it."""
    path = folder.resolve() / LOCK
    if path in _locks and path.exists() and path.stat().st_ino == _locks[path][1]:
        return
    held = FileLock(path, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise InputError(f"another process works in {folder}: wait until it ends, or {HINT}") from None
    except NotImplementedError as error:
        raise InputError(f"{folder} cannot be locked ({reason(error)}): give an --out on another disk") from None
    _locks[path] = held, path.stat().st_ino


def write_settings(folder: Path, settings: Settings) -> None:
    """Another judge may go over the same answers, and another mesh go on with them: neither is kept."""
    kept = {**dataclasses.asdict(settings), "judge": None}
    del kept["mesh"]
    write_json(folder / FILE, {"version": SCHEMA, **kept})


def _check(folder: Path, settings: Settings) -> int | None:
    """The version of the run in a folder, None if there is none yet; InputError if another run cannot be made in it."""
    if not (folder / FILE).exists():
        if folder.exists() and (not folder.is_dir() or {*folder.iterdir()} - {*_leftovers(folder), folder / LOCK}):
            raise InputError(f"{folder} exists already and is no run: {HINT}")
        return None
    theirs, version = read_settings(folder, HINT)
    mine = dataclasses.replace(settings, judge=theirs.judge, mesh=theirs.mesh)
    for field in dataclasses.fields(Settings):
        one, other = getattr(mine, field.name), getattr(theirs, field.name)
        if one != other:
            raise InputError(f"{folder} holds a run with {field.name} {other} instead of {one}: {HINT}")
    return version


def _leftovers(folder: Path) -> list[Path]:
    """Files that runs write, half-written. What a person calls `*.partial` is none."""
    return [path for path in folder.rglob(".*.partial-*") if is_leftover(path) and path.is_file()]


def is_leftover(path: Path) -> bool:
    """Whether a file is called as what a run was writing when it was killed."""
    pattern = OWN_LEFTOVER if path.parent.name in OWN_FOLDERS else LEFTOVER
    return pattern.fullmatch(path.name) is not None
