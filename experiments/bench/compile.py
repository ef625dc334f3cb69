"""Time to the first compiled prefill of 36 layers: at a reduced width until it has run, at the 8B model's without weights.

python -m experiments.bench.compile --json compile.json
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import click
import jax
import numpy as np
from flax import nnx

from convert.cli import run
from experiments.bench.checkpoint import SIZE, strip, write_checkpoint
from experiments.bench.report import BenchmarkReport, Figure, json_option, publish, say
from experiments.bench.sides import Measurement, Side, without_torch
from experiments.released_shapes import SHAPES
from gaze.pictures.regions import region_keys
from gaze.prompts import VQA
from gaze.steering.masks import schedule, steering
from qwen3vl_jax.config import Config
from qwen3vl_jax.generation.decoding import prefill
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.load import load
from qwen3vl_jax.model import Qwen3VL

LIMIT = 60
EIGHT = SHAPES["8B"]
"""36 layers of text, 27 of vision."""
NARROW: dict[str, Any] = {
    **EIGHT,
    "text_config": EIGHT["text_config"]
    | dict(hidden_size=256, intermediate_size=768, num_attention_heads=4, num_key_value_heads=1, vocab_size=8192),
    "vision_config": EIGHT["vision_config"]
    | dict(hidden_size=128, intermediate_size=512, num_heads=4, out_hidden_size=256),
}
"""The same depth."""


def first(folder: Path, size: tuple[int, int], wide: dict[str, Any] | None) -> Callable[[], list[float]]:
    """Opens the model and a strip; returns what compiles the prefill of a steered answer and runs it, with the seconds of each.

    With `wide`, the config of a model, that one is compiled without weights, and nothing runs.
    """
    without_torch()
    model, processor = load(folder)
    picture = strip(0, size)
    asked = processor([processor.chat(VQA)], [[picture.image]])
    text = (model.config if wide is None else Config.from_dict(wide)).text
    heads = np.ones((text.num_hidden_layers, text.num_attention_heads), np.float32)
    cells = picture.cells((int(asked.grids[0][0]), int(asked.grids[0][1])), processor.settings.merge_size)
    panels = region_keys(np.asarray(asked.prompt.image_cell)[0], cells)[None]
    plan = steering(heads, asked.prompt, panels, schedule([(0, 3)])[None])
    model = model if wide is None else nnx.eval_shape(lambda: Qwen3VL(Config.from_dict(wide), nnx.Rngs(0)))

    def read(model: Qwen3VL, prompt: Any, images: Any, plan: Any, key: Any) -> Any:
        return prefill(model, prompt, model.encode(images), plan, Sampling.make(), key, 1).tokens

    arguments = (asked.prompt, asked.images, plan, jax.random.key(0))

    def work() -> list[float]:
        times = [perf_counter()]
        lowered = jax.jit(read).lower(model, *arguments)
        times.append(perf_counter())
        compiled = lowered.compile()
        times.append(perf_counter())
        if wide is None:
            jax.block_until_ready(compiled(model, *arguments))
            times.append(perf_counter())
        return np.diff(times).tolist()

    return work


def measure(raw: dict[str, Any], wide: dict[str, Any], runs: int, size: tuple[int, int] = SIZE) -> BenchmarkReport:
    """Each time in a new process, which has compiled nothing of it yet."""
    times: dict[str, list[Measurement]] = {"narrow": [], "8B": []}
    with TemporaryDirectory(prefix="gaze-bench-") as place:
        folder = Path(place)
        write_checkpoint(folder, raw)
        for number in range(runs):
            for name, shape in (("narrow", None), ("8B", wide)):
                with Side(first, folder, size, shape) as side:
                    times[name].append(side())
                say(f"run {number + 1} of {runs}, {name}: {times[name][-1].seconds:.1f} s")
    parts = ("tracing", "compiling", "running")
    middle = {
        f"{name} {part}": float(np.median([run.value[place] for run in taken]))
        for name, taken in times.items()
        for place, part in enumerate(parts[: len(taken[0].value)])
    }
    seconds = {name: float(np.median([run.seconds for run in taken])) for name, taken in times.items()}
    layers = raw["text_config"]["num_hidden_layers"]
    figures = [
        Figure(
            "seconds", seconds["narrow"], f"seconds to the first prefill of {layers} layers, reduced width", most=LIMIT
        ),
        Figure("seconds_8b", seconds["8B"], "seconds to compile that of the 8B model, no weights", most=LIMIT),
    ]
    raws = {name: [{**run.raw, "parts": run.value} for run in taken] for name, taken in times.items()}
    return BenchmarkReport("compile", figures, middle, raws)


@click.command(help=__doc__)
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1))
@json_option
def command(runs: int, file: Path | None) -> None:
    publish(measure(NARROW, EIGHT, runs), file)


if __name__ == "__main__":
    run(command, "compile")
