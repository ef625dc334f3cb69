"""What a benchmark prints and writes."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.bench.sides import CORES, Measurement
from qwen3vl_jax.errors import InputError

Number = int | float
PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy", "torch", "transformers")


@dataclass(frozen=True)
class Figure:
    """What a benchmark is for.

    Attributes:
      name: in JSON.
      says: to people; what it is a ratio of, or its unit.
      least, most: the goal, if there is one.
    """

    name: str
    value: Number
    says: str
    least: Number | None = None
    most: Number | None = None

    @property
    def goal(self) -> str:
        if self.least is None and self.most is None:
            return ""
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"

    @property
    def met(self) -> bool:
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)


@dataclass(frozen=True)
class BenchmarkReport:
    """One run of a benchmark: its figures, medians of what was measured, and every single run behind them."""

    benchmark: str
    figures: Sequence[Figure]
    medians: Mapping[str, float]
    raw: Mapping[str, Any]
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            **{figure.name: figure.value for figure in self.figures},
            "goals": {figure.name: figure.goal for figure in self.figures if figure.goal},
            "medians": dict(self.medians),
            "raw": dict(self.raw),
            "notes": list(self.notes),
            "machine": machine(),
        }


def medians(raw: Mapping[str, Sequence[Measurement]]) -> dict[str, float]:
    """Of everything that runs say of themselves, by side."""
    return {
        f"{side} {figure}": float(np.median([run.raw[figure] for run in runs]))
        for side, runs in raw.items()
        for figure in runs[0].raw
    }


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return {
        "cores": os.cpu_count(),
        "threads": min(CORES, len(os.sched_getaffinity(0))),
        "processor": sorted(names),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def publish(report: BenchmarkReport, file: Path | None) -> None:
    """Prints tables, and writes JSON if there is a file for it."""
    console = Console(width=120)
    shown = Table(title=report.benchmark, title_justify="left")
    for column in ("figure", "measured", "goal", ""):
        shown.add_column(column, justify="right" if column == "measured" else "left")
    for figure in report.figures:
        met = ("met" if figure.met else "missed") if figure.goal else ""
        shown.add_row(figure.says, f"{figure.value:.4g}", figure.goal, met)
    console.print(shown)
    below = Table("median", "value")
    for name, value in report.medians.items():
        below.add_row(name, f"{value / 1e9:.3f} GB" if _is_bytes(name) else f"{value:.4g}")
    console.print(below)
    for note in report.notes:
        console.print(note)
    if file is not None:
        file.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--json FILE`, as argument `file`; a place where nothing can be written is told beforehand."""
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option("--json", "file", type=kind, callback=_writable, help="Write every run here.")(command)


def say(text: str) -> None:
    """Progress."""
    click.echo(text, err=True)


def _writable(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    if file is not None and not file.parent.is_dir():
        raise InputError(f"{file.parent} is no folder, so {file.name} cannot be written there: make it first")
    return file


def _is_bytes(name: str) -> bool:
    return name.endswith(("before", "peak", "anonymous", "bytes"))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
