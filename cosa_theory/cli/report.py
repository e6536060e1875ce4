"""`cosa-theory report`: stored results again, as page and figures, or several side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosa_theory.cli.app import app
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.printable import printable

if TYPE_CHECKING:
    from cosa_theory.page.document import Document

__all__ = ["report"]


@app.command(
    short_help="Render stored results again, or several side by side.",
    epilog="Examples: cosa-theory report pair; cosa-theory report first second --out both",
)
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="Folder that --out of another command made; of several, made by one command, the "
            "tables are shown side by side.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the page of several results."),
    ] = None,
) -> None:
    """Render stored results again: report.html and the figures, from the tables alone."""
    if len(results) > 1:
        page = _compare(results, out)
    elif out is not None:
        raise InputError(
            f"--out is {out}, but one result is rendered where it is: leave the option out, or "
            "name more results",
            argument="out",
        )
    else:
        page = _render(results[0])
    print(f"\nReport: {printable(str(page))}")


def _stored(results: Path) -> str:
    """Return the command whose results a folder holds."""
    from cosa_theory.ground.swap import reading
    from cosa_theory.studies import commands

    with reading(results):
        bare = {file.stem for file in results.glob("*.json") if _bare(file)}
        named = [name for name in commands() if (results / f"{name}.json").is_file()]
    stored = [name for name in named if name not in bare]
    if bare and not stored:
        raise InputError(
            f"{results} holds tables of the experiment {min(bare)}, which have no page: open them "
            "with pandas, or draw them by python -m figures"
        )
    if not stored:
        raise InputError(
            f"{results} holds no results: name the folder given to --out of a command or "
            f"experiment ({', '.join(commands())})"
        )
    return stored[0]


def _bare(file: Path) -> bool:
    """Return whether this is the summary of an experiment's tables, without a page."""
    from cosa_theory.ground.reading import read_json

    try:
        content = read_json(file)
    except InputError:  # which is told where it is read for its page
        return False
    return "verdict" in content and "tables" not in content


def _render(results: Path) -> Path:
    """Render one result in its folder; prints its verdict."""
    from cosa_theory.page.document import read_document, showing
    from cosa_theory.studies.shown import check_page, write_document_page

    command = _stored(results)
    check_page(results, command)
    document = read_document(results, command)
    print(printable(document.verdict))
    with showing(results):
        return write_document_page(document, results)


def _compare(results: list[Path], out: Path | None) -> Path:
    """Show several results on one page in a folder of its own; prints their verdicts."""
    from cosa_theory.ground.manifest import check_folder
    from cosa_theory.page.document import PAGE, RESULTS, read_document, showing
    from cosa_theory.page.html import write_page
    from cosa_theory.studies.compared import compared

    if out is None:
        raise InputError(
            f"{len(results)} results need a folder for their page: give --out, as in --out both",
            argument="out",
        )
    if len(set(results)) < len(results):
        raise InputError(
            f"one of {', '.join(map(str, results))} is named twice: name each result once",
            argument="results",
        )
    check_folder(out, RESULTS, {PAGE}, inputs=results)
    documents: dict[str, Document] = {
        str(folder): read_document(folder, _stored(folder)) for folder in results
    }
    with showing(", ".join(documents)):
        document, shown = compared(documents)
        print(printable(document.verdict))
        for name, one in documents.items():
            print(f"{printable(name)}: {printable(one.verdict)}")
        return write_page(document, shown, out)
