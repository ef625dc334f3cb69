"""Experiment 9, across checkpoints: where their gaze heads lie, how many it takes, what steering does, and whether they have any.

Every checkpoint gets a run of its own in this one's folder, with fewer strips (arXiv 2606.14703, section 3, for the Qwen3-VL
sizes). The testbed stands beside two that cannot have gaze heads: one never trained, one with its queries scrambled.
"""

import re
from dataclasses import replace
from pathlib import Path

from experiments.paper.examination import examine, report
from experiments.paper.reports import checkpoints as checkpoints_report
from experiments.paper.reports.checkpoints import CheckpointResults
from experiments.run.run import Run
from experiments.testbed.broken import BROKEN, write
from experiments.testbed.testbeds import TESTBED
from gaze.report.html import Chapter
from qwen3vl_jax.errors import InputError

NUMBER, NAME, TITLE = 9, "e9_checkpoints", "Which models have gaze heads, and where?"

STRIPS = {"discovery": 24, "selection": 4, "evaluation": 16}
"""The most strips that a checkpoint gets; what has one number has one shape, and is compiled once."""


def runs(run: Run) -> dict[str, Run]:
    """The run of each checkpoint by a short name, this run's own first."""
    given = run.settings
    found = {_short(given.model): _run(run, given.model, run.checkpoint)}
    if given.model == TESTBED and not given.models:
        for name in BROKEN:
            found[name] = _run(run, name, weights_folder(run, name))
    for name in given.models:
        short = _short(name)
        if short in found:
            raise InputError(f"two checkpoints are called {short}: give folders of different names")
        found[short] = _run(run, name, name)
    return found


def collect(run: Run) -> None:
    if run.settings.model == TESTBED and not run.settings.models:
        for name, make in BROKEN.items():
            if not weights_folder(run, name).exists():
                weights_folder(run, name).parent.mkdir(parents=True, exist_ok=True)
                write(make(), weights_folder(run, name))
    for one in runs(run).values():
        examine(one)
        one.close()


def sum_up(run: Run) -> CheckpointResults:
    return {"judge": run.judge.name, "checkpoints": {name: report(one) for name, one in runs(run).items()}}


def _run(run: Run, model: str, checkpoint: str | Path) -> Run:
    given = run.settings
    mine = replace(
        given,
        model=model,
        models=(),
        heads=None,
        k=None,
        discovery=min(STRIPS["discovery"], given.discovery),
        selection=min(STRIPS["selection"], given.selection),
        evaluation=min(STRIPS["evaluation"], given.evaluation),
    )
    return Run(run.place(NAME) / _short(model), mine, checkpoint, parent=run)


def weights_folder(run: Run, name: str) -> Path:
    return run.folder / NAME / "weights" / name


def _short(model: str) -> str:
    """A name for folders and figures: the last part of a path or of a hub's name."""
    return re.sub(r"[^\w.-]+", "-", Path(model).name) or "model"


def chapter(run: Run, results: CheckpointResults) -> Chapter:
    return checkpoints_report.chapter(results, NUMBER, NAME, TITLE)
