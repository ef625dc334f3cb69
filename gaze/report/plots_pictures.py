"""Pictures with boxes, and what the model said when it was turned to each of them."""

import textwrap
from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from gaze.report.plots import HOUSE, described
from gaze.report.style import PALETTE, WIDTH, Number

Box = tuple[Number, Number, Number, Number]
LINE = 40
SIGNS = 78
"""Signs that fit side by side on the width of the page."""
LINE_HEIGHT = 0.16
"""In inches."""


@rc_context(HOUSE)
def boxes(
    image: Image.Image, regions: Sequence[Box], question: str, unsteered: str, steered: Sequence[tuple[str, bool]]
) -> Figure:
    """A picture with numbered boxes (left, top, right, bottom in pixels), and beside it the answer for each of them."""
    answers = [f"{number}  {'✓' if hit else '✗'}  {said(text)}" for number, (text, hit) in enumerate(steered, 1)]
    lines = [textwrap.fill(answer, LINE, subsequent_indent="       ") for answer in answers]
    height = max(2.4, 0.19 * (sum(line.count("\n") + 1 for line in lines) + 0.5 * len(lines) + 5))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(image.convert("RGB"))
    for axes in (left, right):
        axes.set_axis_off()
    for number, box in enumerate(regions, 1):
        _box(left, number, box)
    asked = textwrap.fill(f"“{said(question)}”  Left alone: {said(unsteered)}", LINE)
    place = 1 - _write(right, 1.0, asked, PALETTE["quiet"], height)
    for line, (_, hit) in zip(lines, steered, strict=True):
        place -= _write(right, place, line, PALETTE["gaze" if hit else "chosen"], height)
    spoken = "; ".join(
        f"box {number}: {text} ({'hit' if hit else 'miss'})" for number, (text, hit) in enumerate(steered, 1)
    )
    return described(figure, f"A picture with {len(regions)} boxes. Unsteered: {unsteered}. Steered to {spoken}.")


@rc_context(HOUSE)
def strip(
    image: Image.Image,
    question: str,
    unsteered: str,
    steered: Sequence[tuple[str, bool]],
    widths: Sequence[Number] = (),
) -> Figure:
    """A strip of panels, and under each the answer when steered to it, right or wrong.

    Args:
      widths: of the panels; alike if none are given.
    """
    ends = np.cumsum([0, *(widths or [1] * len(steered))])
    ends = ends / ends[-1]
    room = [max(6, int(SIGNS * share)) for share in np.diff(ends)]
    answers = [textwrap.fill(said(text), signs) for (text, _), signs in zip(steered, room, strict=True)]
    asked = "\n".join(
        textwrap.fill(words, SIGNS) for words in (f"Asked: “{said(question)}”", f"Left alone: {said(unsteered)}")
    )
    above = LINE_HEIGHT * (asked.count("\n") + 1.5)
    below = LINE_HEIGHT * (max(answer.count("\n") for answer in answers) + 2.5)
    drawn = WIDTH * image.height / image.width
    height = above + drawn + below
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, below / height, 1, drawn / height))
    axes.imshow(image.convert("RGB"), aspect="auto")
    axes.set_axis_off()
    figure.text(0, 1, asked, ha="left", va="top", fontsize=8.5)
    for left, right, answer, (_, hit) in zip(ends[:-1], ends[1:], answers, steered, strict=True):
        words, colour = f"{'✓' if hit else '✗'}\n{answer}", PALETTE["gaze" if hit else "chosen"]
        figure.text(
            (left + right) / 2, (below - 0.05) / height, words, ha="center", va="top", fontsize=7.5, color=colour
        )
    told = "; ".join(f"{panel}: {text}" for panel, (text, _) in enumerate(steered, start=1))
    return described(figure, f"A strip of {len(steered)} panels. Unsteered: {unsteered} Steered to {told}")


def said(text: str) -> str:
    """A text as the font can write it; empty answers are named."""
    return "".join(sign if ord(sign) in _signs() else "□" for sign in " ".join(text.split())) or "(no text)"


@cache
def _signs() -> frozenset[int]:
    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def _box(axes: Axes, number: int, box: Box) -> None:
    x, y, right, bottom = box
    halo = [withStroke(linewidth=3.5, foreground="white")]
    axes.add_patch(
        Rectangle(
            (x, y), right - x, bottom - y, fill=False, edgecolor=PALETTE["chosen"], linewidth=1.8, path_effects=halo
        )
    )
    axes.text(
        x, y, f" {number} ", ha="left", va="top", color="white", fontsize=9, fontweight="bold", clip_on=True,
        bbox={"facecolor": PALETTE["chosen"], "edgecolor": "none", "pad": 1.2},
    )  # fmt: skip


def _write(axes: Axes, place: float, words: str, colour: str, height: float) -> float:
    """Writes at a height of the axes; returns how much of it that took."""
    axes.text(0, place, words, ha="left", va="top", color=colour, fontsize=8, transform=axes.transAxes)
    return float(np.divide(0.19 * (words.count("\n") + 1.5), height))
