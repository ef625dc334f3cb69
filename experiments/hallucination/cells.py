"""How numbers stand in the tables of the page."""

from experiments.run.formatting import percent
from experiments.run.summaries import EstimateRow

UNDEFINED = "–"
INTERVALS = "In brackets 95 % intervals, clustered by picture. A dash: undefined, as there is nothing to divide by."


def share_cell(found: EstimateRow | None) -> str:
    if found is None:
        return UNDEFINED
    return f"{percent(found['value'])} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def number_cell(found: EstimateRow) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def points(found: EstimateRow) -> str:
    return f"{100 * found['value']:+.1f} points ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})".replace(
        "-", "−"
    )
