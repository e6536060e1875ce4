"""`cosa-theory report`: stored results again, as page and figures."""

from pathlib import Path
from typing import Annotated

import typer

from cosa_theory.cli.app import app
from cosa_theory.ground.errors import InputError

__all__ = ["report"]


@app.command(
    short_help="Render stored results again: page and figures.",
    epilog="Example: cosa-theory report pair",
)
def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Folder that --out of another command made.")
    ],
) -> None:
    """Render stored results again: report.html and the figures, from the tables alone."""
    from cosa_theory.page.document import read_document
    from cosa_theory.page.presentations import PRESENTATIONS, write_document_page
    from cosa_theory.page.results import SUMMARY, read_results
    from cosa_theory.studies.spectrum.page import write_page

    for command in PRESENTATIONS:
        if (results / f"{command}.json").is_file():
            document = read_document(results, command)
            verdict, page = document.verdict, write_document_page(document, results)
            break
    else:
        if results.is_dir() and not (results / SUMMARY).is_file():
            *others, last = ("spectrum", *PRESENTATIONS)
            raise InputError(
                f"{results} holds no results: name the folder given to --out of cosa-theory "
                f"{', '.join(others)} or {last}"
            )
        stored = read_results(results)
        verdict, page = stored.verdict, write_page(stored, results)
    print(verdict)
    print(f"\nReport: {page}")
