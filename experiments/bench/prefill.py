"""Reading one strip: how much of the machine's own rate of matrix products it reaches, and how memory grows with the picture.

python -m experiments.bench.prefill --json prefill.json
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from convert.cli import run
from experiments.bench.checkpoint import MEDIUM, SIZE, strip, write_checkpoint
from experiments.bench.report import BenchmarkReport, Figure, json_option, medians, publish, say
from experiments.bench.sides import Measurement, Side, without_torch
from gaze.prompts import VQA
from qwen3vl_jax.config import Config
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.load import load
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.vision import Vision

SIZES = ((768, 128), (1536, 256), (3072, 512), (6144, 1024))
PRODUCTS = 40
PIECES = ("vision", "text", "prefill")
Size = tuple[int, int]


@jax.jit
def encode(model: Qwen3VL, images: Images) -> Vision:
    return model.encode(images)


@jax.jit
def read(model: Qwen3VL, prompt: Prompt, vision: Vision) -> jax.Array:
    """What the first token of an answer is chosen from."""
    return model.logits(model(prompt, vision).hidden[:, -1])


@jax.jit
def both(model: Qwen3VL, prompt: Prompt, images: Images) -> jax.Array:
    mass: jax.Array = read(model, prompt, model.encode(images))
    return mass


@jax.jit
def multiply(x: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """`PRODUCTS` products of one shape, forwards and backwards as in an MLP."""
    product: jax.Array = jax.lax.fori_loop(0, PRODUCTS // 2, lambda _, x: (x @ up) @ down, x)
    return product


def flops(config: Config, patches: int, length: int) -> dict[str, float]:
    """Multiplications and additions of matrix products and attention, by hand; causal attention counts what is seen."""
    text, vision = config.text, config.vision
    heads, kv = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    layer = text.hidden_size * (2 * heads + 2 * kv + 3 * text.intermediate_size)
    seen = length * (length + 1) / 2
    width, merged = vision.hidden_size, vision.spatial_merge_size**2
    pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    block = width * (4 * width + 2 * vision.intermediate_size)
    merger = merged * width * (merged * width + vision.out_hidden_size)
    mergers = 1 + len(vision.deepstack_visual_indexes)
    found = {
        "vision": 2 * patches * (pixels * width + vision.depth * block + mergers * merger / merged)
        + 4 * vision.depth * patches**2 * width,
        "text": text.num_hidden_layers * (2 * length * layer + 4 * seen * heads)
        + 2 * text.hidden_size * text.vocab_size,
    }
    return {**found, "prefill": sum(found.values())}


def products(config: Config, patches: int, length: int) -> dict[str, tuple[int, int, int]]:
    """Rows, inputs and outputs of the largest products of each tower, those of its MLPs."""
    text, vision = config.text, config.vision
    return {
        "vision": (patches, vision.hidden_size, vision.intermediate_size),
        "text": (length, text.hidden_size, text.intermediate_size),
    }


def ours(folder: Path, size: Size) -> Callable[[str], None]:
    """Opens the model and a strip; returns what does one of `PIECES`, or the products of a tower's MLP, compiled beforehand."""
    model, prompt, images = _opened(folder, size)
    vision = encode(model, images)
    pieces: dict[str, Callable[[], Any]] = {
        "vision": lambda: encode(model, images),
        "text": lambda: read(model, prompt, vision),
        "prefill": lambda: both(model, prompt, images),
    }
    shapes = products(model.config, images.patches.shape[1], prompt.tokens.shape[1])
    pieces |= {f"{tower} products": _products(*shape) for tower, shape in shapes.items()}
    for piece in pieces.values():
        jax.block_until_ready(piece())

    def work(name: str) -> None:
        jax.block_until_ready(pieces[name]())

    return work


def once(folder: Path, size: Size) -> Callable[[], tuple[int, int]]:
    """Opens the model and a strip and compiles; returns what reads it and gives its numbers of patches and tokens."""
    model, prompt, images = _opened(folder, size)
    compiled = both.lower(model, prompt, images).compile()

    def work() -> tuple[int, int]:
        jax.block_until_ready(compiled(model, prompt, images))
        return images.patches.shape[1], prompt.tokens.shape[1]

    return work


def _opened(folder: Path, size: Size) -> tuple[Qwen3VL, Prompt, Images]:
    without_torch()
    model, processor = load(folder)
    asked = processor([processor.chat(VQA)], [[strip(0, size).image]])
    prompt, images = jax.tree.map(jnp.asarray, (asked.prompt, asked.images))
    return model, prompt, images


def _products(rows: int, inputs: int, outputs: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    parts = [(rows, inputs), (inputs, outputs), (outputs, inputs)]
    x, up, down = (jnp.asarray(rng.standard_normal(part, np.float32) / np.float32(part[0] ** 0.5)) for part in parts)
    return lambda: multiply(x, up, down)


def measure(raw: dict[str, Any], runs: int, sizes: Sequence[Size], size: Size = SIZE) -> BenchmarkReport:
    """Products and pieces in turn, then one picture of each size in a process of its own."""
    with TemporaryDirectory(prefix="gaze-bench-") as place:
        folder = Path(place)
        write_checkpoint(folder, raw)
        times: dict[str, list[Measurement]] = {name: [] for name in (*PIECES, "vision products", "text products")}
        with Side(ours, folder, size) as side:
            for number in range(runs):
                for name, taken in times.items():
                    taken.append(side(name))
                say(f"run {number + 1} of {runs}")
        grown = {}
        for one in dict.fromkeys((size, *sizes)):
            with Side(once, folder, one) as side:
                grown[one] = side()
            say(f"{one[0]} x {one[1]}: {grown[one].seconds:.1f} s, {beyond(grown[one]) / 1e9:.2f} GB")
        config = Config.load(folder)
    needed = flops(config, *grown[size].value)
    shapes = products(config, *grown[size].value)
    needed |= {f"{tower} products": 2.0 * PRODUCTS * math.prod(shape) for tower, shape in shapes.items()}
    sizes_raw = [
        dict(size=list(one), patches=run.value[0], tokens=run.value[1], **run.raw) for one, run in grown.items()
    ]
    raws: dict[str, Any] = {name: [run.raw for run in taken] for name, taken in times.items()}
    figures = rates(times, needed) + growth([grown[one] for one in sizes])
    return BenchmarkReport("prefill", figures, medians(times), raws | {"sizes": sizes_raw}, notes(config, grown))


def rates(times: dict[str, list[Measurement]], needed: dict[str, float]) -> list[Figure]:
    """Operations per second, absolute and over those of the better of the two products."""
    by: dict[str, dict[str, float]] = {}
    for clock in ("seconds", "cpu_seconds"):
        by[clock] = {name: needed[name] / float(np.median([run.raw[clock] for run in times[name]])) for name in times}
    best = {clock: max(rates[f"{tower} products"] for tower in ("vision", "text")) for clock, rates in by.items()}
    share = {piece: by["seconds"][piece] / best["seconds"] for piece in PIECES}
    return [
        Figure("share", share["prefill"], "rate of the prefill, over that of matrix products", least=0.7),
        Figure("vision_share", share["vision"], "  of the vision tower"),
        Figure("text_share", share["text"], "  of the text decoder"),
        Figure("cpu_share", by["cpu_seconds"]["prefill"] / best["cpu_seconds"], "  of the prefill, per CPU second"),
        *(Figure(f"{name} gflops", rate / 1e9, f"GFLOP/s, {name}") for name, rate in by["seconds"].items()),
    ]


def growth(grown: Sequence[Measurement]) -> list[Figure]:
    """By which power of the number of patches memory grows: over all sizes, and from the last but one to the last."""
    if len(grown) < 2:
        return []
    patches, extra = (np.log([number(run) for run in grown]) for number in (lambda run: run.value[0], beyond))
    fitted = {"exponent": len(grown), "last_exponent": 2}
    says = {
        "exponent": "memory grows as the patches to the power of",
        "last_exponent": "  from the last size but one to the last",
    }
    return [
        Figure(name, float(np.polyfit(patches[-last:], extra[-last:], 1)[0]), says[name], most=1.05)
        for name, last in fitted.items()
    ]


def beyond(run: Measurement) -> int:
    """The bytes that it took, beside weights and what else was there."""
    return run.peak - run.before


def notes(config: Config, grown: dict[Size, Measurement]) -> list[str]:
    """A line for each size."""
    lines = []
    for (width, height), taken in grown.items():
        patches, length = taken.value
        scores = 4 * config.vision.num_heads * patches**2
        lines.append(
            f"{width} x {height}: {patches} patches, {length} tokens, {taken.seconds:.2f} s, {beyond(taken) / 1e9:.3f} GB beyond "
            f"the {taken.before / 1e9:.3f} GB before; all scores of one vision layer would be {scores / 1e9:.2f} GB"
        )
    return lines


@click.command(help=__doc__)
@click.option("--runs", default=10, show_default=True, type=click.IntRange(1))
@click.option(
    "--sizes", default=len(SIZES), show_default=True, type=click.IntRange(0, len(SIZES)), help="The first so many."
)
@json_option
def command(runs: int, sizes: int, file: Path | None) -> None:
    publish(measure(MEDIUM, runs, SIZES[:sizes]), file)


if __name__ == "__main__":
    run(command, "prefill")
