"""Masks learned by gradient, with and without the gaze heads: what else can steer, and do its heads look?

Learned on strips of discovery from the captions alone; nothing of it knows gaze scores. What comes out is steered as it is,
every head at its own strength, on the strips of evaluation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np

from experiments.paper.causes import answers
from experiments.paper.causes.answers import NAME, SteeredRow
from experiments.paper.causes.causal_map import STRIPS
from experiments.run.conditions import Condition
from experiments.run.run import Run
from gaze.heads import HeadSet
from gaze.pictures.strips import Strip
from gaze.prompts import STATIC
from gaze.steering.learned_masks import LearnedMask, learn_mask

LEARN = 16
"""Strips to learn from."""
SEEDS = 3
STEPS, BATCH, PRICE = 120, 16, 0.01
AMONG = {"all heads": False, "all but the gaze heads": True}
"""Which heads may be steered, and whether the gaze heads are left out."""


class LearnedRow(TypedDict):
    """One mask.

    Attributes:
      heads, strengths: of the mask, the strongest first.
      ranks: of these heads by gaze score, from 1.
      gaze_heads: how many of them are gaze heads.
      nats: per token of the captions, before and after.
      found: what it steers; None if it steers no head.
    """

    among: str
    seed: int
    heads: list[list[int]]
    strengths: list[float]
    ranks: list[int]
    gaze_heads: int
    nats: list[float]
    found: SteeredRow | None


class LearnedResults(TypedDict):
    """What `sum_up` returns; no masks where strips have no captions to learn from."""

    strips: int
    learned_from: int
    price: float
    masks: list[LearnedRow]


def collect(run: Run) -> None:
    strips = run.pictures("evaluation")[:STRIPS]
    conditions = [_condition(run, strips, name, mask) for name, mask in _masks(run) if mask.strengths.any()]
    if conditions:
        answers.generated(run, "learned", strips, [answers.alone(run, strips), *conditions])


def sum_up(run: Run) -> LearnedResults:
    strips = run.pictures("evaluation")[:STRIPS]
    masks = [*_masks(run)]
    groups = answers.saved(run, "learned", strips) if any(mask.strengths.any() for _, mask in masks) else {}
    order = {head: rank for rank, head in enumerate(run.ranking().heads, start=1)}
    rows: list[LearnedRow] = []
    for (among, seed), mask in masks:
        heads = mask.heads if mask.strengths.any() else None
        rows.append(
            {
                "among": among,
                "seed": seed,
                "heads": [] if heads is None else [[*head] for head in heads.heads],
                "strengths": [] if heads is None else [*heads.scores],
                "ranks": [] if heads is None else [order[head] for head in heads.heads],
                "gaze_heads": 0 if heads is None else len({*heads.heads} & {*run.heads().heads}),
                "nats": [float(mask.nats[:5].mean()), float(mask.nats[-5:].mean())],
                "found": None
                if heads is None
                else answers.summed(groups, answers.at(_title(among, seed), 1.0), run.settings.seed),
            }
        )
    return {"strips": len(strips), "learned_from": len(_lessons(run)), "price": PRICE, "masks": rows}


def _masks(run: Run) -> Iterator[tuple[tuple[str, int], LearnedMask]]:
    """Yields every mask with the heads it was learned among and its seed."""
    lessons = _lessons(run)
    if not lessons:
        return
    rest = 1 - run.heads().to_mask(*run.shape)
    for among, without in AMONG.items():
        for seed in range(SEEDS):

            def learn(among: np.ndarray | None = rest if without else None, seed: int = seed) -> dict[str, np.ndarray]:
                found = learn_mask(
                    run.model,
                    run.processor,
                    lessons,
                    STATIC,
                    price=PRICE,
                    steps=STEPS,
                    batch=BATCH,
                    among=among,
                    mode=run.settings.mode,
                    seed=seed,
                )
                return {"strengths": found.strengths, "nats": found.nats}

            path = run.folder / NAME / "learned" / f"{among.replace(' ', '-')}-{seed}.npz"
            given = (run.digests(lessons), without and run.heads(), STEPS, BATCH, PRICE, seed)
            yield (among, seed), LearnedMask(**run.saved(path, learn, *given))


def _condition(run: Run, strips: Sequence[Strip], name: tuple[str, int], mask: LearnedMask) -> Condition:
    """The mask as it was learned, steered to every panel."""
    heads = HeadSet(mask.heads.heads, settings={"control": "learned"})
    return replace(answers.steered(run, strips, _title(*name), heads, 1.0), weights=mask.heads.scores)


def _title(among: str, seed: int) -> str:
    return f"learned among {among}, seed {seed}"


def _lessons(run: Run) -> list[Strip]:
    """The strips to learn from, none if they have no captions."""
    strips = run.pictures("discovery")[:LEARN]
    return [*strips] if all(len(strip.captions) == len(strip) for strip in strips) else []
