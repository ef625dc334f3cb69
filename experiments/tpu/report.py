"""Plans as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.tpu.plan import ProgramPlan

COLUMNS = ("model", "program", "topology", "data x model", "weights", "temporary", "in all")
COSTS = ("TFLOP", "HBM GB", "links GB", "limit", "ms", "strips/s", "growth")


def as_json(plan: ProgramPlan) -> dict[str, Any]:
    """Every figure; bytes, operations and seconds."""
    total = None if plan.memory is None else plan.memory.total
    return asdict(plan) | dict(fits=plan.trouble is None, total=total, strips_per_second=plan.strips_per_second)


def table(plans: Sequence[ProgramPlan]) -> None:
    """Prints a row for each; growth is over the first topology of the same model and program."""
    shown = Table(title="Per chip; ms and strips/s are bounds that no run can beat", title_justify="left")
    for column in (*COLUMNS, *COSTS):
        shown.add_column(column, justify="left" if column in COLUMNS[:4] + COSTS[3:4] else "right", no_wrap=True)
    first: dict[tuple[str, str], float] = {}
    for plan in plans:
        shown.add_row(*_place(plan), *_costs(plan, first))
    Console(width=170).print(shown)
    for plan in plans:
        if plan.trouble is not None:
            layout = plan.layout
            print(f"{layout.size} {plan.program} does not fit {layout.topology}: {plan.trouble}.")


def _place(plan: ProgramPlan) -> list[str]:
    layout, memory = plan.layout, plan.memory
    sizes = ["-", "-"] if memory is None else [f"{x / 1e9:.2f} GB" for x in (memory.temporaries, memory.total)]
    mesh = f"{layout.data} x {layout.model}"
    return [layout.size, plan.program, layout.topology, mesh, f"{plan.weights / 1e9:.2f} GB", *sizes]


def _costs(plan: ProgramPlan, first: dict[tuple[str, str], float]) -> list[str]:
    if plan.trouble or plan.cost is None or plan.seconds is None or plan.strips_per_second is None:
        return ["does not fit", *["-"] * (len(COSTS) - 1)]
    limit = max(plan.seconds, key=plan.seconds.__getitem__)
    rate = plan.strips_per_second
    growth = rate / first.setdefault((plan.layout.size, plan.program), rate)
    figures = (plan.cost.flops / 1e12, plan.cost.memory / 1e9, plan.cost.links / 1e9)
    return [*(f"{x:.2f}" for x in figures), limit, f"{plan.seconds[limit] * 1e3:.1f}", f"{rate:.1f}", f"{growth:.1f}"]
