"""The tables of experiment 6, and what its conditions are called."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from typing_extensions import TypedDict

from experiments.paper.schedule_adherence import READINGS, Adherence, DrawnReading
from experiments.run.formatting import drawn as drawn_share
from experiments.run.formatting import made_with, share
from experiments.run.summaries import CorrelationRow, OutcomeCounts, Provenance, Share
from gaze.report.html import Cell, Table

STEPS = {
    "official": "the released script's steps",
    "full sequence": "the script's with --full-sequence",
    "first token": "first token too",
    "all steps": "whole prompt too",
}
"""What is steered: decoded tokens, each segment a token late; the same and every row of the prompt; and in time, from the row on
that predicts the first token, or every row."""

OUTCOMES = ("hit", "wrong", "unattributable", "empty", "junk")
COUNTING = (
    "The paper's script compares no segment with the unsteered narration: its counting and this one are the same here."
)


class ScheduledCondition(Provenance, Adherence):
    """The numbers of one condition."""


class DrawnCondition(Provenance):
    """The numbers of a control that is drawn many times, by reading."""

    readings: dict[str, DrawnReading]
    outcomes: dict[str, OutcomeCounts]


class MovedRow(Provenance):
    """Answers whose target moved: shares of the words that follow three words later, without those of both panels."""

    words_new: Share
    words_old: Share
    answers: int


class DynamicResults(TypedDict):
    """What `e6_dynamic.sum_up` returns; `moved` is None where words cannot be compared."""

    judge: str
    segment: int
    verbatim: bool
    conditions: dict[str, ScheduledCondition]
    drawn: dict[str, DrawnCondition]
    moved: dict[str, MovedRow] | None
    skipped_lines: int
    failed_verdicts: int


def title_of(name: str) -> str:
    """Returns a condition's name for people: which heads, and which steps are steered."""
    heads, _, rest = name.partition(", ")
    steps, _, more = rest.partition(", ")
    words = {
        "gaze": "gaze heads",
        "all": "all heads",
        "random": "random heads, layers matched",
        "paper": "random heads, the paper's way",
        "code": "lowest scores, the script's way",
        "unsteered": "not steered",
    }
    return ", ".join([words[heads], *([STEPS[steps]] if steps else []), *([more] if more else [])])


def rho(one: CorrelationRow) -> str:
    """Returns a mean rank correlation with its interval, and in how many strips there is none."""
    lost = f"; none in {one['undefined']} of {one['defined'] + one['undefined']}" if one["undefined"] else ""
    return f"–{lost}" if one["value"] is None else f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f}{lost})"


def tables(results: DynamicResults) -> list[Table]:
    """Returns all of them; every number stands in the results."""
    found, drawn = results["conditions"], results["drawn"]
    return [
        _followed(found, drawn),
        Table(
            "Read without the schedule, and how soon the text turns",
            ("condition", "places in order", "ρ", "panels told", "switches followed", "median tokens", "mean tokens"),
            [[title_of(name), *_blind_cells(one)] for name, one in found.items()],
            "Sentences that describe no panel take no place, sentences in a row about one panel take one.",
        ),
        Table(
            "What became of the segments, as they are cut",
            ("condition", "segments", *OUTCOMES),
            [[title_of(name), *_outcomes(counted)] for name, counted in _counted(found, drawn)],
            COUNTING,
        ),
        _by_place(found, "segment", "Per segment"),
        _by_place(found, "panel", "Per scheduled panel"),
    ]


def _followed(found: Mapping[str, ScheduledCondition], drawn: Mapping[str, DrawnCondition]) -> Table:
    readings = [*found["gaze, official"]["readings"]]
    return Table(
        "Segments that describe their panel",
        ("condition", *(f"{reading}{mark}" for reading in readings for mark in ("", ", ρ"))),
        [
            *([title_of(name), *_cells(one, readings)] for name, one in found.items()),
            *([title_of(name), *_drawn_cells(one, readings)] for name, one in drawn.items()),
        ],
        "; ".join(f"{reading}: {READINGS[reading]}" for reading in readings)
        + ". ρ: Spearman correlation with the schedule, mean over strips in which at least three segments describe a panel. "
        f"Of draws: mean and range. {COUNTING}",
        [*map(made_with, found.values()), *map(made_with, drawn.values())],
    )


def _by_place(found: Mapping[str, ScheduledCondition], place: Literal["segment", "panel"], title: str) -> Table:
    read = {name: one["readings"]["segment"] for name, one in found.items()}
    rows: dict[str, Sequence[Share]] = {
        name: one["per_segment"] if place == "segment" else one["per_panel"] for name, one in read.items()
    }
    columns = (
        [row["segment"] for row in read["unsteered"]["per_segment"]]
        if place == "segment"
        else [row["panel"] for row in read["unsteered"]["per_panel"]]
    )
    return Table(
        title,
        ("condition", *(f"{place} {number}" for number in columns)),
        [[title_of(name), *map(share, some)] for name, some in rows.items()],
    )


def _counted(
    found: Mapping[str, ScheduledCondition], drawn: Mapping[str, DrawnCondition]
) -> Iterator[tuple[str, OutcomeCounts]]:
    yield from ((name, one["readings"]["segment"]["outcomes"]) for name, one in found.items())
    yield from ((name, one["outcomes"]["segment"]) for name, one in drawn.items())


def _outcomes(counted: OutcomeCounts) -> list[int]:
    return [counted[name] for name in ("answers", "hit", "wrong", "unattributable", "empty", "junk")]


def _cells(one: ScheduledCondition, readings: list[str]) -> list[str]:
    return [cell for name in readings for cell in (share(one["readings"][name]), rho(one["readings"][name]["rho"]))]


def _drawn_cells(one: DrawnCondition, readings: list[str]) -> list[str]:
    cells = []
    for name in readings:
        if name not in one["readings"]:
            cells += ["–", "–"]
            continue
        among = one["readings"][name]
        values = [draw["value"] for draw in among["rho"] if draw["value"] is not None]
        cells.append(drawn_share(among))
        cells.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "–")
    return cells


def _blind_cells(one: ScheduledCondition) -> list[Cell]:
    blind, latency = one["blind"], one["latency"]
    soon = ["–" if value is None else f"{value:.1f}" for value in (latency["median"], latency["mean"])]
    return [share(blind), rho(blind["rho"]), blind["visits"], share(latency["turned"]), *soon]
