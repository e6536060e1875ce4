"""Results as plain text for a terminal: the verdict first, then aligned tables."""

from cosa_theory.page.results import Results
from cosa_theory.page.views import View
from cosa_theory.studies.spectrum.views import family_view, layer_view, module_view

__all__ = ["render_text", "render_view"]


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


def render_text(results: Results) -> str:
    """Return the verdict, then the tables by module type, by family and by layer.

    Parameters
    ----------
    results : Results
        The tables.

    Returns
    -------
    str
        The first line is the verdict. Without a newline at the end.
    """
    views = [module_view(results), family_view(results), layer_view(results)]
    tables = [render_view(view) for view in views if view is not None and view.rows]
    return "\n\n".join([results.verdict, *tables])
