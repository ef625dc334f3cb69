"""What became of an answer: did it describe the target, and was it an answer at all?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gaze.judges.judge import Attribution, Failed

PAPER_SAME, CODE_SAME = 0.9, 0.85
"""Overlap with the unsteered answer above which the paper, and from which its released code, call an answer unchanged."""


@dataclass(frozen=True)
class Outcome:
    """Of one answer.

    Attributes:
      kind: whether the judge names the target, another region or none; whatever it says, an empty or junk answer
        describes none. "failed" if the judge came to no verdict: the answer is still to be judged.
      junk: see `is_junk`.
      same_paper, same_code: the answer is the unsteered one, by the paper's rule and by that of its released code, both
        of which call it a miss. It is not one here: read it beside the next.
      baseline_on_target: the unsteered answer describes the target already.
    """

    kind: Literal["hit", "wrong", "unattributable", "failed"]
    empty: bool
    junk: bool
    same_paper: bool
    same_code: bool
    baseline_on_target: bool


@dataclass(frozen=True)
class Counts:
    """Of answers. The first four kinds add up to `answers`; the others count answers of any kind."""

    answers: int
    hit: int
    wrong: int
    unattributable: int
    failed: int
    empty: int
    junk: int
    same_paper: int
    same_code: int
    baseline_on_target: int


def outcome(
    text: str, verdict: Attribution, target: int, baseline: str | None = None, baseline_verdict: Attribution = None
) -> Outcome:
    """What became of an answer.

    Args:
      target: region that it should describe, from 0.
      baseline, baseline_verdict: the unsteered answer to the same question and what the judge says of it, if there is
        one; without, the answer counts as different from it and it as off the target.
    """
    empty, junk = not text.strip(), is_junk(text)
    return Outcome(
        kind=_kind(None if empty or junk else verdict, target),
        empty=empty,
        junk=junk,
        same_paper=baseline is not None and same_by_paper(text, baseline),
        same_code=baseline is not None and same_by_code(text, baseline),
        baseline_on_target=baseline is not None and baseline_verdict == target,
    )


def count(outcomes: Sequence[Outcome]) -> Counts:
    kinds = [outcome.kind for outcome in outcomes]
    return Counts(
        answers=len(outcomes),
        hit=kinds.count("hit"),
        wrong=kinds.count("wrong"),
        unattributable=kinds.count("unattributable"),
        failed=kinds.count("failed"),
        empty=sum(outcome.empty for outcome in outcomes),
        junk=sum(outcome.junk for outcome in outcomes),
        same_paper=sum(outcome.same_paper for outcome in outcomes),
        same_code=sum(outcome.same_code for outcome in outcomes),
        baseline_on_target=sum(outcome.baseline_on_target for outcome in outcomes),
    )


def is_junk(text: str) -> bool:
    """Whether a text that is not empty is no language, whatever it is about.

    That is so if at most half of its visible characters are letters; if no word is real, a real word having two
    different letters at least and less than five letters for each different one ("hahahahaha" has not); if it says
    fewer than four different words, twice each on average, in four or more ("red star red star"); or if it says its
    words five times each on average. A short answer such as "red star." is none of these; nor does it take long to
    fool the rule with real words in a senseless order.
    """
    visible, letters = re.sub(r"\s", "", text), re.sub(r"[\W\d_]", "", text)
    if not visible:
        return False
    words = re.findall(r"[^\W\d_]+", text.lower())
    different, total = len(set(words)), len(words)
    real = any(len(set(word)) > 1 and len(word) < 5 * len(set(word)) for word in words)
    stuck = different < 4 <= total and total >= 2 * different
    return 2 * len(letters) <= len(visible) or not real or stuck or total >= 5 * different


def same_by_paper(text: str, baseline: str) -> bool:
    """The paper's rule (arXiv 2606.14703, appendix A): Jaccard overlap of the tokens above 0.9.

    Which tokens is not said; here they are the different pieces between white space, in lower case.
    """
    return _jaccard(set(text.lower().split()), set(baseline.lower().split())) > PAPER_SAME


def same_by_code(text: str, baseline: str) -> bool:
    """The released code's rule: equal but for case, punctuation and spacing, or Jaccard overlap of words from 0.85 on."""
    words, others = (re.findall(r"\w+", some.lower()) for some in (text, baseline))
    return words == others or _jaccard(set(words), set(others)) >= CODE_SAME


def _kind(verdict: Attribution, target: int) -> Literal["hit", "wrong", "unattributable", "failed"]:
    if isinstance(verdict, Failed):
        return "failed"
    if verdict is None:
        return "unattributable"
    return "hit" if verdict == target else "wrong"


def _jaccard(some: set[str], others: set[str]) -> float:
    """Shared among all; 1 for two empty sets."""
    return len(some & others) / len(some | others) if some | others else 1.0
