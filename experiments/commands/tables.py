"""What the commands print: the heads that were found, and what steering with them does."""

import json
from typing import Any, cast

from rich.table import Table

from experiments.paper.reports.discovery import DiscoveryResults
from experiments.paper.steering_study import SteeringResults
from experiments.run.formatting import COUNTING, ON_TARGET, both, on_target
from experiments.run.run import Run


def heads_table(run: Run, name: str) -> Table:
    """The best heads by experiment 1."""
    found = cast(DiscoveryResults, _results(run, name))
    chosen = [tuple(head) for head in found["chosen"]]
    shown = Table(title=f"Heads that look at the panel that is asked for, on {found['strips']} strips")
    for column in ("head", "gaze", "95% interval", "steered"):
        shown.add_column(column, justify="right" if column in ("gaze", "95% interval") else "left")
    for one in found["top"]:
        low, high = one["interval"]
        steered = "yes" if (one["layer"], one["head"]) in chosen else ""
        shown.add_row(f"L{one['layer']}H{one['head']}", f"{one['gaze']:.3f}", f"{low:.3f} to {high:.3f}", steered)
    shown.caption = f"{len(chosen)} of {run.shape[0] * run.shape[1]} heads are steered."
    return shown


def steering_table(run: Run, name: str) -> Table:
    """What a person wants to see first of experiment 4 or 5."""
    results = cast(SteeringResults, _results(run, name))
    found = results["conditions"]
    question = results["unsteered"]["question"]
    shown = Table(title=f'"{question}" steered to each panel, {run.settings.evaluation} strips')
    for column in ("heads", "strength", *ON_TARGET, "answers"):
        shown.add_column(column, justify="left" if column == "heads" else "right")
    names = {
        "gaze": f"{found['gaze']['k']} gaze heads",
        "random": f"as many random heads, {len(found['random']['against']['accuracies'])} draws",
        "all": f"all {found['all']['k']} heads",
        "gaze, paper": "the gaze heads, the paper's strength",
        "paper": "random heads, the paper's way and strength",
        "all, paper": "all heads, the paper's strength",
    }
    for kind, label in names.items():
        one = found[kind]
        shown.add_row(label, f"{one['strength']:,g}", *on_target(one), str(one["n"]))
    shown.caption = COUNTING
    if asked := found.get("asked"):
        shown.caption += (
            f" Asked for a panel by its number, unsteered, {both(asked)} of {asked['n']} answers are right."
        )
    return shown


def _results(run: Run, name: str) -> Any:
    return json.loads((run.place(name) / "results.json").read_text(encoding="utf-8"))
