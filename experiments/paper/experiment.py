"""What the module of an experiment has."""

from importlib import import_module
from typing import Any, Protocol, cast, runtime_checkable

from experiments.run.run import Run
from gaze.report.html import Chapter


@runtime_checkable
class Experiment(Protocol):
    """A module with a number, a name and a title. Its results are a TypedDict of its own, plain JSON."""

    NUMBER: int
    NAME: str
    TITLE: str

    def collect(self, run: Run) -> None:
        """Does all that needs the model, and saves it; what is saved already is not done again."""

    def sum_up(self, run: Run) -> Any:
        """Returns the results, from what `collect` saved."""

    def chapter(self, run: Run, results: Any) -> Chapter:
        """Returns the figures, tables and sentences of the report."""


def experiment(name: str) -> Experiment:
    """Returns an experiment by the name of its module, such as e4_vqa; judge_calibration is one, too."""
    return cast(Experiment, import_module(f"experiments.paper.{name}"))
