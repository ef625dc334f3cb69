"""Folders that are there whole or not at all."""

import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen3vl_jax.errors import InputError


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


def _remove(folder: Path) -> None:
    # A write that was under way when the block was interrupted makes its folders anew: look again after a while.
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)
        if not folder.exists():
            return
