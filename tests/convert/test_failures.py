"""Real processes that are interrupted, run into a wall, or must stay small: DST is whole or absent."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from convert import convert as convert_module
from convert import orbax_writer
from convert.convert import convert, to_hf, to_orbax
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load import Checkpoint, load_model, open_checkpoint
from qwen3vl_jax.weights import Tensor

ROOT = Path(__file__).parents[2]

SLOW = """
import dataclasses, signal, sys, time
from convert import cli, convert, orbax_writer
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores it
orbax_writer.CHUNK_BYTES = 20_000  # so that reading and writing alternate
open_checkpoint = convert.open_checkpoint
def slow(src):
    checkpoint = open_checkpoint(src)
    def read(tensor):
        print("reading", flush=True)
        time.sleep(0.05)
        return checkpoint.read(tensor)
    return dataclasses.replace(checkpoint, read=read)
convert.open_checkpoint = slow
cli.main()
"""

SMALL_FILES = """
import resource
from convert import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
cli.main()
"""

WATCHED = """
import sys, threading, time
from convert.convert import convert
warm, src, dst = sys.argv[1:]
def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024
def watch():
    while running:
        peaks.append(anonymous())
        time.sleep(0.002)
convert(warm, dst + "-warm")
base, peaks, running = anonymous(), [], True
thread = threading.Thread(target=watch, daemon=True)
thread.start()
convert(src, dst)
running = False
thread.join()
print(max(peaks) - base)
"""


def start(script: str, *args: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stopped(process: subprocess.Popen[str], number: signal.Signals, after: int) -> tuple[int, str]:
    """Sends a signal once so many tensors are being read; returns the exit status and what was on stderr."""
    assert process.stdout is not None
    for _ in range(after):
        assert process.stdout.readline() == "reading\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    return process.returncode, stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_conversion_leaves_nothing(toy: Path, number: signal.Signals, status: int) -> None:
    found, stderr = stopped(start(SLOW, toy, toy.parent / "dst"), number, after=30)
    assert found == status
    assert "Traceback" not in stderr
    assert list(toy.parent.iterdir()) == [toy]


def test_interrupted_way_back_leaves_nothing(toy: Path, tmp_path: Path) -> None:
    to_orbax(toy, tmp_path / "orbax")
    found, stderr = stopped(start(SLOW, tmp_path / "orbax", tmp_path / "dst"), signal.SIGINT, after=30)
    assert (found, stderr.strip()) == (130, "Error: interrupted")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "orbax", toy]


def test_killed_conversion_leaves_no_dst_and_blocks_no_other(toy: Path, tmp_path: Path) -> None:
    found, _ = stopped(start(SLOW, toy, tmp_path / "dst"), signal.SIGKILL, after=30)
    assert found == -signal.SIGKILL
    assert not (tmp_path / "dst").exists()
    (left,) = set(tmp_path.iterdir()) - {toy}
    assert left.name.startswith(".dst.partial-")
    with pytest.raises(InputError, match=r"config\.json"):
        open_checkpoint(left)
    convert(toy, tmp_path / "dst")
    assert open_checkpoint(tmp_path / "dst").shapes
    assert sorted(tmp_path.iterdir()) == [tmp_path / "dst", toy]


@pytest.mark.parametrize("back", [False, True])
def test_files_that_cannot_grow(toy: Path, tmp_path: Path, back: bool) -> None:
    """A limit on the size of files fails every write after it, as a full disk does."""
    src = toy
    if back:
        to_orbax(toy, src := tmp_path / "orbax")
    before = sorted(tmp_path.iterdir())
    process = start(SMALL_FILES, src, tmp_path / "dst")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2
    assert stderr == f"Error: writing {tmp_path / 'dst'} failed (File too large); nothing was kept.\n"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("way", [to_orbax, to_hf])
def test_full_disk(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[..., None]) -> None:
    reads: list[Tensor] = []
    checkpoint = open_checkpoint(toy)

    def read(tensor: Tensor) -> np.ndarray:
        reads.append(tensor)
        if len(reads) == 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return checkpoint.read(tensor)

    monkeypatch.setattr(orbax_writer, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr("convert.convert.open_checkpoint", lambda src: dataclasses.replace(checkpoint, read=read))
    with pytest.raises(InputError, match="No space left on device"):
        way(toy, tmp_path / "dst")
    assert len(reads) == 40
    assert list(tmp_path.iterdir()) == [toy]


@pytest.mark.parametrize("kind", ["folder", "file", "link to nowhere"])
def test_dst_that_exists_is_not_touched(toy: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convert.convert.open_checkpoint", lambda src: pytest.fail("work was begun"))
    dst = tmp_path / "dst"
    {"folder": dst.mkdir, "file": dst.touch, "link to nowhere": lambda: dst.symlink_to(tmp_path / "nowhere")}[kind]()
    for way in (to_orbax, to_hf):
        with pytest.raises(InputError, match="exists already"):
            way(toy, dst)
    assert sorted(tmp_path.iterdir()) == [dst, toy]


def test_dst_in_a_folder_that_does_not_exist(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        convert(toy, tmp_path / "no" / "dst")
    assert list(tmp_path.iterdir()) == [toy]


def test_memory_stays_about_one_tensor(toy: Path, large: Path, tmp_path: Path) -> None:
    """Converts 260 MB, the largest tensor of which has 61 MB; a copy of the whole anywhere would be far beyond the limit."""
    sizes = [tensor.nbytes for tensor in load_file(large / "model.safetensors").values()]
    assert max(sizes) > 60e6
    assert sum(sizes) > 4 * max(sizes)
    for src, dst in ((large, tmp_path / "orbax"), (tmp_path / "orbax", tmp_path / "hf")):
        process = start(WATCHED, toy, src, dst)
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        peak = int(stdout) / max(sizes)
        assert 0.3 < peak < 2.6, f"to {dst.name}: {peak:.2f} x the largest tensor"
    first, last = (load_file(folder / "model.safetensors") for folder in (large, tmp_path / "hf"))
    assert all(torch.equal(tensor.view(torch.int16), last[name].view(torch.int16)) for name, tensor in first.items())


def cut_short(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def written_in_place(path: Path) -> None:
    with path.open("rb+") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\1\2\3\4")


@pytest.mark.parametrize("change", [cut_short, replaced, written_in_place, Path.unlink])
@pytest.mark.parametrize("kind", ["model.safetensors", "config.json", "orbax"])
def test_a_source_that_changes_meanwhile(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object], kind: str
) -> None:
    src, file = toy, toy / kind
    if kind == "orbax":
        to_orbax(toy, src := tmp_path / "orbax")
        file = max((src / "params").rglob("*"), key=lambda path: path.stat().st_size)
    before, reads = sorted(tmp_path.iterdir()), 0

    def opened(folder: Path) -> Checkpoint:
        checkpoint = open_checkpoint(folder)

        def read(tensor: Tensor) -> np.ndarray:
            nonlocal reads
            reads += 1
            if reads == 10:
                change(file)
            return checkpoint.read(tensor)

        return dataclasses.replace(checkpoint, read=read) if folder == src else checkpoint

    monkeypatch.setattr("convert.convert.open_checkpoint", opened)
    with pytest.raises(InputError) as caught:
        convert(src, tmp_path / "dst")
    assert "\n" not in str(caught.value)
    assert file.name in str(caught.value) or kind == "orbax"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("way", [to_orbax, to_hf])
def test_a_disk_that_does_not_keep_what_is_written(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[..., None]
) -> None:
    """The reading back finds it: one value differs in what was written."""
    copy_side_files = convert_module._copy_side_files

    def spoil(src: Path, folder: Path, dtype: np.dtype | None) -> None:
        copy_side_files(src, folder, dtype)
        file = max(folder.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
        written_in_place(file)

    monkeypatch.setattr(convert_module, "_copy_side_files", spoil)
    with pytest.raises(InputError, match=r"did not come back as written|cannot be read"):
        way(toy, tmp_path / "dst")
    assert list(tmp_path.iterdir()) == [toy]


def test_two_conversions_to_one_place(toy: Path, tmp_path: Path) -> None:
    first = start(SLOW, toy, tmp_path / "dst")
    assert first.stdout is not None
    assert first.stdout.readline() == "reading\n"
    with pytest.raises(InputError, match="another process is writing"):
        convert(toy, tmp_path / "dst")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=300)
    assert list(tmp_path.iterdir()) == [toy]


@pytest.mark.parametrize("dtype", ["int8", "float64", "bf16", "", "O", np.int32])
def test_an_absurd_dtype(toy: Path, tmp_path: Path, dtype: Any) -> None:
    for use in (lambda: convert(toy, tmp_path / "dst", dtype), lambda: load_model(toy, dtype)):
        with pytest.raises(InputError, match="give float32, bfloat16, float16"):
            use()
    assert list(tmp_path.iterdir()) == [toy]
