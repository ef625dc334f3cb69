"""Experiment 6, dynamic narration: the gaze heads are moved from panel to panel while the model writes (arXiv 2606.14703,
section 3; released script 05).

Each strip has its own order of panels, none of which stands in its place, and each panel a segment of tokens. Steered heads,
controls and the model left alone are all held against the same schedules.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments import following, study
from experiments.conditions import Aim, Condition
from experiments.dynamic_report import report
from experiments.following import Followed, verbatim
from experiments.lab import Lab
from experiments.records import Row
from experiments.runner import script
from experiments.summaries import provenance
from experiments.testbed.wordings import DYNAMIC, STATIC
from gaze import dynamics
from gaze.book import Chapter
from gaze.dynamics import CONVENTIONS, Order
from gaze.heads import HeadSet, all_heads
from gaze.statistics import average
from gaze.steer import schedule

NUMBER, NAME, TITLE = 6, "e6_dynamic", "Moving the gaze while the model narrates"

IN_TIME, OFFICIAL = "first token", "official"
"""The step conventions that this run and the paper go by."""
DRAWN = (("random", IN_TIME), ("random", OFFICIAL), ("paper", IN_TIME))
"""Which controls of `study.controls` are drawn under which of them, many of each."""
NO_PANEL = -1
SWITCH = 2
"""Words said before the target of a single answer moves."""
MOVED = f"{NAME}/switch"


def collect(lab: Lab) -> None:
    lab.generate(NAME, lab.pictures("evaluation"), [*conditions(lab)])
    following.pin(lab, NAME, lab.answers(NAME))
    if verbatim(lab):
        lab.generate(MOVED, lab.pictures("evaluation"), [*moves(lab)])


def conditions(lab: Lab) -> Iterator[Condition]:
    """The model left alone, and gaze heads, all heads and controls under the step conventions."""
    heads = lab.heads()
    yield _condition(lab, "unsteered", None, IN_TIME)
    for convention in CONVENTIONS:
        yield _condition(lab, f"gaze, {convention}", heads, convention)
        yield _condition(lab, f"all, {convention}", all_heads(*lab.shape), convention)
    yield _condition(lab, f"gaze, {OFFICIAL}, the script's schedules", heads, OFFICIAL, "paper")
    controls = study.controls(lab, heads)
    for convention in (IN_TIME, OFFICIAL):
        yield _condition(lab, f"code, {convention}", controls["code"][0], convention)
    for kind, convention in DRAWN:
        for draw, drawn in enumerate(controls[kind]):
            steered = [list(head) for head in drawn.heads]
            yield _condition(lab, f"{kind} {draw}, {convention}", drawn, convention, draw=draw, steered=steered)


def moves(lab: Lab) -> Iterator[Condition]:
    """Short answers whose target moves after `SWITCH` words."""
    heads = lab.heads()
    aims = [
        [Aim(new, schedule([(0, old), (SWITCH, new)], SWITCH + 1)) for old, new in _pairs(lab, strip.name, len(strip))]
        for strip in lab.pictures("evaluation")
    ]
    yield Condition("gaze", STATIC, lab.settings.static, aims, heads, tags={"kind": "gaze"})
    for draw, drawn in enumerate(lab.controls(heads)):
        yield Condition(
            f"random {draw}", STATIC, lab.settings.static, aims, drawn, tags={"kind": "random", "draw": draw}
        )


def sum_up(lab: Lab) -> dict[str, Any]:
    rows, seed = lab.answers(NAME), lab.settings.seed
    schedules = {orders: _schedules(lab, orders) for orders in ("own", "paper")}
    orders = [schedules[row["orders"]][row["strip"]] for row in rows]
    narrations = following.read(lab, NAME, rows, orders, ["draw" not in row for row in rows])
    by_name: dict[str, list[Followed]] = {}
    for row, one in zip(rows, narrations, strict=True):
        by_name.setdefault(row["condition"], []).append(one)
    made_with = {row["condition"]: provenance({**row, "judge": lab.judge.name}) for row in rows}
    alone, drawn = by_name["unsteered"], {row["condition"] for row in rows if "draw" in row}
    found = {
        name: {**made_with[name], **following.summed(some, seed)} for name, some in by_name.items() if name not in drawn
    }
    for convention in CONVENTIONS:
        for reading, one in found[f"gaze, {convention}"]["readings"].items():
            one["beyond_unsteered"] = following.beside(by_name[f"gaze, {convention}"], alone, reading, seed)
    return {
        "judge": lab.judge.name,
        "segment": lab.settings.segment,
        "verbatim": verbatim(lab),
        "conditions": found,
        "drawn": {", ".join(which): _drawn(lab, by_name, which, made_with) for which in DRAWN},
        "moved": _moved(lab) if verbatim(lab) else None,
        "skipped_lines": lab.skipped,
        "failed_verdicts": len(lab.failed),
    }


def chapter(lab: Lab, results: dict[str, Any]) -> Chapter:
    return report(results, NUMBER, NAME, TITLE)


def _condition(
    lab: Lab, name: str, heads: HeadSet | None, convention: str, orders: str = "own", **tags: Any
) -> Condition:
    """A narration of every strip; its tags say which schedules it goes by and what it is called in the results."""
    rows, delay = CONVENTIONS[convention]
    strips, segment = lab.pictures("evaluation"), lab.settings.segment
    steps = [dynamics.targets(order, segment, delay) for order in _schedules(lab, orders).values()]
    aims = [[Aim(None, np.full_like(one, NO_PANEL) if heads is None else one)] for one in steps]
    # An answer has no more tokens than the schedule: what comes after it would be about no segment.
    room = max(map(len, strips)) * segment
    tags = {"kind": name.split()[0].rstrip(","), "convention": convention, "orders": orders, **tags}
    return Condition(name, DYNAMIC, room, aims, heads, rows=rows, tags=tags)


def _schedules(lab: Lab, orders: str) -> dict[str, Order]:
    """The order of the panels of each strip: its own, or the one that the released script would draw for it."""
    strips = lab.pictures("evaluation")
    if orders == "paper":
        drawn = dynamics.paper_orders([len(strip) for strip in strips])
    else:
        drawn = [dynamics.named_order(lab.settings.seed, strip.name, len(strip)) for strip in strips]
    return {strip.name: order for strip, order in zip(strips, drawn, strict=True)}


def _drawn(
    lab: Lab, by_name: dict[str, list[Followed]], which: tuple[str, str], made_with: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The drawn controls of one kind and convention, beside the gaze heads."""
    kind, convention = which
    names = [f"{kind} {draw}, {convention}" for draw in range(lab.settings.draws)]
    gaze, draws = by_name[f"gaze, {convention}"], [by_name[name] for name in names]
    together = [one for some in draws for one in some]
    return {
        **made_with[names[0]],
        "readings": {name: following.among(gaze, draws, name, lab.settings.seed) for name in together[0].panels},
        "outcomes": {name: following.counted(together, name) for name in together[0].panels},
    }


def _pairs(lab: Lab, name: str, panels: int) -> list[tuple[int, int]]:
    return dynamics.switch_pairs(lab.settings.seed, name, panels, panels)


def _moved(lab: Lab) -> dict[str, Any]:
    """What became of answers whose target moved, with the gaze heads and with random ones."""
    strips = {strip.name: strip for strip in lab.pictures("evaluation")}
    rows = lab.answers(MOVED)
    return {kind: _moved_kind(lab, [row for row in rows if row["kind"] == kind], strips) for kind in ("gaze", "random")}


def _moved_kind(lab: Lab, rows: Sequence[Row], strips: dict[str, Any]) -> dict[str, Any]:
    pairs = {name: _pairs(lab, name, len(strip)) for name, strip in strips.items()}
    number = {name: place for place, name in enumerate(strips)}
    seen: dict[tuple[str, str], int] = {}
    found, strip = [], []
    for row in rows:
        place = seen[row["condition"], row["strip"]] = seen.get((row["condition"], row["strip"]), -1) + 1
        old, new = (strips[row["strip"]].captions[panel] for panel in pairs[row["strip"]][place])
        compared = dynamics.switched(row["text"], old, new, SWITCH)
        if compared.words:  # captions that end alike tell nothing
            found.append(compared)
            strip.append(number[row["strip"]])
    numbers = {
        "words_new": [one.new / one.words for one in found],
        "words_old": [one.old / one.words for one in found],
        "soon": [one.soon for one in found],
        "whole": [one.whole for one in found],
    }
    means = {
        name: following.shared(average(np.array(values, float), np.array(strip), lab.settings.seed))
        for name, values in numbers.items()
    }
    return {**provenance({**rows[0], "judge": "none"}), **means}


if __name__ == "__main__":
    script(sys.modules[__name__])
