"""POPE (arXiv 2305.10355): is this in the picture? Answers parsed by the official rule and by a strict one, and scored.

Accuracy alone says little: the object's name, without the picture, tells most answers of the popular split. Read it beside an
arm without pictures, beside the share of yes, and beside the AUROC of the margin, which no threshold moves.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from gaze.intervals import ends, resampled
from gaze.statistics import Estimate, accuracy
from qwen3vl_jax.checks import require_finite, require_shape
from qwen3vl_jax.errors import InputError

DRAWS = 2_000
"""Of the bootstrap over pictures for F1 and AUROC."""
PIECE = 250
"""Draws at a time, for the memory."""

Parser = Callable[[str], bool | None]


@dataclass(frozen=True)
class Scores:
    """What answers to yes-or-no questions are worth; yes is the positive class. What is undefined is None, not 0.

    Attributes:
      n: questions.
      true_yes, false_yes, true_no, false_no: answers by what they say and whether it is so.
      unparsed: answers that say neither: they are wrong, and neither yes nor no.
      accuracy: right answers among all.
      precision: right ones among those that say yes.
      recall: yes among the questions whose answer is yes.
      f1: harmonic mean of precision and recall.
      yes_ratio: answers that say yes.
      auroc: chance that a question whose answer is yes has a greater margin than one whose answer is no; of the margin
        of yes over no in the next token, whatever the answer says.
    """

    n: int
    true_yes: int
    false_yes: int
    true_no: int
    false_no: int
    unparsed: int
    accuracy: Estimate
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None
    yes_ratio: Estimate
    auroc: Estimate | None


def official(text: str) -> bool:
    """Whether an answer says yes by POPE's `evaluate.py`, fault for fault.

    Up to the first full stop, commas dropped, split at blanks: no if a piece is exactly "No", "not" or "no"; all else is yes,
    so also nothing at all, "NO", "no!" and a no on a line of its own.
    """
    words = text.partition(".")[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & {*words}


def strict(text: str) -> bool | None:
    """Whether an answer says yes: its first word, in any case, unless its first sentence holds the other one, too; else None."""
    words = re.findall(r"[^\W_]+", re.split(r"[.!?\n]", text.strip(), maxsplit=1)[0].lower())
    if not words or words[0] not in ("yes", "no") or {"yes", "no"} <= {*words}:
        return None
    return bool(words[0] == "yes")


PARSERS: Mapping[str, Parser] = {"official": official, "strict": strict}


def score(
    label: Bool[np.ndarray, " question"],
    said: Sequence[bool | None],
    image: Int[np.ndarray, " question"],
    seed: int,
    margin: Float[np.ndarray, " question"] | None = None,
) -> Scores:
    """Scores answers; intervals know that questions about one picture hang together.

    Args:
      label: the truth.
      said: yes, no, or None for neither.
      image: the picture of each question.
      margin: of yes over no.

    Raises InputError for arrays of other lengths, no question at all, and margins that are not finite.
    """
    count = len(label)
    if not count:
        raise InputError("there is no question to score")
    for name, value in (("said", said), ("image", image), *([("margin", margin)] if margin is not None else [])):
        require_shape(name, np.empty(len(value)), dict(question=count))
    yes, no = (np.array([one is way for one in said]) for way in (True, False))
    right = np.where(label, yes, no)
    precision, recall = _share(right, yes, image), _share(right, label, image)
    # Undefined, too, where both are 0, as the official script divides by their sum.
    f1 = None if precision is None or recall is None or not np.any(right & yes) else _f1(label, yes, image, seed)
    return Scores(
        n=count,
        true_yes=int(np.sum(yes & label)),
        false_yes=int(np.sum(yes & ~label)),
        true_no=int(np.sum(no & ~label)),
        false_no=int(np.sum(no & label)),
        unparsed=int(np.sum(~yes & ~no)),
        accuracy=accuracy(right, image),
        precision=precision,
        recall=recall,
        f1=f1,
        yes_ratio=accuracy(yes, image),
        auroc=None if margin is None else auroc(label, margin, image, seed),
    )


def auroc(
    label: Bool[np.ndarray, " question"],
    margin: Float[np.ndarray, " question"],
    image: Int[np.ndarray, " question"],
    seed: int,
) -> Estimate | None:
    """Area under the ROC curve of the margin, ties counting half, with its bootstrap over pictures; None with one label only."""
    require_finite("margin", margin)
    if label.all() or not label.any():
        return None
    positives = int(label.sum())
    above = stats.rankdata(margin)[label].sum() - positives * (positives + 1) / 2
    value = float(above / (positives * (len(label) - positives)))
    order = np.argsort(margin, kind="stable")
    starts = np.flatnonzero(np.diff(margin[order], prepend=np.nan) != 0)
    _, number = np.unique(image, return_inverse=True)

    def drawn(times: Float[np.ndarray, "draw image"]) -> Float[np.ndarray, " draw"]:
        weight = times[:, number[order]]
        yes, no = (np.add.reduceat(weight * side[order], starts, axis=1) for side in (label, ~label))
        pairs = yes.sum(axis=1) * no.sum(axis=1)
        won = np.sum(yes * (np.cumsum(no, axis=1) - no / 2), axis=1)
        return _ratio(won, pairs)

    return _bootstrapped(value, drawn, number, seed)


def equal_recall(scores: Mapping[str, Scores]) -> bool | None:
    """Whether all splits of one set have the same recall; None for a single one.

    The official splits ask the same questions whose answer is yes, so that any difference between greedy answers is a fault,
    of the files or of whatever answered.
    """
    recalls = {one.recall and (one.recall.value, one.recall.answers) for one in scores.values()}
    return None if len(scores) < 2 else len(recalls) == 1


def _share(
    right: Bool[np.ndarray, " question"],
    among: Bool[np.ndarray, " question"],
    image: Int[np.ndarray, " question"],
) -> Estimate | None:
    return accuracy(right[among], image[among]) if among.any() else None


def _f1(
    label: Bool[np.ndarray, " question"],
    yes: Bool[np.ndarray, " question"],
    image: Int[np.ndarray, " question"],
    seed: int,
) -> Estimate:
    _, number = np.unique(image, return_inverse=True)
    right, all_of_both = np.bincount(number, label & yes), np.bincount(number, label) + np.bincount(number, yes)

    def drawn(times: Float[np.ndarray, "draw image"]) -> Float[np.ndarray, " draw"]:
        return _ratio(2 * (times @ right), times @ all_of_both)

    return _bootstrapped(float(2 * right.sum() / all_of_both.sum()), drawn, number, seed)


def _bootstrapped(
    value: float,
    drawn: Callable[[Float[np.ndarray, "draw image"]], Float[np.ndarray, " draw"]],
    number: Int[np.ndarray, " question"],
    seed: int,
) -> Estimate:
    """A ratio with its interval: its parts are summed anew over each draw of pictures, those that leave it undefined apart."""
    images = int(number.max()) + 1
    if images == 1:
        return Estimate(value, 0.0, 1.0, len(number), images)
    times = resampled(images, np.random.default_rng(seed), DRAWS)
    found = np.concatenate([drawn(times[start : start + PIECE]) for start in range(0, DRAWS, PIECE)])
    low, high = ends(found[np.isfinite(found)]).tolist()
    return Estimate(value, low, high, len(number), images)


def _ratio(part: Float[np.ndarray, " draw"], whole: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " draw"]:
    """NaN where there is nothing to divide by."""
    found: np.ndarray = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return found
