"""`gaze discover` and `gaze evaluate`: find the heads of a model, and steer with them; a run without a report."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from experiments.commands.runner import perform_all
from experiments.commands.tables import heads_table, steering_table
from experiments.run.run import Run
from experiments.run.settings import as_saved, is_run, resolve_settings

DISCOVERY, EVALUATION = "e1_discovery", ("e4_vqa", "e5_static")


def discover(out: Path, given: dict[str, Any]) -> None:
    """Runs experiment 1 in the folder `out`, going on where it was left, and prints the best heads."""
    run = Run(out, resolve_settings(given))
    perform_all(run, [DISCOVERY])
    Console().print(heads_table(run, DISCOVERY))
    click.echo(f"Heads: {run.folder / 'heads.json'}")


def evaluate(out: Path, given: dict[str, Any]) -> None:
    """Runs experiments 1, 4 and 5 in the folder `out`, and prints what steering does.

    What is not `given` is as in the run that is there. What experiment 1 has saved is used again as long as it still holds:
    its heads are those of this model and these strips.
    """
    run = Run(out, as_saved(out, given) if is_run(out) else resolve_settings(given))
    perform_all(run, [DISCOVERY, *EVALUATION])
    for name in EVALUATION:
        Console().print(steering_table(run, name))
