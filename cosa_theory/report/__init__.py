"""Results as a reader meets them: a folder of tables, plain text, and one HTML page."""

from cosa_theory.report.page import render_page, write_page
from cosa_theory.report.progress import progress_bar
from cosa_theory.report.results import Results, read_results, write_results
from cosa_theory.report.summary import View, family_view, layer_view, module_view
from cosa_theory.report.text import render_text, render_view

__all__ = [
    "Results",
    "View",
    "family_view",
    "layer_view",
    "module_view",
    "progress_bar",
    "read_results",
    "render_page",
    "render_text",
    "render_view",
    "write_page",
    "write_results",
]
