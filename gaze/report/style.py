"""The house style of all figures. Blue is always the gaze heads, grey what they are compared with, orange what was chosen.

Every figure is an object of its own: nothing touches pyplot or any state shared with a caller's plots.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

Head = tuple[int, int]
Number = float | int
Numbers = Sequence[Number] | Shaped[np.ndarray, "..."]

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
FAINT = 0.02
"""The share of a scale below which a shade or a bar cannot be seen."""
DOTS_PER_INCH = 160


def save(figure: Figure, folder: Path, name: str) -> str:
    """Writes `name`.png and `name`.svg into the folder; returns the text of the second."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    with rc_context(STYLE):
        figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Date": None})
    return path.read_text(encoding="utf-8")


def canvas(height: float) -> tuple[Figure, Axes]:
    """A figure as wide as the page, with one plot; the height in inches."""
    figure = Figure(figsize=(WIDTH, float(height)), layout="constrained")
    return figure, figure.subplots()


def heatmap(
    axes: Axes, values: Float[np.ndarray, "row column"], vmax: np.floating, aspect: Literal["auto", "equal"] = "auto"
) -> AxesImage:
    """Values as shades from 0 to `vmax`, cells apart if there are not too many."""
    image = axes.imshow(values, cmap=HEAT, vmin=0, vmax=float(vmax), aspect=aspect, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    tell_blank(axes, values)
    if values.size <= 1200:
        for position, draw in zip(values.shape, (axes.axhline, axes.axvline), strict=True):
            for edge in range(1, position):
                draw(edge - 0.5, color="white", linewidth=0.6)
    return image


def tell_blank(
    axes: Axes, values: Numbers, scale: Number | np.floating = 0.0, words: str = "nothing was measured"
) -> None:
    """Says in the middle of a plot why nothing is to be seen: no value is a number, or all are too small for its scale."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    highest = float(np.max(np.abs(known), initial=0.0))
    if known.size and highest > FAINT * scale:
        return
    if known.size:
        words = "zero everywhere" if not highest else "below 0.001" if highest < 0.001 else f"at most {highest:.2g}"
    if not known.size or scale:
        axes.text(
            0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=8, color=PALETTE["quiet"]
        )


def outline(row: int, column: int, width: float, size: int = 1) -> Rectangle:
    """Marks a cell of a heat map, or a square of `size` cells, as chosen."""
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


def colour_bar(figure: Figure, image: AxesImage, axes: list[Axes], label: str) -> None:
    """The scale of a heat map beside its plots."""
    bar = figure.colorbar(image, ax=axes, label=label, aspect=30, pad=0.02, fraction=0.05)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def accuracy_axis(axes: Axes, axis: Axis) -> None:
    """Shares from 0 to 100 %, with room for words beyond."""
    axis.set_major_formatter(PercentFormatter(1))
    axis.set_ticks(np.linspace(0, 1, 5))
    axis.grid(True)
    bounds = (-0.03, 1.12)
    (axes.set_xlim if axis is axes.xaxis else axes.set_ylim)(bounds)


def lettering(colour: str, side: str = "left") -> dict[str, Any]:
    """How words inside a plot look; the halo keeps them legible where they cross a line."""
    halo = [withStroke(linewidth=3, foreground="white")]
    font = {"color": PALETTE[colour], "fontsize": 8, "path_effects": halo}
    return {"textcoords": "offset points", "ha": side, "va": "center", **font}
