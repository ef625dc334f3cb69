"""What experiment 2 returns, plain JSON."""

from typing import NotRequired, cast

from typing_extensions import TypedDict

from experiments.run.summaries import Provenance


class RightRow(TypedDict):
    """The share of right answers, with its 95 % interval."""

    value: float
    interval: list[float] | None
    answers: int


class EffectRow(TypedDict):
    """What a push after one layer does: shares of the answers, and the mean logit difference."""

    layer: int
    answers: int
    flip: float
    stay: float
    neither: float
    difference: float
    interval: list[float] | None
    difference_interval: list[float] | None


class MaybeEffect(TypedDict):
    """An `EffectRow`, or nothing of it if there were no pairs; `places` is the flip of the directions per place."""

    layer: NotRequired[int]
    answers: NotRequired[int]
    flip: NotRequired[float]
    stay: NotRequired[float]
    neither: NotRequired[float]
    difference: NotRequired[float]
    interval: NotRequired[list[float] | None]
    difference_interval: NotRequired[list[float] | None]
    places: float | None


class OrderRow(MaybeEffect):
    """Another reading order: how often the model follows it when asked, and its own directions."""

    order: list[int]
    asked: RightRow
    discovery_pairs: int


class WordingRow(MaybeEffect):
    """Another question for the letter."""

    question: str
    asked: dict[str, RightRow]


class PlaceRow(TypedDict):
    """Flips of the answers about one place, from 1."""

    place: int
    flip: float
    interval: list[float] | None
    answers: int


LetterResults = TypedDict(
    "LetterResults",
    {
        "asked": dict[str, RightRow],
        "other_order": list[int],
        "discovery_pairs": int,
        "pairs": int,
        "possible": int,
        "reverse": list[EffectRow],
        "places": list[EffectRow],
        "known": NotRequired[list[EffectRow]],
        "other": NotRequired[list[EffectRow]],
        "random": list[EffectRow],
        "random places": list[EffectRow],
        "random draws": list[list[float]],
        "random places draws": list[list[float]],
        "back reverse": list[EffectRow],
        "back places": list[EffectRow],
        "per_panel": dict[str, list[PlaceRow]],
        "difference_alone": float | None,
        "silhouette": list[float],
        "place_silhouette": list[float],
    },
)
"""Strips of one number of panels: what each direction does by layer, and flips by layer of each random draw."""


class TellingRow(TypedDict):
    """The order in which narrations tell the panels, and which one they begin with."""

    correlation: float | None
    interval: list[float] | None
    zero_filled: float | None
    defined: int
    narrations: int
    last_first: float
    last_first_interval: list[float]
    first_first: float
    forwards: float
    backwards: float
    sentences: float
    lost: float


class NarrationResults(TypedDict):
    """Free narrations by condition, and the layers after which they were pushed."""

    questions: list[str]
    judge: str
    strips: int
    bands: dict[str, list[int]]
    conditions: dict[str, TellingRow]


class LayerResults(Provenance):
    """What `e2_layers.sum_up` returns; `panels` is by their number, most first."""

    prefix: str
    labels: str
    strips: dict[str, int]
    shared: bool
    layers: int
    gaze_layers: list[int]
    chosen: dict[str, int]
    panels: dict[str, LetterResults]
    orders: list[OrderRow]
    wordings: list[WordingRow]
    narration: NarrationResults
    skipped_lines: int
    failed_verdicts: int


def effects_of(found: LetterResults, name: str) -> list[EffectRow]:
    """Returns what a direction does by layer; nothing if there is no such direction."""
    return cast(dict[str, list[EffectRow]], found).get(name, [])


def draws_of(found: LetterResults, name: str) -> list[list[float]]:
    """Returns the flips by layer of each random draw."""
    return cast(dict[str, list[list[float]]], found)[f"{name} draws"]
