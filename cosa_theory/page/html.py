"""The pieces every page is made of: plain HTML, no script, no network, figures inside."""

from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from typing import Any

from matplotlib.figure import Figure

from cosa_theory.page.figures import FigureSpec
from cosa_theory.page.style import as_data_uri
from cosa_theory.page.views import Column, View

__all__ = [
    "figures_html",
    "headline_html",
    "notices_html",
    "page_html",
    "record_html",
    "section_html",
    "table_html",
    "terms_html",
]

_REM_PER_INCH = 8  # a figure of page width is 56 rem wide, one of column width half of it


def table_html(view: View) -> str:
    """Return a view as an HTML table with the meaning of its columns below it, if it has rows."""
    if not view.rows:
        return ""
    heads = "".join(
        f'<th scope="col"{_class(column)}>{escape(column.header)}</th>' for column in view.columns
    )
    rows = "\n".join(
        "<tr>"
        + "".join(
            f"<td{_class(column, cell)}>{escape(cell)}</td>"
            for cell, column in zip(row, view.columns, strict=True)
        )
        + "</tr>"
        for row in view.rows
    )
    legend = ". ".join(
        f"<b>{escape(column.header)}</b>: {escape(column.explanation)}"
        for column in view.columns
        if column.explanation
    )
    note = f'<p class="legend">{legend}.</p>' if legend else ""
    # A region that scrolls must be reachable with the keyboard.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(view.title)}">'
        f"<table><caption>{escape(view.title)}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></div>\n{note}"
    )


def _class(column: Column, cell: str = "") -> str:
    words = ["text"] if column.text else []
    if column.outcome and cell in ("holds", "fails"):
        words.append(cell)
    return f' class="{" ".join(words)}"' if words else ""


def headline_html(verdict: str) -> str:
    """Set the first clause large and the numbers behind it smaller; the words stay as they are."""
    ends = [verdict.find(mark) for mark in (": ", ". ") if mark in verdict]
    end = min(ends, default=len(verdict)) + 2
    first, rest = verdict[:end], verdict[end:]
    return f'{escape(first)}<span class="rest">{escape(rest)}</span>' if rest else escape(first)


def section_html(title: str, body: str) -> str:
    """Return a titled section, or nothing where there is no body."""
    return f"<h2>{title}</h2>\n{body}" if body else ""


def figures_html(figures: Mapping[str, Figure], specs: Mapping[str, FigureSpec[Any]]) -> str:
    """Return every figure as an inlined SVG with its title and caption."""
    parts = []
    for name, figure in figures.items():
        spec = specs[name]
        parts.append(
            f'<figure id="{name}"><img src="{as_data_uri(figure)}" alt="{escape(spec.title)}" '
            f'style="max-width:{_REM_PER_INCH * figure.get_figwidth():.0f}rem">'
            f"<figcaption><b>{escape(spec.title)}.</b> {escape(spec.caption)}</figcaption></figure>"
        )
    return "\n".join(parts)


def notices_html(notices: Iterable[str]) -> str:
    """Return what the reader should know about the input, as a list."""
    items = "\n".join(f"<li>{escape(notice)}</li>" for notice in notices)
    return section_html("About the input", f"<ul>\n{items}\n</ul>" if items else "")


def record_html(values: Mapping[str, Any]) -> str:
    """Return provenance as a definition list, nested mappings on one line each."""
    items = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {item}" for name, item in value.items() if item is not None)
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        text = "–" if value is None or value == "" else str(value)
        items.append(f"<dt>{escape(str(key))}</dt><dd>{escape(text)}</dd>")
    return f'<dl class="record">{"".join(items)}</dl>'


def terms_html(terms: Iterable[tuple[str, str]]) -> str:
    """Return terms with their explanations, which are HTML already."""
    items = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in terms)
    return f'<dl class="terms">{items}</dl>'


def page_html(title: str, body: str) -> str:
    """Return a whole document: the style sheet inside, `body` in its main element."""
    css = files("cosa_theory.page").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
