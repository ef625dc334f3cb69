"""`gaze reproduce`: find the gaze heads, steer with them, and see what random heads and all heads do instead.

Three sets of strips that share nothing: one finds the heads, one chooses how many, one is evaluated on.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from convert.convert import to_orbax
from convert.folder import new_folder
from experiments.bench import Bench, Record
from experiments.models import TESTBED, open_model, source
from experiments.summaries import baseline, condition, measured, random_condition
from experiments.testbed.strips import draw_strips
from experiments.testbed.wordings import STATIC
from gaze import figures
from gaze.heads import HeadSet, all_heads, random_heads
from gaze.report import Example, Run, write_report
from gaze.score import Mass, gaze_score
from gaze.strips import Strip

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 75, 100, 150, 200, 300, 500, 1000)
"""Numbers of heads that are tried; the paper's sweep, with more at the low end."""

MATRICES = 8
EXAMPLES = 3


@dataclass(frozen=True)
class Settings:
    """What a run depends on besides the model."""

    strips: int = 60
    discovery_strips: int = 60
    selection_strips: int = 24
    draws: int = 10
    strength: float = 10_000.0
    mode: str = "boost_suppress"
    precision: str = "ordered"
    max_new: int = 16
    seed: int = 0

    @property
    def sets(self) -> dict[str, int]:
        """How many strips serve which purpose."""
        return {"discovery": self.discovery_strips, "selection": self.selection_strips, "evaluation": self.strips}


@dataclass(frozen=True)
class Findings:
    """Everything a run has measured, before it is summed up."""

    mass: Mass
    ranking: HeadSet
    heads: HeadSet
    curve: list[dict[str, Any]]
    selection: list[Record]
    questions: list[Record]
    alone: list[Record]
    gaze: list[Record]
    drawn: list[HeadSet]
    random: list[list[Record]]
    all: list[Record]


def reproduce(model: str, dtype: str | None, out: Path | None, settings: Settings) -> Path:
    """Runs everything, prints the table and returns the run folder, which is there whole or not at all."""
    if out is None:
        out = Path("runs") / f"reproduce-{datetime.now():%Y%m%d-%H%M%S}"
        out.parent.mkdir(exist_ok=True)
    seconds: dict[str, float] = {}
    with new_folder(out.absolute()) as folder:
        bench = _bench(model, dtype, settings, folder, seconds)
        strips = {purpose: draw_strips(settings.seed, purpose, count) for purpose, count in settings.sets.items()}
        findings = find(bench, model, settings, strips, seconds)
        results = sum_up(bench, model, settings, findings, seconds)
        write(folder, results, findings, strips["evaluation"])
    Console().print(table(results))
    click.echo(f"Report: {out / 'report.html'}")
    return out


def find(
    bench: Bench, model: str, settings: Settings, strips: dict[str, list[Strip]], seconds: dict[str, float]
) -> Findings:
    """Discovery, choice of the number of heads, and all conditions."""
    with _timed(seconds, "discovery"):
        mass = bench.discover(strips["discovery"])
        ranking = bench.ranking(mass, model, {"seed": settings.seed})
    with _timed(seconds, "selection"):
        counts = [count for count in COUNTS if count < len(ranking)] + [len(ranking)]
        swept = bench.steered("number of heads", strips["selection"], [ranking.top(count) for count in counts])
        measures = [measured(records, settings.seed) for records in swept]
        curve = [{"k": count, **found} for count, found in zip(counts, measures, strict=True)]
        # More than half of all heads could not be compared with as many others.
        possible = [point for point in curve if 2 * point["k"] <= len(ranking)]
        heads = ranking.top(max(possible, key=lambda point: (point["accuracy"], -point["k"]))["k"])
    with _timed(seconds, "panel questions"):
        questions = bench.panel_questions(strips["evaluation"])
        alone = bench.unsteered("unsteered", strips["evaluation"], STATIC)
    with _timed(seconds, "steering"):
        drawn = _draw(heads, bench.shape, settings)
        sets = [heads, all_heads(*bench.shape), *drawn]
        gaze, everything, *random = bench.steered("steering", strips["evaluation"], sets)
    selection = [{**row, "k": count} for count, rows in zip(counts, swept, strict=True) for row in rows]
    return Findings(mass, ranking, heads, curve, selection, questions, alone, gaze, drawn, random, everything)


def sum_up(bench: Bench, model: str, settings: Settings, found: Findings, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of `results.json`."""
    seed = settings.seed
    random = random_condition(found.random, [heads.heads for heads in found.drawn], found.alone, seed)
    return {
        "model": model,
        "testbed": model == TESTBED,
        "revision": found.ranking.revision,
        **{
            name: value
            for name, value in asdict(settings).items()
            if name not in ("strips", "discovery_strips", "selection_strips")
        },
        "question": STATIC,
        "strips": settings.sets,
        "k": len(found.heads),
        "heads": [list(head) for head in found.heads.heads],
        "heads_total": int(np.prod(bench.shape)),
        "layers": bench.shape[0],
        "heads_per_layer": bench.shape[1],
        "panel_questions": measured(found.questions, seed),
        "baseline": baseline(found.alone),
        "conditions": {
            "gaze": condition(found.gaze, found.alone, seed),
            "random": random,
            "all": condition(found.all, found.alone, seed),
        },
        "curve": found.curve,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def write(folder: Path, results: dict[str, Any], found: Findings, strips: Sequence[Strip]) -> None:
    """All files of a run: results, head set, ranking, scores, every answer, figures and report."""
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    found.heads.save(folder / "heads.json")
    found.ranking.save_ranking(folder / "gaze_head_ranking.json")
    np.savez_compressed(folder / "scores.npz", mass=found.mass.astype(np.float16), gaze=gaze_score(found.mass))
    with (folder / "generations.jsonl").open("w") as file:
        for name, rows in _all_records(found):
            file.writelines(json.dumps({"condition": name, **row}) + "\n" for row in rows)
    top = found.ranking.top(min(MATRICES, len(found.ranking)))
    examples = [_example(strip, found) for strip in strips[:EXAMPLES]]
    write_report(
        Run(
            folder=folder,
            results=results,
            scores=gaze_score(found.mass),
            matrices=np.stack([found.mass[:, :, layer, head].mean(axis=0) for layer, head in top.heads]),
            top=[(layer, head, score) for (layer, head), score in zip(top.heads, top.scores, strict=True)],
            examples=examples,
        )
    )
    first = examples[0]
    figures.save(figures.example(first.image, STATIC, first.unsteered, first.steered), folder / "figures", "example")


def table(results: dict[str, Any]) -> Table:
    """What a person wants to see first."""
    shown = Table(
        title=f'"{results["question"]}" steered to each of six panels, {results["strips"]["evaluation"]} strips'
    )
    for column in ("heads", "describes the chosen panel", "95 % interval", "answers"):
        shown.add_column(column, justify="left" if column == "heads" else "right")
    names = {
        "gaze": f"{results['k']} gaze heads",
        "random": "as many random heads",
        "all": f"all {results['heads_total']} heads",
    }
    for name, label in names.items():
        row = results["conditions"][name]
        label += f", {len(row['draws'])} draws" if "draws" in row else ""
        low, high = row["interval"]
        shown.add_row(label, f"{row['accuracy']:.1%}", f"{low:.1%} to {high:.1%}", str(row["n"]))
    asked = results["panel_questions"]
    shown.caption = (
        f"Asked for a panel by its number, unsteered, it is right in {asked['accuracy']:.1%} of {asked['n']}."
    )
    return shown


def _bench(model: str, dtype: str | None, settings: Settings, folder: Path, seconds: dict[str, float]) -> Bench:
    """Opens the model; the testbed is converted first, as a real checkpoint would be."""
    with _timed(seconds, "load"):
        if model == TESTBED:
            to_orbax(source(model), folder / "checkpoint")
        opened = open_model(str(folder / "checkpoint") if model == TESTBED else model, dtype)
    return Bench(*opened, settings.strength, settings.mode, settings.precision, settings.max_new)


def _draw(heads: HeadSet, shape: tuple[int, int], settings: Settings) -> list[HeadSet]:
    """Controls matched by layer; a model with too few other heads has none to offer and says so."""
    rng = np.random.default_rng([settings.seed, 1])
    return [random_heads(rng, heads, heads.heads, shape) for _ in range(settings.draws)]


def _all_records(found: Findings) -> Iterator[tuple[str, Sequence[Record]]]:
    yield "selection", found.selection
    yield "panel_questions", found.questions
    yield "unsteered", found.alone
    yield "gaze", found.gaze
    for number, rows in enumerate(found.random):
        yield "random", [{**row, "draw": number} for row in rows]
    yield "all", found.all


def _example(strip: Strip, found: Findings) -> Example:
    alone = next(row["text"] for row in found.alone if row["strip"] == strip.name)
    steered = [row for row in found.gaze if row["strip"] == strip.name]
    return Example(
        strip.image, strip.captions, alone, [(row["text"], row["panel"] == row["target"]) for row in steered]
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began
