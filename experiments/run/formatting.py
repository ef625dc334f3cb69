"""Numbers as people read them: the words, rows and marks that chapters share."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.run.summaries import PROVENANCE
from gaze.report.plots import Line, Measure, Numbers, Role

Found = Mapping[str, Any]
"""A measured share: `accuracy`, `interval`, `n`, `strips`, and where it comes from."""

OUTCOMES = ("wrong panel", "no panel", "empty", "junk", "as unsteered", "was so unsteered")
"""Column heads of `outcomes`."""


def percent(share: float) -> str:
    return f"{share:.1%}"


def interval(found: Found) -> str:
    low, high = found["interval"]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def share(found: Found) -> str:
    """A share with its interval, e.g. 98.6% (97.2 to 99.7)."""
    return f"{percent(found['accuracy'])} ({interval(found)})"


def source(found: Found) -> str:
    """Everything a number depends on, in one line."""
    values = {name: found[name] for name in PROVENANCE if name != "question"}
    return (
        f"{values['model']}@{values['revision']}, heads {values['heads'] or 'none'} (K={values['k']}), {values['mode']}, "
        f"{values['bias']}, strength {values['strength']:g}, query positions {values['query_positions']}, seed {values['seed']}, "
        f"judge {values['judge']}: “{found['question']}”"
    )


def outcomes(found: Found) -> list[int]:
    """What became of the answers; a column each of `OUTCOMES`."""
    counted = found["outcomes"]
    return [counted[name] for name in ("wrong", "unattributable", "empty", "junk", "same_code", "baseline_on_target")]


def measure(name: str, role: Role, found: Found) -> Measure:
    """A row of `gaze.report.plots.conditions`; a control's draws with it."""
    draws = found["against"]["accuracies"] if "against" in found else ()
    low, high = found["interval"]
    return Measure(name, role, found["accuracy"], low, high, draws if len(draws) > 1 else ())


def line(name: str, role: Role, places: Numbers, found: Sequence[Found]) -> Line:
    """A line of `gaze.report.plots.sweep` and its like."""
    low, high = zip(*(one["interval"] for one in found), strict=True)
    return Line(name, role, places, [one["accuracy"] for one in found], low, high)
