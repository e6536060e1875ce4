"""`cosa-theory report`: stored results again, as page and figures."""

from pathlib import Path
from typing import Annotated

import typer

from cosa_theory.cli.app import app
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.printable import printable

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
    from cosa_theory.ground.swap import reading
    from cosa_theory.page.document import read_document, showing
    from cosa_theory.studies import commands
    from cosa_theory.studies.shown import check_page, write_document_page

    with reading(results):
        stored = [name for name in commands() if (results / f"{name}.json").is_file()]
    if not stored:
        *others, last = commands()
        raise InputError(
            f"{results} holds no results: name the folder given to --out of cosa-theory "
            f"{', '.join(others)} or {last}"
        )
    check_page(results, stored[0])
    document = read_document(results, stored[0])
    print(printable(document.verdict))
    with showing(results):
        page = write_document_page(document, results)
    print(f"\nReport: {printable(str(page))}")
