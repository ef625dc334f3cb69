"""Numbers as people read them: the words, rows and marks that chapters share."""

from collections.abc import Sequence

from experiments.run.summaries import Among, Counted, CountedRate, OutcomeCounts, Provenance, Rate, Share
from gaze.report.plots import Line, Measure, Role
from gaze.report.style import Numbers

OUTCOMES = ("wrong panel", "no panel", "empty", "junk", "as unsteered", "was so unsteered")
"""Column heads of `outcomes`."""

ON_TARGET = ("on target", "95% interval", "on target, the paper's counting", "its 95% interval")
"""Column heads of `on_target`."""

BY_RULE = ("as judged", "the paper's")
"""The two ways of counting, where each has a row."""

COUNTING = (
    "On target: as the judge says. The paper's counting: an answer that equals the unsteered one is a miss, even where it "
    "describes the target; only these numbers stand beside the paper's."
)
"""The note of every table that counts both ways."""


def percent(share: float) -> str:
    return f"{share:.1%}"


def interval(found: Rate) -> str:
    low, high = found["interval"]
    return f"{100 * low:.1f} to {100 * high:.1f}"


def share(found: Share) -> str:
    """Returns a share with its interval, e.g. 98.6% (97.2 to 99.7)."""
    return f"{percent(found['accuracy'])} ({interval(found)})"


def on_target(found: Counted | CountedRate) -> list[str]:
    """Returns the answers on target under both rules; a column each of `ON_TARGET`."""
    return [cell for one in (found, found["by_paper"]) for cell in (percent(one["accuracy"]), interval(one))]


def rules(found: Counted) -> list[tuple[str, Share]]:
    """Returns the same share under each of `BY_RULE`."""
    return [*zip(BY_RULE, (found, found["by_paper"]), strict=True)]


def plural(count: int, noun: str) -> str:
    """Returns a count with its noun, e.g. 1 head or 2 heads."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def both(found: Counted) -> str:
    """Returns both shares in a sentence."""
    return f"{share(found)}, or {share(found['by_paper'])} by the paper's counting"


def drawn(among: Among) -> str:
    """Returns what draws of control heads reach: their mean, the least and the most."""
    return f"{percent(among['mean']['value'])} ({percent(among['lowest'])} to {percent(among['highest'])})"


def made_with(found: Provenance) -> list[str]:
    """Returns everything a number depends on, a part each, for `gaze.report.html.Table`."""
    steering = [
        f"heads {found['heads']} (K={found['k']})",
        found["mode"],
        found["bias"],
        f"strength {found['strength']:,g}",
        f"query positions {found['query_positions']}",
    ]
    return [
        f"{found['model']}@{found['revision']}",
        *(steering if found["heads"] else ["not steered"]),
        f"seed {found['seed']}",
        f"judge {found.get('judge')}",
        f"“{found['question']}”",
    ]


def outcomes(counted: OutcomeCounts) -> list[int]:
    """Returns what became of the answers; a column each of `OUTCOMES`."""
    return [
        counted["wrong"],
        counted["unattributable"],
        counted["empty"],
        counted["junk"],
        counted["same_code"],
        counted["baseline_on_target"],
    ]


def measure(name: str, role: Role, found: Share) -> Measure:
    """Returns a row of `gaze.report.plots.conditions`; a control's draws with it."""
    draws = found["against"]["accuracies"] if "against" in found else ()
    low, high = found["interval"]
    return Measure(name, role, found["accuracy"], low, high, draws if len(draws) > 1 else ())


def line(name: str, role: Role, places: Numbers, found: Sequence[Share]) -> Line:
    """Returns a line of `gaze.report.plots.sweep` and its like."""
    low, high = zip(*(one["interval"] for one in found), strict=True)
    return Line(name, role, places, [one["accuracy"] for one in found], low, high)
