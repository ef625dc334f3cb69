"""Steered answers against transformers with hooks, one `generate` after the other: 1 + 18 of 15 tokens about each strip.

python -m experiments.bench.steering --json steering.json
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from jaxtyping import Float32

from convert.cli import run
from experiments.bench import reference
from experiments.bench.checkpoint import MEDIUM, PANELS, SIZE, strip, write_checkpoint
from experiments.bench.questions import question
from experiments.bench.reference import Answer, Masked
from experiments.bench.report import BenchmarkReport, Figure, json_option, medians, publish, say
from experiments.bench.sides import Measurement, Side, without_torch
from gaze.pictures.strips import Strip
from gaze.prompts import VQA
from gaze.steering.engine import GenerationOptions, Request, answers, unsteered
from gaze.steering.masks import schedule
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.load import load
from qwen3vl_jax.processing.processor import Processor

TOKENS = 15
STRENGTH = 10_000.0
SHARE = 100 / 1152
"""Of heads that are steered, as in the paper's 8B model."""
NEAR = 0.02
"""Two best logits so close may change places by rounding: at this strength scores have steps of a thousandth."""

Heads = Float32[np.ndarray, "layer heads"]


@dataclass(frozen=True)
class Kind:
    """Three conditions of six targets each; `heads` of each condition, and the query rows that carry the mask."""

    says: str
    heads: Sequence[Heads]
    rows: str


def kinds(layers: int, heads: int) -> dict[str, Kind]:
    """The paper's mask on all rows, the mask on rows of words alone, and the paper's scripts with a condition of all heads.

    Heads are drawn from 5/9 of the depth on, where real models have them and where the paper draws its controls.
    """
    lowest, rng = round(layers * 5 / 9), np.random.default_rng(0)

    def some() -> Heads:
        chosen = np.zeros((layers, heads), np.float32)
        upper = rng.permutation((layers - lowest) * heads)[: max(round(SHARE * layers * heads), 1)]
        chosen[lowest:].reshape(-1)[upper] = 1
        return chosen

    drawn = [some() for _ in range(3)]
    every = [*drawn[:2], np.ones((layers, heads), np.float32)]
    return {
        "all_rows": Kind(f"mask on all rows, heads in layers {lowest} to {layers - 1}", drawn, "all"),
        "text_rows": Kind(f"mask on rows of words, heads in layers {lowest} to {layers - 1}", drawn, "text"),
        "all_heads": Kind("mask on all rows, one condition of three with all heads", every, "all"),
    }


def ours(folder: Path) -> Callable[[Sequence[Strip], Sequence[Heads], str], list[list[int]]]:
    """Opens the model; returns what answers about strips: first unsteered, then by condition, of such heads, and target."""
    without_torch()
    model, processor = load(folder)
    settings = GenerationOptions(Sampling.make(), TOKENS)

    def answer(strips: Sequence[Strip], conditions: Sequence[Heads], rows: str) -> list[list[int]]:
        requests = []
        for number in range(len(strips)):
            requests.append(unsteered(model, number))
            for heads in conditions:
                aims = [schedule([(0, panel)]) for panel in range(PANELS)]
                requests += [Request(number, heads, aim, STRENGTH, query_positions=rows) for aim in aims]
        return [tokens.tolist() for tokens in answers(model, processor, strips, VQA, requests, settings)]

    return answer


def masks(kind: Kind) -> list[Masked]:
    """The same for the reference side."""
    steered = []
    for heads in kind.heads:
        by_layer = {layer: np.flatnonzero(row).tolist() for layer, row in enumerate(heads) if row.any()}
        steered += [Masked(by_layer, panel, STRENGTH, kind.rows == "text") for panel in range(PANELS)]
    return [Masked({}, 0, 0.0, False), *steered]


def measure(raw: dict[str, Any], runs: int, strips: int, size: tuple[int, int] = SIZE) -> BenchmarkReport:
    """Both sides in turn for each kind, after one run to warm up; raises RuntimeError if their answers differ."""
    text = raw["text_config"]
    found = kinds(text["num_hidden_layers"], text["num_attention_heads"])
    times: dict[str, list[Measurement]] = {f"{name} {side}": [] for name in found for side in ("reference", "ours")}
    same: list[bool] = []
    moved: list[bool] = []
    with TemporaryDirectory(prefix="gaze-bench-") as place:
        folder = Path(place)
        write_checkpoint(folder, raw)
        processor = Processor.load(folder)
        with Side(reference.steering, folder) as theirs, Side(ours, folder) as mine:
            for kind in found.values():  # compiled, and the reference has run once
                mine([strip(number, size) for number in range(strips)], kind.heads, kind.rows)
            theirs([question(processor, strip(0, size), VQA)], masks(kind)[:1], TOKENS)
            for number in range(runs):
                some = [strip(number * strips + place, size) for place in range(strips)]
                asked = [question(processor, one, VQA) for one in some]
                for name, kind in found.items():
                    pair = theirs(asked, masks(kind), TOKENS), mine(some, kind.heads, kind.rows)
                    same += agreement(pair[0].value, pair[1].value)
                    moved += changed(pair[0].value, len(masks(kind)))
                    for side, one in zip(("reference", "ours"), pair, strict=True):
                        times[f"{name} {side}"].append(one)
                    say(f"run {number + 1} of {runs}, {name}: " + " and ".join(f"{one.seconds:.2f} s" for one in pair))
    return summary(found, times, same, moved, strips)


def agreement(expected: Sequence[Answer], found: Sequence[Sequence[int]]) -> list[bool]:
    """Which answers are the same. Raises RuntimeError if one differs where the reference was not about to, too."""
    same = []
    for answer, tokens in zip(expected, found, strict=True):
        if len(tokens) != len(answer.tokens):
            raise RuntimeError(f"the two sides say {len(answer.tokens)} and {len(tokens)} tokens")
        apart = [place for place, pair in enumerate(zip(answer.tokens, tokens, strict=True)) if pair[0] != pair[1]]
        if apart and answer.gaps[apart[0]] > NEAR:
            raise RuntimeError(
                f"the two sides say {answer.tokens} and {list(tokens)}, logits {answer.gaps[apart[0]]} apart"
            )
        same.append(not apart)
    return same


def changed(answers: Sequence[Answer], count: int) -> list[bool]:
    """Which steered answers are not those of the model left alone, the first of `count` about each strip."""
    about = [answers[start : start + count] for start in range(0, len(answers), count)]
    return [answer.tokens != some[0].tokens for some in about for answer in some[1:]]


def summary(
    found: dict[str, Kind], times: dict[str, list[Measurement]], same: list[bool], moved: list[bool], strips: int
) -> BenchmarkReport:
    middle = medians(times)

    def ratio(name: str, figure: str) -> float:
        return middle[f"{name} reference {figure}"] / middle[f"{name} ours {figure}"]

    figures = []
    for name, kind in found.items():
        label = "ratio" if name == "all_rows" else f"{name}_ratio"
        goal = 5 if name == "all_rows" else None
        figures.append(
            Figure(label, ratio(name, "seconds"), f"answers per second, over the reference's: {kind.says}", goal)
        )
        figures.append(Figure(f"{name}_cpu_ratio", ratio(name, "cpu_seconds"), "  the same per CPU second"))
    figures.append(Figure("memory_ratio", 1 / ratio("all_rows", "peak"), "peak memory, over the reference's"))
    figures.append(Figure("same", float(np.mean(same)), f"answers with the same tokens, of {len(same)}", least=0.97))
    figures.append(Figure("changed", float(np.mean(moved)), "steered answers unlike the unsteered one"))
    raw = {side: [one.raw for one in runs] for side, runs in times.items()}
    return BenchmarkReport(
        "steering", figures, middle, raw, [f"Of {strips} strips in each run, 19 answers of {TOKENS} tokens each."]
    )


@click.command(help=__doc__)
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1))
@click.option("--strips", default=1, show_default=True, type=click.IntRange(1), help="In each run.")
@json_option
def command(runs: int, strips: int, file: Path | None) -> None:
    publish(measure(MEDIUM, runs, strips), file)


if __name__ == "__main__":
    run(command, "steering")
