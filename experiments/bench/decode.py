"""What steering costs a decode step, and what a change of heads, targets, strength, schedule or mode costs: no compilation.

python -m experiments.bench.decode --json decode.json
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import click
import jax
import numpy as np

from convert.cli import run
from experiments.bench.checkpoint import MEDIUM, PANELS, SIZE, strip, write_checkpoint
from experiments.bench.report import BenchmarkReport, Figure, json_option, publish, say
from experiments.bench.sides import Side, without_torch
from gaze.prompts import VQA
from gaze.steering.engine import GenerationOptions, Request, answers, encode
from gaze.steering.masks import BIASES, MODES, schedule, steering
from qwen3vl_jax.generation.decoding import generate, stream
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.load import load
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

COMPILED = "/jax/core/compile/backend_compile_duration"
ROWS = (1, 19)
GREEDY = Sampling.make()
TOKENS = 15


def ours(folder: Path, size: tuple[int, int]) -> Callable[..., Any]:
    """Opens the model; returns what times so many steps of so many rows, or, without a number, counts compilations."""
    without_torch()
    model, processor = load(folder)
    return lambda *task: steps(model, processor, size, *task) if task else compilations(model, processor, size)


def steps(model: Qwen3VL, processor: Processor, size: tuple[int, int], rows: int, count: int) -> list[list[float]]:
    """Seconds of each step without and with steering, a step of one after a step of the other."""
    text = model.config.text
    some = encode(model, processor, [strip(0, size)], [VQA])
    prompt, panels = jax.tree.map(lambda leaf: np.repeat(leaf, rows, axis=0), (some.prompt, some.panels))
    heads = np.ones((text.num_hidden_layers, text.num_attention_heads), np.float32)
    plan = steering(heads, prompt, panels, np.arange(rows)[:, None] % PANELS)
    key = jax.random.key(0)
    answers = [stream(model, prompt, some.vision, one, GREEDY, key, max_new=count + 2) for one in (None, plan)]
    for answer in answers:  # the prompt, and a step that compiles
        next(answer), next(answer)
    return [[_seconds(answer) for answer in answers] for _ in range(count)]


def _seconds(answer: Iterator[Any]) -> float:
    start = perf_counter()
    next(answer)
    return perf_counter() - start


def compilations(model: Qwen3VL, processor: Processor, size: tuple[int, int]) -> dict[str, list[int]]:
    """How many programs `generate` and `answers` compile, call by call, each with edits of another kind."""
    counted: list[str] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        counted.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    picture = strip(0, size)
    some = encode(model, processor, [picture], [VQA])
    settings, key = GenerationOptions(GREEDY, TOKENS), jax.random.key(0)

    def alone(targets: np.ndarray, **change: Any) -> None:
        plan = steering(prompt=some.prompt, regions=some.panels, targets=targets[None], **change)
        jax.block_until_ready(generate(model, some.prompt, some.vision, plan, GREEDY, key, max_new=TOKENS))

    def combined(**change: Any) -> None:
        answers(model, processor, [picture], VQA, [Request(0, **change)], settings)

    found: dict[str, list[int]] = {}
    for call in (alone, combined):
        found[call.__name__] = []
        for change in changes(model):
            before = counted.count(COMPILED)
            call(**change)
            found[call.__name__].append(counted.count(COMPILED) - before)
    return found


def changes(model: Qwen3VL) -> list[dict[str, Any]]:
    """What steers an answer, each time in another way than the time before."""
    text = model.config.text
    shape = (text.num_hidden_layers, text.num_attention_heads)
    upper, every = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    upper[shape[0] // 2 :] = 1
    change: dict[str, Any] = dict(heads=upper, targets=schedule([(0, 2)], TOKENS))
    found = [change]
    more: list[dict[str, Any]] = [dict(targets=schedule([(0, 4)], TOKENS)), dict(heads=every), dict(strength=3.0)]
    more += [dict(targets=schedule([(0, 1), (5, 3), (9, -1)], TOKENS))]
    more += [dict(mode=mode) for mode in MODES] + [dict(bias=bias) for bias in BIASES]
    for one in more:
        change = {**change, **one}
        found.append(change)
    return found


def measure(raw: dict[str, Any], count: int, size: tuple[int, int] = SIZE) -> BenchmarkReport:
    """Steps of one row and of several, then compilations."""
    with TemporaryDirectory(prefix="gaze-bench-") as place:
        folder = Path(place)
        write_checkpoint(folder, raw)
        taken = {}
        with Side(ours, folder, size) as side:
            for rows in ROWS:
                taken[rows] = np.array(side(rows, count).value)
                say(f"{count} steps of {rows} rows")
            compiled = side().value
    return summary(taken, compiled)


def summary(taken: dict[int, np.ndarray], compiled: dict[str, list[int]]) -> BenchmarkReport:
    middle = {
        f"{rows} rows, {name}, seconds": float(np.median(times[:, column]))
        for rows, times in taken.items()
        for column, name in enumerate(("plain", "steered"))
    }
    figures = []
    for rows, times in taken.items():
        label = "ratio" if rows == ROWS[0] else f"ratio_{rows}_rows"
        ratio = float(np.median(times[:, 1] / times[:, 0]))
        figures.append(
            Figure(label, ratio, f"a steered decode step over a plain one, {rows} rows, all heads", most=1.03)
        )
    later = sum(sum(counts[1:]) for counts in compiled.values())
    figures.append(Figure("compilations", later, "compilations after the first call", most=0))
    raw = {f"{rows} rows": times.tolist() for rows, times in taken.items()} | {"compilations": compiled}
    return BenchmarkReport("decode", figures, middle, raw)


@click.command(help=__doc__)
@click.option("--steps", "count", default=100, show_default=True, type=click.IntRange(1), help="Of each kind.")
@json_option
def command(count: int, file: Path | None) -> None:
    publish(measure(MEDIUM, count), file)


if __name__ == "__main__":
    run(command, "decode")
