"""Diagnoses every model of `experiments.error_rates.models` as `gaze diagnose` does, and compares with the truth."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from typing_extensions import TypedDict

from experiments.commands.diagnose import STRIPS
from experiments.error_rates.models import Altered, Source
from experiments.paper.examination import ExaminedRow, examine, report
from experiments.run.formatting import percent
from experiments.run.run import Run
from experiments.run.settings import resolve_settings
from experiments.testbed.broken import write

ABOUT = """`python -m experiments.error_rates models CHECKPOINT` makes them ([models.py](models.py)), diagnoses them
as `gaze diagnose` does, and writes this page; `models.json` has all that each was judged by."""


class SuiteRow(TypedDict):
    """What is true of a model, and what was found.

    Attributes:
      right: whether the answer is the truth; None in the grey zone.
      criteria: by what they are about: value, interval and state of each.
    """

    name: str
    kind: str
    truth: str
    why: str
    answer: str | None
    looks: str
    beside: Sequence[int] | None
    reason: str
    right: bool | None
    heads: int
    asked: float
    advantage: list[float] | None
    need: list[float] | None
    strength: float | None
    states: dict[str, list[str]]


def diagnosed(models: Sequence[Altered], source: Source, folder: Path, given: dict[str, Any]) -> Iterator[SuiteRow]:
    """Yields a row for each model; all have one shape, so that what is compiled for one serves all.

    Args:
      folder: where models and their runs are kept; what is there is gone on with.
      given: what else of `experiments.run.settings.Settings` is to be set, over what `gaze diagnose` sets.
    """
    for one in tqdm(models, desc="models", unit="model", disable=None):
        place = folder / re.sub(r"\W+", "-", one.name)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "model").exists():
            write(one.make(source), place / "model", source.folder)
        run = Run(place / "run", resolve_settings({**STRIPS, **given, "model": str(place / "model")}))
        examine(run)
        yield _row(one, report(run))


def save(rows: Sequence[SuiteRow], source: str, folder: Path) -> None:
    """Writes the rows, and a table of them."""
    (folder / "models.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "models.md").write_text(_page(rows, source), encoding="utf-8")


def _row(one: Altered, found: ExaminedRow) -> SuiteRow:
    judged = found["verdict"]
    states: dict[str, list[str]] = {}
    for criterion in judged["criteria"]:
        states.setdefault(criterion["about"], []).append(criterion["state"])
    numbers = {
        about: next(
            ([row["value"], row["low"], row["high"]] for row in judged["criteria"] if row["about"] == about), None
        )
        for about in ("cause", "need")
    }
    return {
        "name": one.name,
        "kind": one.kind,
        "truth": one.truth,
        "why": one.why,
        "answer": judged["answer"],
        "looks": judged["looks"],
        "beside": judged["beside"],
        "reason": judged["reason"],
        "right": None if one.truth == "grey" else judged["answer"] == one.truth,
        "heads": found["looking"],
        "asked": found["asked"]["accuracy"],
        "advantage": numbers["cause"],
        "need": numbers["need"],
        "strength": found["steering"]["strengths"]["gaze"] if "steering" in found else None,
        "states": states,
    }


def _page(rows: Sequence[SuiteRow], source: str) -> str:
    clear = [row for row in rows if row["truth"] != "grey"]
    counts = {
        (truth, answer): sum((row["truth"], row["answer"]) == (truth, answer) for row in clear)
        for truth in ("yes", "no")
        for answer in ("yes", "uncertain", "no")
    }
    lines = [
        "# What `gaze diagnose` says of models that are made to have gaze heads, or none",
        "",
        f"Made from {source}. {ABOUT}",
        "",
        "| in truth | models | yes | uncertain | no |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {truth} | {sum(row['truth'] == truth for row in clear)} | "
            + " | ".join(str(counts[truth, answer]) for answer in ("yes", "uncertain", "no"))
            + " |"
            for truth in ("yes", "no")
        ),
        "",
        "Grey is what nobody can call: models that have lost some of what they learned, by noise of more than 2 and less than",
        "100% of each matrix's standard deviation, or by heads that write less than they did.",
        "",
        "*Asked*: answers about the panel asked for. *Ahead*: steered answers on target beyond random heads. *Need*: answers",
        "about the panel asked for that are lost without the heads, beyond random heads. Both in points, with 95% intervals; a",
        "dash where no head looks, and none was steered.",
        "",
        "| model | in truth | answer | looks | heads that look | asked | ahead | need | strength |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
        *map(_line, rows),
        "",
        "Why the truth is known:",
        "",
        *(f"* {', '.join(names)}: {why}." for why, names in _reasons(rows).items()),
    ]
    return "\n".join(lines) + "\n"


def _line(row: SuiteRow) -> str:
    looks = row["looks"] if row["beside"] is None else f"beside: {' '.join(map(str, row['beside']))}"
    wrong = "" if row["right"] in (True, None) else " **!**"
    cells = (row["name"], row["truth"], f"{row['answer']}{wrong}", looks, str(row["heads"]), percent(row["asked"]))
    strength = "–" if row["strength"] is None else f"{row['strength']:,g}"
    return f"| {' | '.join((*cells, _points(row['advantage']), _points(row['need']), strength))} |"


def _points(numbers: Sequence[float] | None) -> str:
    if numbers is None:
        return "–"
    value, low, high = (f"{100 * one:.0f}".replace("-", "−") for one in numbers)
    return f"{value} ({low} to {high})"


def _reasons(rows: Sequence[SuiteRow]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["why"], []).append(row["name"])
    return found
