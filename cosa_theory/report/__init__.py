"""Results as a reader meets them: a folder of tables, plain text, and one HTML page."""

from cosa_theory.report.document import Document, Presentation, read_document, write_document
from cosa_theory.report.page import render_page, write_page
from cosa_theory.report.presentations import (
    PRESENTATIONS,
    document_page,
    document_text,
    write_document_page,
)
from cosa_theory.report.progress import progress_bar
from cosa_theory.report.results import Results, read_results, read_table, write_results
from cosa_theory.report.summary import family_view, layer_view, module_view
from cosa_theory.report.text import render_text, render_view
from cosa_theory.report.views import Column, View

__all__ = [
    "PRESENTATIONS",
    "Column",
    "Document",
    "Presentation",
    "Results",
    "View",
    "document_page",
    "document_text",
    "family_view",
    "layer_view",
    "module_view",
    "progress_bar",
    "read_document",
    "read_results",
    "read_table",
    "render_page",
    "render_text",
    "render_view",
    "write_document",
    "write_document_page",
    "write_page",
    "write_results",
]
