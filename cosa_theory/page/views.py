"""Tables as text cells, and how numbers become text: one form for terminal and page."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["MISSING", "Column", "View", "count", "median", "memory", "number", "percent", "spread"]

MISSING = "–"


@dataclass(frozen=True)
class Column:
    """One column of a view: what it is called, what it means, and how a row fills it.

    Parameters
    ----------
    name : hashable or None
        The column of the table whose value is shown; None where `cell` takes the whole row.
    header : str
        What the reader sees.
    explanation : str
        What it means, in one phrase.
    cell : callable
        Maps the value, or the row, to text.
    text : bool
        Whether it is text, set flush left; numbers are set flush right.
    detail : bool
        Whether a narrow view may leave it out.
    outcome : bool
        Whether it says "holds" or "fails", which a page sets in colour.
    """

    name: Hashable | None
    header: str
    explanation: str = ""
    cell: Callable[[Any], str] = str
    text: bool = False
    detail: bool = False
    outcome: bool = False

    @classmethod
    def median(
        cls, header: str, explanation: str, name: str, show: Callable[[Any], str]
    ) -> "Column":
        """Return a column for groups of rows: the median of the table's column `name` in each."""
        return cls(None, header, explanation, median(name, show))

    def show(self, row: Any) -> str:
        """Return the cell of one row."""
        return self.cell(row if self.name is None else row[self.name])

    def value(self, row: Any) -> float | None:
        """Return the number that a cell stands for, if it stands for one that is finite."""
        found = None if self.name is None or self.text else row[self.name]
        if isinstance(found, (bool, np.bool_)) or not isinstance(found, (int, float, np.number)):
            return None
        return float(found) if math.isfinite(found) else None


@dataclass(frozen=True)
class View:
    """A table ready to be shown: every cell is text already.

    Parameters
    ----------
    title : str
        One line.
    columns : tuple of Column
        From left to right.
    rows : tuple of tuple of str
        As many cells as columns in each.
    values : tuple of tuple of float or None
        The numbers of the cells in full, by which a page sorts and which it gives away.
    groups : tuple of (str, int)
        Names over so many columns each, where they are in groups.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    values: tuple[tuple[float | None, ...], ...] = ()
    groups: tuple[tuple[str, int], ...] = ()

    def group_of(self, place: int) -> str:
        """Return the name over a column, "" where it is in no group."""
        names = [name for name, width in self.groups for _ in range(width)]
        return names[place] if names else ""

    @classmethod
    def of(
        cls, title: str, columns: Sequence[Column], table: pd.DataFrame | Iterable[Any]
    ) -> "View":
        """Fill the columns from a table, or from any rows that its cells take."""
        rows = table.to_dict("records") if isinstance(table, pd.DataFrame) else list(table)
        return cls(
            title,
            tuple(columns),
            tuple(tuple(one.show(row) for one in columns) for row in rows),
            tuple(tuple(one.value(row) for one in columns) for row in rows),
        )


def _shown(format_one: Callable[[float], str]) -> Callable[[Any], str]:
    """Return a formatter that shows a missing value as a dash."""

    def show(value: Any) -> str:
        return MISSING if value is None or pd.isna(value) else format_one(float(value))

    return show


def _digits(value: float) -> str:
    """Three significant digits, trailing zeros kept so that columns align: 0.0120, 4.56, 1,234.

    Beyond twelve digits or a thousandth, two digits and a power of ten: 1.2e-5.
    """
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if 99.95 <= abs(value) < 1e12:
        return f"{value:,.0f}"
    if not 1e-3 <= abs(value) < 1e12:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:#.3g}"


def _percentage(value: float) -> str:
    value *= 100
    if math.isinf(value):
        return f"{_digits(value)} %"
    if abs(value) >= 99.95 or value == 0:
        return f"{value:,.0f} %"
    return f"{value:.1f} %" if abs(value) >= 1 else f"{value:.2g} %"


def _bytes(size: float) -> str:
    """Decimal units, three significant digits: 512 B, 4.34 kB, 1.75 GB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= 0.9995 * scale:  # what rounds to 1,000 of a unit is 1.00 of the next
            return f"{_digits(size / scale)} {unit}"
    return f"{size:.0f} B"


number = _shown(_digits)
memory = _shown(_bytes)
percent = _shown(_percentage)
count = _shown(lambda value: f"{value:,.0f}")


def median(name: str, show: Callable[[Any], str]) -> Callable[[pd.DataFrame], str]:
    """Return a cell for a group of rows: the median of the column `name`."""
    return lambda group: show(group[name].astype(float).median())


def spread(name: str, show: Callable[[Any], str]) -> Callable[[pd.DataFrame], str]:
    """Return a cell for a group of rows: the median of the column `name`, with its range."""

    def cell(group: pd.DataFrame) -> str:
        values = group[name].astype(float)
        low, middle, high = show(values.min()), show(values.median()), show(values.max())
        return middle if low == high else f"{middle} ({low.removesuffix(' %')}–{high})"

    return cell
