"""Runs experiments: each by itself as `gaze run NAME`, or one after the other into one report."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from experiments.commands.options import EXPERIMENTS as NAMES
from experiments.run.run import Run
from experiments.run.settings import resolve_settings
from gaze.report.html import Chapter
from qwen3vl_jax.files.write import write_json


def experiment(name: str) -> ModuleType:
    """An experiment by its name, such as e4_vqa: a module with NUMBER, NAME, TITLE and three functions.

    `collect(run)` does all that needs the model and saves it; `sum_up(run)` makes plain JSON of what is saved;
    `chapter(run, results)` tells it as a `gaze.report.html.Chapter`.
    """
    return import_module(f"experiments.paper.{name}")


def perform(one: ModuleType, run: Run) -> Chapter:
    """Runs an experiment, or the part of it that is not yet done, and writes its results.json."""
    one.collect(run)
    results = one.sum_up(run)
    write_json(run.place(one.NAME) / "results.json", results)
    chapter: Chapter = one.chapter(run, results)
    return chapter


def run_alone(name: str, out: Path, given: dict[str, Any]) -> None:
    """Runs one experiment in the folder `out`, after experiment 1, and prints what it found."""
    run = Run(out, resolve_settings(given))
    chapters = perform_all(run, [*dict.fromkeys((NAMES[0], name))])
    for finding in chapters[-1].findings:
        click.echo(finding)


def perform_all(run: Run, names: Sequence[str]) -> list[Chapter]:
    """Runs experiments in their order."""
    return [perform(experiment(name), run) for name in names]
