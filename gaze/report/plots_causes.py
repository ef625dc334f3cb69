"""The figure that sets where a head looks beside what it does."""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gaze.report.plots import HOUSE, ROLES, chance_line, described, legend, share
from gaze.report.style import WIDTH, Number, Numbers


@rc_context(HOUSE)
def score_and_effect(
    score: Float[np.ndarray, " head"],
    effects: tuple[tuple[str, Numbers], tuple[str, Numbers]],
    chosen: Bool[np.ndarray, " head"],
    chance: Number | None = None,
) -> Figure:
    """Two plots of the score of every head and what it does, with the name of each effect; gaze heads stand out.

    Args:
      chance: what a head that does nothing reaches in the first of the effects.
    """
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    grid = figure.subplots(1, 2, sharex=True)
    for axes, (name, effect) in zip(grid, effects, strict=True):
        for some, role, label in ((~chosen, "random", "other heads"), (chosen, "gaze", "gaze heads")):
            look = ROLES["random" if role == "random" else "gaze"]
            filled = {} if role == "gaze" else {"mfc": "none"}
            axes.plot(
                score[some], np.asarray(effect, np.float64)[some], look["marker"], color=look["color"],
                markersize=5, label=label, clip_on=False, **filled,
            )  # fmt: skip
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set(xlabel="gaze score", ylabel=name, ylim=(-0.03, 1.06))
        axes.grid(axis="y")
    chance_line(grid[0].axhline, chance)
    legend(figure, grid[0])
    said = (
        f"{name}: gaze heads {_span(np.asarray(effect, np.float64)[chosen])}, "
        f"others {_span(np.asarray(effect, np.float64)[~chosen])}."
        for name, effect in effects
    )
    return described(figure, "Gaze score of every head against what it does. " + " ".join(said))


def _span(values: Float[np.ndarray, " head"]) -> str:
    return f"{share(values.min())} to {share(values.max())}" if values.size else "none"
