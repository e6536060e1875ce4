"""Documents of any study as text and as pages, each in its study's way."""

import os
from pathlib import Path

from cosa_theory.page.document import Document, read_document
from cosa_theory.page.text import render_text
from cosa_theory.studies import presentation

__all__ = ["document_page", "document_text", "write_document_page"]


def document_text(
    document: Document, width: int | None = None, encoding: str | None = "utf-8"
) -> str:
    """Return the verdict and every table as `cosa_theory.page.text.render_text` does."""
    return render_text(document, presentation(document.command), width, encoding)


def document_page(document: Document) -> str:
    """Return the page as `cosa_theory.page.html.render_page` does, its parts left out."""
    from cosa_theory.page.html import render_page

    return render_page(document, presentation(document.command))


def write_document_page(document: Document, folder: str | os.PathLike[str]) -> Path:
    """Write page and figures as `cosa_theory.page.html.write_page` does.

    Parts of the document that are stored in their folders under `folder` are summed up.
    """
    from cosa_theory.page.html import Summary, write_page

    shown = presentation(document.command)
    summaries = []
    for part in shown.parts:
        under = Path(folder) / part.folder
        if (under / f"{part.command}.json").is_file():
            found = read_document(under, part.command)
            view = presentation(part.command).views(found)[0]
            summaries.append(Summary(part, found.verdict, view))
    return write_page(document, shown, folder, tuple(summaries))
