"""Are the scores more than chance, and would other strips give the same heads? All from the mass of discovery alone.

A score is the mean of a `Credit` over (question, panel) pairs that belong together. Each null hypothesis pairs them in
another way, and as the mean is linear, many such pairings are one matrix product:

* shuffled questions: within each strip the questions change places, so a head keeps its love for certain panels and
  loses only the link between question and panel;
* permuted panels: each question has its panels permuted anew, so the love for certain places goes too. (One permutation
  for all questions of a strip would be shuffled questions again: it sums the same pairs.)
* relabelled questions: one other order of the questions for all strips. The words "first", ..., "sixth" pull the
  attention of any model, trained or not, to somewhere, the same in every strip, and half of these pulls are to the good
  by accident; strips that are shuffled one by one take this for a finding. Whether a *model* looks where it is told is
  therefore this test's to say.
"""

from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Float64, Int

from gaze.discovery.scores import Credit, Mass, Scores, per_strip
from gaze.intervals import means
from gaze.statistics import spearman
from qwen3vl_jax.errors import InputError

CHUNK = 200
"""Pairings at once: 200 of 500 strips with six panels are a matrix of 29 MB."""
SLACK = 1e-9
"""Sums of the same numbers in another order are equal."""


@dataclass(frozen=True)
class Contrast:
    """Mean scores of the best heads, and what chance makes of them.

    Attributes:
      real: of the heads with the best scores.
      same_heads: of the same heads under the null, the mean over draws.
      own_heads: of the heads that are best in each draw; what choosing the best of many alone brings.
    """

    real: float
    same_heads: float
    own_heads: float

    @property
    def ratio(self) -> float | None:
        """Real to null score of the same heads; None where chance leaves less than a hundredth, as it does of lift."""
        return self.real / self.same_heads if self.same_heads > 0.01 * abs(self.real) else None


@dataclass(frozen=True)
class Null:
    """Scores as they are, and as they would be by chance."""

    real: Float64[np.ndarray, "layer heads"]
    drawn: Float64[np.ndarray, "draw layer heads"]

    def p_values(self) -> Scores:
        """For each head by itself: how often chance does as well, the real pairing counted among the draws."""
        slack = SLACK * np.abs(self.drawn).max(axis=0)
        p: Scores = (1 + (self.drawn >= self.real - slack).sum(axis=0)) / (1 + len(self.drawn))
        return p

    def familywise(self) -> Scores:
        """The same, corrected for choosing among all heads: how often chance lifts *any* head as far.

        Heads are compared in standard deviations of their own null distribution, of which the real pairing is one
        draw, so that the test is exact (Westfall & Young's single-step max statistic). Under the null, the chance that
        any of these is at most 5 % is at most 5 %.
        """
        pooled = np.concatenate([self.real[None], self.drawn])
        centred = pooled - pooled.mean(axis=0)
        spread = centred.std(axis=0)
        varies = spread > SLACK * np.abs(pooled).max(axis=0)
        z = np.divide(centred, spread, out=np.zeros_like(centred), where=varies)
        highest = z[1:].max(axis=(1, 2))
        p: Scores = (1 + (highest[:, None, None] >= z[0] - SLACK).sum(axis=0)) / len(pooled)
        return p

    def p_any(self) -> float:
        """How often chance does as well as the best head of this model: small if it has heads above the null at all."""
        return float(self.familywise().min())

    def above(self, level: float = 0.05) -> Bool[np.ndarray, "layer heads"]:
        """The heads above the null, with a chance of at most `level` that even one of them is there by accident."""
        return self.familywise() <= level

    def contrast(self, count: int) -> Contrast:
        """Of the best `count` heads."""
        drawn, real = self.drawn.reshape(len(self.drawn), -1), self.real.ravel()
        best = np.argsort(-real, kind="stable")[:count]
        own = np.sort(drawn, axis=1)[:, -count:]
        return Contrast(float(real[best].mean()), float(drawn[:, best].mean()), float(own.mean()))


def shuffled_questions(mass: Mass, credit: Credit, seed: int, draws: int = 1000) -> Null:
    """The questions of each strip change places."""
    strips, panels = mass.shape[0], mass.shape[-1]
    order = np.broadcast_to(np.arange(panels, dtype=np.int32), (draws, strips, panels))
    question = np.random.default_rng(seed).permuted(order, axis=-1)
    return _null(mass, credit, question * panels + np.arange(panels, dtype=np.int32))


def permuted_panels(mass: Mass, credit: Credit, seed: int, draws: int = 1000) -> Null:
    """The attended panels of each question about each strip change places: any of them may stand for the one asked about."""
    strips, panels = mass.shape[0], mass.shape[-1]
    panel = np.random.default_rng(seed).integers(panels, size=(draws, strips, panels), dtype=np.int32)
    return _null(mass, credit, panel + panels * np.arange(panels, dtype=np.int32))


def relabelled_questions(mass: Mass, credit: Credit, seed: int, draws: int = 1000) -> Null:
    """The questions change places in the same way for all strips: all other orders of them if there are at most `draws`.

    Six questions have 719 other orders, so that p values are as small as 1/720.
    """
    panels = mass.shape[-1]
    if factorial(panels) - 1 <= draws:
        question = np.array(list(permutations(range(panels)))[1:], np.int32).reshape(-1, panels)
    else:
        order = np.broadcast_to(np.arange(panels, dtype=np.int32), (draws, panels))
        question = np.random.default_rng(seed).permuted(order, axis=-1)
    return _null(mass, credit, (question * panels + np.arange(panels, dtype=np.int32))[:, None])


@dataclass(frozen=True)
class Stability:
    """Whether halves of the strips choose the same heads.

    Attributes:
      overlap: share of the best heads that two halves have in common, the mean over splits.
      low, high: the middle 95 % of the splits.
      chance: the share that random choices of as many heads would have in common.
      spearman: rank correlation of all heads' scores between halves; None if scores are constant.
      count, splits: how many heads are compared, and how often.
    """

    overlap: float
    low: float
    high: float
    chance: float
    spearman: float | None
    count: int
    splits: int


def split_half(by_strip: Float[np.ndarray, "strip layer heads"], count: int, seed: int, splits: int = 200) -> Stability:
    """Chooses the best `count` heads from random halves of the strips and compares; equal scores are chosen from at random.

    Args:
      by_strip: of `gaze.discovery.scores.per_strip`.

    Raises InputError for a single strip.
    """
    strips = len(by_strip)
    if strips < 2:
        raise InputError("one strip has no halves to compare: give at least two strips")
    rng = np.random.default_rng(seed)
    flat = rearrange(by_strip, "strip layer heads -> strip (layer heads)").astype(np.float64)
    halves = rng.permuted(np.tile(np.arange(strips) < strips // 2, (splits, 1)), axis=1)
    first, second = (half @ flat / half.sum(axis=1, keepdims=True) for half in (halves * 1.0, ~halves * 1.0))
    shared = (_best(rng, first, count) & _best(rng, second, count)).sum(axis=1) / count
    agreed = [rho for pair in zip(first, second, strict=True) if (rho := spearman(*pair)) is not None]
    low, high = np.percentile(shared, [2.5, 97.5])
    return Stability(
        overlap=float(shared.mean()),
        low=float(low),
        high=float(high),
        chance=count / flat.shape[1],
        spearman=float(np.mean(agreed)) if agreed else None,
        count=count,
        splits=splits,
    )


def score_interval(by_strip: Float[np.ndarray, "strip layer heads"]) -> tuple[Scores, Scores]:
    """The 95 % interval over strips of each head's score, which lies between -1 and 1.

    Args:
      by_strip: of `gaze.discovery.scores.per_strip`.

    Returns:
      Lower and upper ends; of a single strip, which says nothing about others, -1 and 1.
    """
    found = means(by_strip, np.arange(len(by_strip)))
    return np.nan_to_num(found.low, nan=-1.0), np.nan_to_num(found.high, nan=1.0)


def _null(mass: Mass, credit: Credit, pairs: Int[np.ndarray, " draw #strip panel"]) -> Null:
    """Scores under pairings; each pair is question * panels + panel, and one strip of pairs is for all strips."""
    real = per_strip(mass, credit).mean(axis=0)
    strips, _, layers, heads, panels = mass.shape
    draws, own, _ = pairs.shape
    size = own * panels * panels
    columns = pairs + panels**2 * np.arange(own, dtype=np.int32)[:, None]
    drawn = np.empty((draws, layers, heads))
    for start in range(0, draws, CHUNK):
        part = columns[start : start + CHUNK].reshape(-1, own * panels)
        paired = np.zeros((len(part), size))
        np.put_along_axis(paired, part, 1 / (own * panels), axis=1)
        for layer in range(layers):
            credits = credit(mass[:, :, [layer]])
            credits = credits if own == strips else credits.mean(axis=0, keepdims=True)
            values = rearrange(credits, "strip question 1 heads panel -> (strip question panel) heads")
            drawn[start : start + CHUNK, layer] = paired @ values
    return Null(real, drawn)


def _best(
    rng: np.random.Generator, scores: Float64[np.ndarray, "split head"], count: int
) -> Bool[np.ndarray, "split head"]:
    """The `count` best heads of each split."""
    order = np.lexsort((rng.random(scores.shape), -scores), axis=-1)
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, order[:, :count], True, axis=1)
    return best
