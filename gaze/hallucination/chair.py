"""CHAIR (EMNLP 2018): which objects of a caption are not in the picture, with what the two official numbers hide.

Shorter captions hallucinate less, and a loop about an object that is there lowers the share of mentions: so recall, length and
repetition stand in the same row, distinct objects beside mentions, and arms are compared at a common length, too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gaze.hallucination.chair_words import ChairRules, Mention, tokens
from gaze.statistics import Estimate, accuracy, average
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.read import shown

GRAM = 4
"""Words in a row whose repetition is counted."""
SENTENCE = re.compile(r"\S.*?[.!?]+[\"'”’)\]]*(?=\s|$)", re.DOTALL)
WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Caption:
    """What an arm wrote about a picture; `ended` unless it was cut off at its greatest length."""

    image: str
    text: str
    ended: bool = True


@dataclass(frozen=True)
class ChairScores:
    """What captions are worth; what has nothing to be a share of is None.

    Attributes:
      captions: how many.
      sentence: CHAIRs, the share of captions with an object that is not there.
      mention: CHAIRi, the share of mentions of objects that are not there; repeats count each time.
      object: the same over the distinct objects of each caption.
      recall: objects that are there and mentioned, among those that are there.
      objects: distinct objects of a caption, in the mean.
      words: of a caption, in the mean.
      repeated: runs of four words that stood in the caption before, among all.
      ended: captions that ended by themselves.
    """

    captions: int
    sentence: Estimate
    mention: Estimate | None
    object: Estimate | None
    recall: Estimate | None
    objects: Estimate
    words: Estimate
    repeated: Estimate | None
    ended: Estimate


Truth = Mapping[str, frozenset[str]]
"""The objects that are in each picture."""


def true_objects(rules: ChairRules, categories: Iterable[str], captions: Iterable[str]) -> frozenset[str]:
    """The objects in a picture: categories of its instances, and whatever its reference captions mention.

    Raises InputError for a category that the rules do not know.
    """
    named = [*categories]
    for name in named:
        if name not in rules.objects:
            raise InputError(
                f"CHAIR's rules know no category {shown(name)}: give annotations with COCO's 80 categories"
            )
    told = [mention.object for caption in captions for mention in rules.mentions(caption)]
    return frozenset([*(rules.objects[name] for name in named), *told])


def score(rules: ChairRules, captions: Sequence[Caption], truth: Truth) -> ChairScores:
    """Scores captions; all that stands in a row about one picture hangs together.

    Raises InputError for no caption, and a picture without truth.
    """
    if not captions:
        raise InputError("there is no caption to score")
    for caption in captions:
        if caption.image not in truth:
            raise InputError(f"it is not known what {shown(caption.image)} shows: give its annotations")
    images = {name: number for number, name in enumerate(sorted({caption.image for caption in captions}))}
    place = np.array([images[caption.image] for caption in captions])
    mentions = [rules.mentions(caption.text) for caption in captions]
    wrong = [_wrong(some, truth[caption.image]) for some, caption in zip(mentions, captions, strict=True)]
    distinct = [{mention.object for mention in some} for some in mentions]
    there = [truth[caption.image] for caption in captions]
    counts = np.array([len(some) for some in distinct])
    lengths = np.array([len(_words(caption.text)) for caption in captions])
    longest = float(max(lengths.max(), 1))

    def share(parts: Sequence[Sequence[bool]]) -> Estimate | None:
        """The share of what is true of parts of each caption."""
        flat = np.array([one for some in parts for one in some], bool)
        return accuracy(flat, np.repeat(place, [*map(len, parts)])) if flat.size else None

    return ChairScores(
        captions=len(captions),
        sentence=accuracy(np.array([any(some) for some in wrong]), place),
        mention=share(wrong),
        object=share([[one not in real for one in sorted(some)] for some, real in zip(distinct, there, strict=True)]),
        recall=share([[one in some for one in sorted(real)] for some, real in zip(distinct, there, strict=True)]),
        objects=average(counts, place, whole=(0.0, float(max(counts.max(), 1)))),
        words=average(lengths, place, whole=(0.0, longest)),
        repeated=share([_repeats(caption.text) for caption in captions]),
        ended=accuracy(np.array([caption.ended for caption in captions]), place),
    )


def at_common_length(arms: Mapping[str, Sequence[Caption]]) -> tuple[dict[str, list[Caption]], int]:
    """The captions of each arm cut to as many complete sentences as every arm wrote about that picture.

    Returns:
      The captions, and of how many pictures none is left because an arm wrote no complete sentence.

    Raises InputError if the arms are not about the same pictures, once each.
    """
    names = {arm: sorted(caption.image for caption in some) for arm, some in arms.items()}
    if len({tuple(some) for some in names.values()}) > 1 or any(len({*some}) < len(some) for some in names.values()):
        raise InputError("arms can only be cut to a common length if each has one caption of the same pictures")
    least: dict[str, int] = {}
    for caption in (caption for some in arms.values() for caption in some):
        count = len(sentences(caption.text))
        least[caption.image] = min(count, least.get(caption.image, count))
    cut = {
        arm: [
            Caption(one.image, " ".join(sentences(one.text)[: least[one.image]]), one.ended)
            for one in some
            if least[one.image]
        ]
        for arm, some in arms.items()
    }
    return cut, sum(count == 0 for count in least.values())


def sentences(text: str) -> list[str]:
    """The complete sentences of a text; what is cut off after the last one is none."""
    return SENTENCE.findall(text)


def _wrong(mentions: Sequence[Mention], there: frozenset[str]) -> list[bool]:
    return [mention.object not in there for mention in mentions]


def _words(text: str) -> list[str]:
    return [word for word in tokens(text) if WORD.search(word)]


def _repeats(text: str) -> list[bool]:
    """Of each run of `GRAM` words, whether it stood there before."""
    words, seen, found = _words(text), set(), []
    for start in range(len(words) - GRAM + 1):
        gram = tuple(words[start : start + GRAM])
        found.append(gram in seen)
        seen.add(gram)
    return found
