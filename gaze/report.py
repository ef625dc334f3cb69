"""One page that a person can read, print and send: what was asked, what was found, what the controls say."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from gaze import figures
from gaze.figures import Head, Number

Condition = dict[str, Any]

MODES = {
    "boost_suppress": "raised on the target panel and lowered on the rest of the picture",
    "suppress_image": "lowered on all of the picture but the target panel",
    "suppress_all": "lowered on all of the picture but the target panel and on the words of the question",
    "max_suppress_all": "lowered on everything but the target panel: picture, question and the answer so far",
}
PRECISIONS = {
    "ordered": "within the target a head keeps its own preferences",
    "uniform": "within the target a head looks everywhere alike",
}
PICTURE_WIDTH = 768


@dataclass(frozen=True)
class Example:
    """A strip of panels of equal width and what the model said about it.

    Attributes:
      captions: what the panels show, from left to right; empty if unknown.
      unsteered: the answer of the model left alone.
      steered: for each panel, the answer when steered to it, and whether it describes that panel.
    """

    image: Image.Image
    captions: Sequence[str]
    unsteered: str
    steered: Sequence[tuple[str, bool]]


@dataclass(frozen=True)
class Run:
    """What a report is made of.

    Attributes:
      folder: the run folder, which exists.
      results: content of its `results.json`.
      scores: gaze score of every head.
      matrices: of the heads in `top`, mean attention by panel asked about and panel attended to.
      top: (layer, head, score), best first.
      examples: at least one; the first is shown at length.
    """

    folder: Path
    results: dict[str, Any]
    scores: Float[np.ndarray, "layer heads"]
    matrices: Float[np.ndarray, "top panel panel"]
    top: Sequence[tuple[int, int, Number]]
    examples: Sequence[Example]

    @property
    def chosen(self) -> list[Head]:
        """The gaze heads, best first."""
        return [(layer, head) for layer, head in self.results["heads"]]


class Plot(NamedTuple):
    """A figure as the page shows it; `alt` is read out to those who cannot see it."""

    source: str
    alt: str


def write_report(run: Run) -> Path:
    """Writes `report.html` and `figures/*.png` and `*.svg` into the run folder; the page needs no other file.

    Returns:
      The path of the page.
    """
    panels = run.matrices.shape[-1]
    plots = {
        name: Plot(_embed(figures.save(figure, run.folder / "figures", name).encode(), "svg+xml"), alt)
        for name, (figure, alt) in _plots(run, 1 / panels).items()
    }
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            r=run.results,
            plots=plots,
            pictures=[_picture(example.image) for example in run.examples],
            chance=1 / panels,
            panels=panels,
            heads=[(layer, head, run.scores[layer, head]) for layer, head in run.chosen],
            separated=separated(run.results["conditions"]),
            mode=MODES[run.results["mode"]],
            precision=PRECISIONS[run.results["precision"]],
            palette=figures.PALETTE,
        )
    )
    path = run.folder / "report.html"
    partial = path.with_name(".report.html.partial")
    partial.write_text(page, encoding="utf-8")
    return partial.replace(path)


def separated(conditions: dict[str, Condition]) -> bool:
    """Whether the gaze heads' whole interval lies above every random draw and every control's interval."""
    random, everything = conditions["random"], conditions["all"]
    best = max(draw["accuracy"] for draw in random["draws"])
    return bool(conditions["gaze"]["interval"][0] > max(best, random["interval"][1], everything["interval"][1]))


def _plots(run: Run, chance: float) -> dict[str, tuple[Figure, str]]:
    """Every figure with the words that stand in for it."""
    results, conditions = run.results, run.results["conditions"]
    best = ", ".join(f"L{layer}H{head} {score:.2f}" for layer, head, score in run.top)
    names = {
        "gaze": f"{results['k']} gaze heads",
        "random": f"{results['k']} random heads",
        "all": f"all {results['heads_total']:,} heads",
    }
    return {
        "score_map": (
            figures.score_map(run.scores, run.chosen),
            f"Heat map of scores by layer and head. Best: {best}.",
        ),
        "matrices": (
            figures.panel_matrices(run.matrices, run.top, run.chosen),
            f"Heat maps of attention, panel asked about by panel looked at, for {best}.",
        ),
        "head_count": (
            figures.head_count(results["curve"], results["k"], chance),
            "Accuracy by number of heads: " + _listed((point["k"], point) for point in results["curve"]),
        ),
        "controls": (
            figures.controls(conditions, names, chance),
            "Accuracy by heads steered: " + _listed((name, conditions[key]) for key, name in names.items()),
        ),
        "per_panel": (
            figures.per_panel(conditions["gaze"]["per_panel"], results["panel_questions"]["per_panel"], chance),
            "Accuracy by target panel: " + _listed((row["panel"], row) for row in conditions["gaze"]["per_panel"]),
        ),
    }


def _listed(rows: Any) -> str:
    return ", ".join(f"{name}: {percent(row['accuracy'])}" for name, row in rows) + "."


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gaze"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "interval": interval, "zipped": lambda rows: zip(*rows, strict=True)}
    return environment


def percent(share: Number) -> str:
    """A share as a percentage, e.g. 92.5%."""
    return f"{share:.1%}"


def interval(bounds: Sequence[Number]) -> str:
    """The ends of an interval of shares, e.g. 89.7 to 95.0%."""
    low, high = bounds
    return f"{low * 100:.1f} to {percent(high)}"


def _picture(image: Image.Image) -> tuple[str, int, int]:
    """A picture to embed, shrunk if it is large, with its width and height."""
    small = image.convert("RGB")
    small.thumbnail((PICTURE_WIDTH, PICTURE_WIDTH))
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=92, subsampling=0)
    return _embed(buffer.getvalue(), "jpeg"), *small.size


def _embed(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"
