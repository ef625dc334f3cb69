"""A judge that compares words: which caption shares the most telling words with a text?"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from gaze.judges.judge import Lexical, digest

LEAST_EVIDENCE = 0.5
"""In words that only one caption has; of six captions, a word that two share counts .61, one that three share .39."""

SUFFIXES = ("ing", "ed", "es", "s")

# Words of grammar, and words in which people speak of pictures whatever these show.
GRAMMAR_AND_PICTURES = """
    a an the this that these those and or but nor so if then than as of at by for from in into on onto off over under
    above below between behind beside near next to up down out with without about around across through while when
    where who whom whose which what why how i me my we us our you your he him his she her hers it its they them their
    one ones some any each every all both other another is are was were be been being am do does did has have had
    having can could will would shall should may might must not no yes there here very just also only too s t
    first second third fourth fifth sixth last left right panel panels comic strip image picture photo scene frame
    part main action event happening happens happen show shows showing shown depict depicts depicting see seen appears
    appear seems seem
"""
STOP_WORDS = frozenset(GRAMMAR_AND_PICTURES.split())


def judge_caption(text: str, captions: Sequence[str], least: float = LEAST_EVIDENCE) -> int | None:
    """Index of the caption that shares the most telling words with the text; None without evidence or for a tie.

    A word that d of n captions have tells log(n / d) / log(n): 1 if only one has it, 0 if all do. What a caption has
    in common with the text is the sum over their different words, stop words apart, with endings cut off (`stem`).
    The words must be separated in writing. None if the best sum is below `least`.
    """
    said, shown = stems(text), [stems(caption) for caption in captions]
    count = max(len(captions), 2)
    having = Counter(word for words in shown for word in words)
    sums = [sum(math.log(count / having[word]) for word in sorted(said & words)) / math.log(count) for words in shown]
    best = max(sums, default=0.0)
    # Sums of the same words may differ in their last bit.
    winners = [index for index, value in enumerate(sums) if math.isclose(value, best, abs_tol=1e-9)]
    return winners[0] if len(winners) == 1 and best >= least - 1e-9 else None


def stems(text: str) -> frozenset[str]:
    """The different words of a text without stop words, numbers and endings."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    return frozenset(stem(word) for word in words if word not in STOP_WORDS)


def stem(word: str) -> str:
    """A lower-case word without English endings: "chase", "chases" and "chasing" are one, "red" stays as it is.

    What remains has three letters and a vowel at least; then doubled letters, a last e and the difference of y and i go.
    """
    for suffix in SUFFIXES:
        root = word.removesuffix(suffix)
        if root != word and len(root) >= 3 and re.search("[aeiouy]", root) and not word.endswith("ss"):
            word = root
            break
    word = re.sub(r"([^aeiou])\1$", r"\1", word)
    return re.sub("y$", "i", word.rstrip("e") or word)


def Caption() -> Lexical:
    """`judge_caption`. It misses paraphrase: report what it cannot attribute beside what it gets right."""
    rule = (LEAST_EVIDENCE, SUFFIXES, tuple(sorted(STOP_WORDS)), 1)
    return Lexical("caption", digest("caption", *rule), judge_caption)
