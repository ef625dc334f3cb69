"""The border: whatever is wrong with a file, one sentence that names it."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import TypedDict

from qwen3vl_jax.config import Config
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import is_there, parse_json, read_bytes, read_json, reading
from qwen3vl_jax.images import ImageSettings, open_image
from qwen3vl_jax.processing.videos import Video, VideoSettings, patchify_video


class Counts(TypedDict):
    a: int


READERS: dict[str, Callable[[Path], Any]] = {
    "config.json": lambda path: Config.load(path.parent),
    "preprocessor_config.json": lambda path: ImageSettings.load(path.parent),
    "processor_config.json": lambda path: ImageSettings.load(path.parent),
    "video_preprocessor_config.json": lambda path: VideoSettings.load(path.parent),
    "picture.png": open_image,
    "video.gif": lambda path: patchify_video(Video(path), VideoSettings()),
    "other.json": lambda path: read_json(path, "a settings file"),
}


@pytest.mark.timeout(20)
class PanicException(BaseException):
    """As libraries in Rust raise it."""


@pytest.mark.parametrize(
    "error", [PanicException("index out of bounds"), Exception("x"), MemoryError(), RecursionError()]
)
def test_whatever_a_decoder_throws_is_one_sentence(error: BaseException) -> None:
    with (
        pytest.raises(InputError, match="some file cannot be read as a tokenizer"),
        reading("some file", "a tokenizer"),
    ):
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_what_is_no_fault_passes(error: BaseException) -> None:
    with pytest.raises(type(error)), reading("some file", "a tokenizer"):
        raise error


@pytest.mark.parametrize(("name", "there"), [("", True), ("x", False), ("link", True), ("file/x", False)])
def test_what_is_there(tmp_path: Path, name: str, there: bool) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    assert is_there(tmp_path / name, "a file") is there


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_nothing_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read as a file"):
        is_there(tmp_path / name, "a file")


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_that_nobody_writes_to(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"{name} is no regular file"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("way", ["folder", "itself", "nowhere"])
def test_what_is_no_file(name: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if way == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if way == "itself" else tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"^[^\n]+$"):
        READERS[name](path)


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith("json")])
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"",
        b"{",
        b"\xff\xfe{\x00}\x00",
        b'{"a": NaN}',
        b'{"a": 1, "a": 1}',
        b"9" * 10_000,
    ],
    ids=range(8),
)
def test_json_that_cannot_be_used(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"^[^\n]{1,500}$") as error:
        READERS[name](tmp_path / name)
    assert name in str(error.value)


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_bytes(b'\xef\xbb\xbf{"patch_size": 8}')
    assert ImageSettings.load(tmp_path).patch_size == 8


def test_a_file_of_more_than_it_may_hold(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"12345")
    assert read_bytes(tmp_path / "big", "a number", most=5) == b"12345"
    with pytest.raises(InputError, match="has 5 bytes; a number has at most 4"):
        read_bytes(tmp_path / "big", "a number", most=4)


def test_reading_takes_the_memory_of_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert read_bytes(path, "a file", most=2**30) == b"x" * 1000
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux has such files")
def test_a_file_that_says_it_is_empty() -> None:
    assert b"VmPeak" in read_bytes("/proc/self/status", "a file")


@pytest.mark.parametrize(
    "error", [RecursionError, MemoryError, OverflowError, NotImplementedError, KeyError, RuntimeError]
)
def test_whatever_a_decoder_throws(error: type[Exception]) -> None:
    with pytest.raises(InputError, match="the place cannot be read as a thing"), reading("the place", "a thing"):
        raise error("deep\nwithin")


def test_numbers_stay_numbers() -> None:
    assert parse_json('{"a": 1, "b": 1.0, "c": true}', "x", "a thing", dict) == {"a": 1, "b": 1.0, "c": True}
    with pytest.raises(InputError, match="x is not a thing: a is True"):
        parse_json('{"a": true}', "x", "a thing", Counts)
