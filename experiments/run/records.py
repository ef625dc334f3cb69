"""Answers and verdicts as JSON lines that survive being killed: what is there is never made twice.

Lines come in chunks. The name of a chunk ends with a digest of all that it depends on (`chunk_name`), so that answers under
other heads or about other pictures are other chunks. Each line says how many lines its chunk has and carries a checksum: a chunk
cut short by a kill or with a line damaged since is known to be missing and is made again. A finished file has its chunks in a
fixed order: whatever happened on the way, its bytes are the same.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from experiments.run.cache import MOST_BYTES, checksum, tell_stale
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import open_regular
from qwen3vl_jax.files.write import write_text

Row = dict[str, Any]
SUM = "sum"
"""Name of the checksum in a line."""


def chunk_name(name: str, key: str) -> str:
    """A chunk by what a person calls it and a digest of what it depends on."""
    return f"{name} @{key}"


class Records:
    """One file of rows.

    Attributes:
      skipped: lines that could not be read; each is named on stderr once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped = 0
        self._chunks: dict[str, list[Row]] = {}
        self._torn = False
        if path.exists():
            self._read()

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the chunks that are not there, or not whole."""
        return [key for key in keys if not self._whole(key)]

    def add(self, chunks: Mapping[str, Sequence[Row]]) -> None:
        """Appends whole chunks; they are on the disk when this returns."""
        made = {key: [{"chunk": key, "of": len(rows), **row} for row in rows] for key, rows in chunks.items()}
        text = "".join(_line(row) for rows in made.values() for row in rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("ab") as file:
                # A kill may have left half a line at the end.
                file.write((b"\n" if self._torn else b"") + text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"cannot write {self.path} ({error.strerror}): make room and start again, what is done is kept"
            ) from error
        self._torn = False
        self._chunks |= made

    def keys(self) -> list[str]:
        """The chunks that are there and whole."""
        return [key for key in self._chunks if self._whole(key)]

    def tell_stale(self, keys: Iterable[str]) -> None:
        """Says on stderr how many chunks are not among these, all that is wanted; `finish` drops them."""
        if stale := self._chunks.keys() - {*keys}:
            tell_stale(self.path, len(stale))

    def finish(self, keys: Sequence[str]) -> None:
        """Leaves just these chunks, in this order; all of them must be there."""
        if missing := self.missing(keys):
            raise InputError(
                f"{self.path} lacks {len(missing)} parts, the first is {missing[0]}: start again to make them"
            )
        text = "".join(_line(row) for key in keys for row in self._chunks[key])
        self._chunks = {key: self._chunks[key] for key in keys}
        if not self.path.exists() or self.path.read_bytes() != text.encode():
            write_text(self.path, text)

    def rows(self, keys: Iterable[str] | None = None) -> list[Row]:
        """Every row that could be read, of these chunks only if given."""
        return [row for key in (self._chunks if keys is None else keys) for row in self._chunks.get(key, [])]

    def _whole(self, key: str) -> bool:
        rows = self._chunks.get(key, [])
        return bool(rows) and len(rows) == rows[0]["of"]

    def _read(self) -> None:
        with open_regular(self.path, "a file of answers", most=MOST_BYTES) as file:
            content = file.read()
        self._torn = bool(content) and not content.endswith(b"\n")
        unsigned = 0
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line:
                continue
            try:
                row = _parsed(line)
                self._chunks.setdefault(row["chunk"], []).append(row)
            except Unsigned:
                unsigned += 1
            except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
                self.skipped += 1
                click.echo(f"{self.path}:{number} cannot be read and is left out", err=True)
        if unsigned:
            self.skipped += unsigned
            click.echo(f"{self.path} has {unsigned} lines without a checksum, which are left out", err=True)
        for key in [key for key, rows in self._chunks.items() if len(rows) > rows[0]["of"]]:
            del self._chunks[key]  # written once before a kill and once, in part, after a damaged line


class Unsigned(Exception):
    """A line has no checksum: an earlier version wrote it, or somebody by hand."""


def _parsed(line: bytes) -> Row:
    row: Row = json.loads(line)
    row["of"] = int(row["of"])
    if SUM not in row:
        raise Unsigned
    if row.pop(SUM) != checksum(_text(row)):
        raise ValueError("the checksum is another")
    return row


def _line(row: Row) -> str:
    return _text({**row, SUM: checksum(_text(row))}) + "\n"


def _text(row: Row) -> str:
    text = json.dumps(row, ensure_ascii=False)
    # A name of a file need not be UTF-8, but a text file has to be.
    return text if text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text) else json.dumps(row)
