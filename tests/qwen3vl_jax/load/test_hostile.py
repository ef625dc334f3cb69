"""Files that are made to hurt: one sentence, at once, and no memory or time spent on them."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load import open_checkpoint, resolve

NORM = "model.language_model.norm.weight"


def with_header(folder: Path, header: str | bytes, length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else header.encode()
    (folder / "model.safetensors").write_bytes((length or len(raw)).to_bytes(8, "little") + raw)


def entry(**changed: object) -> str:
    whole = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} | changed
    return json.dumps({NORM: {name: value for name, value in whole.items() if value is not None}})


HEADERS = {
    "deep": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "no object": "[1, 2]",
    "not UTF-8": b"{\xff\xfe}",
    "NaN": '{"a": NaN}',
    "huge number": entry(shape=[10**400]),
    "negative shape": entry(shape=[-1]),
    "product of two negatives": entry(shape=[-2, -2], data_offsets=[0, 16]),
    "overflow": entry(shape=[2**32, 2**32], data_offsets=[0, 0]),
    "fraction": entry(shape=[1.5]),
    "text": entry(shape=["4"]),
    "truth": entry(shape=[True], data_offsets=[0, 4]),
    "negative offsets": entry(data_offsets=[-4, 0]),
    "backwards": entry(data_offsets=[8, 4]),
    "beyond the end": entry(shape=[4], data_offsets=[0, 16]),
    "one offset": entry(data_offsets=[0]),
    "three offsets": entry(data_offsets=[0, 0, 0]),
    "no dtype": entry(dtype=None),
    "no shape": entry(shape=None),
    "odd dtype": entry(dtype="F8_E4M3"),
    "dtype is a list": entry(dtype=["F32"]),
    "entry is null": json.dumps({NORM: None}),
    "metadata alone": '{"__metadata__": 3}',
}


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("name", HEADERS)
def test_header(toy: Path, name: str) -> None:
    with_header(toy, HEADERS[name])
    assert str(toy) in refused(toy)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 3])
def test_length_of_a_header(toy: Path, length: int) -> None:
    with_header(toy, entry(), length)
    assert "model.safetensors" in refused(toy)


def test_huge_header_in_a_sparse_file(toy: Path) -> None:
    with_header(toy, "", 2**35)
    os.truncate(toy / "model.safetensors", 2**36)
    assert "model.safetensors" in refused(toy)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", [pipe, unix_socket, loop, device, Path.mkdir])
@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_what_is_no_file(toy: Path, name: str, kind: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy)
    (toy / "model.safetensors").unlink()
    kind(toy / name)
    assert name in refused(toy)


@pytest.mark.parametrize(
    "file",
    [
        "../x.safetensors",
        "/x.safetensors",
        "a/b.safetensors",
        "",
        "..",
        "x",
        "a\\b.safetensors",
        "n\0.safetensors",
        "x" * 300 + ".safetensors",
        "pipe.safetensors",
    ],
)
def test_names_in_an_index(toy: Path, file: str) -> None:
    (toy / "model.safetensors").unlink()
    os.mkfifo(toy / "pipe.safetensors")
    (toy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NORM: file}}))
    refused(toy)


def test_archives_are_not_read(toy: Path) -> None:
    (toy / "model.safetensors").rename(toy / "model.safetensors.gz")
    assert "neither model.safetensors nor" in refused(toy)


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0byte", "~nobody/x", "line\nbreak", "a/b@main"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InputError):
        resolve(name)
