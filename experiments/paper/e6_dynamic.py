"""Experiment 6, dynamic narration: the gaze heads are moved from panel to panel while the model writes (arXiv 2606.14703,
section 3; released script 05).

Each strip has its own order of panels, none of which stands in its place, and each panel a segment of tokens. Steered heads,
controls and the model left alone are all held against the same schedules.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.paper import schedule_adherence, steering_study
from experiments.paper.reports.dynamic import report
from experiments.paper.reports.dynamic_tables import DrawnCondition, DynamicResults, MovedRow, ScheduledCondition
from experiments.paper.schedule_adherence import ScheduledNarration, verbatim
from experiments.run.conditions import Aim, Condition
from experiments.run.records import Row
from experiments.run.run import Run
from experiments.run.summaries import Provenance, Share, clusters, provenance, shared
from gaze.heads import HeadSet, all_heads
from gaze.pictures.strips import Picture
from gaze.prompts import DYNAMIC, STATIC
from gaze.report.html import Chapter
from gaze.statistics import average
from gaze.steering import schedules
from gaze.steering.masks import schedule
from gaze.steering.schedules import CONVENTIONS, Order

NUMBER, NAME, TITLE = 6, "e6_dynamic", "Moving the gaze while the model narrates"

IN_TIME, OFFICIAL = "first token", "official"
"""The step conventions that this run and the paper go by."""
DRAWN = (("random", IN_TIME), ("random", OFFICIAL), ("paper", IN_TIME))
"""Which controls of `steering_study.controls` are drawn under which of them, many of each."""
NO_PANEL = -1
SWITCH = 2
"""Words said before the target of a single answer moves."""
MOVED = f"{NAME}/switch"


def collect(run: Run) -> None:
    run.generate(NAME, run.pictures("evaluation"), [*conditions(run)])
    schedule_adherence.pin(run, NAME, run.answers(NAME))
    if verbatim(run):
        run.generate(MOVED, run.pictures("evaluation"), [*moves(run)])


def conditions(run: Run) -> Iterator[Condition]:
    """The model left alone, and gaze heads, all heads and controls under the step conventions."""
    heads = run.heads()
    yield _condition(run, "unsteered", None, IN_TIME)
    for convention in CONVENTIONS:
        yield _condition(run, f"gaze, {convention}", heads, convention)
        yield _condition(run, f"all, {convention}", all_heads(*run.shape), convention)
    yield _condition(run, f"gaze, {OFFICIAL}, the script's schedules", heads, OFFICIAL, "paper")
    controls = steering_study.controls(run, heads)
    for convention in (IN_TIME, OFFICIAL):
        yield _condition(run, f"code, {convention}", controls["code"][0], convention)
    for kind, convention in DRAWN:
        for draw, drawn in enumerate(controls[kind]):
            steered = [list(head) for head in drawn.heads]
            yield _condition(run, f"{kind} {draw}, {convention}", drawn, convention, draw=draw, steered=steered)


def moves(run: Run) -> Iterator[Condition]:
    """Short answers whose target moves after `SWITCH` words."""
    heads = run.heads()
    aims = [
        [Aim(new, schedule([(0, old), (SWITCH, new)], SWITCH + 1)) for old, new in _pairs(run, strip.name, len(strip))]
        for strip in run.pictures("evaluation")
    ]
    yield Condition("gaze", STATIC, run.settings.static, aims, heads, tags={"kind": "gaze"})
    for draw, drawn in enumerate(run.controls(heads)):
        tags = {"kind": "random", "draw": draw}
        yield Condition(
            f"random {draw}", STATIC, run.settings.static, aims, drawn, strength=run.strength("random"), tags=tags
        )


def sum_up(run: Run) -> DynamicResults:
    rows = run.answers(NAME)
    schedules = {orders: _schedules(run, orders) for orders in ("own", "paper")}
    orders = [schedules[row["orders"]][row["strip"]] for row in rows]
    narrations = schedule_adherence.read(run, NAME, rows, orders, ["draw" not in row for row in rows])
    by_name: dict[str, list[ScheduledNarration]] = {}
    for row, one in zip(rows, narrations, strict=True):
        by_name.setdefault(row["condition"], []).append(one)
    made_with = {row["condition"]: provenance({**row, "judge": run.judge.name}) for row in rows}
    alone, drawn = by_name["unsteered"], {row["condition"] for row in rows if "draw" in row}
    found: dict[str, ScheduledCondition] = {
        name: {**made_with[name], **schedule_adherence.summed(some)}
        for name, some in by_name.items()
        if name not in drawn
    }
    for convention in CONVENTIONS:
        for reading, numbers in found[f"gaze, {convention}"]["readings"].items():
            numbers["beyond_unsteered"] = schedule_adherence.beside(by_name[f"gaze, {convention}"], alone, reading)
    return {
        "judge": run.judge.name,
        "segment": run.settings.segment,
        "verbatim": verbatim(run),
        "conditions": found,
        "drawn": {", ".join(which): _drawn(run, by_name, which, made_with) for which in DRAWN},
        "moved": _moved(run) if verbatim(run) else None,
        "skipped_lines": run.skipped,
        "failed_verdicts": len(run.failed),
    }


def chapter(run: Run, results: DynamicResults) -> Chapter:
    return report(results, NUMBER, NAME, TITLE)


def _condition(
    run: Run, name: str, heads: HeadSet | None, convention: str, orders: str = "own", **tags: Any
) -> Condition:
    """A narration of every strip; its tags say which schedules it goes by and what it is called in the results."""
    rows, delay, early = CONVENTIONS[convention]
    strips, segment = run.pictures("evaluation"), run.settings.segment
    steps = [schedules.targets(order, segment, delay, early) for order in _schedules(run, orders).values()]
    aims = [[Aim(None, np.full_like(one, NO_PANEL) if heads is None else one)] for one in steps]
    # An answer has no more tokens than the schedule: what comes after it would be about no segment.
    room = max(map(len, strips)) * segment
    kind = name.split()[0].rstrip(",")
    tags = {"kind": kind, "convention": convention, "orders": orders, **tags}
    strength = None if heads is None else steering_study.strength(run, kind)
    return Condition(name, DYNAMIC, room, aims, heads, strength=strength, query_positions=rows, tags=tags)


def _schedules(run: Run, orders: str) -> dict[str, Order]:
    """The order of the panels of each strip: its own, or the one that the released script would draw for it."""
    strips = run.pictures("evaluation")
    if orders == "paper":
        drawn = schedules.paper_orders([len(strip) for strip in strips])
    else:
        drawn = [schedules.named_order(run.settings.seed, strip.name, len(strip)) for strip in strips]
    return {strip.name: order for strip, order in zip(strips, drawn, strict=True)}


def _drawn(
    run: Run, by_name: dict[str, list[ScheduledNarration]], which: tuple[str, str], made_with: dict[str, Provenance]
) -> DrawnCondition:
    """Returns the drawn controls of one kind and convention, beside the gaze heads."""
    kind, convention = which
    names = [f"{kind} {draw}, {convention}" for draw in range(run.settings.draws)]
    gaze, draws = by_name[f"gaze, {convention}"], [by_name[name] for name in names]
    combined = [one for some in draws for one in some]
    return {
        **made_with[names[0]],
        "readings": {name: schedule_adherence.among_draws(gaze, draws, name) for name in combined[0].panels},
        "outcomes": {name: schedule_adherence.counted(combined, name) for name in combined[0].panels},
    }


def _pairs(run: Run, name: str, panels: int) -> list[tuple[int, int]]:
    return schedules.switch_pairs(run.settings.seed, name, panels, panels)


def _moved(run: Run) -> dict[str, MovedRow] | None:
    """Returns what became of answers whose target moved, with the gaze heads and with random ones; None if nothing tells."""
    strips = {strip.name: strip for strip in run.pictures("evaluation")}
    rows = run.answers(MOVED)
    gaze, random = (
        _moved_kind(run, [row for row in rows if row["kind"] == kind], strips) for kind in ("gaze", "random")
    )
    return None if gaze is None or random is None else {"gaze": gaze, "random": random}


def _moved_kind(run: Run, rows: Sequence[Row], strips: Mapping[str, Picture]) -> MovedRow | None:
    pairs = {name: _pairs(run, name, len(strip)) for name, strip in strips.items()}
    seen: dict[tuple[str, str], int] = {}
    found, counted = [], []
    for row in rows:
        place = seen[row["condition"], row["strip"]] = seen.get((row["condition"], row["strip"]), -1) + 1
        old, new = (strips[row["strip"]].captions[panel] for panel in pairs[row["strip"]][place])
        compared = schedules.followed(row["text"], old, new, SWITCH)
        if sum(compared):  # an answer that ends before, or goes on with words of both, tells nothing
            found.append(compared)
            counted.append(row)
    if not found:
        return None

    def mean(counts: Sequence[int]) -> Share:
        shares = np.array(counts, float) / np.array([sum(one) for one in found], float)
        return shared(average(shares, *clusters(counted)))

    return {
        **provenance({**rows[0], "judge": "none"}),
        "words_new": mean([one.new for one in found]),
        "words_old": mean([one.old for one in found]),
        "answers": len(rows),
    }
