"""How much attention a set of heads is made to move to the target, and how strong a bias moves a given amount.

All of the last row of the prompt, where the first word is decided, and summed over the heads of a set: 2 heads that give
the target half of their attention move as much as 20 that give it a twentieth.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from experiments.run.run import Run
from gaze.heads import HeadSet
from gaze.pictures.strips import Strip
from gaze.prompts import STATIC
from gaze.steering.attention_cost import KEYS, alone, steered_shares
from gaze.steering.engine import Request

STRIPS = 1
"""Strips on which attention is measured, with every panel as target."""
ROUNDS = 2
"""Corrections of a strength by what it really moves."""
LEAST, MOST = 1e-3, 1e4
"""Strengths between which one is sought."""

Shares = Float[np.ndarray, "set key"]
"""By `gaze.steering.attention_cost.KEYS`, summed over the heads of each set, averaged over strips and targets."""


def unsteered(run: Run, strips: Sequence[Strip]) -> Float[np.ndarray, "answer layer heads key"]:
    """Where every head looks of itself; one row for each strip and target."""
    found: np.ndarray = measured(run, strips, np.zeros((1, *run.shape), np.float32), [0.0])[0]
    return found


def moved(run: Run, strips: Sequence[Strip], sets: Sequence[HeadSet], strengths: Sequence[float]) -> Shares:
    """Where the heads of each set look when they are steered all together."""
    masks = _masks(run, sets)
    found = measured(run, strips, masks, strengths)
    total: Shares = np.einsum("salhk,slh->sk", found, masks) / found.shape[1]
    return total


def unmoved(run: Run, sets: Sequence[HeadSet], before: Float[np.ndarray, "a l h k"]) -> Shares:
    """Where they look of themselves, from `unsteered`."""
    total: Shares = np.einsum("alhk,slh->sk", before, _masks(run, sets)) / len(before)
    return total


def equal_strengths(
    run: Run, strips: Sequence[Strip], sets: Sequence[HeadSet], dose: float, before: Float[np.ndarray, "a l h k"]
) -> Float[np.ndarray, " set"]:
    """The strength at which each set moves as much attention to the target as `dose`; `MOST` if it cannot.

    A head below another changes what that one reads. So the strength that would do for heads that do not hear of each
    other is corrected by what it moves in truth.
    """
    start = unmoved(run, sets, before)[:, 0]
    factor = np.ones(len(sets))
    strengths = np.array([_solved(run, heads, dose, before) for heads in sets])
    for _ in range(ROUNDS):
        won = moved(run, strips, sets, strengths.tolist())[:, 0] - start
        expected = [_won(run, heads, strength, before) for heads, strength in zip(sets, strengths, strict=True)]
        factor = np.divide(expected, won, out=factor, where=won > 0)
        strengths = np.array([_solved(run, heads, dose * one, before) for heads, one in zip(sets, factor, strict=True)])
    return strengths


def single_heads(
    heads: Sequence[tuple[int, int]], strengths: Sequence[float], mode: str, before: Float[np.ndarray, "a l h k"]
) -> Float[np.ndarray, "head strength key"]:
    """Where each head looks under each strength if it alone is steered; exact, see `gaze.steering.attention_cost.alone`."""
    mine = np.stack([before[:, layer, head] for layer, head in heads])
    return np.stack([alone(mine, strength, mode).mean(axis=1) for strength in strengths], axis=1)


def measured(
    run: Run,
    strips: Sequence[Strip],
    masks: Float[np.ndarray, "set layer heads"],
    strengths: Sequence[float],
) -> Float[np.ndarray, "set answer layer heads key"]:
    """Where every head looks under each set."""
    requests = [
        Request(place, mask, target, strength, run.settings.mode)
        for mask, strength in zip(masks, strengths, strict=True)
        for place, strip in enumerate(strips)
        for target in range(len(strip))
    ]
    found = steered_shares(run.model, run.processor, strips, STATIC, requests)
    return found.reshape(len(masks), -1, *run.shape, len(KEYS))


def _masks(run: Run, sets: Sequence[HeadSet]) -> Float[np.ndarray, "set layer heads"]:
    return np.stack([heads.to_mask(*run.shape) for heads in sets])


def _solved(run: Run, heads: HeadSet, dose: float, before: Float[np.ndarray, "a l h k"]) -> float:
    """The strength that would win `dose` if the heads did not hear of each other."""
    low, high = np.log(LEAST), np.log(MOST)
    if _won(run, heads, MOST, before) <= dose:
        return MOST
    if _won(run, heads, LEAST, before) >= dose:
        return LEAST
    return float(np.exp(brentq(lambda log: _won(run, heads, float(np.exp(log)), before) - dose, low, high, xtol=1e-4)))


def _won(run: Run, heads: HeadSet, strength: float, before: Float[np.ndarray, "a l h k"]) -> float:
    mine = before[:, [layer for layer, _ in heads.heads], [head for _, head in heads.heads]]
    return float((alone(mine, strength, run.settings.mode)[..., 0] - mine[..., 0]).sum(axis=1).mean())
