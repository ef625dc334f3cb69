"""Where in a text its tokens, words, sentences and numbered lines stand."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

SENTENCE = re.compile(r"""\S.*?(?:[.!?]+["'”’)\]*]*(?=\s|$)|$)""", re.MULTILINE)
MARKER = re.compile(r"[*#_]*\bpanel\s+(\d+)[*_ ]*:[*_ ]*", re.IGNORECASE)

Ends = Int32[np.ndarray, " token"]


class TextSpan(NamedTuple):
    """A part of a text.

    Attributes:
      place: of its first character.
      start: number of the token that its first character came with.
      stop: number of the token that the passage after it starts with.
    """

    text: str
    place: int
    start: int
    stop: int


def token_ends(decode: Callable[[Sequence[int]], str], tokens: Sequence[int]) -> Ends:
    """How many characters of the text, without surrounding white space, are there after each token.

    A character that several tokens make up counts with the last of them.
    """
    pieces = [decode(tokens[: count + 1]) for count in range(len(tokens))]
    whole = pieces[-1] if pieces else ""
    lead = len(whole) - len(whole.lstrip())
    lengths = [len(piece.rstrip("\N{REPLACEMENT CHARACTER}")) - lead for piece in pieces[:-1]]
    ends = np.array([*lengths, len(whole) - lead][: len(pieces)], np.int32)
    return np.clip(ends, 0, len(whole.strip())).astype(np.int32)


def between(text: str, ends: Int[np.ndarray, " token"], start: int, stop: int) -> str:
    """The text of the tokens from `start` up to `stop`, without surrounding white space."""
    edges = np.concatenate([[0], ends])
    first, last = (int(edges[min(token, len(ends))]) for token in (start, stop))
    return text[first:last].strip()


def sentences(text: str, ends: Int[np.ndarray, " token"]) -> list[TextSpan]:
    """Sentences and lines that hold a letter; what has none, such as a bullet's number, is passed over."""
    found = [(match.group(), match.start()) for match in SENTENCE.finditer(text)]
    return _passages(((said, place) for said, place in found if any(map(str.isalpha, said))), ends)


def words(sentence: TextSpan, ends: Int[np.ndarray, " token"]) -> list[TextSpan]:
    """What stands between spaces; the last word stops where the sentence does."""
    found = [(match.group(), sentence.place + match.start()) for match in re.finditer(r"\S+", sentence.text)]
    passages = _passages(found, ends)
    return [*passages[:-1], passages[-1]._replace(stop=sentence.stop)] if passages else []


def numbered(text: str, ends: Int[np.ndarray, " token"]) -> dict[int, TextSpan]:
    """Lines by the panel (from 0) that they announce with "Panel 3:", in the order in which they stand.

    A line starts with its announcement, which is left out of its text. Only the first of two with one number counts.
    """
    marks = list(MARKER.finditer(text))
    places = [*(mark.start() for mark in marks), len(text)]
    found = [
        (int(mark.group(1)) - 1, text[mark.end() : stop].strip(" \n*"), mark.start())
        for mark, stop in zip(marks, places[1:], strict=False)
    ]
    passages = _passages([(said, place) for _, said, place in found], ends)
    lines: dict[int, TextSpan] = {}
    for (panel, _, _), passage in zip(found, passages, strict=True):
        lines.setdefault(panel, passage)
    return lines


def narrated(text: str, ends: Int[np.ndarray, " token"], order: Sequence[int]) -> dict[int, TextSpan]:
    """The line about each panel (from 0) of a narration that was to go through the panels in `order`.

    Lines that announce their panel are believed. Without any, the sentences are taken to be one per panel, as long as there are
    no more of them than panels; a freer text has no lines.
    """
    lines = {panel: line for panel, line in numbered(text, ends).items() if panel in order}
    if lines:
        return lines
    found = sentences(text, ends)
    return dict(zip(order, found, strict=False)) if len(found) <= len(order) else {}


def _passages(found: Iterable[tuple[str, int]], ends: Int[np.ndarray, " token"]) -> list[TextSpan]:
    rows = list(found)
    starts = [int(np.searchsorted(ends, place, side="right")) for _, place in rows]
    stops = [*starts[1:], len(ends)]
    return [TextSpan(text, place, start, stop) for (text, place), start, stop in zip(rows, starts, stops, strict=False)]
