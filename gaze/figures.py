"""The figures of the report. Blue is always the gaze heads, grey what they are compared with, orange what was chosen.

Every function returns a figure of its own, so nothing here touches pyplot or any state shared with a caller's plots.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

Head = tuple[int, int]
Number = float | int

PALETTE = {"ink": "#1f2a37", "quiet": "#6b7480", "line": "#d5dae0", "gaze": "#0b64ad", "chosen": "#d95f02"}
"""Told apart by people with any common colour blindness, and in grey print."""

HEAT = LinearSegmentedColormap.from_list("gaze", ["#f4f7fa", "#b7d3ea", "#5b9fd3", PALETTE["gaze"], "#062f57"])
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelcolor": PALETTE["quiet"],
    "axes.edgecolor": PALETTE["line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e8ebef",
    "text.color": PALETTE["ink"],
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["ink"],
    "ytick.labelcolor": PALETTE["ink"],
    "svg.hashsalt": "gaze",
}
WIDTH = 6.0
DOTS_PER_INCH = 160


@rc_context(STYLE)
def example(image: Image.Image, question: str, unsteered: str, steered: Sequence[tuple[str, bool]]) -> Figure:
    """A strip of panels of equal width, and under each panel the answer when steered to it, right or wrong."""
    figure = Figure(figsize=(1.5 * WIDTH, 1.5 * WIDTH * image.height / image.width + 1.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(image)
    axes.set_axis_off()
    axes.set_title(f"“{question}”  Left alone, the model says: {unsteered}", fontsize=10, loc="left")
    width = image.width / len(steered)
    for panel, (text, hit) in enumerate(steered):
        place = ((panel + 0.5) * width, image.height * 1.08)
        colour = PALETTE["gaze" if hit else "chosen"]
        axes.text(*place, "✓" if hit else "✗", ha="center", va="top", fontsize=13, color=colour)
        wrapped = textwrap.fill(text, 14)
        axes.text(place[0], image.height * 1.3, wrapped, ha="center", va="top", fontsize=9.5, color=colour)
    axes.set_ylim(image.height * 1.75, 0)
    return figure


@rc_context(STYLE)
def score_map(scores: Float[np.ndarray, "layer heads"], chosen: Sequence[Head]) -> Figure:
    """The score of every head, the chosen ones outlined; small models get the numbers written in."""
    layers, heads = scores.shape
    figure, axes = _figure(np.clip(0.36 * layers, 2.2, 6.0) + 0.7)
    image = _heatmap(axes, scores, vmax=scores.max())
    axes.set(xlabel="head", ylabel="layer")
    for axis, count in ((axes.xaxis, heads), (axes.yaxis, layers)):
        axis.set_major_locator(MaxNLocator(min(count, 16), integer=True, min_n_ticks=1))
    for layer, head in chosen:
        axes.add_patch(_outline(layer, head, 2.2 if scores.size <= 200 else 1.0))
    if scores.size <= 100:
        for (layer, head), score in np.ndenumerate(scores):
            share = score / scores.max()
            colour = "white" if share > 0.5 else PALETTE["ink" if share > 0.05 else "quiet"]
            axes.text(head, layer, f"{score:.2f}", ha="center", va="center", color=colour, fontsize=8)
    _colour_bar(figure, image, [axes], "gaze score")
    return figure


@rc_context(STYLE)
def panel_matrices(
    matrices: Float[np.ndarray, "top panel panel"], top: Sequence[tuple[int, int, Number]], chosen: Sequence[Head]
) -> Figure:
    """For each of the best heads: attention on every panel (columns) when asked about every panel (rows)."""
    columns = min(4, len(top))
    rows = -(-len(top) // columns)
    figure = Figure(figsize=(WIDTH, 1.6 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    image = None
    for axes, matrix, (layer, head, score) in zip(grid.flat, matrices, top, strict=False):
        image = _heatmap(axes, matrix, vmax=matrices.max(), aspect="equal")
        is_chosen = (layer, head) in chosen
        axes.set_title(f"L{layer}H{head}  {score:.2f}", color=PALETTE["ink" if is_chosen else "quiet"], fontsize=9)
        numbers = np.arange(matrix.shape[0])
        axes.set(xticks=numbers, yticks=numbers, xticklabels=numbers + 1, yticklabels=numbers + 1)
        if is_chosen:
            axes.add_patch(_outline(0, 0, 2.0, size=len(matrix)))
    for axes in grid.flat[len(top) :]:
        axes.remove()
    figure.supxlabel("panel looked at", fontsize=9, color=PALETTE["quiet"])
    figure.supylabel("panel asked about", fontsize=9, color=PALETTE["quiet"])
    if image is not None:
        _colour_bar(figure, image, list(grid.flat[: len(top)]), "share of the head's attention")
    return figure


@rc_context(STYLE)
def head_count(curve: Sequence[Mapping[str, Any]], chosen: int, chance: float) -> Figure:
    """Accuracy against the number of steered heads, with the interval as a band and the chosen number marked."""
    figure, axes = _figure(3.0)
    count = np.array([point["k"] for point in curve])
    value, (low, high) = _estimates(curve)
    axes.fill_between(count, low, high, color=PALETTE["gaze"], alpha=0.16, linewidth=0)
    axes.plot(count, value, color=PALETTE["gaze"], marker="o", markersize=4)
    axes.axvline(chosen, color=PALETTE["chosen"], linewidth=1, linestyle=":")
    axes.plot(chosen, value[count == chosen], "o", markersize=10, color=PALETTE["chosen"], fillstyle="none", mew=2)
    axes.annotate(f"chosen: {chosen}", (chosen, 1.06), xytext=(5, 0), **_label("chosen"))
    axes.set_xscale("log")
    axes.set_xlim(count.min() / 1.15, count.max() * 1.15)
    axes.set_xticks(_spread(count, chosen), labels=[str(k) for k in _spread(count, chosen)])
    axes.set_xticks([], minor=True)
    _accuracy_axis(axes, axes.yaxis)
    _chance_line(axes, chance, vertical=False)
    axes.set(xlabel="number of heads steered, best first (log scale)", ylabel="answers that describe\nthe target panel")
    return figure


@rc_context(STYLE)
def controls(conditions: Mapping[str, Any], names: Mapping[str, str], chance: float) -> Figure:
    """Accuracy of every condition with its interval; the draws of a random control as dots underneath."""
    figure, axes = _figure(0.62 * len(names) + 0.9)
    for place, condition in enumerate(names):
        found, colour = conditions[condition], PALETTE["gaze" if condition == "gaze" else "quiet"]
        low, high = found["interval"]
        axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(found["accuracy"], place, "o", color=colour, markersize=8, clip_on=False)
        axes.annotate(f"{found['accuracy']:.1%}", (1.06, place), xytext=(0, 0), **_label("ink"))
        draws = [draw["accuracy"] for draw in found.get("draws", [])]
        lift = 0.25 + 0.1 * (np.arange(len(draws)) % 2)
        axes.plot(np.sort(draws), place + lift, "o", color=colour, markersize=4, mfc="none", mew=0.9, clip_on=False)
    axes.set_yticks(range(len(names)), labels=list(names.values()))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _accuracy_axis(axes, axes.xaxis)
    _chance_line(axes, chance, vertical=True)
    axes.set_xlabel("answers that describe the target panel")
    return figure


@rc_context(STYLE)
def per_panel(steered: Sequence[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]], chance: float) -> Figure:
    """Accuracy for each target panel, gaze heads steered; in grey the model asked for it by number."""
    figure, axes = _figure(2.8)
    series = ((asked, -0.1, "quiet", "asked by number, not steered"), (steered, 0.1, "gaze", "gaze heads steered"))
    for rows, shift, colour, label in series:
        value, (low, high) = _estimates(rows)
        place = np.array([row["panel"] for row in rows]) + shift
        axes.vlines(place, low, high, color=PALETTE[colour], linewidth=2.2)
        face = "white" if colour == "quiet" else PALETTE[colour]
        axes.plot(place, value, "o", color=PALETTE[colour], markersize=6, mfc=face, label=label, clip_on=False)
    axes.set_xticks([row["panel"] for row in steered])
    axes.set_xlim(0.5, len(steered) + 0.5)
    _accuracy_axis(axes, axes.yaxis)
    _chance_line(axes, chance, vertical=False)
    axes.set(xlabel="target panel, from the left", ylabel="answers that describe\nthe target panel")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2, handletextpad=0.2)
    return figure


def save(figure: Figure, folder: Path, name: str) -> str:
    """Writes `name`.png and `name`.svg into the folder; returns the text of the second."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    with rc_context(STYLE):
        figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Date": None})
    return path.read_text(encoding="utf-8")


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, float(height)), layout="constrained")
    return figure, figure.subplots()


def _heatmap(
    axes: Axes, values: Float[np.ndarray, "row column"], vmax: np.floating, aspect: Literal["auto", "equal"] = "auto"
) -> AxesImage:
    image = axes.imshow(values, cmap=HEAT, vmin=0, vmax=float(vmax), aspect=aspect, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if values.size <= 1200:
        for position, draw in zip(values.shape, (axes.axhline, axes.axvline), strict=True):
            for edge in range(1, position):
                draw(edge - 0.5, color="white", linewidth=0.6)
    return image


def _outline(row: int, column: int, width: float, size: int = 1) -> Rectangle:
    return Rectangle(
        (column - 0.5, row - 0.5),
        size,
        size,
        fill=False,
        color=PALETTE["chosen"],
        linewidth=width,
        clip_on=False,
        zorder=3,
    )


def _colour_bar(figure: Figure, image: AxesImage, axes: list[Axes], label: str) -> None:
    bar = figure.colorbar(image, ax=axes, label=label, aspect=30, pad=0.02, fraction=0.05)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def _estimates(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row["accuracy"] for row in rows]), np.array([row["interval"] for row in rows]).T


def _accuracy_axis(axes: Axes, axis: Any) -> None:
    axis.set_major_formatter(PercentFormatter(1))
    axis.set_ticks(np.linspace(0, 1, 5))
    axis.grid(True)
    bounds = (-0.03, 1.12)
    (axes.set_xlim if axis is axes.xaxis else axes.set_ylim)(bounds)


def _chance_line(axes: Axes, chance: float, vertical: bool) -> None:
    """Where an answer about a panel picked blindly would be."""
    line, name = (axes.axvline if vertical else axes.axhline), f"blind pick {chance:.0%}"
    line(chance, color=PALETTE["quiet"], linewidth=1, linestyle=(0, (4, 3)))
    if vertical:
        axes.annotate(name, (chance, 0.98), xycoords=("data", "axes fraction"), xytext=(4, 0), **_label("quiet"))
    else:
        axes.annotate(
            name, (0.995, chance), xycoords=("axes fraction", "data"), xytext=(0, 6), **_label("quiet", "right")
        )


def _label(colour: str, side: str = "left") -> dict[str, Any]:
    """How words inside a plot look; the halo keeps them legible where they cross a line."""
    halo = [withStroke(linewidth=3, foreground="white")]
    font = {"color": PALETTE[colour], "fontsize": 8, "path_effects": halo}
    return {"textcoords": "offset points", "ha": side, "va": "center", **font}


def _spread(counts: Sequence[int] | np.ndarray, keep: int) -> list[int]:
    """Those of increasing counts whose labels fit beside one another on a log axis, `keep` in any case."""
    gap = 0.045 * np.log(max(counts) / min(counts))
    shown = [keep]
    for count in map(int, counts):
        if all(abs(np.log(count / other)) > gap for other in shown):
            shown.append(count)
    return sorted(shown)
