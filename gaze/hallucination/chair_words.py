"""Which of COCO's objects a caption mentions, by the rules of the original CHAIR (EMNLP 2018), fault for fault.

The rules are data (`chair_rules.json`). Words are separated as nltk's `word_tokenize` does, as far as it bears on the words
of the lists, and made singular as the original's `pattern` does: so "bus" becomes "bu" and "ties" becomes "ty", and neither
is found, while "buses" and "tie" are.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from typing_extensions import TypedDict

from qwen3vl_jax.files.read import read_json

RULES = Path(__file__).parent / "chair_rules.json"

# A full stop ends a sentence if what follows it is none of the next word.
APART = re.compile(
    r"""\.{2,}|--|[;@#$%&?!()\[\]{}<>"*`“”„«»‘’\u2012-\u2015]|''|[:,](?!\d)|(?<=[^.])\.(?=[])}>"'»”’]*(?:\s|$|[?!;*:@({[]))"""
)
CLITIC = re.compile(r"(?<=[^\s'])(?:'(?:s|m|d|ll|re|ve)?|n't)(?=\s)")
OPENING = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)")


class Mention(NamedTuple):
    """A word of the lists in a caption.

    Attributes:
      word: as the lists have it.
      object: COCO's category that it stands for.
      place: the number of its first token.
    """

    word: str
    object: str
    place: int


class RulesFile(TypedDict):
    """`ChairRules` as its file has them."""

    source: str
    licence: str
    synonyms: list[list[str]]
    unmatched: list[str]
    double_words: dict[str, str]
    singular: dict[str, str]


@dataclass(frozen=True)
class ChairRules:
    """The matcher as data.

    Attributes:
      source, licence: where it comes from.
      synonyms: of each category, which stands first.
      unmatched: entries of the original list that its own matcher can never find.
      double_words: two words in a row that count as one.
      singular: forms that are made singular otherwise than by taking off a last s, as far as a word of the lists depends on it.
    """

    source: str
    licence: str
    synonyms: list[list[str]]
    unmatched: list[str]
    double_words: dict[str, str]
    singular: dict[str, str]

    @cached_property
    def objects(self) -> Mapping[str, str]:
        """From each word to its category."""
        return {word: words[0] for words in self.synonyms for word in words}

    @property
    def categories(self) -> list[str]:
        return [words[0] for words in self.synonyms]

    def mentions(self, caption: str) -> list[Mention]:
        """The objects that a caption mentions, in its order; repeats count."""
        words = self._joined([self.singularize(word) for word in tokens(caption)])
        there = {word for word, _ in words}
        if {"toilet", "seat"} <= there:
            words = [(word, place) for word, place in words if word != "seat"]
        return [Mention(word, self.objects[word], place) for word, place in words if word in self.objects]

    def singularize(self, word: str) -> str:
        return self.singular.get(word, word[:-1] if word.endswith("s") else word)

    def _joined(self, words: Sequence[str]) -> list[tuple[str, int]]:
        """The words with the number of their first token, double words joined from left to right."""
        found, place = [], 0
        while place < len(words):
            double = self.double_words.get(" ".join(words[place : place + 2]))
            found.append((words[place] if double is None else double, place))
            place += 1 if double is None else 2
        return found


def tokens(caption: str) -> list[str]:
    """A caption in lower case, as words and marks."""
    text = OPENING.sub("' ", APART.sub(r" \g<0> ", caption.lower()))
    return CLITIC.sub(r" \g<0>", f"{text} ").split()


def chair_rules() -> ChairRules:
    """The official rules."""
    return ChairRules(**read_json(RULES, "a file of CHAIR's rules", RulesFile))
