"""Conversion to Orbax of a random checkpoint as large as a released one: memory, and rate against a plain copy of its files.

python -m experiments.bench.convert --size 2B --json convert.json
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import click
import ml_dtypes
import numpy as np

from convert.cli import run
from convert.convert import to_orbax
from experiments.bench.checkpoint import Draw, write_checkpoint
from experiments.bench.report import BenchmarkReport, Figure, json_option, medians, publish, say
from experiments.bench.sides import Measurement, Side
from experiments.released_shapes import SHAPES
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.load.safetensors_files import open_safetensors

SIZES = {"2B": ("2B",), "8B": ("8B",), "both": ("2B", "8B")}
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
BLOCK = 2**25
TENSORS, MORE = 2.5, 0.6e9
"""What memory may hold: so many times the largest tensor, and so many bytes."""


def noise(block: int = BLOCK) -> Draw:
    """Bfloat16 as in real weights, which compress as little; from one block of numbers, each time from another place."""
    rng = np.random.default_rng(0)
    numbers = (rng.standard_normal(block, np.float32) * np.float32(0.02)).astype(BFLOAT16)

    def draw(_name: str, shape: tuple[int, ...]) -> np.ndarray:
        count, start = int(np.prod(shape)), int(rng.integers(block))
        pieces = -(-(start + count) // block)
        return np.concatenate([numbers] * pieces)[start : start + count].reshape(shape)

    return draw


def copying() -> Callable[[Path, Path], None]:
    return lambda src, dst: flushed(lambda: shutil.copytree(src, dst), dst)


def converting() -> Callable[[Path, Path], None]:
    return lambda src, dst: flushed(lambda: to_orbax(src, dst), dst)


def flushed(write: Callable[[], Any], dst: Path) -> None:
    """Does something that ends with all of `dst` on the disk."""
    write()
    for file in _files(dst):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def forget(folder: Path) -> None:
    """Has Linux drop what it keeps of files in memory, so that they are read from the disk again."""
    for file in _files(folder):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(shapes: dict[str, dict[str, Any]], runs: int, where: Path, block: int = BLOCK) -> BenchmarkReport:
    """Copies and converts in turn, each in a new process and with the source not in memory; `where` is emptied again."""
    times: dict[str, list[Measurement]] = {}
    largest, bytes_ = {}, {}
    for size, raw in shapes.items():
        with TemporaryDirectory(prefix="gaze-bench-", dir=where) as place:
            src, dst = Path(place, "src"), Path(place, "dst")
            src.mkdir()
            write_checkpoint(src, raw, BFLOAT16, noise(block))
            stored = open_safetensors(src)
            largest[size] = max(2 * int(np.prod(shape)) for shape in stored.shapes.values())
            bytes_[size] = sum(file.stat().st_size for file in _files(src))
            say(f"{size}: {bytes_[size] / 1e9:.2f} GB written")
            for number in range(runs):
                for name, begin in (("copy", copying), ("convert", converting)):
                    forget(src)
                    with Side(begin) as side:
                        times.setdefault(f"{size} {name}", []).append(side(src, dst))
                    shutil.rmtree(dst)
                    say(f"{size}, run {number + 1} of {runs}, {name}: {times[f'{size} {name}'][-1].seconds:.1f} s")
    return summary(times, largest, bytes_)


def summary(times: dict[str, list[Measurement]], largest: dict[str, int], bytes_: dict[str, int]) -> BenchmarkReport:
    middle = medians(times)
    figures = []
    for size, tensor in largest.items():
        most = max(run.anonymous for run in times[f"{size} convert"])
        limit = TENSORS * tensor + MORE
        rate = {name: bytes_[size] / middle[f"{size} {name} seconds"] / 1e6 for name in ("copy", "convert")}
        figures += [
            Figure(f"{size} anonymous_gb", most / 1e9, f"{size}: peak anonymous memory, GB", most=limit / 1e9),
            Figure(f"{size} ratio", rate["convert"] / rate["copy"], f"{size}: rate, over that of a copy"),
            Figure(f"{size} convert_rate", rate["convert"], f"{size}: MB/s converted"),
            Figure(f"{size} copy_rate", rate["copy"], f"{size}: MB/s copied"),
        ]
    notes = [f"{size}: {bytes_[size] / 1e9:.2f} GB, largest tensor {largest[size] / 1e9:.3f} GB" for size in largest]
    notes += ["Read from the disk (nothing of the source in the page cache), written to the disk (fsync)."]
    return BenchmarkReport(
        "convert", figures, middle, {name: [run.raw for run in runs] for name, runs in times.items()}, notes
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@click.command(help=__doc__)
@click.option("--size", default="2B", show_default=True, type=click.Choice([*SIZES]))
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1))
@click.option(
    "--where", type=click.Path(path_type=Path, file_okay=False), help="Folder for the files; a temporary one without."
)
@json_option
def command(size: str, runs: int, where: Path | None, file: Path | None) -> None:
    place = where or Path(gettempdir())
    if not place.is_dir():
        raise InputError(f"{place} is no folder: make it first")
    needed = {"2B": 9e9, "8B": 36e9, "both": 36e9}[size]
    if shutil.disk_usage(place).free < needed:
        raise InputError(f"{place} has less than {needed / 1e9:.0f} GB free: give another folder with --where")
    publish(measure({name: SHAPES[name] for name in SIZES[size]}, runs, place), file)


if __name__ == "__main__":
    run(command, "convert")
