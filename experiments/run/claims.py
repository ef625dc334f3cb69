"""Whose a run folder is: another run may not go on in it."""

import dataclasses
import json
import shutil
from pathlib import Path

from experiments.run.settings import Settings
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.write import write_json


def claim(folder: Path, settings: Settings) -> None:
    """Makes the folder this run's, or finds that it is, and clears away what a kill has left half-written.

    Raises InputError for a folder that holds something else, or a run that depends on other settings.
    """
    path = folder / "settings.json"
    # Another judge may go over the same answers, and another mesh go on with them.
    mine = json.loads(json.dumps({**dataclasses.asdict(settings), "judge": None}))
    del mine["mesh"]
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or set(folder.iterdir()) - {*_leftovers(folder)}):
            raise InputError(f"{folder} exists already and is no run: give another --out")
        write_json(path, mine)
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in mine if theirs.get(name) != mine[name]]
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{path} cannot be read: give another --out") from None
    if differing:
        name = differing[0]
        raise InputError(
            f"{folder} holds a run with {name} {theirs.get(name)} instead of {mine[name]}: give another --out"
        )
    for left in _leftovers(folder):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _leftovers(folder: Path) -> list[Path]:
    return [*folder.rglob("*.partial-*"), *folder.rglob(".*.partial")]
