"""What is saved is known by a digest of all that it depends on; arrays carry theirs in their file."""

import dataclasses
import hashlib
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path

import click
import jax
import numpy as np
from PIL import Image

from gaze.pictures.strips import Caption
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import open_regular, reading
from qwen3vl_jax.files.write import whole_file

SCHEMA = 3
"""Of the code that makes what is saved: raised when the same inputs give other numbers, so that all is made again."""
DIGITS = 32
KEY = "key"
"""Name of the digest among the arrays of a file."""
MOST_BYTES = 2**40
ARRAYS = "a file of arrays"

Arrays = dict[str, np.ndarray]


def digest(*parts: object) -> str:
    """Returns 32 hex digits that tell these values from others, the same in every process.

    Takes None, numbers, strings, bytes, paths, arrays (by dtype, shape and bytes), pictures (by their pixels), dataclasses
    (by their fields), sets, mappings, and sequences of them. Raises TypeError for anything else.
    """
    found = hashlib.sha256()
    for piece in _encoded(parts):
        found.update(piece)
    return found.hexdigest()[:DIGITS]


def _encoded(value: object) -> Iterator[bytes]:
    """The bytes that stand for a value: its kind, its length, its content, so that no two values have the same."""
    match value:
        case None | bool() | int() | float() | np.generic():
            yield _framed(type(value).__name__, repr(value).encode())
        case Caption(others=(_, *_) as others):
            yield from _encoded(("caption", str(value), *others))
        case str() | Path():
            yield _framed("text", str(value).encode("utf-8", "surrogatepass"))
        case bytes():
            yield _framed("bytes", value)
        case np.ndarray() | jax.Array():
            array = np.asarray(value)
            yield _framed(f"array {array.dtype.name} {array.shape}", np.ascontiguousarray(array).tobytes())
        case Image.Image():
            yield _framed(f"image {value.mode} {value.size}", value.tobytes() + bytes(value.getpalette() or ()))
        case Mapping():
            yield _framed("mapping", str(len(value)).encode())
            for pair in sorted((digest(key), item) for key, item in value.items()):
                yield from _encoded(pair)
        case Set():
            yield from _encoded(sorted(digest(item) for item in value))
        case Sequence():
            yield _framed("sequence", str(len(value)).encode())
            for item in value:
                yield from _encoded(item)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield _framed("dataclass", type(value).__name__.encode())
            yield from _encoded([(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)])
        case _:
            raise TypeError(f"cannot digest a {type(value).__name__}")


def _framed(kind: str, content: bytes) -> bytes:
    return f"{kind} {len(content)}:".encode() + content


def checksum(text: str) -> str:
    """Eight hex digits that a damaged text no longer has."""
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def write_arrays(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays and their key as a .npz file, as `whole_file`."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **{KEY: np.array(key)}, **arrays)


def read_arrays(path: Path) -> Arrays:
    """The arrays of a .npz file. Raises InputError that names it if it is not there or damaged."""
    found = _read(path)
    found.pop(KEY, None)
    return found


def find_arrays(path: Path, key: str, gaps: Collection[str] = ()) -> Arrays | None:
    """The arrays of a .npz file if they have this key; None if it is another, or if they are damaged: both are told on stderr.

    Args:
      gaps: names of the arrays that may hold NaN; the others count as damaged if they do.
    """
    if not path.exists():
        return None
    try:
        found = _read(path)
        if str(found.pop(KEY, "")) != key:
            tell_stale(path)
            return None
        check_finite(path, found, gaps)
    except InputError as error:
        click.echo(f"{error}; it is made again", err=True)
        return None
    return found


def tell_stale(path: Path, parts: int | None = None) -> None:
    """Says on stderr that a file, or so many parts of it, is not what the run would make now."""
    what, then = (
        ("holds what", "it is made again") if parts is None else (f"has {parts} parts that", "they are dropped")
    )
    click.echo(f"{path} {what} other settings, heads, pictures or weights gave: {then}", err=True)


def check_finite(path: Path, arrays: Mapping[str, np.ndarray], gaps: Collection[str] = ()) -> None:
    """Raises InputError if an array holds NaN or infinity; those in `gaps` may."""
    for name, array in arrays.items():
        if name not in gaps and np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise InputError(f"{path} holds numbers that are not finite ({name})")


def _read(path: Path) -> Arrays:
    with (
        open_regular(path, ARRAYS, most=MOST_BYTES) as file,
        reading(path, ARRAYS),
        np.load(file, allow_pickle=False) as arrays,
    ):
        return {name: arrays[name] for name in arrays.files}
