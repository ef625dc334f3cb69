"""Measures what the testbed must show over time: `python -m experiments.testbed.evaluate`.

The staircase of a free narration, a target that switches in the middle of an answer, and a narration that follows a
schedule of panels. What `gaze reproduce` measures (panel questions, steering, controls, number of heads) stays there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import stats

from experiments.bench import Bench
from experiments.models import TESTBED, open_model
from experiments.testbed.batches import CAPTION
from experiments.testbed.scenes import PANELS
from experiments.testbed.strips import CHECKPOINT, draw_strips
from experiments.testbed.wordings import DYNAMIC, NOTEBOOK_NARRATION, STATIC
from gaze.answers import Ask, encode
from gaze.heads import HeadSet
from gaze.steer import schedule
from gaze.strips import Strip
from qwen3vl_jax.edits import Taps
from qwen3vl_jax.inputs import Prompt
from qwen3vl_jax.model import Qwen3VL

SWITCH = 2  # words said before the target switches


@click.command()
@click.option("--model", default=TESTBED, show_default=True)
@click.option("--heads", type=click.Path(path_type=Path), default=CHECKPOINT / "heads.json", help="Head set.")
@click.option("--strips", default=60, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the numbers to this file too.")
def main(model: str, heads: Path, strips: int, seed: int, file: Path | None) -> None:
    """Prints the testbed's numbers over time as JSON."""
    bench = Bench(*open_model(model, None), max_new=PANELS * CAPTION + 6)
    drawn = draw_strips(seed, "evaluation", strips)
    chosen = HeadSet.load(heads)
    numbers = {
        "staircase": staircase(bench, drawn, chosen),
        "switch": switch(bench, drawn, chosen, np.random.default_rng([seed, 2])),
        "schedule": follow(bench, drawn, chosen, np.random.default_rng([seed, 3])),
    }
    text = json.dumps(numbers, indent=1)
    click.echo(text)
    if file is not None:
        file.write_text(text + "\n")


def staircase(bench: Bench, strips: Sequence[Strip], heads: HeadSet) -> dict[str, Any]:
    """Narrates unsteered; and reads, behind the same prompt, where the gaze heads look while each true line is said.

    Returns:
      `mass` [line, panel], the mean over strips, heads and the tokens of a line; how often the line's own panel gets most
      of it; the rank correlation of that panel with the line; and the share of lines that are the right caption.
    """
    records = bench.unsteered("narration", strips, NOTEBOOK_NARRATION)
    right = [
        line == caption
        for row, strip in zip(records, strips, strict=True)
        for line, caption in _lines(row["text"], strip.captions)
    ]
    mass = np.stack([_line_mass(bench, strip, heads) for strip in strips])
    looked = mass.argmax(axis=2)
    line = np.broadcast_to(np.arange(PANELS), looked.shape)
    return {
        "mass": mass.mean(axis=0).round(3).tolist(),
        "own_panel_first": float((looked == line).mean()),
        "rank_correlation": float(stats.spearmanr(line.ravel(), looked.ravel()).statistic),
        "lines_exact": float(np.mean(right)),
        "lines": len(right),
    }


def switch(bench: Bench, strips: Sequence[Strip], heads: HeadSet, rng: np.random.Generator) -> dict[str, Any]:
    """Steers to one panel and, two words into the answer, to another.

    Returns:
      The share of answers whose remaining words all follow the second panel; among the words where the two captions differ,
      the share that follows each; and the share of switches after which the second panel shows within three words.
    """
    mask = heads.to_mask(*bench.shape)
    pairs = [tuple(rng.permutation(PANELS)[:2]) for _ in strips for _ in range(PANELS)]
    asks = [
        Ask(number // PANELS, mask, schedule([(0, int(first)), (SWITCH, int(then))], steps=SWITCH + 1))
        for number, (first, then) in enumerate(pairs)
    ]
    records = bench.answer("switch", strips, STATIC, asks)
    new, old, within, whole = [], [], [], []
    for record, ask, (first, then) in zip(records, asks, pairs, strict=True):
        captions = [strips[ask.strip].captions[int(panel)].split() for panel in (first, then)]
        said = (record["text"].split() + [""] * len(captions[0]))[: len(captions[0])]
        differ = [n for n in range(SWITCH, len(said)) if captions[0][n] != captions[1][n]]
        new += [said[n] == captions[1][n] for n in differ]
        old += [said[n] == captions[0][n] for n in differ]
        within.append(any(said[n] == captions[1][n] for n in differ if n < SWITCH + 3))
        whole.append(said == captions[0][:SWITCH] + captions[1][SWITCH:])
    return {
        "whole_answer_exact": float(np.mean(whole)),
        "words_follow_new": float(np.mean(new)),
        "words_follow_old": float(np.mean(old)),
        "effect_within_three_words": float(np.mean(within)),
        "answers": len(records),
    }


def follow(bench: Bench, strips: Sequence[Strip], heads: HeadSet, rng: np.random.Generator) -> dict[str, Any]:
    """Narrates without numbers while the target moves on with every caption, in an order that has no panel in its place.

    Returns:
      For steering all along, steering decoded tokens only, and no steering (where the schedule can only be met by chance): the
      share of lines that are the scheduled caption, and the share of switches (lines but the first) after which the first
      three words are already those of the new panel.
    """
    mask = heads.to_mask(*bench.shape)
    orders = [_derangement(rng) for _ in strips]
    found: dict[str, Any] = {"lines": len(strips) * PANELS}
    for name, first in (("all_steps", 0), ("decoded_only", 1), ("unsteered", None)):
        heads_used = mask if first is not None else np.zeros_like(mask)
        asks = [
            Ask(
                number,
                heads_used,
                schedule(
                    [(max(line * CAPTION, first or 0), int(panel)) for line, panel in enumerate(order)],
                    steps=PANELS * CAPTION,
                ),
            )
            for number, order in enumerate(orders)
        ]
        records = bench.answer(f"schedule, {name}", strips, DYNAMIC, asks)
        hits = [
            (line == caption, line.split()[:3] == caption.split()[:3])
            for record, strip, order in zip(records, strips, orders, strict=True)
            for line, caption in _lines(record["text"], [strip.captions[int(panel)] for panel in order])
        ]
        lines = np.reshape(hits, (len(strips), PANELS, 2))
        found[name] = {
            "lines_exact": float(lines[:, :, 0].mean()),
            "switch_within_three_words": float(lines[:, 1:, 1].mean()),
        }
    return found


def _derangement(rng: np.random.Generator) -> np.ndarray:
    while True:
        order = rng.permutation(PANELS)
        if (order != np.arange(PANELS)).all():
            return order


def _lines(text: str, captions: Sequence[str]) -> list[tuple[str, str]]:
    """What was said in each line beside what should have been; missing lines are empty."""
    said = [f"{line.strip()}." for line in text.split(".") if line.strip()]
    return list(zip([*said, *[""] * len(captions)], captions, strict=False))


def _line_mass(bench: Bench, strip: Strip, heads: HeadSet) -> Float[np.ndarray, "line panel"]:
    """Reads the true narration behind the prompt: where the heads look from the rows that predict each line's words."""
    encoded = encode(bench.model, bench.processor, [strip], [NOTEBOOK_NARRATION])
    said = np.array([bench.processor.tokenizer.encode(" ".join(strip.captions))], np.int32)
    mass = np.asarray(_read(bench.model, encoded.prompt, encoded.vision, said, encoded.panels.astype(np.float32)))
    chosen = np.stack([mass[layer, : said.shape[1], head] for layer, head in heads.heads])
    return chosen.reshape(len(heads), PANELS, CAPTION, PANELS).mean(axis=(0, 2))


@jax.jit
def _read(model: Qwen3VL, prompt: Prompt, vision: Any, said: Any, panels: Any) -> Any:
    length, new = prompt.tokens.shape[1], said.shape[1]
    groups = jnp.pad(panels, ((0, 0), (0, 0), (0, new)))
    last = Taps(jnp.full((1, 1), length - 1, jnp.int32), groups)
    output = model(prompt, vision, model.empty_cache(1, length + new), taps=last)
    rest = model.extend(said, output.cache, taps=Taps(jnp.arange(new, dtype=jnp.int32)[None], groups))
    assert output.readings is not None
    assert rest.readings is not None
    return jnp.concatenate([output.readings.mass, rest.readings.mass], axis=2)[:, 0]


if __name__ == "__main__":
    main()
