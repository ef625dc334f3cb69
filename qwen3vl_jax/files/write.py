"""Writing files and folders that are there whole or not at all."""

import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qwen3vl_jax.errors import InputError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path beside `path` to be written, and renames it to `path` when the block ends well.

    After any exception, an interrupt included, what was there before is untouched. Folders above are made. Raises
    InputError in place of the OSError of a full or read-only disk, or of a name that is too long.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
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
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path` to be filled, and renames it to `path` when the block ends well.

    After any exception, an interrupt included, `path` is absent and the folder beside it removed. Raises InputError if
    `path` exists, if its parent does not, and in place of the OSError of a full disk.
    """
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} exists already; give the name of a folder that does not.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a folder; make it first, or give another place.")
    partial = path.with_name(f"{path.name}.partial-{secrets.token_hex(4)}")
    try:
        partial.mkdir()
        yield partial
        partial.rename(path)
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError):
            raise InputError(f"writing {path} failed ({error.strerror or error}); nothing was kept.") from error
        raise


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
    # A write that was under way when the block was interrupted makes its folders anew: look again after a while.
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)
        if not folder.exists():
            return
