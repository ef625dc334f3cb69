"""Reading one strip: how much of the machine's own rate of matrix products it reaches, and how memory grows with the picture.

python -m experiments.bench.prefill --json prefill.json
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from convert.cli import run
from convert.load import load
from experiments.bench.checkpoint import MEDIUM, SIZE, strip, write_checkpoint
from experiments.bench.report import Figure, Report, json_option, medians, publish, say
from experiments.bench.sides import Run, Side, without_torch
from experiments.testbed.wordings import VQA
from qwen3vl_jax.config import Config
from qwen3vl_jax.inputs import Images, Prompt
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.vision import Vision

SIZES = ((768, 128), (1536, 256), (3072, 512), (6144, 1024))
PRODUCTS = 40
PIECES = ("vision", "text", "prefill")
Shape = tuple[int, int, int]


@jax.jit
def encode(model: Qwen3VL, images: Images) -> Vision:
    return model.encode(images)


@jax.jit
def read(model: Qwen3VL, prompt: Prompt, vision: Vision) -> jax.Array:
    """What the first token of an answer is chosen from."""
    return model.logits(model(prompt, vision).hidden[:, -1])


@jax.jit
def both(model: Qwen3VL, prompt: Prompt, images: Images) -> jax.Array:
    return read(model, prompt, model.encode(images))


@jax.jit
def multiply(x: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    """`PRODUCTS` products of one shape, forwards and backwards as in an MLP."""
    return jax.lax.fori_loop(0, PRODUCTS // 2, lambda _, x: (x @ up) @ down, x)


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
        "text": text.num_hidden_layers * (2 * length * layer + 4 * seen * heads) + 2 * text.hidden_size * text.vocab_size,
    }
    return {**found, "prefill": sum(found.values())}


def products(config: Config, patches: int, length: int) -> list[Shape]:
    """The model's own largest products: rows, inputs and outputs of its MLPs."""
    text, vision = config.text, config.vision
    return [
        (length, text.hidden_size, text.intermediate_size),
        (patches, vision.hidden_size, vision.intermediate_size),
    ]


def ours(folder: Path, size: tuple[int, int]) -> Callable[..., Any]:
    """Opens the model and a strip; returns what does one of `PIECES`, or products of a shape, compiled beforehand."""
    without_torch()
    model, processor = load(folder)
    asked = processor([processor.chat(VQA)], [[strip(0, size).image]])
    prompt, images = jax.tree.map(jnp.asarray, (asked.prompt, asked.images))
    vision = encode(model, images)
    pieces: dict[Any, Callable[[], Any]] = {
        "vision": lambda: encode(model, images),
        "text": lambda: read(model, prompt, vision),
        "prefill": lambda: both(model, prompt, images),
    }
    shapes = products(model.config, asked.images.patches.shape[1], prompt.tokens.shape[1])
    for shape in shapes:
        pieces[shape] = _products(shape)
    for piece in pieces.values():
        jax.block_until_ready(piece())

    def work(piece: str | Shape | None) -> list[Shape] | None:
        """None tells the shapes and does nothing."""
        if piece is None:
            return shapes
        jax.block_until_ready(pieces[piece]())
        return None

    return work


def _products(shape: Shape) -> Callable[[], Any]:
    rows, inputs, outputs = shape
    rng = np.random.default_rng(0)
    parts = [(rows, inputs), (inputs, outputs), (outputs, inputs)]
    x, up, down = (jnp.asarray(rng.standard_normal(part, np.float32) / np.float32(part[0] ** 0.5)) for part in parts)
    return lambda: multiply(x, up, down)


def largest(folder: Path, size: tuple[int, int]) -> Callable[[], tuple[int, int]]:
    """Opens the model and a strip and compiles; returns what reads it once: its patches and its tokens."""
    without_torch()
    model, processor = load(folder)
    asked = processor([processor.chat(VQA)], [[strip(0, size).image]])
    prompt, images = jax.tree.map(jnp.asarray, (asked.prompt, asked.images))
    compiled = both.lower(model, prompt, images).compile()

    def work() -> tuple[int, int]:
        jax.block_until_ready(compiled(model, prompt, images))
        return images.patches.shape[1], prompt.tokens.shape[1]

    return work


def measure(raw: dict[str, Any], runs: int, sizes: Sequence[tuple[int, int]], size: tuple[int, int] = SIZE) -> Report:
    """Products and pieces in turn, then one picture of each size in a process of its own."""
    with TemporaryDirectory(prefix="gaze-bench-") as place:
        folder = Path(place)
        write_checkpoint(folder, raw)
        with Side(ours, folder, size) as side:
            shapes = side(None).value
            times: dict[Any, list[Run]] = {piece: [] for piece in (*shapes, *PIECES)}
            for number in range(runs):
                for piece, taken in times.items():
                    taken.append(side(piece))
                say(f"run {number + 1} of {runs}")
        grown = []
        for one in sizes:
            with Side(largest, folder, one) as side:
                grown.append(side())
            say(f"{one[0]} x {one[1]}: {grown[-1].seconds:.1f} s, {(grown[-1].peak - grown[-1].before) / 1e9:.2f} GB")
        config = Config.load(folder)
    merge = config.vision.spatial_merge_size**2
    patches, length = shapes[1][0], shapes[0][0]
    return summary(times, flops(config, patches, length), sizes, grown, merge)


def summary(
    times: dict[Any, list[Run]],
    needed: dict[str, float],
    sizes: Sequence[tuple[int, int]],
    grown: Sequence[Run],
    merge: int,
) -> Report:
    named = {piece if isinstance(piece, str) else " x ".join(map(str, piece)): runs for piece, runs in times.items()}
    done = {**{name: 2.0 * PRODUCTS * np.prod([int(n) for n in name.split(" x ")]) for name in named if " x " in name}, **needed}
    middle = medians(named)
    rates = {name: done[name] / middle[f"{name} seconds"] for name in named}
    best = max(rate for name, rate in rates.items() if name not in PIECES)
    tokens = np.array([run.value[0] // merge for run in grown], float)
    extra = np.array([run.peak - run.before for run in grown], float)
    figures = [
        Figure("share", rates["prefill"] / best, "rate of the prefill, over that of matrix products", least=0.7),
        Figure("vision_share", rates["vision"] / best, "  of the vision tower"),
        Figure("text_share", rates["text"] / best, "  of the text decoder"),
        *(Figure(f"gflops {name}", rate / 1e9, f"GFLOP/s, {name}") for name, rate in rates.items()),
    ]
    if len(grown) > 1:
        exponent = float(np.polyfit(np.log(tokens), np.log(extra), 1)[0])
        figures.append(Figure("memory_exponent", exponent, "memory beyond weights grows as image tokens to the power of", most=1.05))
    raw: dict[str, Any] = {name: [run.raw for run in runs] for name, runs in named.items()}
    raw["sizes"] = [
        dict(size=list(size), patches=run.value[0], tokens=run.value[1], **run.raw)
        for size, run in zip(sizes, grown, strict=True)
    ]
    notes = [
        f"{width} x {height}: {run.value[0]} patches, {run.value[0] // merge} image tokens, {run.seconds:.2f} s, "
        f"{(run.peak - run.before) / 1e9:.3f} GB beyond the {run.before / 1e9:.3f} GB before"
        for (width, height), run in zip(sizes, grown, strict=True)
    ]
    return Report("prefill", figures, middle, raw, notes)


@click.command(help=__doc__)
@click.option("--runs", default=10, show_default=True, type=click.IntRange(1))
@click.option("--sizes", default=len(SIZES), show_default=True, type=click.IntRange(0, len(SIZES)), help="The first so many.")
@json_option
def command(runs: int, sizes: int, file: Path | None) -> None:
    publish(measure(MEDIUM, runs, SIZES[:sizes]), file)


if __name__ == "__main__":
    run(command, "prefill")
