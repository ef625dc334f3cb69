"""Reading what others wrote: the border at which files become values that the rest of the code may trust.

Whatever is wrong with a file, and whatever a decoder throws over it, becomes one sentence that names the file.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, TypeVar, overload

from pydantic import TypeAdapter, ValidationError

from qwen3vl_jax.errors import InputError, redact

T = TypeVar("T")
AnyPath = str | os.PathLike[str]

MOST_BYTES = 2**26
"""Of a settings file, unless a reader says otherwise: 64 MiB."""
SMALL = 2**16
REASON = 160
"""Characters of a decoder's own words that a sentence repeats."""


@contextmanager
def reading(source: object, kind: str, hint: str = "") -> Iterator[None]:
    """Turns whatever is thrown inside into an `InputError` that names the source.

    Args:
      source: what is read, as a person knows it: a path, or a place within a file.
      kind: what it should be, with its article: "an image".
      hint: what would be right.
    """
    more = f": {hint}" if hint else ""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"there is no {kind.partition(' ')[2]} at {source}{more}") from None
    except RecursionError:
        raise InputError(f"{source} cannot be read as {kind} (it is nested too deeply){more}") from None
    except MemoryError:
        raise InputError(f"{source} cannot be read as {kind} (it asks for more memory than there is){more}") from None
    except BaseException as error:  # decoders throw what they like: this is the one place that lets them
        # A panic of a library in Rust is no Exception, so that nobody takes it for one of ours.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{source} cannot be read as {kind} ({reason(error)}){more}") from None


def is_there(path: AnyPath, kind: str) -> bool:
    """Whether something has that name, a link that leads nowhere included. Raises InputError for a name that cannot be one."""
    with reading(path, kind):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


@contextmanager
def open_regular(path: AnyPath, kind: str, hint: str = "", most: int = MOST_BYTES) -> Iterator[BufferedReader]:
    """A regular file of at most `most` bytes, open for reading; inside, errors are those of `reading`.

    Raises InputError for a folder, and for pipes and devices, which might never end.
    """
    with reading(path, kind, hint):
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
                raise InputError(f"{path} is {what}, but should be {kind}")
            if found.st_size > most:
                raise InputError(f"{path} has {found.st_size:,} bytes; {kind} has at most {most:,}")
            yield file


def read_bytes(path: AnyPath, kind: str, hint: str = "", most: int = MOST_BYTES) -> bytes:
    """The content of a regular file; errors as of `open_regular`."""
    with open_regular(path, kind, hint, most) as file:
        # What is asked for is allocated at once, so no more than the file has; some have contents and say that they have none.
        return file.read(max(os.fstat(file.fileno()).st_size, SMALL))


def read_text(path: AnyPath, kind: str, hint: str = "", most: int = MOST_BYTES) -> str:
    """A text in UTF-8, without the byte order mark that Windows editors put in front; errors as of `open_regular`."""
    with reading(path, kind, hint):
        return read_bytes(path, kind, hint, most).decode("utf-8-sig")


@overload
def read_json(path: AnyPath, kind: str, schema: type[T], hint: str = "", most: int = ...) -> T: ...
@overload
def read_json(path: AnyPath, kind: str, schema: None = None, hint: str = "", most: int = ...) -> Any: ...
def read_json(
    path: AnyPath, kind: str, schema: type[T] | None = None, hint: str = "", most: int = MOST_BYTES
) -> T | Any:
    """What a JSON file holds, as `parse_json`; errors as of `open_regular`."""
    return parse_json(read_text(path, kind, hint, most), path, kind, schema, hint)


def parse_json(text: str | bytes, source: object, kind: str, schema: type[T] | None = None, hint: str = "") -> T | Any:
    """Parses JSON strictly and validates it.

    Args:
      source: names it in errors.
      schema: anything that pydantic can validate; without one the value is returned as it is.

    Raises InputError for what is no JSON, a key given twice in one object, NaN or Infinity (which JSON has not), and what
    does not fit the schema.
    """
    with reading(source, kind, hint):
        raw = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    return raw if schema is None else validate(raw, source, kind, schema, hint)


def validate(raw: object, source: object, kind: str, schema: type[T], hint: str = "") -> T:
    """A parsed value as the schema has it: types are not converted, so that 6.9 layers and "false" are errors.

    Raises InputError that names the source, the place in it, the value, and what would be right.
    """
    with reading(source, kind, hint):
        try:
            return TypeAdapter(schema).validate_python(raw, strict=True)
        except ValidationError as error:
            more = f": {hint}" if hint else ""
            raise InputError(f"{source} is not {kind}: {said(error)}{more}") from None


def said(error: ValidationError) -> str:
    """The first fault that pydantic found, in words: where, what was there, what should be."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"])) or "the whole"
    message = first["msg"][0].lower() + first["msg"][1:]
    if first["type"] == "missing":
        return f"{place} is missing"
    return f"{place} is {shown(first['input'])}, but {message.removeprefix('input ').removeprefix('value error, ')}"


def shown(value: object, most: int = 60) -> str:
    """A value as a sentence can repeat it."""
    try:
        text = repr(value)
    except Exception:  # an object that cannot even be shown
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."


def reason(error: BaseException) -> str:
    """What an error says, in one printable line without secrets."""
    # Cut only once the secrets are out, or the first half of one might be left; some texts are whole replies.
    line = next(iter(redact(str(error)[:10_000]).splitlines()), "") or type(error).__name__
    line = "".join(sign if sign.isprintable() else "?" for sign in line)
    return line if len(line) <= REASON else f"{line[:REASON]}..."


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ; plain `dict` would keep the last of two."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it gives {shown(key)} twice")
        found[key] = value
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")
