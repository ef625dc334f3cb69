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
LINE = 44


@rc_context(HOUSE)
def boxes(
    image: Image.Image, regions: Sequence[Box], question: str, unsteered: str, steered: Sequence[tuple[str, bool]]
) -> Figure:
    """A picture with numbered boxes (left, top, right, bottom in pixels), and beside it the answer for each of them."""
    answers = [f"{number}  {'✓' if hit else '✗'}  {said(text)}" for number, (text, hit) in enumerate(steered, 1)]
    lines = [textwrap.fill(answer, LINE, subsequent_indent="       ") for answer in answers]
    height = max(2.4, 0.19 * (sum(line.count("\n") + 1 for line in lines) + 0.5 * len(lines) + 5))
    figure = Figure(figsize=(1.35 * WIDTH, height), layout="constrained")
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
def strip(image: Image.Image, question: str, unsteered: str, steered: Sequence[tuple[str, bool]]) -> Figure:
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
    axes.text(0, place, words, ha="left", va="top", color=colour, fontsize=9, transform=axes.transAxes)
    return float(np.divide(0.19 * (words.count("\n") + 1.5), height))
