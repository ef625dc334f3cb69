"""Which words of an answer name an object, say what it is like, or only hold the sentence together."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from gaze.hallucination.chair_words import ChairRules
from gaze.text_spans import Ends, sentences, words

WordClass = Literal["object", "attribute", "function", "other"]
CLASSES: tuple[WordClass, ...] = ("object", "attribute", "function", "other")

_ATTRIBUTES = """
red orange yellow green blue purple pink brown black white gray grey dark light bright colorful big large small little tall short
long tiny huge wide narrow round square flat old young new wooden metal glass plastic striped spotted one two three four five six
seven eight nine ten several many few
"""
_FUNCTION = """
a an the this that these those some any each every no another other both all and or but nor so yet if because while as than when
where which who whom whose what how there here it its he him his she her they them their we us our you your i me my of in on at
to from by with without into onto over under above below behind beside between among near next through across around along up
down out off about for is are was were be been being am do does did has have had having will would can could may might shall
should must not also very too just only
"""
ATTRIBUTES, FUNCTION = frozenset(_ATTRIBUTES.split()), frozenset(_FUNCTION.split())


class Word(NamedTuple):
    """A word of an answer: its class, the category that it names if it is an object, and the token that it begins with."""

    kind: WordClass
    object: str | None
    token: int


def classified(text: str, ends: Ends, rules: ChairRules) -> list[Word]:
    """The words of a text; two that name one object together are one word.

    Args:
      ends: of its tokens, see `gaze.text_spans.token_ends`.
    """
    found: list[Word] = []
    for sentence in sentences(text, ends):
        said, place = words(sentence, ends), 0
        while place < len(said):
            named, count = _named([one.text for one in said[place : place + 2]], rules)
            found.append(Word(_kind(said[place].text, named), named, said[place].start))
            place += count
    return found


def next_object(found: Sequence[Word], token: int) -> str | None:
    """The first object that is named by a word that begins at a token or after it."""
    return next((word.object for word in found if word.token >= token and word.object is not None), None)


def _named(said: Sequence[str], rules: ChairRules) -> tuple[str | None, int]:
    """The object that the first word names, alone or with the next, and how many words that takes."""
    both = rules.mentions(" ".join(said))
    if both and both[0].place == 0 and len(said) == 2 and rules.mentions(said[0]) != both[:1]:
        return both[0].object, 2
    alone = rules.mentions(said[0])
    return (alone[0].object, 1) if alone else (None, 1)


def _kind(word: str, named: str | None) -> WordClass:
    bare = word.strip(".,;:!?\"'()").lower()
    if named is not None:
        return "object"
    if bare in ATTRIBUTES:
        return "attribute"
    return "function" if bare in FUNCTION else "other"
