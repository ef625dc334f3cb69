"""The figures of answers: what steering does, beside its controls. What all the other figures share is here too.

A figure knows what it shows: its label is a sentence with its numbers, for those who cannot see it. Colours keep their
meaning through all figures (`ROLES`); numbers that are not there are NaN and leave a gap.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import NullLocator

from gaze.report.style import PALETTE, STYLE, Number, Numbers, accuracy_axis, canvas, lettering, tell_blank
from gaze.report.typography import typeset

Role = Literal["gaze", "image", "localization", "random", "all", "rest", "unsteered"]

ROLES: dict[Role, dict[str, Any]] = {
    "gaze": {"color": PALETTE["gaze"], "marker": "o", "linestyle": "-"},
    "image": {"color": "#8e44ad", "marker": "s", "linestyle": "-"},
    "localization": {"color": "#1b8a6b", "marker": "D", "linestyle": "-"},
    "random": {"color": PALETTE["quiet"], "marker": "o", "linestyle": "--"},
    "all": {"color": PALETTE["ink"], "marker": "v", "linestyle": "-"},
    "rest": {"color": "#9c4a2f", "marker": "P", "linestyle": "-."},
    "unsteered": {"color": "#b08d3c", "marker": "^", "linestyle": ":"},
}
"""How each kind of heads is drawn: told apart by marker and stroke as well as by colour."""

HOUSE: dict[Any, Any] = STYLE | {"text.parse_math": False}
"""The style of the figures; a dollar in a model's answer is a dollar."""

DESCRIBES = "answers that describe the target"
NAME_WIDTH = 30
BLIND = "blind pick"
HATCHED = {"hatch": "////", "edgecolor": "white", "linewidth": 0}
ZERO_APART = 2.5
"""How many times less than the first number zero stands for on a log scale."""
DASHES = ((4, 3), (1, 2), (6, 2, 1, 2))


class Line(NamedTuple):
    """Values along an axis, or of the groups numbered `x`, with the ends of their intervals if they have any."""

    name: str
    role: Role
    x: Numbers
    value: Numbers
    low: Numbers | None = None
    high: Numbers | None = None


class Measure(NamedTuple):
    """The accuracy of one condition with its interval; `draws` are those of a random control, one by one."""

    name: str
    role: Role
    value: Number
    low: Number
    high: Number
    draws: Numbers = ()


@rc_context(HOUSE)
def conditions(measures: Sequence[Measure], chance: Number | None = None, label: str = DESCRIBES) -> Figure:
    """A row per condition: its accuracy and interval; the draws of a random control as rings below."""
    figure, axes = canvas(0.5 * len(measures) + 1.0)
    for place, one in enumerate(measures):
        colour, marker = ROLES[one.role]["color"], ROLES[one.role]["marker"]
        axes.plot([one.low, one.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(one.value, place, marker, color=colour, markersize=7, clip_on=False)
        axes.annotate(share(one.value), (1.06, place), xytext=(0, 0), **lettering("ink"))
        draws = np.sort(np.asarray(one.draws, np.float64))
        lift = place + 0.25 + 0.1 * (np.arange(draws.size) % 2)
        if draws.size:  # An empty line that is not clipped would push the layout about.
            axes.plot(draws, lift, "o", color=colour, markersize=4, mfc="none", mew=0.9, clip_on=False)
    axes.set_yticks(range(len(measures)), labels=[wrapped(one.name) for one in measures])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(measures) - 0.4, -0.75)
    accuracy_axis(axes, axes.xaxis)
    if chance is not None:
        axes.axvline(chance, color=PALETTE["quiet"], linewidth=1, linestyle=(0, DASHES[0]))
        axes.annotate(f"{BLIND} {chance:.0%}", (chance, -0.58), xytext=(4, 0), **lettering("quiet"))
    axes.set_xlabel(label)
    return described(figure, f"Share of {label}. " + "; ".join(spoken(one) for one in measures) + ".")


@rc_context(HOUSE)
def sweep(
    lines: Sequence[Line],
    axis: str,
    levels: Mapping[str, Number] | None = None,
    marked: Mapping[str, Number] | None = None,
    label: str = DESCRIBES,
) -> Figure:
    """Accuracy along an axis of numbers (heads, strength) on a log scale, intervals or draws as bands.

    The scale begins at the first number above zero. Zero, where no log scale goes, stands apart on its left.

    Args:
      levels: horizontal lines to compare with, such as a blind pick.
      marked: places on the axis worth a vertical line.
    """
    figure, axes = canvas(3.4)
    ticks = np.unique(np.concatenate([np.asarray(line.x, np.float64) for line in lines]))
    first = ticks[ticks > 0].min(initial=max(1.0, ticks.max()))
    for line, look in zip(lines, _looks(lines), strict=True):
        _draw_line(axes, line, look, apart=first / ZERO_APART)
    for dash, (name, level) in zip(DASHES * 3, (levels or {}).items(), strict=False):
        axes.axhline(level, color=PALETTE["quiet"], linewidth=1, linestyle=(0, dash), label=name)
    for name, place in (marked or {}).items():
        axes.axvline(place, color=PALETTE["chosen"], linewidth=1, linestyle=":")
        axes.annotate(name, (place, 1.07), xytext=(4, 0), **lettering("chosen"))
    _logarithmic(axes, ticks, first, next(iter((marked or {}).values()), None))
    accuracy_axis(axes, axes.yaxis)
    axes.set(xlabel=f"{axis} (log scale)", ylabel=label)
    tell_blank(axes, [value for line in lines for value in line.value])
    legend(figure, axes)
    return described(figure, f"Share of {label}, along {axis}. " + " ".join(_peak(line) for line in lines))


@rc_context(HOUSE)
def rows(groups: Sequence[str], lines: Sequence[Line], chance: Number | None = None, label: str = DESCRIBES) -> Figure:
    """A row per group with a long name (a wording, a choice of rows), a dot with its interval per line."""
    figure, axes = canvas((0.2 * len(lines) + 0.22) * len(groups) + 1.2)
    for shift, line in zip(_shifts(lines, 0.26), lines, strict=True):
        place, value = np.asarray(line.x) + shift, np.asarray(line.value, np.float64)
        axes.errorbar(value, place, xerr=_errors(line), **_dots(line))
    axes.set_yticks(range(len(groups)), labels=[wrapped(group) for group in groups])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    accuracy_axis(axes, axes.xaxis)
    chance_line(axes.axvline, chance)
    axes.set_xlabel(label)
    tell_blank(axes, [value for line in lines for value in line.value])
    legend(figure, axes)
    return described(figure, f"Share of {label}. " + _table(groups, lines))


@rc_context(HOUSE)
def columns(
    groups: Sequence[str], lines: Sequence[Line], axis: str = "", chance: Number | None = None, label: str = DESCRIBES
) -> Figure:
    """A group of bars for each short name (a panel, a size), a bar with its interval per line."""
    figure, axes = canvas(3.2)
    width = 0.78 / len(lines)
    for shift, line, look in zip(_shifts(lines, width), lines, _looks(lines), strict=True):
        bars(axes, line, shift, 0.88 * width, **HATCHED if "mfc" in look else {})
        for place, value in zip(line.x, line.value, strict=True):
            if not value > 0:
                axes.annotate(_absent(value), (place + shift, 0), xytext=(0, 6), **lettering("quiet", "center"))
    axes.set_xticks(range(len(groups)), labels=groups)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    accuracy_axis(axes, axes.yaxis)
    axes.set_ylim(0, 1.04)
    chance_line(axes.axhline, chance)
    axes.set(xlabel=axis, ylabel=label)
    legend(figure, axes)
    return described(figure, f"Share of {label}. " + _table(groups, lines))


def bars(axes: Axes, line: Line, shift: float = 0.0, width: float = 0.8, **look: Any) -> None:
    """Draws bars with their intervals, for places that have an order but nothing between them: layers, panels, sizes."""
    place, value = np.asarray(line.x) + shift, np.asarray(line.value, np.float64)
    axes.bar(place, value, width, color=ROLES[line.role]["color"], alpha=0.82, label=line.name, **look)
    axes.errorbar(place, value, yerr=_errors(line), fmt="none", ecolor=PALETTE["ink"], elinewidth=1, capsize=2)


def described(figure: Figure, words: str) -> Figure:
    """Returns the figure with its words for those who cannot see it, its signs set and laid out once and for all."""
    figure.set_label(words)
    for text in figure.findobj(Text):
        text.set(text=typeset(text.get_text()))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def highest(*values: Float[np.ndarray, "..."]) -> np.float64:
    """Returns the largest finite number; 1 if none is above 0, so that it always ends a scale."""
    best = np.float64(max((np.max(one[np.isfinite(one)], initial=0.0) for one in values), default=0.0))
    return best if best > 0 else np.float64(1.0)


def share(value: Number | np.floating) -> str:
    """Returns a share in per cent, or a dash where there is none."""
    return f"{value:.1%}" if np.isfinite(value) else "–"


def wrapped(name: str) -> str:
    """Returns a long name over several lines, so that it leaves room for what it names."""
    return textwrap.fill(name, NAME_WIDTH)


def legend(figure: Figure, axes: Axes) -> None:
    """One row above the plot, or several where names are long."""
    entries = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda entry: entry[1].startswith(BLIND))
    if len(entries) > 1:
        handles, names = zip(*entries, strict=True)
        per_row = max(1, min(len(names), int(90 / (max(map(len, names)) + 7))))
        figure.legend(handles, names, loc="outside upper left", ncols=per_row, frameon=False, fontsize=8.5)


def write_in(axes: Axes, values: Float[np.ndarray, "row column"], form: str, size: float = 8) -> None:
    """The numbers of a heat map in their cells; no number where there is none."""
    top = highest(values)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value > 0.5 * top else PALETTE["ink" if value > 0.05 * top else "quiet"]
            axes.text(column, row, form.format(value), ha="center", va="center", color=colour, fontsize=size)


def _looks(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """How lines are drawn: those that share a role are told apart by open marks and another stroke."""
    roles = [line.role for line in lines]
    again = {"mfc": "white", "linestyle": "-."}
    return [ROLES[role] | (again if role in roles[:place] else {}) for place, role in enumerate(roles)]


def _draw_line(axes: Axes, line: Line, look: dict[str, Any], apart: Number) -> None:
    """Draws what lies above zero as a line, in order, and what lies at zero `apart`."""
    x = np.asarray(line.x, np.float64)
    above, zero = _part(line, np.argsort(x)[np.sort(x) > 0]), _part(line, np.flatnonzero(x == 0))
    if above.low is not None and above.high is not None:
        axes.fill_between(above.x, above.low, above.high, color=look["color"], alpha=0.14, linewidth=0)
    axes.plot(above.x, above.value, label=line.name, markersize=4, linewidth=1.5, **look)
    if len(zero.x):
        axes.errorbar(
            [apart] * len(zero.x), zero.value, _errors(zero), **_dots(zero) | {"label": None, "markersize": 4}
        )


def _part(line: Line, places: Int[np.ndarray, " place"]) -> Line:
    """The line at some of its places."""
    x, value = (np.asarray(some, np.float64)[places] for some in (line.x, line.value))
    low, high = (None if some is None else np.asarray(some, np.float64)[places] for some in (line.low, line.high))
    return Line(line.name, line.role, x, value, low, high)


def _logarithmic(axes: Axes, ticks: Float[np.ndarray, " tick"], first: float, keep: Number | None) -> None:
    """A log scale over the ticks from the first on; zero, if it is among them, apart on the left."""
    axes.set_xscale("log")
    shown = _ticks(ticks, keep)
    places, labels = [*shown], [f"{tick:,g}" for tick in shown]
    if zero := bool((ticks == 0).any()):
        places, labels = [first / ZERO_APART, *places], ["0", *labels]
        axes.axvline(first / ZERO_APART**0.5, color=PALETTE["line"], linewidth=1)
    axes.set_xlim((first / ZERO_APART if zero else first) / 1.15, max(first, ticks.max()) * 1.15)
    axes.set_xticks(places, labels=labels)
    axes.xaxis.set_minor_locator(NullLocator())


def _absent(value: Number | np.floating) -> str:
    """What stands where there is no bar."""
    return "0" if np.isfinite(value) else "–"


def _ticks(places: Float[np.ndarray, " tick"], keep: Number | None) -> list[float]:
    """Ticks whose labels do not touch."""
    positive = places[places > 0]
    if positive.size < 2:
        return [float(tick) for tick in positive]
    gap = 0.055 * np.log(positive.max() / positive.min())
    shown = [float(positive[0] if keep is None else keep)]
    for place in positive:
        if all(abs(np.log(place / other)) > gap for other in shown):
            shown.append(float(place))
    return sorted(shown)


def _shifts(lines: Sequence[Line], step: float) -> Float[np.ndarray, " line"]:
    """Where the lines of a group stand beside its middle."""
    return (np.arange(len(lines)) - (len(lines) - 1) / 2) * step


def _dots(line: Line) -> dict[str, Any]:
    look = ROLES[line.role]
    return {"fmt": look["marker"], "color": look["color"], "label": line.name, "markersize": 6, "elinewidth": 1.8}


def _errors(line: Line) -> Float[np.ndarray, "side group"] | None:
    if line.low is None or line.high is None:
        return None
    value = np.asarray(line.value, np.float64)
    return np.maximum(0, [value - np.asarray(line.low, np.float64), np.asarray(line.high, np.float64) - value])


def chance_line(draw: Callable[..., object], chance: Number | None) -> None:
    if chance is not None:
        draw(chance, color=PALETTE["quiet"], linewidth=1, linestyle=(0, DASHES[0]), label=f"{BLIND} {chance:.0%}")


def spoken(one: Measure) -> str:
    draws = f", single draws {share(min(one.draws))} to {share(max(one.draws))}" if len(one.draws) else ""
    return f"{one.name}: {share(one.value)} ({share(one.low)} to {share(one.high)}{draws})"


def _peak(line: Line) -> str:
    value = np.asarray(line.value, np.float64)
    if not np.isfinite(value).any():
        return f"{line.name}: no values."
    best = int(np.nanargmax(value))
    return f"{line.name}: from {share(value[0])} at {line.x[0]:g} to its highest, {share(value[best])} at {line.x[best]:g}."


def _table(groups: Sequence[str], lines: Sequence[Line]) -> str:
    return " ".join(
        f"{line.name}: "
        + ", ".join(f"{groups[int(x)]} {share(value)}" for x, value in zip(line.x, line.value, strict=True))
        + "."
        for line in lines
    )
