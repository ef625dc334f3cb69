"""Experiment 10, causes: does what a head does when it is moved agree with where it looks by itself?

The paper finds heads by where they look, steers them at one strength, and compares them with other heads at that strength.
Here every head is moved alone, every set gets its own best strength, and heads are cut off: claims that can fail.
"""

from experiments.paper.causes import causal_map, controls, learned
from experiments.paper.causes.answers import NAME
from experiments.paper.causes.claims import claims
from experiments.paper.reports import causes as causes_report
from experiments.paper.reports.causes import CauseResults
from experiments.run.run import Run
from gaze.report.html import Chapter

NUMBER, TITLE = 10, "Are the heads that look the heads that matter?"


def collect(run: Run) -> None:
    causal_map.collect(run)
    controls.collect(run)
    learned.collect(run)


def sum_up(run: Run) -> CauseResults:
    heads, sets = causal_map.sum_up(run), controls.sum_up(run)
    return {
        "judge": run.judge.name,
        "panels": run.settings.panels,
        "heads_in_all": run.shape[0] * run.shape[1],
        "map": heads,
        "controls": sets,
        "learned": learned.sum_up(run),
        "claims": claims(heads, sets),
    }


def chapter(run: Run, results: CauseResults) -> Chapter:
    return causes_report.chapter(results, NUMBER, NAME, TITLE)
