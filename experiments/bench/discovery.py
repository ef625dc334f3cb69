"""Discovery against transformers, eager: six full passes per strip with all attentions, as the paper's code does.

python -m experiments.bench.discovery --json discovery.json
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

from convert.cli import run
from experiments.bench import reference
from experiments.bench.checkpoint import MEDIUM, SIZE, strip, write_checkpoint
from experiments.bench.questions import question
from experiments.bench.report import BenchmarkReport, Figure, json_option, medians, publish, say
from experiments.bench.sides import Measurement, Side, without_torch
from gaze.discovery.scores import Mass
from gaze.pictures.strips import Strip
from gaze.prompts import DISCOVERY, fill
from gaze.steering.engine import discover
from qwen3vl_jax.load import load
from qwen3vl_jax.processing.processor import Processor

TEXTS = [fill(DISCOVERY, panel) for panel in range(6)]
TOLERANCE = 1e-4


def ours(folder: Path) -> Callable[[Sequence[Strip]], Mass]:
    """Opens the model; returns what scores strips."""
    without_torch()
    model, processor = load(folder)
    return lambda strips: discover(model, processor, strips, TEXTS)


def measure(raw: dict[str, Any], runs: int, strips: int, size: tuple[int, int] = SIZE) -> BenchmarkReport:
    """Both sides in turn, each on the same `strips` strips in every run, after one to warm up.

    Raises RuntimeError if they do not find the same attention.
    """
    times: dict[str, list[Measurement]] = {"reference": [], "ours": []}
    with TemporaryDirectory(prefix="gaze-bench-") as place:
        folder = Path(place)
        write_checkpoint(folder, raw)
        processor = Processor.load(folder)
        with Side(reference.discovery, folder) as theirs, Side(ours, folder) as mine:
            for number in range(-1, runs):
                some = [strip((number + 1) * strips + place, size) for place in range(strips)]
                questions = [[question(processor, one, text) for text in TEXTS] for one in some]
                pair = theirs(questions), mine(some)
                check(pair[0].value, pair[1].value)
                say(f"run {number + 1} of {runs}: reference {pair[0].seconds:.2f} s, ours {pair[1].seconds:.2f} s")
                for side, one in zip(times, pair, strict=True):
                    times[side] += [one] if number >= 0 else []
    return summary(times, strips)


def check(expected: Mass, found: Mass) -> None:
    """Raises RuntimeError unless two sides agree: a benchmark of a wrong result says nothing."""
    apart = float(np.abs(expected - found).max())
    if not apart <= TOLERANCE:
        raise RuntimeError(f"the two sides disagree by {apart:.2e} on attention, which may be {TOLERANCE:g} at most")


def summary(times: dict[str, list[Measurement]], strips: int) -> BenchmarkReport:
    middle = medians(times)
    ratio = {name: middle[f"reference {name}"] / middle[f"ours {name}"] for name in ("seconds", "cpu_seconds", "peak")}
    figures = [
        Figure("ratio", ratio["seconds"], "strips per second, over the reference's", least=6),
        Figure("memory_ratio", 1 / ratio["peak"], "peak memory, over the reference's", most=0.5),
        Figure("cpu_ratio", ratio["cpu_seconds"], "strips per CPU second, over the reference's"),
        *(Figure(f"{side}_rate", strips / middle[f"{side} seconds"], f"strips per second, {side}") for side in times),
    ]
    return BenchmarkReport(
        "discovery", figures, middle, {side: [one.raw for one in runs] for side, runs in times.items()}
    )


@click.command(help=__doc__)
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1))
@click.option("--strips", default=2, show_default=True, type=click.IntRange(1), help="In each run.")
@json_option
def command(runs: int, strips: int, file: Path | None) -> None:
    publish(measure(MEDIUM, runs, strips), file)


if __name__ == "__main__":
    run(command, "discovery")
