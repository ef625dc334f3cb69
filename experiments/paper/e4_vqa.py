"""Experiment 4, VQA: a question about the whole strip, steered to each panel (arXiv 2606.14703, section 3; script 03)."""

from experiments.paper import steering_study
from experiments.paper.steering_study import SteeringResults
from experiments.run.run import Run
from gaze.prompts import VQA
from gaze.report.html import Chapter, Compared

NUMBER, NAME, TITLE = 4, "e4_vqa", "A question about the whole strip, answered about one panel"

STORY = (
    "The question asks for the main event of the whole comic. While the model answers, its gaze heads are made to look at one "
    "panel. If they decide what the model talks about, the answer describes that panel."
)
PAPER = (
    Compared("gaze heads describe the target panel (8B, 100 heads)", "83.1%", ""),
    Compared("as many other heads (one draw)", "14.6%", ""),
    Compared("all heads", "0.9%", ""),
)


def collect(run: Run) -> None:
    steering_study.collect(run, NAME, VQA, run.settings.brief)


def sum_up(run: Run) -> SteeringResults:
    return steering_study.sum_up(run, NAME)


def chapter(run: Run, results: SteeringResults) -> Chapter:
    return steering_study.chapter(run, results, NUMBER, NAME, TITLE, STORY, PAPER)
