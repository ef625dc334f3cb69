"""Figures and tables of experiment 2."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.paper.layer_steering.results import (
    EffectRow,
    LayerResults,
    NarrationResults,
    OrderRow,
    PlaceRow,
    RightRow,
    TellingRow,
    WordingRow,
    effects_of,
)
from experiments.run.formatting import percent
from gaze.prompts import fill
from gaze.report import plots as drawing
from gaze.report import plots_layers
from gaze.report.html import Plot, Table
from gaze.report.plots import Line, Role

Cells = tuple[str | int | float, ...]
Points = Float[np.ndarray, "layer _ 2"]

LABELS: dict[str, tuple[str, Role]] = {
    "reverse": ("one direction", "gaze"),
    "places": ("a direction per place", "localization"),
    "other": ("another order's direction", "unsteered"),
    "random": ("random, as one direction", "random"),
    "random places": ("random, as those per place", "all"),
}
BY_COUNT: tuple[Role, ...] = ("gaze", "localization", "image")
"""Roles by the number of panels, the most first."""
ADDED = ("reverse", "known", "other", "random", "places", "random places", "back reverse", "back places")


def plots(results: LayerResults, points: Points, first: Points) -> list[Plot]:
    """Every figure that there are numbers for."""
    panels = results["panels"]
    counts = sorted(map(int, panels), reverse=True)
    six = panels[str(counts[0])]
    by_direction = [(*label, effects_of(six, name)) for name, label in LABELS.items()]
    by_count = [
        (f"{count} panels", role, panels[str(count)]["places"]) for count, role in zip(counts, BY_COUNT, strict=False)
    ]
    shown = []
    if six["reverse"]:
        words = (
            "Directions added after one layer at a time to plain questions about all panels; 95% intervals over strips."
        )
        shown.append(Plot("effect", layer_effect(by_direction), words, "layer steering by layer"))
        words = "The directions per place, by the number of panels."
        shown.append(Plot("panels", layer_effect(by_count), words, "3, 4 and 6 panels"))
    both = "plain and reversed prompts after each layer, in two principal components"
    shown.append(separation("separation", six["silhouette"], points, f"All questions: {both}."))
    words = f"The question about the first place alone: {both}; the silhouette is the mean over places."
    shown.append(separation("separation_first", six["place_silhouette"], first, words))
    if any("flip" in row for row in results["orders"]):
        shown.append(orders(results))
    return [*shown, narration(results["narration"])]


def layer_effect(lines: Sequence[tuple[str, Role, Sequence[EffectRow]]]) -> Figure:
    """Flips and logit differences by layer; lines without numbers are left out."""
    flips = [line(name, role, rows, "flip", "interval") for name, role, rows in lines if rows]
    logits = [line(name, role, rows, "difference", "difference_interval") for name, role, rows in lines if rows]
    return plots_layers.layer_effect(flips, logits, "logit, reverse minus plain")


def line(
    name: str,
    role: Role,
    rows: Sequence[EffectRow],
    what: Literal["flip", "difference"],
    ends: Literal["interval", "difference_interval"],
) -> Line:
    low, high = zip(*(row[ends] or (np.nan, np.nan) for row in rows), strict=True)
    return Line(name, role, [row["layer"] for row in rows], [row[what] for row in rows], low, high)


def separation(name: str, silhouettes: Sequence[float], points: Points, words: str) -> Plot:
    silhouette, items = np.array(silhouettes), points.shape[1]
    few = sorted({0, len(points) // 2, int(silhouette.argmax()), len(points) - 1})
    shown = {layer: points[layer].astype(np.float64) for layer in few}
    figure = plots_layers.separation(silhouette, shown, np.arange(items) >= items // 2)
    return Plot(name, figure, words, "PCA of normal and reverse prompts")


def orders(results: LayerResults) -> Plot:
    six, layer = results["panels"][max(results["panels"], key=int)], results["chosen"]["reverse"]
    measured = np.array([row["flip"] for row in results["orders"] if "flip" in row])
    marked = {"reverse": six["reverse"][layer]["flip"]} if six["reverse"] else {}
    figure = plots_layers.spread(measured, marked, "answers that flip to the order", "other orders")
    return Plot(
        "orders", figure, f"Flips by one direction for each other order, after layer {layer}.", "719 other orders"
    )


def narration(found: NarrationResults) -> Plot:
    names = [name for name in found["conditions"] if not name.startswith("random")]
    rows = [found["conditions"][name] for name in names]
    low, high = zip(*(row["last_first_interval"] for row in rows), strict=True)
    places = [*range(len(names))]
    lines = [
        Line("begin with the last panel", "gaze", places, [row["last_first"] for row in rows], low, high),
        Line("begin with the first panel", "random", places, [row["first_first"] for row in rows]),
    ]
    words = "Which panel a free narration begins with, by what is asked and what is added at every step."
    figure = drawing.rows([case_name(name) for name in names], lines, label="narrations")
    return Plot("narration", figure, words, "free narration")


def tables(results: LayerResults) -> list[Table]:
    """All numbers."""
    panels = results["panels"]
    effects = [
        effect(count, name, row) for count, few in panels.items() for name in ADDED for row in effects_of(few, name)
    ]
    places = [
        place(count, name, row)
        for count, few in panels.items()
        for name, rows in few["per_panel"].items()
        for row in rows
    ]
    return [
        Table(
            "Every direction after every layer",
            ("panels", "added", "layer", "flip", "95% interval", "stay", "neither", "logit", "95% interval", "answers"),
            effects,
            "Known: the direction of whole strips. Back: subtracted from reversed questions. Logit: of the letter led to "
            "minus that of the letter asked for.",
        ),
        Table(
            "By the place asked about",
            ("panels", "added", "place", "flip", "95% interval", "answers"),
            places,
            f"After layers {results['chosen']['reverse']} (reverse) and {results['chosen']['places']} (places).",
        ),
        Table(
            "Other orders",
            ("order", "right alone", "answers", "flip", "95% interval", "stay", "neither", "flip, per place"),
            [other_order(row) for row in results["orders"]],
        ),
        Table(
            "Other wordings",
            ("question", "right, plain", "right, reversed", "answers", "flip", "95% interval", "flip, per place"),
            [wording(row) for row in results["wordings"]],
        ),
        Table(
            "Free narration",
            (
                "condition", "correlation", "95% interval", "with an order", "begin with last", "begin with first",
                "all in reverse", "sentences", "about no panel",
            ),
            [told(case_name(name), row) for name, row in results["narration"]["conditions"].items()],
            "Correlation: rank correlation of the panels told with their order from left to right; an order takes three panels.",
        ),
    ]  # fmt: skip


def effect(panels: str, name: str, row: EffectRow) -> Cells:
    ends = row["difference_interval"]
    moved = f"{ends[0]:+.2f} to {ends[1]:+.2f}" if ends else "–"
    shares = (percent(row["flip"]), bounds(row["interval"]), percent(row["stay"]), percent(row["neither"]))
    return (panels, name, row["layer"], *shares, f"{row['difference']:+.2f}", moved, row["answers"])


def place(panels: str, name: str, row: PlaceRow) -> Cells:
    return (panels, name, row["place"], percent(row["flip"]), bounds(row["interval"]), row["answers"])


def other_order(row: OrderRow) -> Cells:
    shares = (maybe(row.get("flip")), bounds(row.get("interval")), maybe(row.get("stay")), maybe(row.get("neither")))
    return (listed(row["order"]), share(row["asked"]), row.get("answers", 0), *shares, maybe(row["places"]))


def wording(row: WordingRow) -> Cells:
    alone = (share(row["asked"]["normal"]), share(row["asked"]["reverse"]), row.get("answers", 0))
    return (fill(row["question"], 0), *alone, maybe(row.get("flip")), bounds(row.get("interval")), maybe(row["places"]))


def told(name: str, row: TellingRow) -> Cells:
    ends = f"{row['interval'][0]:+.2f} to {row['interval'][1]:+.2f}" if row["interval"] else "–"
    shares = [percent(one) for one in (row["last_first"], row["first_first"], row["backwards"])]
    lost = (f"{row['sentences']:.1f}", percent(row["lost"]))
    return (name, rho(row), ends, f"{row['defined']} of {row['narrations']}", *shares, *lost)


def case_name(name: str) -> str:
    """Returns what a narration is called for people: how it was asked for, and which direction was added where."""
    direction, _, place = name.partition(", ")
    asked = {"normal": "asked plainly", "reverse": "asked in reverse"}
    where = {
        "paper band": "added at the paper's depth",
        "best band": "added at its best layers",
        "back": "taken away, asked in reverse",
    }
    return asked.get(name) or (f"direction of the {direction}, {where[place]}" if place else f"{direction}, added")


def randoms(cases: Mapping[str, TellingRow]) -> list[TellingRow]:
    """The random conditions among those of the narrations."""
    return [one for name, one in cases.items() if name.startswith("random")]


def flipped(row: EffectRow) -> str:
    """A share of flips with its interval."""
    return percent(row["flip"]) + (f" ({bounds(row['interval'])})" if row["interval"] else "")


def share(found: RightRow) -> str:
    return percent(found["value"])


def maybe(share: float | None) -> str:
    return "–" if share is None else percent(share)


def bounds(ends: Sequence[float] | None) -> str:
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends else "–"


def rho(row: TellingRow, sign: int = 1) -> str:
    return "undefined" if row["correlation"] is None else f"{sign * row['correlation']:+.2f}"


def listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
