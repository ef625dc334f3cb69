"""The figures of discovery: which heads look at the panel that the question names, and how sure that is."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from gaze.report.plots import HOUSE, described, highest, legend, write_in
from gaze.report.style import (
    PALETTE,
    WIDTH,
    Head,
    Number,
    canvas,
    colour_bar,
    heatmap,
    lettering,
    outline,
    tell_blank,
)


@rc_context(HOUSE)
def score_map(scores: Float[np.ndarray, "layer heads"], chosen: Sequence[Head], label: str = "gaze score") -> Figure:
    """The score of every head, the chosen ones outlined."""
    layers, heads = scores.shape
    figure, axes = canvas(np.clip(0.36 * layers, 2.2, 6.0) + 0.7)
    image = heatmap(axes, np.maximum(scores, 0), vmax=highest(scores))
    axes.set(xlabel="head", ylabel="layer")
    for axis, count in ((axes.xaxis, heads), (axes.yaxis, layers)):
        axis.set_major_locator(MaxNLocator(min(count, 16), integer=True, min_n_ticks=1))
    for layer, head in chosen:
        axes.add_patch(outline(layer, head, 2.2 if scores.size <= 200 else 1.0))
    if scores.size <= 100:
        write_in(axes, scores, "{:.2f}")
    colour_bar(figure, image, [axes], label)
    known = [(*place, scores[place]) for place in chosen if np.isfinite(scores[place])]
    best = ", ".join(f"L{layer}H{head} {score:.2f}" for layer, head, score in known[:8]) or "none"
    return described(figure, f"Heat map of the {label} by layer and head, {len(chosen)} heads outlined. Best: {best}.")


@rc_context(HOUSE)
def score_distribution(
    real: Float[np.ndarray, "layer heads"],
    null: Float[np.ndarray, "draw layer heads"],
    names: tuple[str, str] = ("real questions", "shuffled questions"),
    label: str = "gaze score",
) -> Figure:
    """How many heads have which score, beside the mean over the draws of a null in which the question means nothing."""
    figure, axes = canvas(2.9)
    real, null = real[np.isfinite(real)], null[np.isfinite(null)].reshape(-1)
    draws = max(1, round(null.size / max(1, real.size)))
    edges = np.linspace(min(0.0, float(np.min(real, initial=0.0))), highest(real, null), 41).tolist()
    axes.hist(null, edges, weights=np.full(null.size, 1 / draws), color=PALETTE["quiet"], alpha=0.5, label=names[1])
    axes.hist(real, edges, color=PALETTE["gaze"], histtype="step", linewidth=1.6, label=names[0])
    axes.set_yscale("symlog", linthresh=1, linscale=0.5)
    axes.set_ylim(0, 2 * max(1, real.size))
    axes.set_yticks([0, *10.0 ** np.arange(np.ceil(np.log10(2 * max(1, real.size))))])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    tell_blank(axes, real)
    limit = float(np.max(null, initial=0.0))
    axes.axvline(limit, color=PALETTE["chosen"], linewidth=1, linestyle=":")
    beyond = int(np.sum(real > limit))
    axes.annotate(
        f"{beyond} heads beyond\nall of the null", (limit, 0.9), xycoords=("data", "axes fraction"), xytext=(5, -2),
        **lettering("chosen", "left" if limit < 0.6 * edges[-1] else "right"),
    )  # fmt: skip
    axes.set(xlabel=label, ylabel="heads (log scale from 1 up)")
    legend(figure, axes)
    return described(figure, f"Histogram of the {label}: {beyond} of {real.size} heads exceed every value of the null.")


@rc_context(HOUSE)
def depth_profile(
    scores: Float[np.ndarray, "layer heads"], chosen: Sequence[Head], label: str = "gaze score"
) -> Figure:
    """Score of every head by layer, a bar for the best of each layer, and how many were chosen in each layer."""
    layers, heads = scores.shape
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    layer = np.arange(layers)
    spread = np.repeat(layer, heads) + np.tile(np.linspace(-0.25, 0.25, heads) if heads > 1 else [0.0], layers)
    above.plot(spread, scores.ravel(), ".", color=PALETTE["quiet"], markersize=3, alpha=0.6, rasterized=True)
    best = [np.max(row[np.isfinite(row)], initial=-np.inf) for row in scores]
    above.bar(layer, np.where(np.isfinite(best), best, np.nan), color=PALETTE["gaze"], width=0.7, alpha=0.25)
    tell_blank(above, scores)
    if len(chosen):
        places = [(number + (head / max(1, heads - 1) - 0.5) / 2, scores[number, head]) for number, head in chosen]
        above.plot(*zip(*places, strict=True), "o", color=PALETTE["chosen"], markersize=6, mfc="none", clip_on=False)
    counts = np.bincount([number for number, _ in chosen], minlength=layers)
    below.bar(layer, counts, color=PALETTE["chosen"], width=0.7)
    above.set(ylabel=label)
    below.set(xlabel="layer", ylabel="chosen", xlim=(-0.7, layers - 0.3))
    below.xaxis.set_major_locator(MaxNLocator(16, integer=True, min_n_ticks=1))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
    for axes in (above, below):
        axes.grid(axis="y")
    tell_blank(below, np.where(counts, counts, np.nan), words="no head was chosen")
    place = ", ".join(f"{count} in layer {number}" for number, count in enumerate(counts) if count)
    return described(figure, f"{label} by layer. Chosen heads: {place}.")


@rc_context(HOUSE)
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
        image = heatmap(axes, matrix, vmax=highest(matrices), aspect="equal")
        tell_blank(axes, matrix, highest(matrices))
        is_chosen = (layer, head) in chosen
        axes.set_title(f"L{layer}H{head}  {score:.2f}", color=PALETTE["ink" if is_chosen else "quiet"], fontsize=9)
        numbers = np.arange(matrix.shape[0])
        axes.set(xticks=numbers, yticks=numbers, xticklabels=numbers + 1, yticklabels=numbers + 1)
        if is_chosen:
            axes.add_patch(outline(0, 0, 2.0, size=len(matrix)))
    for axes in grid.flat[len(top) :]:
        axes.remove()
    figure.supxlabel("panel looked at", fontsize=9, color=PALETTE["quiet"])
    figure.supylabel("panel asked about", fontsize=9, color=PALETTE["quiet"])
    if image is not None:
        colour_bar(figure, image, list(grid.flat[: len(top)]), "share of\nthe head's attention")
    best = ", ".join(f"L{layer}H{head} {score:.2f}" for layer, head, score in top)
    return described(figure, f"Attention by panel asked about and panel looked at, for {best}.")
