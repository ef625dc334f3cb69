"""The figures that set models beside models and judges beside judges."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gaze.report.plots import (
    DESCRIBES,
    HOUSE,
    ROLES,
    Measure,
    chance_line,
    described,
    highest,
    share,
    spoken,
    wrapped,
)
from gaze.report.style import PALETTE, WIDTH, Number, Numbers, accuracy_axis, lettering, tell_blank


class ComparedCheckpoint(NamedTuple):
    """What the experiments say of one model.

    Attributes:
      profile: the best gaze score of each layer.
      k: the number of heads that are steered; NaN if it is none.
      heads: the number of heads it has.
      gaze, random: accuracy of its gaze heads and of random heads.
    """

    name: str
    profile: Numbers
    k: Number
    heads: int
    gaze: Measure
    random: Measure


@rc_context(HOUSE)
def checkpoints(models: Sequence[ComparedCheckpoint], chance: Number | None = None, label: str = DESCRIBES) -> Figure:
    """Where in the depth of each model its best heads lie, how many it takes, and what steering them does."""
    figure = Figure(figsize=(WIDTH, 0.9 + 1.27 * len(models)), layout="constrained")
    grid = figure.add_gridspec(len(models) + 1, 2, height_ratios=[*(0.85 for _ in models), 0.3 + 0.42 * len(models)])
    k, accuracy = figure.add_subplot(grid[-1, 0]), figure.add_subplot(grid[-1, 1])
    top = 1.1 * highest(*(np.asarray(one.profile, np.float64) for one in models))
    for place, one in enumerate(models):
        _profile(figure.add_subplot(grid[place, :]), one, top, last=place == len(models) - 1)
        k.barh(place, one.k / one.heads, 0.55, color=PALETTE["gaze"], alpha=0.82)
        note = f"{one.k:,g} of {one.heads:,}" if np.isfinite(one.k) else "none"
        end = one.k / one.heads if np.isfinite(one.k) else 0.0  # where "none" stands
        k.annotate(note, (end, place), xytext=(4, 0), **lettering("ink"))
        for measure in (one.random, one.gaze):
            look = ROLES[measure.role]
            accuracy.plot([measure.low, measure.high], [place, place], color=look["color"], linewidth=2)
            accuracy.plot(measure.value, place, look["marker"], color=look["color"], markersize=6, clip_on=False)
    _names(k, [wrapped(one.name) for one in models])
    _names(accuracy, [""] * len(models))
    k.set_xlim(0, 1.8 * highest(np.array([one.k / one.heads for one in models], np.float64)))
    _percent(k.xaxis)
    k.set_xlabel("heads that are steered")
    accuracy_axis(accuracy, accuracy.xaxis)
    chance_line(accuracy.axvline, chance)
    accuracy.set_xlabel(label)
    tell_blank(accuracy, [value for one in models for value in (one.gaze.value, one.random.value)])
    return described(figure, " ".join(f"{one.name}: {spoken(one.gaze)}; {spoken(one.random)}." for one in models))


@rc_context(HOUSE)
def picks(judges: Mapping[str, Float[np.ndarray, " choice"]], choices: Sequence[str]) -> Figure:
    """What each judge picks, whatever the answer was: shares of the choices; a fair judge of fair answers picks alike."""
    figure = Figure(figsize=(WIDTH, 1.25 * len(judges) + 0.7), layout="constrained")
    grid = figure.subplots(len(judges), 1, squeeze=False, sharex=True, sharey=True)
    for axes, (name, shares) in zip(grid.flat, judges.items(), strict=True):
        axes.bar(range(len(choices)), shares, color=PALETTE["gaze"], width=0.7, alpha=0.82)
        _percent(axes.yaxis)
        axes.set_title(name, fontsize=9, loc="left")
        tell_blank(axes, shares)
        axes.grid(axis="y")
        for place, value in enumerate(shares):
            height = value if np.isfinite(value) else 0.0  # where the dash for no number stands
            axes.annotate(share(value), (place, height), xytext=(0, 6), **lettering("ink", "center"))
    grid.flat[-1].set_xticks(range(len(choices)), labels=choices)
    grid.flat[-1].set_ylim(0, 1.3 * highest(*judges.values()))
    grid.flat[-1].set_xlabel("picked")
    said = "; ".join(f"{name}: " + ", ".join(map(share, shares)) for name, shares in judges.items())
    return described(figure, f"Shares of picks for {', '.join(choices)}. {said}.")


def _profile(axes: Axes, one: ComparedCheckpoint, top: Number | np.floating, last: bool) -> None:
    """The best score of each layer of a model, a bar a layer, along its depth."""
    layers = len(one.profile)
    axes.bar((np.arange(layers) + 0.5) / layers, one.profile, 0.86 / layers, color=PALETTE["gaze"], alpha=0.82)
    tell_blank(axes, one.profile)
    axes.set_title(f"{one.name}: best gaze score of each layer", fontsize=9, loc="left")
    axes.set(xlim=(0, 1), ylim=(0, top), xlabel="depth in the model (share of its layers)" if last else "")
    axes.tick_params(axis="x", labelbottom=last)
    axes.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 5, 10]))
    axes.grid(axis="y")


def _percent(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(3))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))


def _names(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
