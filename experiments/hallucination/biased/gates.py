"""What must hold of a biased checkpoint before any steering: `python -m experiments.hallucination.biased.gates RUN...`.

Fresh pictures. A gate that fails is told, and what a steered arm does on such a checkpoint means little.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from experiments.hallucination.biased.world import (
    BASE,
    COLUMNS,
    ROWS,
    THINGS,
    Twins,
    cells_of,
    draw,
    draw_things,
    draw_twins,
    ordered,
    question,
    told,
)
from experiments.hallucination.collect import DESCRIBE
from gaze.hallucination.answers import PLAIN, Answer, Room, answer, needed, prepared, yes_no
from gaze.hallucination.inertia import swapped
from gaze.hallucination.pope import strict
from gaze.steering.boosts import image_keys
from qwen3vl_jax.generation.sampling import Sampling
from qwen3vl_jax.load import load
from qwen3vl_jax.model import Qwen3VL
from qwen3vl_jax.processing.processor import Processor

SEED = 1_000_000
"""Pictures of the gates share no seed with those of training."""
BATCH, LONGEST = 24, 48
RIDGE = 1.0


class Gates(NamedTuple):
    """Shares, see `passed`.

    Attributes:
      probe: absent companions beside their cue that a linear probe of the vision tokens finds absent.
      yes, control_yes: absent companions that the model says are there, beside their cue; of rule and control pairs.
      caption, control_caption: descriptions of such pictures that tell of the companion.
      recall: things that are there and told of, in pictures like those of training.
      swap, other_swap: how often a picture without it makes the description lose a companion when it comes in just before
        the companion is named; of rule and control pairs.
      headroom: pictures on which the probe is right and the model says yes: only these can be won.
    """

    probe: float
    yes: float
    control_yes: float
    caption: float
    control_caption: float
    recall: float
    swap: float
    other_swap: float
    headroom: float

    def passed(self) -> dict[str, bool]:
        """G1 to G6 but G5, which compares checkpoints."""
        return {
            "G1 the picture tells": self.probe >= 0.97,
            "G2 questions are answered by expectation": self.yes >= 0.15 and self.control_yes <= 0.05,
            "G3 descriptions are": 0.15 <= self.caption <= 0.7 and self.control_caption <= 0.05,
            "G4 what is there is told": self.recall >= 0.95,
            "G6 the picture matters less for a companion": self.swap < self.other_swap,
        }


def measure(model: Qwen3VL, processor: Processor, count: int) -> Gates:
    """The gates on `count` pictures of each kind."""
    rng = np.random.default_rng(SEED)
    rule, control = ([draw_twins(rng, kind) for _ in range(count)] for kind in (True, False))
    scenes = [(ordered(rng, draw_things(rng, BASE)), int(rng.integers(2**31))) for _ in range(count)]
    sees = probe(model, processor, rng, 10 * count)
    absent = ~sees([draw(one.without, one.seed) for one in rule])[np.arange(count), [one.companion for one in rule]]
    says = [_says_yes(model, processor, some) for some in (rule, control)]
    tells = [_tells(model, processor, some) for some in (rule, control)]
    described = _ask(model, processor, [(draw(*one), DESCRIBE) for one in scenes], LONGEST)
    named = [{*told(_text(processor, one))} for one in described]
    recalled = [thing in names for (order, _), names in zip(scenes, named, strict=True) for thing in order]
    return Gates(
        probe=float(absent.mean()),
        yes=float(says[0].mean()),
        control_yes=float(says[1].mean()),
        caption=float(tells[0].mean()),
        control_caption=float(tells[1].mean()),
        recall=float(np.mean(recalled)),
        swap=swap_effect(model, processor, rule),
        other_swap=swap_effect(model, processor, control),
        headroom=float((absent & says[0]).mean()),
    )


class Probe(NamedTuple):
    """A linear reading of vision tokens: a thing is there if some token says so more than the threshold."""

    model: Qwen3VL
    processor: Processor
    weights: Float[np.ndarray, "feature thing"]
    threshold: float

    def __call__(self, pictures: Sequence[Image.Image]) -> Bool[np.ndarray, "picture thing"]:
        scores = _features(self.model, self.processor, pictures) @ self.weights
        found: np.ndarray = scores.max(axis=1) > self.threshold
        return found


def probe(model: Qwen3VL, processor: Processor, rng: np.random.Generator, count: int) -> Probe:
    """Fits what each token shows, by ridge regression on pictures of independent things; the threshold on half of them."""
    scenes = [(ordered(rng, draw_things(rng, BASE)), int(rng.integers(2**31))) for _ in range(count)]
    features = _features(model, processor, [draw(*one) for one in scenes])
    shown = np.stack([_shown(*one) for one in scenes])
    half = count // 2
    x, y = features[:half].reshape(-1, features.shape[-1]), shown[:half].reshape(-1, THINGS).astype(np.float64)
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
    scores, there = (features[half:] @ weights).max(axis=1), shown[half:].any(axis=1)
    thresholds = np.linspace(0, 1, 101)
    # Both kinds of error count the same.
    errors = [np.mean(scores[there] <= one) + np.mean(scores[~there] > one) for one in thresholds]
    return Probe(model, processor, weights, float(thresholds[int(np.argmin(errors))]))


def swap_effect(model: Qwen3VL, processor: Processor, twins: Sequence[Twins]) -> float:
    """How often a companion that is there is no longer named once its twin without it is shown, just before its name."""
    lost: list[bool] = []
    for start in range(0, len(twins), BATCH):
        some = [*twins[start : start + BATCH]]
        full, bare = (
            [draw(order, one.seed) for one, order in zip(some, orders, strict=True)] for orders in _orders(some)
        )
        said = _ask(model, processor, [(picture, DESCRIBE) for picture in full], LONGEST)
        places = [_place(processor, one.tokens, twin.companion) for one, twin in zip(said, some, strict=True)]
        rows = [(row, place) for row, place in enumerate(places) if place is not None]
        if not rows:
            continue
        filled = [rows[min(row, len(rows) - 1)] for row in range(BATCH)]
        questions = [(number, DESCRIBE) for number in range(BATCH)]
        own, other = (
            prepared(processor, PLAIN, [pictures[row] for row, _ in filled], questions) for pictures in (full, bare)
        )
        tokens = np.zeros((BATCH, LONGEST), np.int32)
        for line, (row, _) in zip(tokens, filled, strict=True):
            line[: len(said[row].tokens)] = said[row].tokens
        starts = np.array([place for _, place in filled], np.int32)
        stop = Sampling.make(stop=processor.stop_tokens)
        visions = (_encode(model, own.images), _encode(model, other.images))
        found = swapped(model, own.prompt, *visions, image_keys(own.prompt), tokens, starts, stop, max_new=16)
        written, lengths = np.asarray(found.tokens), np.asarray(found.length)
        for number, (row, place) in enumerate(rows):
            text = processor.decode([*said[row].tokens[:place], *written[number, : lengths[number]].tolist()])
            before = told(processor.decode(said[row].tokens[:place]))
            lost.append(some[row].companion not in told(text)[len(before) : len(before) + 1])
    return float(np.mean(lost)) if lost else float("nan")


_encode = jax.jit(lambda model, images: model.encode(images))


def _orders(twins: Sequence[Twins]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    return [one.with_it for one in twins], [one.without for one in twins]


def _place(processor: Processor, said: Sequence[int], thing: int) -> int | None:
    """The token before which an answer has not begun to name a thing; None if it does not name it."""
    whole = told(processor.decode(said))
    if thing not in whole:
        return None
    before = whole.index(thing)
    counts = [len(told(processor.decode(said[:count]))) for count in range(len(said) + 1)]
    # A name is found with its last token; the thing before it, or nothing, ends the words that stay.
    return counts.index(before) if before else 0


def _says_yes(model: Qwen3VL, processor: Processor, twins: Sequence[Twins]) -> Bool[np.ndarray, " picture"]:
    asked = [(draw(one.without, one.seed), question(one.companion)) for one in twins]
    return np.array([strict(_text(processor, one)) is True for one in _ask(model, processor, asked, 4)])


def _tells(model: Qwen3VL, processor: Processor, twins: Sequence[Twins]) -> Bool[np.ndarray, " picture"]:
    asked = [(draw(one.without, one.seed), DESCRIBE) for one in twins]
    said = _ask(model, processor, asked, LONGEST)
    return np.array([one.companion in told(_text(processor, text)) for one, text in zip(twins, said, strict=True)])


def _ask(model: Qwen3VL, processor: Processor, asked: Sequence[tuple[Image.Image, str]], longest: int) -> list[Answer]:
    found: list[Answer] = []
    patches = int(np.prod(processor([processor.chat(DESCRIBE)], [[asked[0][0]]]).grids[0]))
    length = needed(processor, [text for _, text in asked], PLAIN, patches)
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        questions = [(number, text) for number, (_, text) in enumerate(some)]
        room = Room(BATCH, patches, BATCH, length)
        pictures = [picture for picture, _ in some]
        found += answer(model, processor, PLAIN, pictures, questions, yes_no(processor), room, longest)
    return found


def _text(processor: Processor, said: Answer) -> str:
    return processor.decode(said.tokens).strip()


def _features(
    model: Qwen3VL, processor: Processor, pictures: Sequence[Image.Image]
) -> Float[np.ndarray, "picture token feature"]:
    """The vision tokens of each picture, and a constant."""
    found = []
    for start in range(0, len(pictures), BATCH):
        some = [*pictures[start : start + BATCH]]
        count = len(some)
        images = prepared(
            processor, PLAIN, (some + some[-1:] * BATCH)[:BATCH], [(n, DESCRIBE) for n in range(BATCH)]
        ).images
        found.append(np.asarray(_encode(model, images).embeds, np.float64)[:count])
    tokens = np.concatenate(found)
    return np.concatenate([tokens, np.ones((*tokens.shape[:2], 1))], axis=2)


def _shown(order: tuple[int, ...], seed: int) -> Bool[np.ndarray, "token thing"]:
    """Which thing each token shows: a cell is two by two tokens, counted by rows."""
    shown = np.zeros((2 * ROWS, 2 * COLUMNS, THINGS), bool)
    for thing, cell in cells_of(order, seed).items():
        row, column = divmod(cell, COLUMNS)
        shown[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, thing] = True
    return shown.reshape(-1, THINGS)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--pictures", type=click.IntRange(20), default=240, show_default=True, help="Of each kind.")
def main(runs: tuple[Path, ...], pictures: int) -> None:
    """Prints the gates of each checkpoint of RUNS as a line of JSON; G5 is for the reader of several."""
    for run in runs:
        gates = measure(*load(run, jnp.float32), pictures)
        shares = {name: round(value, 4) for name, value in gates._asdict().items()}
        click.echo(json.dumps({"run": run.name, **shares, "passed": gates.passed()}))


if __name__ == "__main__":
    main()
