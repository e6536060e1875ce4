"""The command that every figure shares: RESULTS in, one PDF and one PNG out."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.manifest import check_folder, own_files
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.ground.swap import reading
from cosa_theory.page.document import read_document, read_table, showing
from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import save_figure
from cosa_theory.studies import presentation

__all__ = ["check_figure", "draw", "draw_table", "parser", "store_figure"]


def parser(called: str, drawing: Drawing, example: str) -> argparse.ArgumentParser:
    """Return the argument parser of a figure.

    `called` is its module, with the figure's name where the module has several; `example` is a
    folder of results.
    """
    command = argparse.ArgumentParser(
        prog=f"python -m figures.{called}",
        description=f"{drawing.title}. {drawing.caption}",
        epilog=f"example: python -m figures.{called} {example} --out results/figures",
    )
    command.add_argument("results", type=Path, metavar="RESULTS", help="folder of stored results")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    return command


def draw(
    name: str,
    arguments: Sequence[str] | None = None,
    command: str = "spectrum",
    called: str | None = None,
) -> int:
    """Draw a figure from the stored results of a `cosa-theory` command.

    Parameters
    ----------
    name : str
        A key of the figures of the command's presentation.
    arguments : sequence of str, optional
        Instead of those of the process.
    command : str
        Whose results are read.
    called : str, optional
        As for `parser`, where this is not `name`.

    Returns
    -------
    int
        The exit code: 2 where input must be mended.
    """
    drawing = presentation(command).drawings()[name]
    example = f"results/{'report' if command == 'spectrum' else command}"
    return _run(
        name,
        drawing,
        lambda folder: read_document(folder, command).tables,
        arguments,
        example,
        called or name,
    )


def draw_table(
    name: str,
    drawing: Drawing,
    table: str,
    arguments: Sequence[str] | None = None,
    beside: Sequence[str] = (),
) -> int:
    """Draw a figure from the table that its experiment stored as RESULTS/`table`.parquet.

    The drawing takes a mapping with that table under its name, and with those of `beside` that are
    there; the exit code is 2 where input must be mended.
    """

    def tables(folder: Path) -> Mapping[str, pd.DataFrame]:
        path = folder / f"{table}.parquet"
        if not path.is_file():
            raise InputError(
                f"{path} is missing: make it with `python -m experiments.{name} --out {folder}`"
            )
        others = {one: folder / f"{one}.parquet" for one in beside}
        known = {one: read_table(other) for one, other in others.items() if other.is_file()}
        return {table: read_table(path), **known}

    return _run(name, drawing, tables, arguments, f"results/{name}", name)


@program
def _run(
    name: str,
    drawing: Drawing,
    read: Callable[[Path], Mapping[str, pd.DataFrame]],
    arguments: Sequence[str] | None,
    example: str,
    called: str,
) -> int:
    chosen = parser(called, drawing, example).parse_args(arguments)
    check_figure(chosen.out, name)
    with reading(chosen.results):
        tables = read(chosen.results)
    with showing(chosen.results):
        if not drawing.drawable(tables):
            raise InputError(f"{chosen.results} holds nothing to draw for the figure {name}")
        figure = drawing.draw(tables)
    store_figure(figure, chosen.out, name)
    return 0


def check_figure(out: Path, name: str) -> None:
    """Find out before a figure is drawn whether it can be stored: `InputError` says why not."""
    check_folder(out, f"figure {name}", (f"{name}.pdf", f"{name}.png"))


def store_figure(figure: Figure, out: Path, name: str) -> None:
    """Store a figure as PDF and PNG, both at once, and print where they are."""
    with own_files(out, f"figure {name}") as new:
        written = save_figure(figure, new, name)
    for path in written:
        print(printable(str(out / path.name)))
