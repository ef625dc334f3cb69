"""The report of all experiments as one page to read, print and send, with its figures and tables as files beside it."""

import csv
import math
import re
import shutil
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from gaze.report import style
from gaze.report.style import Number
from gaze.report.tables import Cell as Cell
from gaze.report.tables import Grid, decimals, grid, made_with
from gaze.report.typography import typeset
from qwen3vl_jax.errors import InputError
from qwen3vl_jax.files.write import write_text

FEW_FINDINGS, LONG_TABLE = 4, 14
"""More than these are folded."""
PICTURE_WIDTH = 1024


@dataclass(frozen=True)
class Plot:
    """A figure with its caption.

    Attributes:
      name: of its files, within the chapter.
      figure: its label, if it has one, is read out to those who cannot see it; otherwise the caption is.
      paper: which of the paper's figures it corresponds to, e.g. "Fig. 5"; empty if none.
    """

    name: str
    figure: Figure
    caption: str
    paper: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as there are columns; columns of numbers, or of words that are numbers, stand right.

    Attributes:
      made_with: for each row, what its numbers depend on: model, heads, question and so on, a part each. The page says it
        under the table, the file in a last column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    made_with: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Compared:
    """One thing that the paper measured too: its value, and ours."""

    what: str
    paper: str
    here: str


@dataclass(frozen=True)
class Chapter:
    """One experiment.

    Attributes:
      number: from 1, the order of the chapters.
      name: short, of its files and anchors.
      story: one to three sentences for someone who has never heard of it.
      findings: sentences with measured numbers.
      caveats: what did not come out, and limits.
      could_fail: what would have been measured if the claim were wrong, and which control would have shown it.
      conclusion: the one sentence that matters, in plain words; stands in the contents too.
    """

    number: int
    name: str
    title: str
    story: str
    findings: Sequence[str]
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    compared: Sequence[Compared] = ()
    caveats: Sequence[str] = ()
    could_fail: str = ""
    conclusion: str = ""


@dataclass(frozen=True)
class Example:
    """A strip, and what the model said about it.

    Attributes:
      captions: what the panels show, from left to right; empty if unknown.
      unsteered: the answer of the model left alone.
      steered: for each panel, the answer when steered to it, and whether it describes that panel.
      widths: of the panels in pixels; empty if they are alike.
    """

    image: Image.Image
    question: str
    captions: Sequence[str]
    unsteered: str
    steered: Sequence[tuple[str, bool]]
    widths: Sequence[int] = ()


@dataclass(frozen=True)
class Cover:
    """What comes before the chapters.

    Attributes:
      facts: name and value of what a reader must know of the run: model, strips, judge, seed.
      summary: what was found, in a few sentences.
      absent: number and title of the chapters that this run lacks.
    """

    title: str
    subtitle: str
    facts: Sequence[tuple[str, Cell]]
    summary: Sequence[str]
    example: Example | None = None
    absent: Mapping[int, str] = field(default_factory=dict)


def write_report(folder: Path, cover: Cover, chapters: Sequence[Chapter]) -> Path:
    """Writes `report.html`, which needs no other file, `figures/*.png` and `*.svg`, and `tables/*.csv`.

    The folders `figures` and `tables` belong to the report and are replaced as a whole; the page comes last and in
    one step. The same input gives the same bytes.

    Returns:
      The path of the page.

    Raises:
      InputError: if two chapters have the same number, or a table has a row that does not fit its columns.
    """
    chapters = sorted(chapters, key=lambda chapter: chapter.number)
    _check(chapters)
    folder.mkdir(parents=True, exist_ok=True)
    with _replaced(folder / "tables") as tables:
        _write_tables(tables, chapters)
    with _replaced(folder / "figures") as drawn:
        shown = {chapter.number: _write_plots(drawn, chapter) for chapter in chapters}
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            cover=cover,
            chapters=chapters,
            plots=shown,
            picture=_picture(cover.example.image) if cover.example else None,
            edges=_edges(cover.example) if cover.example else [],
            palette=style.PALETTE,
            long_table=LONG_TABLE,
            few_findings=FEW_FINDINGS,
        )
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def percent(share: Number) -> str:
    """Returns a share as a percentage, e.g. 92.5%; a dash if it is not a number."""
    return "–" if math.isnan(share) else f"{share:.1%}"


def interval(bounds: Sequence[Number]) -> str:
    """Returns the ends of an interval of shares, e.g. 89.7 to 95.0%."""
    low, high = bounds
    return f"{low * 100:.1f} to {percent(high)}"


@dataclass(frozen=True)
class _Shown:
    """A figure as the page has it; `photo` if it holds a picture, whose colours are its own."""

    plot: Plot
    source: str
    alt: str
    photo: bool


def _check(chapters: Sequence[Chapter]) -> None:
    numbers = [chapter.number for chapter in chapters]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"two chapters have the same number: {numbers}")
    for chapter in chapters:
        for table in chapter.tables:
            if any(len(row) != len(table.columns) for row in table.rows):
                raise InputError(f"a row of the table '{table.title}' does not have {len(table.columns)} cells")
            if table.made_with and len(table.made_with) != len(table.rows):
                raise InputError(
                    f"the table '{table.title}' has {len(table.rows)} rows, but says of {len(table.made_with)} what they "
                    "were made with"
                )


def _write_plots(folder: Path, chapter: Chapter) -> list[_Shown]:
    names = _names(chapter, (plot.name for plot in chapter.plots))
    return [
        _shown(plot, style.save(plot.figure, folder, name)) for plot, name in zip(chapter.plots, names, strict=True)
    ]


def _shown(plot: Plot, svg: str) -> _Shown:
    photo = any(np.ndim(np.asarray(image.get_array())) == 3 for axes in plot.figure.axes for image in axes.images)
    return _Shown(plot, _embed(svg.encode(), "svg+xml"), str(plot.figure.get_label() or plot.caption), photo)


def _write_tables(folder: Path, chapters: Sequence[Chapter]) -> None:
    for chapter in chapters:
        names = _names(chapter, (table.title for table in chapter.tables))
        for table, name in zip(chapter.tables, names, strict=True):
            columns, rows = table.columns, table.rows
            if table.made_with:
                columns = (*columns, "made with")
                rows = [(*row, ", ".join(parts)) for row, parts in zip(rows, table.made_with, strict=True)]
            _write_csv(folder / f"{name}.csv", columns, rows)
    rows = [(chapter.number, one.what, one.paper, one.here) for chapter in chapters for one in chapter.compared]
    _write_csv(folder / "paper.csv", ["chapter", "what", "paper (another model)", "here"], rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _names(chapter: Chapter, wanted: Iterable[str]) -> Iterator[str]:
    """Names of files, e.g. e4_conditions; what has the same name is numbered."""
    seen: dict[str, int] = {}
    for text in wanted:
        name = f"e{chapter.number}_{re.sub(r'[^a-z0-9]+', '_', text.lower()).strip('_')[:60]}"
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}_{seen[name]}"


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` once it is filled."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gaze.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_typeset,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"grid": _grid, "made_with": _made_with, "cell": _alone}
    return environment


def _typeset(value: object) -> object:
    """What a template prints: text with its signs, markup as it is."""
    return typeset(value) if type(value) is str and not value.startswith("data:") else value


def _grid(table: Table) -> Grid:
    return grid(table.columns, table.rows)


def _made_with(table: Table) -> tuple[list[str], dict[str, list[str]]]:
    return made_with(table.rows, table.made_with)


def _alone(cell: Cell) -> str:
    return decimals([cell])[0]


def _picture(image: Image.Image) -> tuple[str, int, int]:
    """A picture to embed, shrunk if it is large, with its width and height."""
    small = image.convert("RGB")
    small.thumbnail((PICTURE_WIDTH, PICTURE_WIDTH))
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=92, subsampling=0)
    return _embed(buffer.getvalue(), "jpeg"), *small.size


def _edges(example: Example) -> list[tuple[float, float]]:
    """Left and right end of every panel as shares of the picture's width."""
    widths = np.asarray(example.widths or [1] * len(example.steered), np.float64)
    ends = np.concatenate([[0.0], np.cumsum(widths) / widths.sum()])
    return list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))


def _embed(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"
