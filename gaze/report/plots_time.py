"""The figures of time: where heads look while the model writes, and whether what it writes follows a schedule."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gaze.report.plots import HOUSE, described, highest, legend, write_in
from gaze.report.style import HEAT, PALETTE, WIDTH, canvas, colour_bar, heatmap, tell_blank

Mass = Float[np.ndarray, "step panel"]


class Stairs(NamedTuple):
    """Attention on each panel at each step (a token, or a line of the narration).

    Attributes:
      told: the panel (from 0) that the text describes at each step, -1 where none.
    """

    title: str
    mass: Mass
    told: Int[np.ndarray, " step"] | None = None


@rc_context(HOUSE)
def staircase(stairs: Sequence[Stairs], step: str = "generated token", label: str = "share of attention") -> Figure:
    """Heat maps in two columns on one scale: a head that looks at what is being told draws a stair."""
    columns = min(2, len(stairs))
    rows = -(-len(stairs) // columns)
    figure = Figure(figsize=(WIDTH, 1.75 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    top = highest(*(one.mass for one in stairs))
    for axes, one in zip(grid.flat, stairs, strict=False):
        image = axes.imshow(one.mass.T, cmap=HEAT, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for edge in range(1, one.mass.shape[1]):
            axes.axhline(edge - 0.5, color="white", linewidth=0.6)
        axes.set_title(one.title, fontsize=9, loc="left")
        tell_blank(axes, one.mass, top)
        _panels(axes, one.mass.shape[1])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if one.told is not None:
            path = np.where(one.told >= 0, one.told, np.nan)
            axes.step(np.arange(len(path)), path, where="mid", color=PALETTE["chosen"], linewidth=1.3)
    for axes in grid.flat[len(stairs) :]:
        axes.remove()
    figure.supxlabel(step, fontsize=9, color=PALETTE["quiet"])
    figure.supylabel("panel looked at", fontsize=9, color=PALETTE["quiet"])
    colour_bar(figure, image, list(grid.flat[: len(stairs)]), label)
    return described(figure, "Heat maps of attention by step and panel: " + "; ".join(map(_path, stairs)) + ".")


@rc_context(HOUSE)
def trajectories(
    lines: Mapping[str, Mass],
    schedule: Int[np.ndarray, " step"] | None = None,
    step: str = "generated token",
    label: str = "share of attention",
) -> Figure:
    """A row per panel: how much of it each set of heads sees as the text grows; underlined while it is its turn."""
    panels = next(iter(lines.values())).shape[1]
    figure = Figure(figsize=(WIDTH, 0.62 * panels + 1.0), layout="constrained")
    grid = figure.subplots(panels, 1, squeeze=False, sharex=True, sharey=True)
    for panel, axes in enumerate(grid.flat):
        for place, (name, mass) in enumerate(lines.items()):
            colour, steps = PALETTE["quiet" if place else "gaze"], np.arange(len(mass))
            axes.plot(steps, mass[:, panel], color=colour, linewidth=1.2, linestyle="--" if place else "-", label=name)
            if not place:
                axes.fill_between(steps, 0, mass[:, panel], color=colour, alpha=0.16, linewidth=0)
        for begin, end in _spans(schedule, panel):
            axes.axvspan(begin - 0.5, end + 0.5, ymax=0.09, color=PALETTE["chosen"], linewidth=0)
        tell_blank(axes, np.concatenate([mass[:, panel] for mass in lines.values()]))
        axes.set_ylabel(panel + 1, rotation=0, ha="right", va="center")
        axes.set_yticks([])
    grid.flat[-1].set_ylim(0, 1.05 * highest(*lines.values()))
    grid.flat[-1].set_xlabel(step)
    grid.flat[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    figure.supylabel(f"{label}, panel by panel", fontsize=9, color=PALETTE["quiet"])
    legend(figure, grid.flat[0])
    peaks = [f"{name}: {', '.join(f'{value:.2f}' for value in _peaks(mass))}" for name, mass in lines.items()]
    return described(figure, f"{label} over steps for {panels} panels. Highest per panel: {'; '.join(peaks)}.")


@rc_context(HOUSE)
def grid(
    values: Float[np.ndarray, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    axes_names: tuple[str, str],
    label: str = "share of answers",
) -> Figure:
    """A table of shares as a heat map: hits by segment and scheduled panel, or scheduled panel by panel described.

    NaN marks what was never tried; such cells are hatched.
    """
    figure, axes = canvas(np.clip(0.4 * len(rows), 1.2, 6.0) + 1.0)
    axes.patch.set(facecolor="white", edgecolor=PALETTE["line"], hatch="////", linewidth=0)
    image = heatmap(axes, values, vmax=highest(values))
    write_in(axes, values, "{:.0%}")
    axes.set_yticks(range(len(rows)), labels=rows)
    axes.set_xticks(range(len(columns)), labels=columns)
    axes.set(ylabel=axes_names[0], xlabel=axes_names[1])
    colour_bar(figure, image, [axes], label)
    figure.axes[-1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    cells = "; ".join(
        f"{row}: " + ", ".join(f"{value:.0%}" for value in values[place] if np.isfinite(value))
        for place, row in enumerate(rows)
    )
    return described(figure, f"{label} by {axes_names[0]} (rows) and {axes_names[1]} (columns). {cells}.")


@rc_context(HOUSE)
def switch_latency(
    latency: Mapping[str, Float[np.ndarray, " switch"]], segment: int, step: str = "tokens after the switch"
) -> Figure:
    """How many tokens after a switch the text turns to the new panel, a row per way of counting; NaN: it never did."""
    figure = Figure(figsize=(WIDTH, 1.35 * len(latency) + 0.6), layout="constrained")
    rows = figure.subplots(len(latency), 1, squeeze=False, sharex=True).flat
    edges = np.linspace(0, segment, min(segment, 50) + 1)
    said = []
    for axes, (name, values) in zip(rows, latency.items(), strict=True):
        turned = values[np.isfinite(values)]
        axes.hist(np.clip(turned, 0, segment), edges, color=PALETTE["gaze"], alpha=0.82)
        note = f"{name}: {turned.size} of {values.size} switches followed"
        if turned.size:
            note += f", median {np.median(turned):.3g}"
            axes.axvline(np.median(turned), color=PALETTE["chosen"], linewidth=1.2, linestyle=":")
        axes.set_title(note, fontsize=9, loc="left")
        tell_blank(axes, turned, words="no switch was followed")
        axes.set_ylabel("switches")
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
        axes.set_xlim(0, segment)
        said.append(note)
    axes.set_xlabel(step)
    return described(figure, f"Histogram of {step}. " + "; ".join(said) + ".")


def _panels(axes: Axes, panels: int) -> None:
    axes.set_yticks(range(panels), labels=[str(panel + 1) for panel in range(panels)])


def _path(one: Stairs) -> str:
    """Which panel has most attention, run by run; steps without numbers say nothing."""
    known = one.mass[np.isfinite(one.mass).all(axis=1)]
    seen = known.argmax(axis=1) + 1
    runs = [int(panel) for place, panel in enumerate(seen) if not place or panel != seen[place - 1]]
    return f"{one.title}, most on panels {', '.join(map(str, runs[:24]))}{' …' if len(runs) > 24 else ''}"


def _peaks(mass: Mass) -> list[float]:
    return [float(np.max(column[np.isfinite(column)], initial=0.0)) for column in mass.T]


def _spans(schedule: Int[np.ndarray, " step"] | None, panel: int) -> list[tuple[int, int]]:
    """First and last step of every run of the schedule on a panel."""
    if schedule is None:
        return []
    on = np.concatenate([[0], np.asarray(schedule == panel, np.int8), [0]])
    begin, end = np.flatnonzero(np.diff(on) == 1), np.flatnonzero(np.diff(on) == -1) - 1
    return list(zip(begin.tolist(), end.tolist(), strict=True))
