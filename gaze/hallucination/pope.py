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

from gaze.statistics import Estimate, accuracy, average
from qwen3vl_jax.checks import require_finite, require_shape
from qwen3vl_jax.errors import InputError

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
    f1 = None
    if precision is not None and recall is not None and np.any(right & yes):
        # The right ones among those that say yes and those that should, taken together.
        f1 = accuracy(np.concatenate([right[yes], right[label]]), np.concatenate([image[yes], image[label]]))
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
        auroc=None if margin is None else auroc(label, margin, image),
    )


def auroc(
    label: Bool[np.ndarray, " question"], margin: Float[np.ndarray, " question"], image: Int[np.ndarray, " question"]
) -> Estimate | None:
    """Area under the ROC curve of the margin, ties counting half; None with one label only.

    It is the mean over questions whose answer is yes of the share of the others that they lead, and over those others of the
    share that leads them. The intervals of both means are put together by squaring and adding (Zou and Donner 2008).
    """
    require_finite("margin", margin)
    if label.all() or not label.any():
        return None
    value, low, high = 0.0, 0.0, 0.0
    for side, sign in ((label, 1), (~label, -1)):
        within, among = stats.rankdata(sign * margin[side]), stats.rankdata(sign * margin)[side]
        mean = average((among - within) / np.sum(~side), image[side])
        value, low, high = mean.value, low + (mean.value - mean.low) ** 2, high + (mean.high - mean.value) ** 2
    ends = max(value - low**0.5, 0.0), min(value + high**0.5, 1.0)
    return Estimate(value, *ends, len(label), len(np.unique(image)))


def at_yes_ratio(label: Bool[np.ndarray, " question"], margin: Float[np.ndarray, " question"], yes: int) -> float:
    """Accuracy if the questions with the `yes` greatest margins are answered with yes, ties in the order that they have.

    What a mere shift towards yes, or no, would do: the control of whatever changes how often yes is said.
    """
    said = np.zeros(len(label), bool)
    said[np.argsort(-margin, kind="stable")[:yes]] = True
    return float(np.mean(said == label))


def equal_recall(recalls: Sequence[Estimate | None]) -> bool | None:
    """Whether all splits of one set have the same recall; None for a single one.

    The official splits ask the same questions whose answer is yes, so that any difference between greedy answers is a fault,
    of the files or of whatever answered.
    """
    found = {one and (one.value, one.answers) for one in recalls}
    return None if len(recalls) < 2 else len(found) == 1


def _share(
    right: Bool[np.ndarray, " question"],
    among: Bool[np.ndarray, " question"],
    image: Int[np.ndarray, " question"],
) -> Estimate | None:
    return accuracy(right[among], image[among]) if among.any() else None
