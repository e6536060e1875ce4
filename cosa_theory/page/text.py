"""Documents as plain text for a terminal: the verdict first, then aligned tables."""

import textwrap
from collections.abc import Sequence

from cosa_theory.ground.printable import printable, readable, shortened, width_of
from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Presentation
from cosa_theory.page.views import View

__all__ = ["render_text", "render_view"]

_GAP = 2  # spaces between columns
_LEAST = 16  # columns of a terminal to which a name is cut at most, for tables that are too wide


def render_text(
    document: Document,
    shown: Presentation,
    width: int | None = None,
    encoding: str | None = "utf-8",
) -> str:
    """Return the verdict, then every table a person reads.

    Parameters
    ----------
    document : Document
        What to show.
    shown : Presentation
        How.
    width, encoding
        As for `render_view`.

    Returns
    -------
    str
        The first line is the verdict. Without a newline at the end.
    """
    views = [*shown.views(document), *shown.detail_views(document)]
    tables = (render_view(view, width, encoding) for view in views if view.rows)
    return "\n\n".join([readable(printable(document.verdict), encoding), *tables])


def render_view(view: View, width: int | None = None, encoding: str | None = "utf-8") -> str:
    """Return a view as aligned plain text: title, header, rule, rows.

    Columns marked as detail are left out; no line is wrapped.

    Parameters
    ----------
    view : View
        The table.
    width : int, optional
        Columns of the terminal. A table that is wider has its texts cut in the middle; if it still
        does not fit, its columns follow below each other in several parts, each with the names of
        its rows. Without it, nothing is cut.
    encoding : str, optional
        Of the stream it is printed to; signs that it lacks are spelt in ASCII.

    Returns
    -------
    str
        Every character is seen (see `cosa_theory.ground.printable`). Without a newline at the end.
    """
    gap, line = readable("…", encoding), readable("─", encoding)
    kept = [place for place, column in enumerate(view.columns) if not column.detail]
    texts = [view.columns[place].text for place in kept]
    rows = [
        [readable(printable(cells[place]), encoding) for place in kept]
        for cells in ([column.header for column in view.columns], *view.rows)
    ]
    columns = list(zip(*rows, strict=True))
    widths = [max(map(width_of, cells)) for cells in columns]
    parts = [list(range(len(kept)))]
    if width is not None and _total(widths) > width:
        widths = _cut(columns, texts, width)
        parts = _parts(widths, texts, width)
        rows = [[shortened(cell, most, gap) for cell, most in zip(cells, widths, strict=True)]
                for cells in rows]  # fmt: skip

    def aligned(cells: Sequence[str], part: Sequence[int]) -> str:
        padded = []
        for place in part:
            space = " " * (widths[place] - width_of(cells[place]))
            padded.append(cells[place] + space if texts[place] else space + cells[place])
        return (" " * _GAP).join(padded).rstrip()

    def block(part: Sequence[int]) -> str:
        rule = (" " * _GAP).join(line * widths[place] for place in part)
        return "\n".join([aligned(rows[0], part), rule, *(aligned(one, part) for one in rows[1:])])

    title = readable(printable(view.title), encoding)
    if width is not None:
        title = textwrap.fill(title, max(width, _LEAST))
    return "\n\n".join([f"{title}\n{block(parts[0])}", *map(block, parts[1:])])


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _cut(columns: Sequence[Sequence[str]], texts: Sequence[bool], width: int) -> list[int]:
    """Return the widths with those of texts cut, the widest first, so far that the table fits.

    No text is cut below `_LEAST`, nor so far that different ones of its column become equal, as
    long as another column still fits beside it. What is then too wide will stand in parts.
    """
    widths = [max(map(width_of, cells)) for cells in columns]
    numbers = [one for one, text in zip(widths, texts, strict=True) if not text]
    room = max(width - _GAP - max(numbers, default=0), width // 2)
    least = [
        _distinct(cells, min(most, room), min(most, width // 2)) if text else most
        for cells, text, most in zip(columns, texts, widths, strict=True)
    ]

    def cut(most: int) -> list[int]:
        return [max(min(one, most), low) for one, low in zip(widths, least, strict=True)]

    return cut(next((most for most in range(width, 0, -1) if _total(cut(most)) <= width), 0))


def _distinct(cells: Sequence[str], most: int, otherwise: int) -> int:
    """Return the least length to which texts can be cut and stay different, within `most`."""
    different = len(set(cells))
    return next(
        (
            length
            for length in range(min(_LEAST, most), most + 1)
            if len({shortened(cell, length) for cell in cells}) == different
        ),
        otherwise,
    )


def _parts(widths: list[int], texts: Sequence[bool], width: int) -> list[list[int]]:
    """Return the columns of each part: the first texts, which name the rows, and as many others.

    A column that is too wide by itself is cut to the terminal, in `widths`.
    """
    names = [0]
    while texts[len(names) - 1 : len(names) + 1] == [True, True] and len(names) < len(widths) - 1:
        names.append(len(names))
    while len(names) > 1 and _total([widths[place] for place in names]) > width // 2:
        names.pop()
    parts = [list(names)]
    room = width - _total([widths[place] for place in names])
    left = room
    for place in range(len(names), len(widths)):
        widths[place] = min(widths[place], max(room - _GAP, _LEAST // 2))
        if left < room and left < _GAP + widths[place]:
            parts.append(list(names))
            left = room
        parts[-1].append(place)
        left -= _GAP + widths[place]
    return parts
