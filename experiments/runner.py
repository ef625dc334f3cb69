"""Runs experiments: each by itself as `python -m experiments.eN_NAME`, or one after the other into one report."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import click

from convert.cli import run
from experiments.lab import Lab, Settings
from experiments.models import TESTBED
from experiments.records import write_json
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


class Experiment(Protocol):
    """A module of this package.

    `collect` does all that needs the model and saves it; `sum_up` makes plain JSON of what is saved; `chapter` tells it.
    """

    NUMBER: int
    NAME: str
    TITLE: str

    def collect(self, lab: Lab) -> None: ...
    def sum_up(self, lab: Lab) -> dict[str, Any]: ...
    def chapter(self, lab: Lab, results: dict[str, Any]) -> Chapter: ...


def experiment(name: str) -> ModuleType:
    """An experiment by its name, such as e4_vqa."""
    return import_module(f"experiments.{name}")


def perform(one: Experiment | ModuleType, lab: Lab) -> Chapter:
    """Runs an experiment, or the part of it that is not yet done, and writes its results.json."""
    one.collect(lab)
    results = one.sum_up(lab)
    write_json(lab.place(one.NAME) / "results.json", results)
    chapter: Chapter = one.chapter(lab, results)
    return chapter


def presets(model: str) -> Settings:
    """The paper's settings, or for the testbed, whose captions have seven tokens, shorter ones."""
    small = Settings(model=model, segment=7, static=16, narration=60)
    return small if model == TESTBED else Settings(model=model, judge="likelihood")


OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--model", default=TESTBED, show_default=True, help="A converted checkpoint, a Hugging Face folder or a hub name."),
    click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Compute in this; float32 on a CPU, else as stored, without."),
    click.option("--strips", help="testbed, folder:PATH, comics:PATH or hub:NAME (default: testbed)."),
    click.option("--share", is_flag=True, default=None, help="Let discovery and evaluation use the same strips."),
    click.option("--discovery", type=click.IntRange(2), help="Strips that find the heads (default: 60)."),
    click.option("--selection", type=click.IntRange(2), help="Strips that choose how many heads (default: 24)."),
    click.option("--evaluation", type=click.IntRange(2), help="Strips to evaluate on (default: 60)."),
    click.option("--heads", help="Use this head set in place of the heads that are found."),
    click.option("--k", type=click.IntRange(1), help="Number of heads; chosen on the selection strips without."),
    click.option("--draws", type=click.IntRange(1), help="Random head sets to compare with (default: 10)."),
    click.option("--strength", type=float, help="Added to, or subtracted from, the attention scores (default: 10000)."),
    click.option("--mode", help="boost_suppress, suppress_image, suppress_all or max_suppress_all."),
    click.option("--precision", type=click.Choice(["ordered", "uniform"])),
    click.option("--segment", type=click.IntRange(1), help="Tokens of a part of a scheduled narration."),
    click.option("--judge", help="exact, first, caption, likelihood or chat:MODEL."),
    click.option("--seed", type=click.IntRange(0), help="(default: 0)"),
)  # fmt: skip


def options(command: Any) -> Any:
    """Gives a command the settings of a run as options; what is not given is left to `settings`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def settings(model: str, given: dict[str, Any]) -> Settings:
    """The presets for a model, and what a person has given."""
    names = {field.name for field in fields(Settings)}
    return replace(
        presets(model), **{name: value for name, value in given.items() if value is not None and name in names}
    )


def script(one: ModuleType) -> None:
    """The command line of one experiment: `python -m experiments.eN_NAME --out RUN`."""

    @click.command(help=one.__doc__)
    @click.option(
        "--out", required=True, type=click.Path(path_type=Path), help="Run folder; goes on where it was left."
    )
    @options
    def command(out: Path, model: str, **given: Any) -> None:
        lab = Lab(out, settings(model, given))
        chapters = perform_all(lab, [NAMES[0], one.NAME] if one.NUMBER != 1 else [one.NAME])
        for finding in chapters[-1].findings:
            click.echo(finding)

    run(command, one.NAME)


def perform_all(lab: Lab, names: Sequence[str]) -> list[Chapter]:
    """Runs experiments in their order."""
    return [perform(experiment(name), lab) for name in names]
