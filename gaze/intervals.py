"""The cluster bootstrap over strips: all answers about a strip are drawn together, or not at all.

Every interval of the package is the 95 % percentile interval of what this file draws.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from qwen3vl_jax.errors import InputError

DRAWS = 10_000


class Means(NamedTuple):
    """Means and the ends of their 95 % intervals."""

    value: Float[np.ndarray, "*what"]
    low: Float[np.ndarray, "*what"]
    high: Float[np.ndarray, "*what"]


def means(
    values: Shaped[np.ndarray, " answer *what"], strip: Int[np.ndarray, " answer"], seed: int, draws: int = DRAWS
) -> Means:
    """Means over answers; the same strips are drawn for every quantity.

    A single strip says nothing about others: its intervals are NaN. Raises InputError if there is no answer.
    """
    if not len(values):
        raise InputError("there is no answer to take the mean of")
    _, number = np.unique(strip, return_inverse=True)
    flat = values.reshape(len(values), -1).astype(np.float64)
    answers = np.bincount(number)
    sums = np.zeros((len(answers), flat.shape[1]))
    np.add.at(sums, number, flat)
    times = resampled(len(answers), np.random.default_rng(seed), draws)
    low, high = ends(times @ sums / (times @ answers)[:, None])
    if len(answers) == 1:
        low, high = low * np.nan, high * np.nan
    shape = values.shape[1:]
    return Means(flat.mean(axis=0).reshape(shape), low.reshape(shape), high.reshape(shape))


def resampled(strips: int, rng: np.random.Generator, draws: int) -> Float[np.ndarray, "draw strip"]:
    """How often each strip is in each sample of as many strips, drawn with replacement."""
    return rng.multinomial(strips, np.full(strips, 1 / strips), size=draws).astype(np.float64)


def ends(drawn: Float[np.ndarray, " draw *what"]) -> Float[np.ndarray, " 2 *what"]:
    """Between them lie the middle 95 % of what was drawn."""
    both: np.ndarray = np.percentile(drawn, [2.5, 97.5], axis=0)
    return both
