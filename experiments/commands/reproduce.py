"""`gaze reproduce`: the paper's experiments one after the other, and one report of them all; `gaze judge`: once more."""

import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from experiments.commands.runner import check_extras, perform
from experiments.commands.tables import steering_table
from experiments.paper import ALL
from experiments.paper.experiment import experiment
from experiments.paper.reports.cover import cover
from experiments.run.run import Run
from experiments.run.settings import Settings, as_saved
from gaze.judges.by_name import make_judge
from gaze.judges.chat import Chat
from gaze.judges.judge import Item
from gaze.report.html import write_report
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.write import write_json

SHORT = ("e1_discovery", "e5_static")
"""The experiments of the short run: find the heads, and steer with them."""


def reproduce(out: Path, settings: Settings, names: Sequence[str]) -> Path:
    """Runs experiments in the folder `out`, going on where it was left, and writes their report.

    Nothing in the folder but `timing.json` depends on when, or how often interrupted, it was made.
    """
    check_extras(names)
    run = Run(out, settings)
    chapters, seconds = [], {}
    for name in names:
        began = time.perf_counter()
        chapters.append(perform(experiment(name), run))
        seconds[name] = round(time.perf_counter() - began, 1)
        click.echo(f"{name}: {seconds[name]:.0f} s", err=True)
    absent = {one.NUMBER: one.TITLE for one in map(experiment, ALL) if one.NAME not in names}
    page = write_report(run.folder, cover(run, chapters, absent), chapters)
    write_json(run.folder / "timing.json", seconds)
    if SHORT[1] in names:
        Console().print(steering_table(run, SHORT[1]))
    click.echo(f"Report: {page}")
    return page


def judge_again(folder: Path, judge: str, mesh: str | None = None) -> Path:
    """Sums up a run once more under another judge: a second pass over what is saved. The model does not answer again."""
    names = [name for name in ALL if (folder / name / "results.json").exists()]
    return reproduce(folder, as_saved(folder, {"judge": judge, "mesh": mesh}), names)


def rehearse(folder: Path, judge: str) -> str:
    """What a chat judge would be sent for the answers of experiments 4 and 5; sends nothing."""
    run = Run(folder, as_saved(folder, {"judge": "exact"}))
    chat = make_judge(judge, run.likelihood, dry_run=True)
    if not isinstance(chat, Chat):
        raise InputError(f"the {judge} judge sends nothing anyway: only chat:MODEL needs a dry run")
    by_name = {strip.name: strip for strip in run.pictures("evaluation")}
    rows = [row for name in ("e4_vqa", "e5_static") for row in run.answers(name)]
    chat([Item(by_name[row["strip"]], row["text"]) for row in rows])
    return str(chat.bill)
