"""Runs experiments: each by itself as `python -m experiments.eN_NAME`, or one after the other into one report."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from experiments import processes
from experiments.lab import Lab
from experiments.options import options, together
from experiments.records import write_json
from experiments.settings import settled
from gaze.book import Chapter

NAMES = (
    "e1_discovery",
    "e2_layers",
    "e3_trajectories",
    "e4_vqa",
    "e5_static",
    "e6_dynamic",
    "e7_sweeps",
    "e8_natural",
    "e9_checkpoints",
)


def experiment(name: str) -> ModuleType:
    """An experiment by its name, such as e4_vqa: a module with NUMBER, NAME, TITLE and three functions.

    `collect(lab)` does all that needs the model and saves it; `sum_up(lab)` makes plain JSON of what is saved;
    `chapter(lab, results)` tells it as a `gaze.book.Chapter`.
    """
    return import_module(f"experiments.{name}")


def perform(one: ModuleType, lab: Lab) -> Chapter:
    """Runs an experiment, or the part of it that is not yet done, and writes its results.json."""
    one.collect(lab)
    results = one.sum_up(lab)
    write_json(lab.place(one.NAME) / "results.json", results)
    chapter: Chapter = one.chapter(lab, results)
    return chapter


def script(one: ModuleType) -> None:
    """The command line of one experiment: `python -m experiments.eN_NAME --out RUN`."""

    @click.command(help=one.__doc__)
    @click.option(
        "--out", required=True, type=click.Path(path_type=Path), help="Run folder; goes on where it was left."
    )
    @options()
    @together
    def command(out: Path, **given: Any) -> None:
        lab = Lab(out, settled(given))
        chapters = perform_all(lab, [NAMES[0], one.NAME] if one.NUMBER != 1 else [one.NAME])
        for finding in chapters[-1].findings:
            click.echo(finding)

    processes.main(command, one.NAME)


def perform_all(lab: Lab, names: Sequence[str]) -> list[Chapter]:
    """Runs experiments in their order."""
    return [perform(experiment(name), lab) for name in names]
