"""Narrations that follow a schedule: which panel when, what was said when, and how soon after a switch.

A schedule gives every panel one segment of `segment` tokens (arXiv 2606.14703, section 3; script 05 of its code). Tokens and
segments count from 0, panels from 0.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64

from gaze.pictures.strips import wordings
from gaze.statistics import UNATTRIBUTABLE, spearman
from gaze.text_spans import TextSpan, between, sentences, words

Order = Int64[np.ndarray, " panel"]
"""Which panel each segment is about."""
PAPER_SEED = 42


class Convention(NamedTuple):
    """When the steps of a schedule count.

    Attributes:
      query_positions: the queries that are steered, one of `gaze.steering.masks.QUERY_POSITIONS`.
      delay: the number of tokens by which every segment comes late.
      early: whether the first segment's panel is looked at before, too; otherwise nothing is steered then.
    """

    query_positions: str
    delay: int
    early: bool = False


CONVENTIONS = {
    "official": Convention("all", 1),
    "full sequence": Convention("all", 1, early=True),
    "first token": Convention("answer", 0),
    "all steps": Convention("all", 0),
}
"""The released script counts passes over decoded tokens, from 0 after the pass over the prompt. So each of its segments comes a
token late: "official" is the script as it is, which steers nothing in the pass over the prompt; "full sequence" is the script
with --full-sequence, which steers that pass to the first panel, so that the first segment has a token more. Ours are in time:
"first token" steers the row that predicts the first token too, "all steps" the whole prompt."""


def derangement(rng: np.random.Generator | np.random.RandomState, panels: int) -> Order:
    """A random order in which no panel has its own place; there must be two or more."""
    while True:
        order = rng.permutation(panels)
        if (order != np.arange(panels)).all():
            return order.astype(np.int64)


def named_order(seed: int, name: str, panels: int) -> Order:
    """The order of the strip of that name, whatever other strips there are."""
    return derangement(np.random.default_rng(_number(seed, name)), panels)


def paper_orders(panels: Sequence[int]) -> list[Order]:
    """The orders that the released script gives to strips of so many panels, which depend on the strips before."""
    rng = np.random.RandomState(PAPER_SEED)
    return [derangement(rng, count) for count in panels]


def switch_pairs(seed: int, name: str, panels: int, count: int) -> list[tuple[int, int]]:
    """Pairs of different panels of the strip of that name, to switch from one to the other."""
    rng = np.random.default_rng(_number(seed, f"{name} switch"))
    drawn = [rng.permutation(panels)[:2].tolist() for _ in range(count)]
    return [(first, second) for first, second in drawn]


def targets(
    order: Int[np.ndarray, " panel"], segment: int, delay: int, early: bool = False
) -> Int32[np.ndarray, " step"]:
    """Returns the panel of every step, see `gaze.steering.masks.Steering`.

    The last step stands for all later ones. All schedules of as many segments have as many steps.

    Args:
      delay, early: see `Convention`; the delay is 0 or 1.
    """
    steps = np.concatenate([np.full(delay, order[0] if early else -1), np.repeat(order, segment), order[-1:]])
    return steps[: len(order) * segment + 1].astype(np.int32)


class CutNarration(NamedTuple):
    """A narration cut up.

    Attributes:
      segments: the text of each segment's tokens, wherever that cuts; the paper's unit.
      central: the whole first sentence whose middle lies in each segment; empty if there is none.
      sentences: all of them.
    """

    segments: list[str]
    central: list[str]
    sentences: list[TextSpan]


def cut(text: str, ends: Int[np.ndarray, " token"], segment: int, count: int, delay: int = 0) -> CutNarration:
    """Cuts a text into `count` segments of tokens. A sentence belongs to the segment that its middle lies in.

    Args:
      ends: of `gaze.text_spans.token_ends`.
      delay: tokens by which segments come late for sentences; the texts of tokens are cut as in the paper's code.
    """
    told = sentences(text, ends)
    middles = [max((one.start + one.stop - 1) // 2 - delay, 0) // segment for one in told]
    central = [
        next((one.text for one, middle in zip(told, middles, strict=True) if middle == number), "")
        for number in range(count)
    ]
    parts = [between(text, ends, segment * number, segment * (number + 1)) for number in range(count)]
    return CutNarration(parts, central, told)


def nearest(text: str, captions: Sequence[str]) -> int | None:
    """The caption with the most words of a sentence in the same places: half or more of its own, and no other as many.

    Of a caption's `wordings` the one with the most such words counts.
    """
    said = text.split()
    same, length = np.array([_alike(said, caption) for caption in captions]).T
    best = int(same.argmax())
    return best if 2 * same[best] >= length[best] and np.sum(same == same[best]) == 1 else None


def visits(panels: Sequence[int | None]) -> list[int]:
    """The panels in the order in which they are told: sentences about none take no place, runs about one take one."""
    known = [panel for panel in panels if panel is not None]
    return [panel for place, panel in enumerate(known) if not place or panel != known[place - 1]]


def blind_match(order: Int[np.ndarray, " panel"], visited: Sequence[int]) -> tuple[float, float | None]:
    """Compares the visits of a reader who knows no schedule with it, first with first, second with second.

    Returns:
      The share of the schedule that was met, and the rank correlation over as many as both have (None if undefined).
    """
    both = min(len(order), len(visited))
    seen = np.asarray(visited[:both], np.int64)
    return float(np.sum(seen == order[:both])) / len(order), spearman(order[:both], seen)


def word_latency(
    told: Sequence[TextSpan], ends: Int[np.ndarray, " token"], captions: Sequence[str], new: int, begin: int, end: int
) -> int | None:
    """Tokens from a switch to the first word from which a sentence is the rest of the new panel's caption.

    Words that the captions share are given to the new panel, but the rest must be that of no other caption.

    Args:
      told: sentences.
      begin, end: the tokens from which, and before which, the new panel is the one to look at.

    Returns:
      None if that word does not come before `end`.
    """
    known = [[wording.split() for wording in wordings(caption)] for caption in captions]
    for sentence in told:
        said = words(sentence, ends)
        late = sum(word.start < begin for word in said)
        turn = _turn([word.text for word in said], known, new, late)
        if turn is not None and said[turn].start < end:
            return said[turn].start - begin
    return None


def sentence_latency(
    told: Sequence[TextSpan], panels: Sequence[int | None], new: int, begin: int, end: int
) -> int | None:
    """Tokens from a switch to the first sentence about the new panel; None if none starts before `end`."""
    starts = [one.start for one, panel in zip(told, panels, strict=True) if panel == new and begin <= one.start < end]
    return min(starts) - begin if starts else None


class Followed(NamedTuple):
    """The words of an answer after its target moved, without those of both panels: the new one's, the old one's, neither's."""

    new: int
    old: int
    other: int


def followed(text: str, old: str, new: str, at: int, grace: int = 3) -> Followed:
    """Compares an answer whose target moved after `at` words with the captions of the two panels, in all their `wordings`.

    Args:
      grace: words after the switch that are not counted yet.
    """
    before, after = (_vocabulary(caption) for caption in (old, new))
    later = [word for word in _bare(text) if word][at + grace :]
    return Followed(
        sum(word in after - before for word in later),
        sum(word in before - after for word in later),
        sum(word not in before | after for word in later),
    )


def numbers(panels: Sequence[int | None]) -> Int64[np.ndarray, " item"]:
    """Panels as an array, UNATTRIBUTABLE for None."""
    return np.array([UNATTRIBUTABLE if panel is None else panel for panel in panels], np.int64)


def _vocabulary(caption: str) -> set[str]:
    return {word for wording in wordings(caption) for word in _bare(wording)}


def _bare(text: str) -> list[str]:
    """The words of a text in small letters, without the signs around them."""
    return [word.strip(".,;:!?\"'()").lower() for word in text.split()]


def _alike(said: Sequence[str], caption: str) -> tuple[int, int]:
    """How many words stand in the same places of a sentence and of a caption's nearest wording, and how many that has."""
    counts = [(sum(map(str.__eq__, said, told)), len(told)) for told in map(str.split, wordings(caption))]
    return max(counts, key=lambda count: count[0] / count[1])


def _turn(said: Sequence[str], captions: Sequence[Sequence[Sequence[str]]], new: int, first: int) -> int | None:
    """The first place, `first` or later, from which the words are those of a wording of caption `new`, and of no other's.

    Args:
      captions: the words of each wording of each caption.
    """
    others = [told for panel, wordings in enumerate(captions) if panel != new for told in wordings]
    turns = []
    for told in captions[new]:
        place = len(said)
        while len(told) == len(said) and place > first and said[place - 1] == told[place - 1]:
            place -= 1
        rest = [*said[place:]]
        if rest and rest not in [[*other[place:]] for other in others]:
            turns.append(place)
    return min(turns, default=None)


def _number(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
