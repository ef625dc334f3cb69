"""The tables of experiment 6, and what its conditions are called."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.paper.schedule_adherence import READINGS
from experiments.run.formatting import percent, share, source
from gaze.report.html import Cell, Table

STEPS = {
    "official": "the released script's steps",
    "full sequence": "the script's with --full-sequence",
    "first token": "first token too",
    "all steps": "whole prompt too",
}
"""What is steered: decoded tokens, each segment a token late; the same and every row of the prompt; and in time, from the row on
that predicts the first token, or every row."""

Found = Mapping[str, Any]
OUTCOMES = ("hit", "wrong", "unattributable", "empty", "junk")


def title_of(name: str) -> str:
    """A condition's name for people: which heads, and which steps are steered."""
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


def rho(one: Found) -> str:
    """A mean rank correlation with its interval, and in how many strips there is none."""
    lost = f"; none in {one['undefined']} of {one['defined'] + one['undefined']}" if one["undefined"] else ""
    return f"–{lost}" if one["value"] is None else f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f}{lost})"


def tables(results: dict[str, Any]) -> list[Table]:
    """All of them; every number stands in the results."""
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
        ),
        _by_place(found, "segment", "Per segment"),
        _by_place(found, "panel", "Per scheduled panel"),
        Table(
            "Made with",
            ("condition", "made with"),
            [[title_of(name), source(one)] for name, one in {**found, **drawn}.items()],
        ),
    ]


def _followed(found: Mapping[str, Found], drawn: Mapping[str, Found]) -> Table:
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
        "Of draws: mean and range.",
    )


def _by_place(found: Mapping[str, Found], place: str, title: str) -> Table:
    by = f"per_{place}"
    places = found["unsteered"]["readings"]["segment"][by]
    return Table(
        title,
        ("condition", *(f"{place} {row[place]}" for row in places)),
        [[title_of(name), *map(share, one["readings"]["segment"][by])] for name, one in found.items()],
    )


def _counted(found: Mapping[str, Found], drawn: Mapping[str, Found]) -> Iterator[tuple[str, Found]]:
    yield from ((name, one["readings"]["segment"]["outcomes"]) for name, one in found.items())
    yield from ((name, one["outcomes"]["segment"]) for name, one in drawn.items())


def _outcomes(counted: Found) -> list[int]:
    return [counted["answers"], *(counted[name] for name in OUTCOMES)]


def _cells(one: Found, readings: list[str]) -> list[str]:
    return [cell for name in readings for cell in (share(one["readings"][name]), rho(one["readings"][name]["rho"]))]


def _drawn_cells(one: Found, readings: list[str]) -> list[str]:
    cells = []
    for name in readings:
        if name not in one["readings"]:
            cells += ["–", "–"]
            continue
        among = one["readings"][name]
        values = [draw["value"] for draw in among["rho"] if draw["value"] is not None]
        cells.append(f"{percent(among['mean']['value'])} ({percent(among['lowest'])} to {percent(among['highest'])})")
        cells.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "–")
    return cells


def _blind_cells(one: Found) -> list[Cell]:
    blind, latency = one["blind"], one["latency"]
    soon = ["–" if latency[name] is None else f"{latency[name]:.1f}" for name in ("median", "mean")]
    return [share(blind), rho(blind["rho"]), blind["visits"], share(latency["turned"]), *soon]
