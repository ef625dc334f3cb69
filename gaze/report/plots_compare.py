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
    Numbers,
    chance_line,
    described,
    highest,
    legend,
    share,
    spoken,
    wrapped,
)
from gaze.report.style import HEAT, PALETTE, WIDTH, Number, accuracy_axis, lettering


class ComparedCheckpoint(NamedTuple):
    """What the experiments say of one model.

    Attributes:
      profile: the best gaze score of each layer.
      k: the number of heads at which steering works best; NaN if it does at none.
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
    figure = Figure(figsize=(WIDTH, 2.9 + 0.42 * len(models)), layout="constrained")
    spots = figure.subplot_mosaic(
        [["profile", "profile"], ["k", "accuracy"]], height_ratios=[2.1, 0.3 + 0.42 * len(models)]
    )
    profile, k, accuracy = spots["profile"], spots["k"], spots["accuracy"]
    for place, one in enumerate(models):
        colour = HEAT(0.35 + 0.65 * place / max(1, len(models) - 1))
        marker = "osD^vP*X"[place % 8]
        depth = np.linspace(0, 1, len(one.profile)) if len(one.profile) > 1 else [0.5]
        profile.plot(depth, one.profile, color=colour, marker=marker, markersize=3.5, linewidth=1.3, label=one.name)
        k.barh(place, one.k / one.heads, 0.55, color=colour)
        note = f"{one.k:,g} of {one.heads:,}" if np.isfinite(one.k) else "none"
        end = one.k / one.heads if np.isfinite(one.k) else 0.0  # where "none" stands
        k.annotate(note, (end, place), xytext=(4, 0), **lettering("ink"))
        for measure in (one.random, one.gaze):
            look = ROLES[measure.role]
            accuracy.plot([measure.low, measure.high], [place, place], color=look["color"], linewidth=2)
            accuracy.plot(measure.value, place, look["marker"], color=look["color"], markersize=6, clip_on=False)
    profile.set(xlabel="depth in the model (share of its layers)", ylabel="best gaze score")
    profile.grid(axis="y")
    _names(k, [wrapped(one.name) for one in models])
    _names(accuracy, [""] * len(models))
    k.set_xlim(0, 1.8 * highest(np.array([one.k / one.heads for one in models], np.float64)))
    _percent(k.xaxis)
    k.set_xlabel("heads at the peak")
    accuracy_axis(accuracy, accuracy.xaxis)
    chance_line(accuracy.axvline, chance)
    accuracy.set_xlabel(label)
    legend(figure, profile)
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
        axes.grid(axis="y")
        for place, value in enumerate(shares):
            height = value if np.isfinite(value) else 0.0  # where the dash for no number stands
            axes.annotate(share(value), (place, height), xytext=(0, 6), **lettering("ink", "center"))
    grid.flat[-1].set_xticks(range(len(choices)), labels=choices)
    grid.flat[-1].set_ylim(0, 1.3 * highest(*judges.values()))
    grid.flat[-1].set_xlabel("picked")
    said = "; ".join(f"{name}: " + ", ".join(map(share, shares)) for name, shares in judges.items())
    return described(figure, f"Shares of picks for {', '.join(choices)}. {said}.")


def _percent(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(3))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))


def _names(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
