"""Narrations that were to follow a schedule, as judges read them: segment by segment, blindly, and from switch to switch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NotRequired, cast

import numpy as np
from jaxtyping import Bool, Int64
from typing_extensions import TypedDict

from experiments.run.records import Records, Row
from experiments.run.run import Run
from experiments.run.summaries import (
    Among,
    CorrelationRow,
    EstimateRow,
    OutcomeCounts,
    Share,
    among,
    correlation_row,
    estimate_row,
    shared,
)
from gaze.judges.outcomes import count, is_junk, outcome
from gaze.statistics import accuracy, average, correlation, difference, follows
from gaze.steering import schedules
from gaze.steering.schedules import CONVENTIONS, CutNarration, Order
from gaze.text_spans import token_ends

READINGS = {
    "segment": "the text of the segment's own tokens, wherever they cut (the paper's)",
    "sentence": "the whole sentence whose middle is in the segment",
    "words": "the caption nearest to that sentence, word by word",
}
VERBATIM = ("exact", "first")
"""Judges for models that repeat captions word for word, for which words can be compared too."""


@dataclass(frozen=True)
class ScheduledNarration:
    """One narration beside its schedule; panels count from 0.

    Attributes:
      order: the panel scheduled for each segment.
      texts, panels: for each of `READINGS` that was made, what was read of each segment and the panel that it describes.
      visited: the panels in the order in which a reader who does not know the schedule finds them; None if not read so.
      latency: for each switch the tokens until the text turns to the new panel; None if it does not.
    """

    order: Order
    texts: dict[str, list[str]]
    panels: dict[str, list[int | None]]
    visited: list[int] | None
    latency: list[int | None]


class SegmentRow(Share):
    """The segments of one number, from 1."""

    segment: int


class ScheduledRow(Share):
    """The segments that are to be about one panel, from 1."""

    panel: int


class Reading(Share):
    """Segments that describe their panel, as one of `READINGS` has them; `grid` is by segment and scheduled panel."""

    per_segment: list[SegmentRow]
    per_panel: list[ScheduledRow]
    grid: list[list[float | None]]
    rho: CorrelationRow
    outcomes: OutcomeCounts
    beyond_unsteered: NotRequired[EstimateRow]


class Blind(Share):
    """Places of the schedule that a reader who does not know it finds; `visits` is the mean number of panels told."""

    rho: CorrelationRow
    visits: float


class Latency(TypedDict):
    """Tokens from each switch to the text's turn, None where it does not turn, and how often it does."""

    turned: Share
    median: float | None
    mean: float | None
    values: list[int | None]


class Adherence(TypedDict):
    """The numbers of one condition."""

    readings: dict[str, Reading]
    blind: NotRequired[Blind]
    latency: NotRequired[Latency]


class DrawnReading(Among):
    """The gaze heads among draws of controls, and each draw's rank correlation."""

    rho: list[CorrelationRow]


def verbatim(run: Run) -> bool:
    return run.settings.judge in VERBATIM


def pin(run: Run, name: str, rows: Sequence[Row]) -> None:
    """Saves where in its text each token of each answer stands, so that texts can be cut without the tokenizer."""
    records = Records(_ends_file(run, name))
    chunks: dict[str, list[Row]] = {}
    for row in rows:
        chunks.setdefault(row["chunk"], []).append(row)
    records.tell_stale(chunks)
    for key in records.missing(chunks):
        decode = partial(run.processor.tokenizer.decode, skip_special_tokens=True)
        records.add({key: [{"ends": token_ends(decode, row["tokens"]).tolist()} for row in chunks[key]]})
    records.finish([*chunks])


def read(
    run: Run, name: str, rows: Sequence[Row], orders: Sequence[Order], full: Sequence[bool]
) -> list[ScheduledNarration]:
    """Reads answers of an experiment, all of them, in their order.

    Args:
      orders: the schedule of each.
      full: whether sentences of an answer are judged too, or its segments only.
    """
    pinned = Records(_ends_file(run, name)).rows(dict.fromkeys(row["chunk"] for row in rows))
    ends = [np.array(row["ends"], np.int32) for row in pinned]
    length, delays = run.settings.segment, [CONVENTIONS[row["convention"]].delay for row in rows]
    told = [
        schedules.cut(row["text"], end, length, len(order), delay)
        for row, end, order, delay in zip(rows, ends, orders, delays, strict=True)
    ]
    said = _judged(run, rows, told, full)
    by_name = {picture.name: picture for picture in run.pictures("evaluation")}
    found = []
    for row, end, order, delay, cut, whole in zip(rows, ends, orders, delays, told, full, strict=True):
        verdict = partial(_verdict, said, row["strip"])
        captions = by_name[row["strip"]].captions if verbatim(run) else ()
        panels = {"segment": [*map(verdict, cut.segments)]}
        texts = {"segment": cut.segments}
        if whole:
            panels["sentence"], texts["sentence"] = [*map(verdict, cut.central)], cut.central
        if captions:
            panels["words"] = [schedules.nearest(text, captions) if text else None for text in cut.central]
            texts["words"] = cut.central
        sentences = [verdict(one.text) for one in cut.sentences] if whole else None
        visited = None if sentences is None else schedules.visits(sentences)
        latency = _latencies(cut, end, order, length, delay, captions, sentences)
        found.append(ScheduledNarration(order, texts, panels, visited, latency))
    return found


def summed(some: Sequence[ScheduledNarration]) -> Adherence:
    """Returns the numbers of one condition, whose narrations are about different strips."""
    strip = np.arange(len(some))
    numbers: Adherence = {"readings": {name: _reading(some, name) for name in some[0].panels}}
    if all(one.visited is not None for one in some):
        matches = [schedules.blind_match(one.order, one.visited or []) for one in some]
        numbers["blind"] = {
            **shared(average(np.array([match for match, _ in matches]), strip)),
            "rho": correlation_row(correlation([rho for _, rho in matches], strip)),
            "visits": float(np.mean([len(one.visited or []) for one in some])),
        }
    if some[0].latency:
        numbers["latency"] = _turning(some)
    return numbers


def beside(gaze: Sequence[ScheduledNarration], other: Sequence[ScheduledNarration], name: str) -> EstimateRow:
    """Returns how much more often the gaze heads' segments describe their panel, on the same strips."""
    hits, others = hit(gaze, name), hit(other, name)
    return estimate_row(difference(hits.ravel(), _strips(hits), others.ravel(), _strips(others)))


def among_draws(
    gaze: Sequence[ScheduledNarration], draws: Sequence[Sequence[ScheduledNarration]], name: str
) -> DrawnReading:
    """Returns where the gaze heads stand among draws of controls, segment by segment, and each draw's rank correlation."""
    hits = hit(gaze, name)
    found = among(hits.ravel(), [hit(one, name).ravel() for one in draws], _strips(hits))
    return {**found, "rho": [_correlated(one, name) for one in draws]}


def counted(some: Sequence[ScheduledNarration], name: str) -> OutcomeCounts:
    """Returns what became of the segments; see `gaze.judges.outcomes.Counts`."""
    outcomes = [
        outcome(text, panel, int(target))
        for one in some
        for text, panel, target in zip(one.texts[name], one.panels[name], one.order, strict=True)
    ]
    return cast(OutcomeCounts, asdict(count(outcomes)))


def hit(some: Sequence[ScheduledNarration], name: str) -> Bool[np.ndarray, "strip segment"]:
    """Which segments describe the panel that they were to."""
    return np.array(
        [[panel == wanted for panel, wanted in zip(one.panels[name], one.order, strict=True)] for one in some]
    )


def _ends_file(run: Run, name: str) -> Path:
    return run.place(name) / "ends.jsonl"


def _judged(
    run: Run, rows: Sequence[Row], told: Sequence[CutNarration], full: Sequence[bool]
) -> dict[tuple[str, str], int | None]:
    """What the run's judge says of all the texts that are needed, by strip and text. Junk and empty texts describe none."""
    wanted: dict[tuple[str, str], None] = {}
    for row, cut, whole in zip(rows, told, full, strict=True):
        sentences = [*cut.central, *(one.text for one in cut.sentences)] if whole else []
        wanted |= dict.fromkeys(
            (row["strip"], text) for text in [*cut.segments, *sentences] if text and not is_junk(text)
        )
    return dict(zip(wanted, run.verdicts(run.pictures("evaluation"), [*wanted]), strict=True))


def _verdict(said: dict[tuple[str, str], int | None], strip: str, text: str) -> int | None:
    return said.get((strip, text))


def _latencies(
    cut: CutNarration,
    ends: np.ndarray,
    order: Order,
    segment: int,
    delay: int,
    captions: Sequence[str],
    sentences: Sequence[int | None] | None,
) -> list[int | None]:
    """Of every switch; none where neither words nor sentences are known."""
    found = []
    for number, panel in enumerate(order.tolist()):
        begin = number * segment + delay
        if not number:
            continue
        if captions:
            found.append(schedules.word_latency(cut.sentences, ends, captions, panel, begin, begin + segment))
        elif sentences is not None:
            found.append(schedules.sentence_latency(cut.sentences, sentences, panel, begin, begin + segment))
    return found


def _reading(some: Sequence[ScheduledNarration], name: str) -> Reading:
    hits = hit(some, name)
    wanted, strips = np.stack([one.order for one in some]), _strips(hits)
    segment = np.broadcast_to(np.arange(hits.shape[1]), hits.shape)
    panels = np.unique(wanted)
    return {
        **shared(accuracy(hits.ravel(), strips)),
        "per_segment": [
            {"segment": int(one) + 1, **shared(accuracy(hits[segment == one], strips[segment.ravel() == one]))}
            for one in range(hits.shape[1])
        ],
        "per_panel": [
            {"panel": int(one) + 1, **shared(accuracy(hits[wanted == one], strips[wanted.ravel() == one]))}
            for one in panels
        ],
        "grid": _grid(hits, wanted),
        "rho": _correlated(some, name),
        "outcomes": counted(some, name),
    }


def _correlated(some: Sequence[ScheduledNarration], name: str) -> CorrelationRow:
    """Returns the rank correlation of what segments describe with the schedule, strip by strip."""
    values = [follows(one.order, schedules.numbers(one.panels[name])) for one in some]
    return correlation_row(correlation(values, np.arange(len(some))))


def _grid(
    hits: Bool[np.ndarray, "strip segment"], wanted: Int64[np.ndarray, "strip segment"]
) -> list[list[float | None]]:
    """Share of hits by segment and panel; None where a panel was never scheduled."""
    cells = []
    for segment in range(hits.shape[1]):
        some = [hits[wanted[:, segment] == panel, segment] for panel in range(hits.shape[1])]
        cells.append([float(one.mean()) if one.size else None for one in some])
    return cells


def _turning(some: Sequence[ScheduledNarration]) -> Latency:
    """Returns how soon, and whether, the text turns to the new panel."""
    values = [value for one in some for value in one.latency]
    strips = np.repeat(np.arange(len(some)), [len(one.latency) for one in some])
    turned = np.array([value is not None for value in values])
    soon = np.array([value for value in values if value is not None], np.float64)
    return {
        "turned": shared(accuracy(turned, strips)),
        "median": float(np.median(soon)) if soon.size else None,
        "mean": float(soon.mean()) if soon.size else None,
        "values": values,
    }


def _strips(hits: Bool[np.ndarray, "strip segment"]) -> Int64[np.ndarray, " answer"]:
    return np.repeat(np.arange(len(hits)), hits.shape[1])
