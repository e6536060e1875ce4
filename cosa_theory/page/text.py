"""Documents as plain text for a terminal: the verdict first, then aligned tables."""

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Presentation
from cosa_theory.page.views import View

__all__ = ["render_text", "render_view"]


def render_text(document: Document, shown: Presentation) -> str:
    """Return the verdict, then every table a person reads.

    Parameters
    ----------
    document : Document
        What to show.
    shown : Presentation
        How.

    Returns
    -------
    str
        The first line is the verdict. Without a newline at the end.
    """
    views = [*shown.views(document), *shown.detail_views(document)]
    return "\n\n".join([document.verdict, *(render_view(view) for view in views if view.rows)])


def render_view(view: View) -> str:
    """Return a view as aligned plain text: title, header, rule, rows.

    Columns marked as detail are left out; no line is wrapped.

    Parameters
    ----------
    view : View
        The table.

    Returns
    -------
    str
        Without a newline at the end.
    """
    kept = [place for place, column in enumerate(view.columns) if not column.detail]
    headers = tuple(column.header for column in view.columns)
    widths = {place: max(len(line[place]) for line in (headers, *view.rows)) for place in kept}

    def aligned(cells: tuple[str, ...]) -> str:
        padded = (
            cells[place].ljust(width) if view.columns[place].text else cells[place].rjust(width)
            for place, width in widths.items()
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths.values())
    return "\n".join([view.title, aligned(headers), rule, *map(aligned, view.rows)])
