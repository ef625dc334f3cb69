"""95 % intervals of means of answers that are not independent: those about one strip, or of one draw of heads, are alike.

A share is taken for one of fewer independent answers, as many as have its variance between clusters, and gets their
Clopper-Pearson interval (Korn & Graubard, Survey Methodology 24, 1998). Near 0 and 1 hardly anything varies, and a variance
measured there says little: the fewer answers stand out, the more an answer is taken for a repetition of the others about
its strip (`PRIOR`). So "100 % of 360 answers about 60 strips" ends at 94 %, where 60 answers would. What has no ends gets
Student's t over clusters. `coverage.md` says how often intervals hold the truth.
"""

from collections import Counter
from collections.abc import Sequence, Set
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import sparse, stats

from qwen3vl_jax.errors import InputError

DRAWS = 10_000
LEVEL = 0.95
PRIOR = 0.5
"""How many hits and misses in clusters of their own weigh as much as the assumption that all answers of a cluster are alike.

With 0 the share of intervals that hold the truth falls to 80 % where one strip in fifty fails; with 0.5 it is 93 % or more.
"""
LEAST_SPREAD = 1e-3
"""Of the greatest possible variance: equal numbers that are neither 0 nor 1 are not taken for certain."""

Labels = Shaped[np.ndarray, " answer"]
"""The cluster of each answer."""


class Means(NamedTuple):
    """Means and the ends of their 95 % intervals."""

    value: Float[np.ndarray, "*what"]
    low: Float[np.ndarray, "*what"]
    high: Float[np.ndarray, "*what"]


def shares(values: Shaped[np.ndarray, " answer *what"], *clusters: Labels) -> Means:
    """Means over answers of numbers from 0 to 1, with Clopper-Pearson intervals of as many answers as they are worth.

    Args:
      clusters: of each answer: its strip, and if others would be drawn too (heads), which draw it comes from.

    A single cluster says nothing about others: its intervals are the whole range. Raises InputError if there is no answer, or
    numbers are outside of that range.
    """
    _check(values)
    if not (np.min(values) >= 0 and np.max(values) <= 1):
        raise InputError(f"a share lies between 0 and 1, got numbers from {np.min(values):g} to {np.max(values):g}")
    flat = values.reshape(len(values), -1)
    mean = flat.mean(axis=0, dtype=np.float64).clip(0, 1)
    if min(len(np.unique(labels)) for labels in clusters) < 2:
        return _shaped(values, mean, np.zeros_like(mean), np.ones_like(mean))
    answers = worth(flat, variance(flat, *clusters), largest(*clusters))
    return _shaped(values, mean, *clopper_pearson(mean, answers))


def means(values: Shaped[np.ndarray, " answer *what"], *clusters: Labels) -> Means:
    """Means over answers of any numbers, with Student's t over clusters; NaN for a single one.

    Raises InputError if there is no answer.
    """
    _check(values)
    fewest = min(len(np.unique(labels)) for labels in clusters)
    flat = values.reshape(len(values), -1)
    mean = flat.mean(axis=0, dtype=np.float64)
    if fewest < 2:
        return _shaped(values, mean, mean * np.nan, mean * np.nan)
    reach = stats.t.ppf((1 + LEVEL) / 2, fewest - 1) * np.sqrt(variance(flat, *clusters))
    return _shaped(values, mean, mean - reach, mean + reach)


def shares_over_words(values: Shaped[np.ndarray, " answer *what"], strip: Labels, words: Sequence[Set[str]]) -> Means:
    """As `shares`, but that answers which share a word may have their hits and misses in common, too.

    Args:
      words: of what each answer should describe. One that most have tells nothing apart and is left out.
    """
    _check(values)
    counts = Counter(word for some in words for word in some)
    column = {word: place for place, word in enumerate(word for word in counts if 2 * counts[word] <= len(words))}
    flat = values.reshape(len(values), -1)
    mean = flat.mean(axis=0, dtype=np.float64).clip(0, 1)
    if len(np.unique(strip)) < 2 or len(column) < 2:
        return _shaped(values, mean, np.zeros_like(mean), np.ones_like(mean))
    pairs = [(column[word], answer) for answer, some in enumerate(words) for word in some if word in column]
    holds = sparse.csr_array((np.ones(len(pairs)), tuple(np.array(pairs).T)), shape=(len(column), len(words)))
    apart = flat - mean
    shared = ((holds @ apart) ** 2).sum(axis=0) - holds.sum(axis=0) @ apart**2  # pairs of two answers
    sizes = holds.sum(axis=1)
    spread = variance(flat, strip) + np.maximum(shared, 0) / len(flat) ** 2
    alike = max(largest(strip), float(sizes @ sizes / sizes.sum()))
    return _shaped(values, mean, *clopper_pearson(mean, worth(flat, spread, alike)))


def clopper_pearson(
    share: Float[np.ndarray, " what"], answers: Float[np.ndarray, " what"]
) -> tuple[Float[np.ndarray, " what"], Float[np.ndarray, " what"]]:
    """The ends for a share of so many independent answers, which need not be whole."""
    tail, hits, misses = (1 - LEVEL) / 2, share * answers, (1 - share) * answers
    low = np.where(hits > 0, stats.beta.ppf(tail, hits, misses + 1), 0.0)
    high = np.where(misses > 0, stats.beta.ppf(1 - tail, hits + 1, misses), 1.0)
    return low, high


def worth(
    values: Shaped[np.ndarray, "answer what"], spread: Float[np.ndarray, " what"], alike: float
) -> Float[np.ndarray, " what"]:
    """How many independent answers tell as much about a share.

    Args:
      spread: the variance of the mean, as observed.
      alike: how many answers would count as one if all of a cluster were the same.
    """
    answers, mean = len(values), values.mean(axis=0, dtype=np.float64)
    possible = mean * (1 - mean)
    some = np.where(possible > 0, possible, 1.0)
    least = np.maximum(values.var(axis=0, dtype=np.float64) / some, LEAST_SPREAD) / alike
    observed = np.where(possible > 0, np.clip(answers * spread / some, least, alike), alike)
    known = answers / alike * possible
    weight = known / (known + PRIOR)
    found: np.ndarray = answers / (observed**weight * alike ** (1 - weight))
    return found


def largest(*clusters: Labels) -> float:
    """Of each kind of clusters the size that the mean answer's has; of these the largest."""
    return max(float(np.square(np.bincount(numbered(labels))).sum() / len(labels)) for labels in clusters)


def variance(values: Shaped[np.ndarray, "answer what"], *clusters: Labels) -> Float[np.ndarray, " what"]:
    """Variance of the mean over answers; two kinds of clusters are crossed (Cameron, Gelbach & Miller 2011)."""
    apart = values - values.mean(axis=0, dtype=np.float64)
    each = [_between(apart, numbered(labels)) for labels in clusters]
    if len(each) == 1:
        return each[0]
    first, second = map(numbered, clusters)
    cells = numbered(first * (second.max() + 1) + second)
    found: np.ndarray = np.maximum(each[0] + each[1] - _between(apart, cells), np.maximum(*each))
    return found


def resampled(strips: int, rng: np.random.Generator, draws: int) -> Float[np.ndarray, "draw strip"]:
    """How often each strip is in each sample of as many strips, drawn with replacement: for what is no mean."""
    return rng.multinomial(strips, np.full(strips, 1 / strips), size=draws).astype(np.float64)


def ends(drawn: Float[np.ndarray, " draw *what"]) -> Float[np.ndarray, " 2 *what"]:
    """Between them lie the middle 95 % of what was drawn."""
    both: np.ndarray = np.percentile(drawn, [2.5, 97.5], axis=0)
    return both


def sums(values: Shaped[np.ndarray, "answer what"], number: Int[np.ndarray, " answer"]) -> np.ndarray:
    """Sums over the answers of each cluster."""
    ones = sparse.csr_array((np.ones(len(number)), (number, np.arange(len(number)))))
    found: np.ndarray = ones @ values
    return found


def numbered(labels: Labels) -> Int[np.ndarray, " answer"]:
    """Clusters by numbers from 0."""
    number: np.ndarray = np.unique(labels, return_inverse=True)[1]
    return number


def _between(apart: Float[np.ndarray, "answer what"], number: Int[np.ndarray, " answer"]) -> np.ndarray:
    total = sums(apart, number)
    found: np.ndarray = len(total) / max(len(total) - 1, 1) * np.sum(total**2, axis=0) / len(apart) ** 2
    return found


def _check(values: Shaped[np.ndarray, " answer *what"]) -> None:
    if not len(values):
        raise InputError("there is no answer to take the mean of")


def _shaped(values: Shaped[np.ndarray, " answer *what"], *numbers: Float[np.ndarray, " flat"]) -> Means:
    return Means(*(one.reshape(values.shape[1:]) for one in numbers))
