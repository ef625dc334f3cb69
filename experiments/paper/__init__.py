"""The paper's experiments, one a module or package. Each is an `Experiment`."""

from typing import Any, Protocol

from experiments.run.run import Run
from gaze.report.html import Chapter

EXPERIMENTS = (
    "e1_discovery",
    "e2_layers",
    "e3_trajectories",
    "e4_vqa",
    "e5_static",
    "e6_dynamic",
    "e7_sweeps",
    "e8_natural",
    "e9_checkpoints",
    "judge_calibration",
)
"""Their modules, in the order in which they run: later ones steer the heads that the first one finds."""


class Experiment(Protocol):
    """What the module of an experiment has. Its results are a TypedDict of its own, plain JSON."""

    NUMBER: int
    NAME: str
    TITLE: str

    def collect(self, run: Run) -> None:
        """Does all that needs the model, and saves it; what is saved already is not done again."""

    def sum_up(self, run: Run) -> Any:
        """Returns the results, from what `collect` saved."""

    def chapter(self, run: Run, results: Any) -> Chapter:
        """Returns the figures, tables and sentences of the report."""
