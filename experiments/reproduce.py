"""`gaze reproduce`: the paper's experiments one after the other, and one report of them all."""

import json
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from experiments.judging import make_judge
from experiments.lab import Lab
from experiments.records import write_json
from experiments.runner import NAMES, experiment, perform
from experiments.settings import Settings
from experiments.study import example
from experiments.telling import interval, percent
from gaze.book import Chapter, Cover, write_book
from gaze.judge import Item
from gaze.judge_chat import Chat
from qwen3vl_jax.errors import InputError

SHORT = ("e1_discovery", "e5_static")
"""The experiments of the short run: find the heads, and steer with them."""
ALL = (*NAMES, "judges")


def reproduce(out: Path, settings: Settings, names: Sequence[str]) -> Path:
    """Runs experiments in the folder `out`, going on where it was left, and writes their report.

    Nothing in the folder but `timing.json` depends on when, or how often interrupted, it was made.
    """
    if "e8_natural" in names and find_spec("pycocotools") is None:
        raise InputError("experiment 8 reads pictures in COCO's format: pip install 'gaze-jax[coco]' first")
    lab = Lab(out, settings)
    chapters, seconds = [], {}
    for name in names:
        began = time.perf_counter()
        chapters.append(perform(experiment(name), lab))
        seconds[name] = round(time.perf_counter() - began, 1)
        click.echo(f"{name}: {seconds[name]:.0f} s", err=True)
    page = write_book(lab.folder, cover(lab, chapters), chapters)
    write_json(lab.folder / "timing.json", seconds)
    if SHORT[1] in names:
        Console().print(table(_results(lab, SHORT[1]), lab.settings.evaluation))
    click.echo(f"Report: {page}")
    return page


def judge_again(folder: Path, judge: str) -> Path:
    """Sums up a run once more under another judge: a second pass over what is saved. The model does not answer again."""
    lab = _saved(folder, judge)
    return reproduce(folder, lab.settings, [name for name in ALL if (folder / name / "results.json").exists()])


def rehearse(folder: Path, judge: str) -> str:
    """What a chat judge would be sent for the answers of experiments 4 and 5; sends nothing."""
    lab = _saved(folder, "exact")
    chat = make_judge(judge, lab.likelihood, dry_run=True)
    if not isinstance(chat, Chat):
        raise InputError(f"the {judge} judge sends nothing anyway: only chat:MODEL needs a dry run")
    by_name = {strip.name: strip for strip in lab.pictures("evaluation")}
    rows = [row for name in ("e4_vqa", "e5_static") for row in lab.answers(name)]
    chat([Item(by_name[row["strip"]], row["text"]) for row in rows])
    return str(chat.bill)


def _saved(folder: Path, judge: str) -> Lab:
    """A run as it was, under a judge."""
    try:
        saved = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"there is no run in {folder}: give a folder that `gaze reproduce` wrote") from None
    return Lab(folder, Settings(**{**saved, "judge": judge, "models": tuple(saved["models"])}))


def cover(lab: Lab, chapters: Sequence[Chapter]) -> Cover:
    """What the report opens with."""
    given, heads = lab.settings, lab.heads()
    facts: list[tuple[str, str | float]] = [
        ("model", given.model),
        ("revision", lab.revision),
        ("heads in all", f"{lab.shape[0] * lab.shape[1]:,} ({lab.shape[0]} layers of {lab.shape[1]})"),
        ("gaze heads", f"{len(heads)}: " + ", ".join(f"L{layer}H{head}" for layer, head in heads.heads[:12])),
        ("head set", heads.fingerprint),
        (
            "strips",
            f"{given.strips}: {given.discovery} to find the heads, {given.selection} to choose how many, "
            f"{given.evaluation} to evaluate on",
        ),
        ("judge", lab.judge.name),
        ("steering", f"{given.mode}, strength {given.strength:g}, {given.precision}"),
        ("random draws", given.draws),
        ("seed", given.seed),
    ]
    return Cover(
        "What a vision-language model looks at, it describes",
        "A few attention heads look at what is being described. This report finds them, moves them, and counts what "
        "happens.",
        facts,
        [chapter.findings[0] for chapter in chapters if chapter.findings],
        example(lab, SHORT[1]) if (lab.folder / SHORT[1] / "results.json").exists() else None,
    )


def table(results: dict[str, Any], strips: int) -> Table:
    """What a person wants to see first."""
    found = results["conditions"]
    question = results["unsteered"]["question"]
    shown = Table(title=f'"{question}" steered to each panel, {strips} strips')
    for column in ("heads", "describes the chosen panel", "95 % interval", "answers"):
        shown.add_column(column, justify="left" if column == "heads" else "right")
    names = {
        "gaze": f"{found['gaze']['k']} gaze heads",
        "random": f"as many random heads, {len(found['random']['against']['accuracies'])} draws",
        "all": f"all {found['all']['k']} heads",
    }
    for name, label in names.items():
        shown.add_row(label, percent(found[name]["accuracy"]), interval(found[name]), str(found[name]["n"]))
    asked = found["asked"]
    shown.caption = (
        f"Asked for a panel by its number, unsteered, it is right in {percent(asked['accuracy'])} of {asked['n']}."
    )
    return shown


def _results(lab: Lab, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((lab.place(name) / "results.json").read_text(encoding="utf-8"))
    return found
