"""The figures of layer steering: in which layer the order of reading is decided."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gaze.report.plots import HOUSE, Line, described, draw_line, legend, share
from gaze.report.style import PALETTE, WIDTH, Number, canvas, lettering

Points = Float[np.ndarray, "item 2"]


@rc_context(HOUSE)
def layer_effect(flips: Sequence[Line], logits: Sequence[Line], difference: str = "logit difference") -> Figure:
    """What adding the direction at one layer does: share of answers that flip, and how far the logits move."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, lines in ((above, flips), (below, logits)):
        for line in lines:
            draw_line(axes, line)
        axes.grid(axis="y")
    above.set(ylabel="answers that flip", ylim=(-0.03, 1.06))
    above.yaxis.set_major_formatter(PercentFormatter(1))
    above.set_yticks(np.linspace(0, 1, 5))
    below.axhline(0, color=PALETTE["ink"], linewidth=0.8)
    below.set(xlabel="layer at which the direction is added", ylabel=difference)
    below.xaxis.set_major_locator(MaxNLocator(16, integer=True, min_n_ticks=1))
    legend(figure, above if len(flips) > 1 else below)
    return described(figure, "By layer. Flips: " + " ".join(map(_best, flips)))


@rc_context(HOUSE)
def separation(
    silhouette: Float[np.ndarray, " layers"],
    points: Mapping[int, Points],
    reverse: Bool[np.ndarray, " item"],
    names: tuple[str, str] = ("normal", "reverse"),
) -> Figure:
    """How well each layer's states tell two kinds of prompts apart, with the first two components of some layers."""
    columns = min(4, len(points))
    rows = -(-len(points) // columns)
    figure = Figure(figsize=(WIDTH, 1.9 + 1.5 * rows), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.7, 1.5 * rows])
    line, clouds = halves
    axes = line.subplots()
    layers = np.arange(len(silhouette))
    axes.plot(layers, silhouette, color=PALETTE["gaze"], marker="o", markersize=3.5, linewidth=1.4)
    shown = [layer for layer in points if layer < len(silhouette)]
    axes.plot(shown, silhouette[shown], "o", markersize=9, color=PALETTE["chosen"], mfc="none", clip_on=False)
    axes.set(
        xlabel="layer (ringed: drawn below)", ylabel="silhouette", ylim=(min(0.0, _least(silhouette)) - 0.03, 1.03)
    )
    axes.xaxis.set_major_locator(MaxNLocator(16, integer=True, min_n_ticks=1))
    axes.grid(axis="y")
    grid = clouds.subplots(rows, columns, squeeze=False)
    for cloud, (layer, places) in zip(grid.flat, points.items(), strict=False):
        _cloud(cloud, places, reverse, names)
        cloud.set_title(f"layer {layer}", fontsize=9)
    for empty in grid.flat[len(points) :]:
        empty.remove()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    clouds.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    said = ", ".join(f"layer {layer} {value:.2f}" for layer, value in enumerate(silhouette) if np.isfinite(value))
    return described(figure, f"Silhouette of {names[0]} against {names[1]} prompts: {said}.")


@rc_context(HOUSE)
def spread(values: Float[np.ndarray, " case"], marked: Mapping[str, Number], label: str, cases: str) -> Figure:
    """The distribution of a share over many cases (orderings, draws), with the cases that have a name marked."""
    figure, axes = canvas(2.6)
    finite = values[np.isfinite(values)]
    axes.hist(finite, np.linspace(0, 1, 41).tolist(), color=PALETTE["quiet"], alpha=0.55)
    top = axes.get_ylim()[1]
    for place, (name, value) in enumerate(marked.items()):
        axes.axvline(value, color=PALETTE["chosen" if place else "gaze"], linewidth=1.6)
        side = "right" if value > 0.6 else "left"
        words = f"{name} {share(value)}"
        axes.annotate(
            words,
            (value, (1.15 - 0.11 * place) * top),
            xytext=(-4 if side == "right" else 4, 0),
            **lettering("ink", side),
        )
    axes.set(xlabel=label, ylabel=cases, ylim=(0, 1.22 * top), xlim=(-0.02, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    middle = f"mean {share(finite.mean())}, highest {share(finite.max())}" if finite.size else "none measured"
    named = "; ".join(f"{name} {share(value)}" for name, value in marked.items())
    return described(figure, f"Distribution of {label} over {finite.size} {cases}: {middle}. Marked: {named}.")


def _cloud(axes: Axes, points: Points, reverse: Bool[np.ndarray, " item"], names: tuple[str, str]) -> None:
    for of, name, marker, colour in ((~reverse, names[0], "o", "gaze"), (reverse, names[1], "^", "chosen")):
        axes.plot(*points[of].T, marker, color=PALETTE[colour], markersize=3.5, alpha=0.7, mew=0, label=name)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.12)


def _least(values: Float[np.ndarray, " value"]) -> float:
    return float(np.min(values[np.isfinite(values)], initial=0.0))


def _best(line: Line) -> str:
    value = np.asarray(line.value, np.float64)
    if not np.isfinite(value).any():
        return f"{line.name}: none."
    best = int(np.nanargmax(value))
    return f"{line.name}: highest {share(value[best])} at layer {line.x[best]}."
