"""Runs experiments: each by itself as `gaze run NAME`, or one after the other into one report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from experiments.data.coco import pycocotools
from experiments.paper.experiment import Experiment, experiment
from experiments.run.run import Run
from experiments.run.settings import resolve_settings
from gaze.report.html import Chapter
from qwen3vl_jax.files.write import write_json


def perform(one: Experiment, run: Run) -> Chapter:
    """Runs an experiment, or the part of it that is not yet done, and writes its results.json."""
    one.collect(run)
    results = one.sum_up(run)
    write_json(run.place(one.NAME) / "results.json", results)
    return one.chapter(run, results)


def check_extras(names: Sequence[str]) -> None:
    """Raises InputError, before anything is done, if an experiment needs a package that is not installed."""
    if "e8_natural" in names:
        pycocotools()


def run_alone(name: str, out: Path, given: dict[str, Any]) -> None:
    """Runs one experiment in the folder `out`, after those that it needs, and prints what it found."""
    check_extras([name])
    run = Run(out, resolve_settings(given))
    needed = ("e1_discovery", "e5_static") if name == "judge_calibration" else ("e1_discovery",)
    chapters = perform_all(run, [*dict.fromkeys((*needed, name))])
    for finding in chapters[-1].findings:
        click.echo(finding)


def perform_all(run: Run, names: Sequence[str]) -> list[Chapter]:
    """Runs experiments in their order."""
    return [perform(experiment(name), run) for name in names]
