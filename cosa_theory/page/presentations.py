"""Documents as a reader meets them: plain text, figures and one page, each in its command's way."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from cosa_theory.ground.files import atomic_path
from cosa_theory.page.document import Document, Presentation
from cosa_theory.page.html import (
    figures_html,
    headline_html,
    notices_html,
    page_html,
    record_html,
    section_html,
    table_html,
    terms_html,
)
from cosa_theory.page.results import FIGURES, PAGE
from cosa_theory.page.style import save_figure
from cosa_theory.page.text import render_view
from cosa_theory.studies.audit import views as audit
from cosa_theory.studies.jl import views as jl
from cosa_theory.studies.plan import views as plan
from cosa_theory.studies.recovery import experiment_views as experiments
from cosa_theory.studies.recovery import views as recover
from cosa_theory.studies.rip import views as rip
from cosa_theory.studies.training import views as finetune

__all__ = ["PRESENTATIONS", "document_page", "document_text", "write_document_page"]

PRESENTATIONS: dict[str, Presentation] = {
    "audit": audit.PRESENTATION,
    "experiments": experiments.PRESENTATION,
    "finetune": finetune.PRESENTATION,
    "jl": jl.PRESENTATION,
    "plan": plan.PRESENTATION,
    "recover": recover.PRESENTATION,
    "rip": rip.PRESENTATION,
}


def document_text(document: Document) -> str:
    """Return the verdict, then every table a person reads, aligned, for a terminal.

    Parameters
    ----------
    document : Document
        Of a command in `PRESENTATIONS`.

    Returns
    -------
    str
        The first line is the verdict. Without a newline at the end.
    """
    shown = PRESENTATIONS[document.command]
    views = [*shown.views(document), *shown.detail_views(document)]
    return "\n\n".join([document.verdict, *(render_view(view) for view in views if view.rows)])


def document_figures(document: Document) -> dict[str, Figure]:
    """Return every figure that the document's tables hold something for, by file name."""
    specs = PRESENTATIONS[document.command].figures
    return {
        name: spec.draw(document.tables)
        for name, spec in specs.items()
        if spec.drawable(document.tables)
    }


def document_page(document: Document) -> str:
    """Return one HTML document that needs no other file.

    Parameters
    ----------
    document : Document
        Of a command in `PRESENTATIONS`.

    Returns
    -------
    str
        The verdict first, then tables, figures, details, notices, the meaning of the words and
        the provenance.
    """
    return _page(document, document_figures(document))


def _page(document: Document, figures: Mapping[str, Figure]) -> str:
    shown = PRESENTATIONS[document.command]
    tables = "\n".join(table_html(view) for view in shown.views(document))
    details = "\n".join(table_html(view) for view in shown.detail_views(document))
    body = f"""<h1>{headline_html(document.verdict)}</h1>
{section_html("Summary", tables)}
{section_html("Figures", figures_html(figures, shown.figures))}
{section_html("Details", details)}
{notices_html(document.notices)}
{section_html("How to read this", terms_html(shown.terms))}
{section_html("Where these numbers come from", record_html(document.provenance))}"""
    return page_html(escape(shown.title), body)


def write_document_page(document: Document, folder: str | os.PathLike[str]) -> Path:
    """Write report.html, and every figure as PDF and PNG in the folder figures.

    Parameters
    ----------
    document : Document
        What to show.
    folder : path
        Created if it is not there.

    Returns
    -------
    pathlib.Path
        The page.
    """
    page = Path(folder) / PAGE
    figures = document_figures(document)
    for name, figure in figures.items():
        save_figure(figure, Path(folder) / FIGURES, name)
    with atomic_path(page) as path:
        path.write_text(_page(document, figures), encoding="utf-8")
    return page
