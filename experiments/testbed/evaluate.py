"""How well a testbed answers panel questions, without steering: `python -m experiments.testbed.evaluate CHECKPOINT`."""

from pathlib import Path
from typing import get_args

import click
import numpy as np

from experiments.run.formatting import share
from experiments.run.summaries import shared
from experiments.testbed.scenes import Split
from experiments.testbed.strips import draw_strips
from experiments.testbed.testbeds import TESTBED, TESTBEDS
from gaze.judges.judge import judge_exact
from gaze.prompts import DISCOVERY, fill
from gaze.statistics import accuracy
from gaze.steering.engine import GenerationOptions, answers, unsteered
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.load import load

SEED = 1
"""Not that of any experiment: seeds of training are compared here, before any steering is looked at."""


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path), default=TESTBEDS[TESTBED].checkpoint)
@click.option("--strips", type=click.IntRange(2), default=60, show_default=True, help="Of each kind.")
def main(checkpoint: Path, strips: int) -> None:
    """Prints the share of panel questions that CHECKPOINT answers word for word, by what its training never showed."""
    model, processor = load(checkpoint)
    requests = [unsteered(model, number) for number in range(strips)]
    how = GenerationOptions(Sampling.make(stop=processor.stop_tokens), TESTBEDS[TESTBED].static)
    for split in get_args(Split):
        drawn = draw_strips(SEED, "questions", strips, split)
        hits = []
        for panel in range(len(drawn[0])):
            said = answers(model, processor, drawn, fill(DISCOVERY, panel), requests, how)
            texts = [processor.decode(tokens) for tokens in said]
            hits.append([judge_exact(text, strip.captions) == panel for text, strip in zip(texts, drawn, strict=True)])
        found = accuracy(np.array(hits).ravel(), np.tile(np.arange(strips), len(hits)))
        click.echo(f"{split}: {share(shared(found))} of {found.answers}")


if __name__ == "__main__":
    main()
