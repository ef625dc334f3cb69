"""Writing files and folders that are there whole or not at all."""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import reason

CONTENT, LOCK = "content", "lock"
LEGIBLE = 40
"""Characters of a name in that of the file or folder that is written in its place: with more it might be too long."""


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path beside `path` to be written, and renames it to `path` when the block ends well.

    After any exception, an interrupt included, what was there before is untouched. Folders above are made. Raises
    InputError in place of the OSError of a full or read-only disk, or of a name that is too long.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name[:LEGIBLE]}.partial-{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(target)
    except BaseException as error:
        _quietly_unlink(partial)
        if isinstance(error, OSError):
            raise InputError(
                f"cannot write {target} ({error.strerror or error}): make room or give another place, and start again"
            ) from error
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8, as `whole_file`."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON, as `whole_file`; numbers that are none become null, as JSON has no others."""
    write_text(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty folder beside `path` to be filled, and renames it to `path` when the block ends well.

    After any exception, an interrupt included, `path` is absent and nothing is left beside it. What a killed process left
    is cleared by the next that writes the same `path`, and by a lock it is known that no one writes it any more.

    Raises InputError if `path` exists, if its parent does not, if another process is writing it, and in place of the OSError
    of a full or read-only disk or of a name that is too long.
    """
    target = Path(path)
    _check_free(target)
    with _failing(target):
        workplace = _workplace(target)
        with _locked(workplace, target):
            content = workplace / CONTENT
            try:
                _check_free(target)  # another process may just have finished it
                _remove(content)
                content.mkdir()
                yield content
                _check_free(target)
                content.rename(target)
            except BaseException:
                time.sleep(0.1)  # a write that was under way makes its folders anew
                raise
            finally:
                _remove(workplace)


def _workplace(target: Path) -> Path:
    """The folder beside the target in which it is written: always of one name, so that leftovers are found again."""
    legible = re.sub(r"[^\w.-]", "_", target.name, flags=re.ASCII)[:LEGIBLE]
    unique = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.parent / f".{legible}.partial-{unique}"


def _locked(workplace: Path, target: Path) -> FileLock:
    """Makes the folder unless it is there, and locks it: nobody else does until the lock is left, or the process dies."""
    file, lock = workplace / LOCK, FileLock(workplace / LOCK, timeout=0)
    while True:
        workplace.mkdir(exist_ok=True)
        try:
            file.touch()
            before = file.stat().st_ino
            lock.acquire()
            # Whoever had the lock may just have removed the folder: then this one is of a file that is no longer there.
            if file.stat().st_ino == before:
                return lock
        except Timeout:
            raise InputError(
                f"another process is writing {target} at this moment: wait until it ends, or give another place."
            ) from None
        except FileNotFoundError:
            pass
        lock.release()


@contextmanager
def _failing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"writing {target} failed ({error.strerror or error}); nothing was kept.") from error


def _check_free(target: Path) -> None:
    try:
        target.lstat()
    except FileNotFoundError:
        if target.parent.is_dir():
            return
        raise InputError(f"{target.parent} is not a folder; make it first, or give another place.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(target)!r} cannot be the name of a folder ({reason(error)}); give another.") from error
    raise InputError(f"{target} exists already; give the name of a folder that does not.")


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _quietly_unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a name too long for the disk is not there either
        return


def _remove(folder: Path) -> None:
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(0.1)
