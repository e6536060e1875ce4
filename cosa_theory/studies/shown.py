"""Documents of any study as text, pages and files, each in its study's way."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cosa_theory.ground.manifest import check_folder, own_files
from cosa_theory.page.document import FIGURES, PAGE, RESULTS, Document, read_document, write_tables
from cosa_theory.page.text import render_text
from cosa_theory.studies import presentation

if TYPE_CHECKING:
    from cosa_theory.page.html import Summary

__all__ = [
    "check_page",
    "document_page",
    "document_text",
    "result_files",
    "write_document_page",
    "write_results",
]


def document_text(
    document: Document, width: int | None = None, encoding: str | None = "utf-8"
) -> str:
    """Return the verdict and every table as `cosa_theory.page.text.render_text` does."""
    return render_text(document, presentation(document.command), width, encoding)


def document_page(document: Document) -> str:
    """Return the page as `cosa_theory.page.html.render_page` does, its parts left out."""
    from cosa_theory.page.html import render_page

    return render_page(document, presentation(document.command))


def result_files(command: str) -> set[str]:
    """Return every file that a document of this command and its page may be stored in."""
    shown = presentation(command)
    return {
        f"{command}.json",
        *(f"{name}.parquet" for name in shown.tables),
        *shown.beside,
        *_page_files(command),
    }


def _page_files(command: str) -> set[str]:
    drawings = presentation(command).drawings()
    return {PAGE, *(f"{FIGURES}/{name}.{kind}" for name in drawings for kind in ("pdf", "png"))}


def write_results(
    documents: Mapping[str, Document],
    folder: str | os.PathLike[str],
    also: Callable[[Path], None] = lambda new: None,
) -> Path:
    """Store documents with figures and pages in a folder, all at once.

    Parameters
    ----------
    documents : mapping of str to Document
        By the folder inside, "" for `folder` itself.
    folder : path
        As for `cosa_theory.page.document.write_document`.
    also : callable
        Writes further files into the new folder it is given, before the pages are made.

    Returns
    -------
    pathlib.Path
        The page in `folder`.

    Raises
    ------
    InputError
        As for `cosa_theory.ground.manifest.own_files`.
    """
    from cosa_theory.page.html import write_page_files

    with own_files(folder, RESULTS, last=f"{documents[''].command}.json") as new:
        for inner, document in documents.items():
            write_tables(document, new / inner)
        also(new)
        for inner, document in documents.items():
            shown = presentation(document.command)
            write_page_files(document, shown, new / inner, _summaries(document, new / inner))
    return Path(folder) / PAGE


def check_page(folder: str | os.PathLike[str], command: str) -> None:
    """Find out whether `write_document_page` can write: `InputError` says what is in the way."""
    from cosa_theory.page.html import is_of_page

    check_folder(folder, RESULTS, _page_files(command), stays=lambda name: not is_of_page(name))


def write_document_page(document: Document, folder: str | os.PathLike[str]) -> Path:
    """Write page and figures as `cosa_theory.page.html.write_page` does.

    Parts of the document that are stored in their folders under `folder` are summed up.
    """
    from cosa_theory.page.html import write_page

    summaries = _summaries(document, Path(folder))
    return write_page(document, presentation(document.command), folder, summaries)


def _summaries(document: Document, folder: Path) -> "tuple[Summary, ...]":
    """Return what the page says of the parts that are stored under `folder`."""
    from cosa_theory.page.html import Summary

    summaries = []
    for part in presentation(document.command).parts:
        under = folder / part.folder
        if (under / f"{part.command}.json").is_file():
            found = read_document(under, part.command)
            view = presentation(part.command).views(found)[0]
            summaries.append(Summary(part, found.verdict, view))
    return tuple(summaries)
