"""How a table is laid out on the page: decimals, sides, and what is done about one that is too wide."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gaze.report.style import Number
from gaze.report.typography import NO_BREAK, typeset, unbroken

Cell = str | Number | np.integer | np.floating

PAGE_SIGNS, SMALL_SIGNS = 86, 130
"""Digits that fit side by side on the page, in the widest of its fonts; small ones."""
PADDING = 2
LONG_WORD = 24
NUMBER_LIKE = re.compile(
    r"[-−+±<>≤≥~×]?\s*\d[\d.,]*(e[−+]\d+)?\s*%?(\s*(to|of|±|–|/|\()\s*[-−+]?[\d.][\d.,]*\s*%?\)?)*|–|"
)


@dataclass(frozen=True)
class Column:
    """A column as the page shows it; numbers, and words that are numbers, stand right."""

    name: str
    cells: list[str]
    numeric: bool

    @property
    def longest(self) -> int:
        """The signs of the longest piece between spaces."""
        return max(len(piece) for text in (self.name, *self.cells) for piece in text.split(" "))

    @property
    def side(self) -> str:
        """How its cells are set: numbers on the right, and words as long as a path broken anywhere."""
        return "number" if self.numeric else "long" if self.longest > LONG_WORD else "words"

    @property
    def width(self) -> int:
        """The signs that it takes at least."""
        return (min(self.longest, LONG_WORD) if self.side == "long" else self.longest) + PADDING


@dataclass(frozen=True)
class Grid:
    """A table as the page shows it; `dense` if its letters must be small."""

    columns: list[Column]
    dense: bool


def grid(names: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Grid:
    """Lays a table out: as it is if it fits the page, else turned on its side if that fits, else in small letters."""
    shown = [decimals(column) for column in zip(*rows, strict=True)]
    upright = _columns(names, shown or [[] for _ in names])
    if _fits(upright) or not rows:
        return Grid(upright, dense=False)
    turned = _columns([names[0], *shown[0]], [names[1:], *zip(*shown[1:], strict=True)])
    if _fits(turned):
        return Grid(turned, dense=False)
    return Grid(upright if _fits(upright, SMALL_SIGNS) else [*map(_breakable, upright)], dense=True)


def decimals(cells: Sequence[Cell]) -> list[str]:
    """Returns the cells of one column as text, numbers with the same number of decimals."""
    sizes = [abs(float(cell)) for cell in cells if isinstance(cell, float | np.floating) and math.isfinite(cell)]
    largest = max(sizes, default=0.0)
    places = 5 if 0 < largest < 0.01 else max(0, 2 - math.floor(math.log10(max(largest, 0.1))))
    return [_cell(cell, ".1e" if 0 < largest < 1e-4 else f",.{places}f") for cell in cells]


def made_with(rows: Sequence[Sequence[Cell]], parts: Sequence[Sequence[str]]) -> tuple[list[str], dict[str, list[str]]]:
    """Returns what all rows of a table were made with, and what else each was made with, by its name."""
    shared = [part for part in parts[0] if all(part in some for some in parts)] if parts else []
    own: dict[str, list[str]] = {}
    for row, some in zip(rows, parts, strict=True):
        rest = ", ".join(part for part in some if part not in shared)
        names = own.setdefault(rest, [])
        names.append(str(row[0]))
    return shared, {rest: [*dict.fromkeys(names)] for rest, names in own.items() if rest}


def _columns(names: Sequence[str], shown: Sequence[Sequence[str]]) -> list[Column]:
    columns = []
    for name, cells in zip(names, shown, strict=True):
        said = [unbroken(typeset(cell)) for cell in cells]
        columns.append(Column(typeset(name), said, all(map(NUMBER_LIKE.fullmatch, said))))
    return columns


def _breakable(column: Column) -> Column:
    """Ranges may be broken where nothing else makes a table fit."""
    return replace(column, cells=[cell.replace(NO_BREAK, " ") for cell in column.cells])


def _fits(columns: Sequence[Column], signs: int = PAGE_SIGNS) -> bool:
    return sum(column.width for column in columns) <= signs


def _cell(cell: Cell, form: str) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int | np.integer):
        return f"{cell:,}"
    return format(cell, form) if math.isfinite(cell) else "–"
