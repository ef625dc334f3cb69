"""Means of many quantities at once with the percentile bootstrap interval over strips, as `gaze.statistics.accuracy` has it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num, Shaped

from qwen3vl_jax.errors import InputError


class Means(NamedTuple):
    """Means and the ends of their 95 % intervals."""

    value: Float[np.ndarray, "*what"]
    low: Float[np.ndarray, "*what"]
    high: Float[np.ndarray, "*what"]


def means(
    values: Shaped[np.ndarray, " answer *what"], strip: Int[np.ndarray, " answer"], seed: int, draws: int = 10_000
) -> Means:
    """Means over answers; all answers about a strip are drawn together, the same strips for every quantity.

    A single strip says nothing about others: its intervals are NaN. Raises InputError if there is no answer.
    """
    if not len(values):
        raise InputError("there is no answer to take the mean of")
    _, number = np.unique(strip, return_inverse=True)
    flat = values.reshape(len(values), -1).astype(np.float64)
    answers = np.bincount(number)
    sums = np.zeros((len(answers), flat.shape[1]))
    np.add.at(sums, number, flat)
    times = _resampled(len(answers), seed, draws)
    drawn = times @ sums / (times @ answers)[:, None]
    low, high = np.percentile(drawn if len(answers) > 1 else drawn * np.nan, [2.5, 97.5], axis=0)
    shape = values.shape[1:]
    return Means(flat.mean(axis=0).reshape(shape), low.reshape(shape), high.reshape(shape))


def _resampled(strips: int, seed: int, draws: int) -> Num[np.ndarray, "draw strip"]:
    """How often each strip is drawn."""
    return np.random.default_rng(seed).multinomial(strips, np.full(strips, 1 / strips), size=draws).astype(np.float64)
