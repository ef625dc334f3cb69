"""The figures of layer steering: in which layer the order of reading is decided."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gaze.report.plots import HOUSE, Line, bars, described, share
from gaze.report.style import PALETTE, WIDTH, Number, canvas, lettering, tell_blank

Points = Float[np.ndarray, "item 2"]


@rc_context(HOUSE)
def layer_effect(flips: Sequence[Line], logits: Sequence[Line], difference: str = "logit difference") -> Figure:
    """What adding directions after one layer does, a row each: the share of answers that flip, and how far logits move."""
    figure = Figure(figsize=(WIDTH, 0.95 * len(flips) + 0.7), layout="constrained")
    grid = figure.subplots(len(flips), 2, squeeze=False, sharex=True, sharey="col")
    for (left, right), flip, logit in zip(grid, flips, logits, strict=True):
        left.set_title(flip.name, fontsize=9, loc="left")
        for axes, line in ((left, flip), (right, logit)):
            bars(axes, line)
            tell_blank(axes, line.value, scale=1.0 if axes is left else 0.0)
            axes.grid(axis="y")
        right.axhline(0, color=PALETTE["ink"], linewidth=0.8)
    left.set(xlabel="answers that flip, by layer", ylim=(0, 1.06))
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.set_yticks(np.linspace(0, 1, 3))
    right.set_xlabel(f"{difference}, by layer")
    right.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
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
    drawn = [layer in points for layer in layers]
    axes.bar(layers, silhouette, color=np.where(drawn, PALETTE["chosen"], PALETTE["gaze"]), alpha=0.82)
    tell_blank(axes, silhouette)
    axes.axhline(0, color=PALETTE["ink"], linewidth=0.8)
    axes.set(
        xlabel="layer (orange: drawn below)", ylabel="silhouette", ylim=(min(0.0, _least(silhouette) - 0.03), 1.03)
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
    tell_blank(axes, finite)
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
