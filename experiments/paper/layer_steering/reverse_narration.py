"""Free narration with a direction added at every token: does the model tell the strip backwards?"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.data.sources import PURPOSES, Purpose
from experiments.paper.layer_steering.letter_probes import Prober
from experiments.paper.layer_steering.letter_task import all_digests, bounds
from experiments.paper.layer_steering.results import TellingRow
from experiments.run.records import Records, Row, chunk_name
from experiments.run.run import Run, progress
from gaze.pictures.strips import Strip
from gaze.prompts import NOTEBOOK_NARRATION, REVERSE_NARRATION
from gaze.statistics import average, correlation, spearman
from gaze.steering.steering_vectors import Begun, SteeringVector, difference, narrate, push, random_like
from qwen3vl_jax.sharding import fetch

Band = tuple[int, ...]
"""Layers, from 0."""

PAPER_BAND = (20 / 36, 29 / 36)
"""Layers 20 to 28 of 36, as shares of the depth."""
STRIPS = 24
"""Strips that are narrated, at once; half as many choose the band."""


DIRECTIONS = ("letters", "first letter", "narration")
"""What is added: from the letter probes about all panels, from those about the first, and from the narration prompts."""


class NarrationCondition(NamedTuple):
    """One way to have strips told; without layers the model is left alone.

    Attributes:
      direction: the name of what is added.
    """

    name: str
    question: str
    direction: str = ""
    layers: Band = ()
    alpha: float = 1.0


def collect(run: Run, place: str, letters: SteeringVector, first: SteeringVector) -> None:
    """Saves the narrations of all conditions.

    Args:
      letters, first: directions that letter probes gave, about all panels and about the first one.
    """
    path = run.place(place) / "narration.npz"
    own = run.saved(path, lambda: {"direction": own_direction(run)}, all_digests(run))["direction"]
    known = dict(zip(DIRECTIONS, (letters, first, own), strict=True))
    tell(run, f"{place}/bands", strips(run, "selection"), trials(run.shape[0], known), known)
    known |= {f"random {n}": d for n, d in enumerate(random_like(first, run.settings.draws, run.settings.seed))}
    tell(run, place, strips(run, "evaluation"), tellings(run, place), known)


def own_direction(run: Run) -> SteeringVector:
    """Difference of means between the request to narrate backwards and the request to narrate, at their last token."""
    asked, told = prober(run), run.pictures("discovery")
    reverse, normal = (asked.observe(told, [question])[0] for question in (REVERSE_NARRATION, NOTEBOOK_NARRATION))
    return difference(reverse[:, 0], normal[:, 0])


def strips(run: Run, purpose: Purpose) -> list[Strip]:
    return run.pictures(purpose)[: STRIPS if purpose == "evaluation" else STRIPS // 2]


def tellings(run: Run, place: str) -> list[NarrationCondition]:
    """All conditions: left alone, pushed in the paper's band and in the best one, and the controls."""
    layers = run.shape[0]
    best = {name: best_band(run, place, name) for name in DIRECTIONS}
    paper = paper_band(layers)
    pushed = [
        NarrationCondition(f"{name}, {which} band", NOTEBOOK_NARRATION, name, band)
        for name in best
        for which, band in (("paper", paper), ("best", best[name]))
    ]
    back = [NarrationCondition(f"{name}, back", REVERSE_NARRATION, name, best[name], -1.0) for name in best]
    draws = [f"random {number}" for number in range(run.settings.draws)]
    return [
        NarrationCondition("normal", NOTEBOOK_NARRATION),
        NarrationCondition("reverse", REVERSE_NARRATION),
        *pushed,
        *back,
        *(NarrationCondition(name, NOTEBOOK_NARRATION, name, best["first letter"]) for name in draws),
    ]


def paper_band(layers: int) -> Band:
    """The layers of the same relative depth as the paper's 20 to 28 of 36, by their middles; at least one."""
    low, high = PAPER_BAND
    band = tuple(layer for layer in range(layers) if low <= (layer + 0.5) / layers < high)
    return band or (min(int((low + high) / 2 * layers), layers - 1),)


def bands(layers: int) -> list[Band]:
    """Bands to choose from: runs of an eighth, a quarter and a half of the depth, half overlapping, and all layers."""
    widths = sorted({max(1, layers // share) for share in (8, 4, 2)})
    runs = [
        tuple(range(start, start + width))
        for width in widths
        for start in range(0, layers - width + 1, max(1, width // 2))
    ]
    return [*runs, tuple(range(layers))]


def trials(layers: int, known: Iterable[str]) -> list[NarrationCondition]:
    """Every direction in every band."""
    return [
        NarrationCondition(f"{name} {'-'.join(map(str, band))}", NOTEBOOK_NARRATION, name, band)
        for name in known
        for band in bands(layers)
    ]


def best_band(run: Run, place: str, name: str) -> Band:
    """The band in which a direction most turns the order round, on strips that nothing else is measured on.

    Narrations in which fewer than three panels can be told count as having no order.
    """
    some = strips(run, "selection")
    found = summaries(run, some, Records(run.place(f"{place}/bands") / "answers.jsonl").rows())
    tried = [one for one in trials(run.shape[0], [name]) if one.name in found]
    return min(tried, key=lambda one: (found[one.name]["zero_filled"], len(one.layers))).layers


def tell(
    run: Run,
    place: str,
    told: Sequence[Strip],
    conditions: Sequence[NarrationCondition],
    known: Mapping[str, SteeringVector],
) -> None:
    """Saves the narrations of all strips under all conditions that are not saved yet."""
    records = Records(run.place(place) / "answers.jsonl")
    depends = run.digests(told), all_digests(run)
    keys = {
        one.name: chunk_name(one.name, run.key(*depends, one, known[one.direction] if one.direction else None))
        for one in conditions
    }
    records.tell_stale(keys.values())
    missing = records.missing(keys.values())
    begun: dict[str, Begun] = {}
    with progress(place, len(conditions), len(conditions) - len(missing)) as done:
        for one in (one for one in conditions if keys[one.name] in missing):
            if one.question not in begun:
                ((_, begun[one.question]),) = prober(run).begun(told, [one.question], len(told))
            records.add({keys[one.name]: _narrations(run, told, one, begun[one.question], known)})
            done(1)
    records.finish([*keys.values()])


def prober(run: Run) -> Prober:
    told = [strip for purpose in PURPOSES for strip in run.pictures(purpose)]
    return Prober.make(run.model, run.processor, [[NOTEBOOK_NARRATION], [REVERSE_NARRATION]], told)


def summaries(run: Run, told: Sequence[Strip], rows: Sequence[Row]) -> dict[str, TellingRow]:
    """For each condition the order of telling: its rank correlation with the order from left to right, and what comes first.

    A panel that is told twice counts where it is told first; sentences that describe no panel are left out.
    """
    sentences = [split_sentences(row["text"]) for row in rows]
    texts = [(row["strip"], sentence) for row, some in zip(rows, sentences, strict=True) for sentence in some]
    verdicts = iter(run.verdicts(told, texts))
    panels = [[next(verdicts) for _ in some] for some in sentences]
    number = {strip.name: place for place, strip in enumerate(told)}
    found = {}
    for name in dict.fromkeys(row["condition"] for row in rows):
        mine = [place for place, row in enumerate(rows) if row["condition"] == name]
        strip = np.array([number[rows[place]["strip"]] for place in mine])
        counts = [len(told[n]) for n in strip]
        found[name] = summary([panels[place] for place in mine], counts, strip)
    return found


def summary(told: Sequence[Sequence[int | None]], counts: Sequence[int], strip: np.ndarray) -> TellingRow:
    """What became of some narrations.

    Args:
      told: the panel (from 0) that each sentence describes, None for none.
      counts: how many panels each strip has.
      strip: which strip each narration is about.
    """
    orders = [[*dict.fromkeys(panel for panel in one if panel is not None)] for one in told]
    rho = correlation([spearman(np.arange(len(one)), np.array(one)) for one in orders], strip)
    last = np.array([one[:1] == [count - 1] for one, count in zip(orders, counts, strict=True)])
    begins = average(last, strip)
    total = sum(map(len, told))
    return {
        "correlation": rho.value,
        "interval": None if rho.low is None or rho.high is None else bounds(rho.low, rho.high),
        "zero_filled": rho.zero_filled,
        "defined": rho.defined,
        "narrations": len(told),
        "last_first": begins.value,
        "last_first_interval": [begins.low, begins.high],
        "first_first": float(np.mean([one[:1] == [0] for one in orders])),
        "forwards": float(np.mean([one == [*range(count)] for one, count in zip(orders, counts, strict=True)])),
        "backwards": float(np.mean([one == [*range(count)][::-1] for one, count in zip(orders, counts, strict=True)])),
        "sentences": total / len(told),
        "lost": sum(panel is None for one in told for panel in one) / max(total, 1),
    }


def split_sentences(text: str) -> list[str]:
    """Lines, and within them sentences."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def _narrations(
    run: Run, told: Sequence[Strip], one: NarrationCondition, begun: Begun, known: Mapping[str, SteeringVector]
) -> list[Row]:
    layers = run.shape[0]
    vectors = (
        known[one.direction] if one.direction else np.zeros((layers, run.model.config.text.hidden_size), np.float32)
    )
    stop = np.array(run.processor.stop_tokens, np.int32)
    plan = push(vectors, one.layers, one.alpha)
    found = narrate(run.model, begun, plan, stop, max_new=run.settings.narration)
    tokens = [row[:length] for row, length in zip(*fetch((found.tokens, found.length)), strict=True)]
    return [
        {
            "strip": strip.name,
            "condition": one.name,
            "target": None,
            "text": run.processor.decode(said).strip(),
            "tokens": said.tolist(),
            **run.provenance(one.question),
            "direction": one.direction or None,
            "layers": list(one.layers),
            "alpha": one.alpha,
        }
        for strip, said in zip(told, tokens, strict=True)
    ]
