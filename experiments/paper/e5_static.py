"""Experiment 5, static narration: "this panel", steered to each panel (arXiv 2606.14703, section 3; script 04)."""

from experiments.paper import steering_study
from experiments.paper.e1_discovery import panel_questions
from experiments.paper.steering_study import SteeringResults
from experiments.run.conditions import NOWHERE, Aim, Condition
from experiments.run.run import Run
from gaze.prompts import STATIC
from gaze.report.html import Chapter, Compared

NUMBER, NAME, TITLE = 5, "e5_static", "“This panel”: which one does the model mean?"

STORY = (
    "Nothing in the question says which panel “this panel” is. Left alone, the model chooses one itself. With its gaze heads "
    "made to look at a panel, it describes that one."
)
PAPER = (
    Compared("gaze heads describe the target panel (8B, 100 heads)", "79.4%; a replication 70.6 to 71.1%", ""),
    Compared("as many other heads", "5.6% (one draw); a replication 4 to 70% over 33 draws", ""),
    Compared("all heads", "0.5%", ""),
)


def collect(run: Run) -> None:
    strips = run.pictures("evaluation")
    asked = [
        Condition(
            f"asked {panel + 1}",
            question,
            run.settings.static,
            [[Aim(panel, NOWHERE)]] * len(strips),
            tags={"kind": "asked"},
        )
        for panel, question in enumerate(panel_questions(len(strips[0])))
    ]
    steering_study.collect(run, NAME, STATIC, run.settings.static, asked)


def sum_up(run: Run) -> SteeringResults:
    return steering_study.sum_up(run, NAME)


def chapter(run: Run, results: SteeringResults) -> Chapter:
    return steering_study.chapter(run, results, NUMBER, NAME, TITLE, STORY, PAPER)
