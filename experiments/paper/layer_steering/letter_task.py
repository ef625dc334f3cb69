"""Directions from letter probes, and which answers they flip: what experiment 2 measures with one-token answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from experiments.data.sources import PURPOSES, Purpose
from experiments.paper.layer_steering.letter_probes import (
    Order,
    Prober,
    Probes,
    backward,
    forward,
    other_orders,
    probes,
    questions,
)
from experiments.paper.layer_steering.panel_labels import letters_for
from experiments.paper.layer_steering.results import EffectRow
from experiments.run.run import Run
from experiments.testbed.wordings import LETTERS as WORDINGS
from gaze.intervals import means, shares
from gaze.prompts import LETTER
from gaze.steering.steering_vectors import SteeringVector, difference, random_like, separation

Arrays = dict[str, np.ndarray]

SOME = 24
"""Strips for what is done many times over: other orders, other wordings."""


@dataclass(frozen=True)
class Read:
    """Probes in one reading order: the stream after every layer, what was said and what would have been right."""

    stream: Float32[np.ndarray, "strip place layer embed"]
    token: Int[np.ndarray, "strip place"]
    scores: Float32[np.ndarray, "strip place letter"]
    expected: Int[np.ndarray, "strip place"]
    right: Bool[np.ndarray, "strip place"]

    def pairs(self, other: "Read") -> Bool[np.ndarray, "strip place"]:
        """Where both are right and the order matters."""
        pairs: np.ndarray = self.right & other.right & (self.expected != other.expected)
        return pairs


def read(prober: Prober, asked: Probes, order: Order, template: str = LETTER) -> Read:
    """Asks every probe about every place in an order."""
    stream, said = prober.observe(asked.strips, questions(order, template))
    expected = asked.expected(order)
    return Read(stream, said.token, said.scores, expected, said.token == prober.tokens[expected])


def direction(plus: Read, minus: Read) -> SteeringVector:
    """Difference of means over all pairs; zeros if there is none."""
    pairs = plus.pairs(minus)
    layers, embed = plus.stream.shape[2:]
    if not pairs.any():
        return np.zeros((layers, embed), np.float32)
    return difference(plus.stream[pairs], minus.stream[pairs])


def by_place(plus: Read, minus: Read) -> Float32[np.ndarray, "layer place embed"]:
    """Differences of means for each question by itself; zeros where there is no pair."""
    pairs = plus.pairs(minus)[:, :, None, None]
    gap = np.sum(plus.stream - minus.stream, axis=0, where=pairs, dtype=np.float64)
    means: np.ndarray = np.moveaxis(gap / np.maximum(pairs.sum(axis=0), 1), 0, 1).astype(np.float32)
    return means


class Letters:
    """Probes of one number of panels in a run; everything is read when it is first needed.

    Attributes:
      others: another order to compare with; two panels have none.
    """

    def __init__(self, run: Run, panels: int) -> None:
        self.run, self.panels, self.seed = run, panels, run.settings.seed
        self.letters = letters_for(run.settings.panels)
        self.others = other_orders(panels, 1, self.seed + 1)

    @property
    def orders(self) -> tuple[Order, ...]:
        """From left to right, in reverse, and another one to compare with if there is one."""
        return forward(self.panels), backward(self.panels), *self.others

    @cached_property
    def prober(self) -> Prober:
        """With room for whole strips, whatever the number of these panels, as all of one shape is compiled once."""
        whole = self.run.settings.panels
        orders = (forward(whole), backward(whole), tuple(np.roll(forward(whole), 1).tolist()))
        kinds = [questions(order, text) for order in orders for text in (LETTER, *WORDINGS.paraphrases)]
        strips = [strip for purpose in PURPOSES for strip in self.run.pictures(purpose)]
        return Prober.make(self.run.model, self.run.processor, kinds, strips, self.letters)

    def probes(self, purpose: Purpose, count: int | None = None) -> Probes:
        return probes(self.run.pictures(purpose)[:count], self.panels, self.seed, self.letters)

    @property
    def count(self) -> int | None:
        """Strips to ask about: all, but fewer where the panels are fewer."""
        return None if self.panels == self.run.settings.panels else SOME

    def collect(self, known: SteeringVector | None) -> Arrays:
        """All that is measured layer by layer; `known` is a direction from elsewhere to be tried too."""
        asked = self.probes("discovery", self.count)
        reads = [read(self.prober, asked, order) for order in self.orders]
        normal, reverse = reads[:2]
        found, places = direction(reverse, normal), by_place(reverse, normal)
        single = {"reverse": found}
        if self.others:
            single["other"] = direction(reads[2], normal)
        single |= {} if known is None else {"known": known}
        single |= {f"random {n}": d for n, d in enumerate(self._random(found))}
        vectors = {name: self._everywhere(vector) for name, vector in single.items()} | {"places": places}
        vectors |= {f"random places {n}": d for n, d in enumerate(self._random(places))}
        arrays = {"direction": found, "places": places, "letters": self.prober.tokens}
        arrays |= _said("discovery", reads)
        del reads, normal, reverse  # large
        return arrays | self._flips(vectors) | self._selection(found, places)

    def _flips(self, vectors: Mapping[str, np.ndarray]) -> Arrays:
        asked = self.probes("evaluation", self.count)
        reads = [read(self.prober, asked, order) for order in self.orders]
        back = {f"back {name}": vectors[name] for name in ("reverse", "places")}
        return (
            _said("evaluation", reads)
            | _apart(*reads[:2])
            | self._push(asked, self.orders[0], vectors)
            | self._push(asked, self.orders[1], back, alpha=-1.0)
        )

    def _selection(self, found: SteeringVector, places: np.ndarray) -> Arrays:
        asked = self.probes("selection")
        reads = [read(self.prober, asked, order) for order in self.orders[:2]]
        vectors = {"selection reverse": self._everywhere(found), "selection places": places}
        return _said("selection", reads) | self._push(asked, self.orders[0], vectors)

    def _everywhere(self, vector: SteeringVector) -> Float32[np.ndarray, "layer place embed"]:
        """One direction for all places."""
        return np.repeat(vector[:, None], self.panels, axis=1)

    def _random(self, like: np.ndarray) -> np.ndarray:
        return random_like(like, self.run.settings.draws, self.seed)

    def _push(
        self, asked: Probes, order: Order, vectors: Mapping[str, np.ndarray], alpha: float = 1.0, template: str = LETTER
    ) -> Arrays:
        """Each direction after each layer by itself."""
        bands = np.eye(self.run.shape[0], dtype=np.float32)
        stacked = np.stack([*vectors.values()])
        found = self.prober.push(asked.strips, questions(order, template), stacked, bands, alpha)
        tokens = {f"pushed {name}: token": one.token for name, one in zip(vectors, found, strict=True)}
        return tokens | {f"pushed {name}: scores": one.scores for name, one in zip(vectors, found, strict=True)}

    def reordered(self, normal: Read, plain: Read, order: Order) -> Arrays:
        """The same for another order: its own direction, from fewer strips.

        `normal` and `plain` are the answers in the usual order about the discovery and the evaluation strips.
        """
        here = read(self.prober, self.probes("discovery", SOME), order)
        asked = self.probes("evaluation", SOME)
        vectors = {"order": self._everywhere(direction(here, normal)), "places": by_place(here, normal)}
        return (
            {"letters": self.prober.tokens, "order": np.array(order)}
            | _said("discovery", (normal, here))
            | _said("evaluation", (plain, read(self.prober, asked, order)))
            | self._push(asked, self.orders[0], vectors)
        )

    def reworded(self, found: SteeringVector, places: np.ndarray, template: str) -> Arrays:
        """What directions do to a question in other words than those they come from."""
        asked = self.probes("evaluation", SOME)
        reads = [read(self.prober, asked, one, template) for one in self.orders[:2]]
        vectors = {"reverse": self._everywhere(found), "places": places}
        pushed = self._push(asked, self.orders[0], vectors, template=template)
        return {"letters": self.prober.tokens} | _said("evaluation", reads) | pushed


def collect_orders(run: Run, panels: int, count: int, folder: Path) -> None:
    """Saves what `Letters.reordered` measures for `count` orders drawn from all but the two usual ones."""
    some = Letters(run, panels)
    orders = other_orders(panels, count, run.settings.seed)

    @cache
    def usual() -> tuple[Read, Read]:
        discovery, evaluation = some.probes("discovery", SOME), some.probes("evaluation", SOME)
        return read(some.prober, discovery, some.orders[0]), read(some.prober, evaluation, some.orders[0])

    def make(order: Order) -> Arrays:
        return some.reordered(*usual(), order)

    for order in orders:
        run.saved(order_file(folder, order), partial(make, order), all_digests(run), order)


def all_digests(run: Run) -> list[list[str]]:
    """Of all strips: those that are not asked about decide the size of prompts."""
    return [run.digests(run.pictures(purpose)) for purpose in PURPOSES]


def order_file(folder: Path, order: Order) -> Path:
    return folder / f"{'-'.join(str(panel + 1) for panel in order)}.npz"


def effects(
    arrays: Mapping[str, np.ndarray],
    names: Sequence[str],
    kinds: tuple[int, int] = (0, 1),
    purpose: str = "evaluation",
) -> list[EffectRow]:
    """What pushes do layer by layer, over the pairs and, if there are several, over the pushes called `names`.

    Args:
      kinds: which reading order is asked for, and which one the push should lead to.

    Returns:
      For each layer the shares of answers that flip, that stay, and that are neither letter, and the mean logit
      difference (letter of the order led to minus letter of the order asked for); nothing if there are no pairs.
    """
    here, there = (arrays[f"{purpose}: expected"][kind] for kind in kinds)
    pairs = evaluated(arrays, kinds, purpose)
    if not pairs.any():
        return []
    letters = arrays["letters"]
    rates, gaps = [], []
    for name in names:
        token, scores = arrays[f"pushed {name}: token"], arrays[f"pushed {name}: scores"]
        flip, stay = token == letters[there], token == letters[here]
        rates.append(np.stack([flip, stay, ~(flip | stay)])[..., pairs])
        gaps.append((_score(scores, there) - _score(scores, here))[..., pairs])
    strip, draw = np.tile(np.nonzero(pairs)[0], len(names)), np.repeat(np.arange(len(names)), int(pairs.sum()))
    clusters = (strip, draw) if len(names) > 1 else (strip,)
    rate = shares(np.moveaxis(np.concatenate(rates, axis=-1), -1, 0), *clusters)
    gap = means(np.concatenate(gaps, axis=-1).T, *clusters)
    return [
        {
            "layer": layer,
            "answers": int(pairs.sum()),
            "flip": float(rate.value[0, layer]),
            "stay": float(rate.value[1, layer]),
            "neither": float(rate.value[2, layer]),
            "difference": float(gap.value[layer]),
            "interval": bounds(rate.low[0, layer], rate.high[0, layer]),
            "difference_interval": bounds(gap.low[layer], gap.high[layer]),
        }
        for layer in range(len(gap.value))
    ]


def evaluated(
    arrays: Mapping[str, np.ndarray], kinds: tuple[int, int] = (0, 1), purpose: str = "evaluation"
) -> Bool[np.ndarray, "strip place"]:
    """The pairs: both orders answered rightly by the model left alone, with different letters."""
    right = correct(arrays, purpose)
    expected = arrays[f"{purpose}: expected"]
    pairs: np.ndarray = right[kinds[0]] & right[kinds[1]] & (expected[kinds[0]] != expected[kinds[1]])
    return pairs


def correct(arrays: Mapping[str, np.ndarray], purpose: str) -> Bool[np.ndarray, "kind strip place"]:
    """Where the model left alone gives the right letter."""
    found: np.ndarray = arrays[f"{purpose}: token"] == arrays["letters"][arrays[f"{purpose}: expected"]]
    return found


def bounds(low: float, high: float) -> list[float] | None:
    """An interval in JSON, which has no NaN."""
    return [float(low), float(high)] if np.isfinite([low, high]).all() else None


def _said(purpose: str, reads: Sequence[Read]) -> Arrays:
    return {
        f"{purpose}: {name}": np.stack([getattr(one, name) for one in reads])
        for name in ("token", "scores", "expected")
    }


def _apart(normal: Read, reverse: Read) -> Arrays:
    """How far plain and reversed prompts lie apart: all places together, and each question by itself."""
    points, silhouette = separation(*(one.stream.reshape(-1, *one.stream.shape[2:]) for one in (normal, reverse)))
    single = [separation(normal.stream[:, place], reverse.stream[:, place]) for place in range(normal.stream.shape[1])]
    return {
        "points": points.astype(np.float32),
        "silhouette": silhouette,
        "first points": single[0][0].astype(np.float32),
        "place silhouettes": np.stack([one for _, one in single]),
    }


def _score(scores: Float[np.ndarray, "layer strip place letter"], letter: Int[np.ndarray, "strip place"]) -> np.ndarray:
    """The logit of one letter for each question."""
    index = np.broadcast_to(letter[None, ..., None], (*scores.shape[:-1], 1))
    return np.take_along_axis(scores, index, axis=-1)[..., 0]
