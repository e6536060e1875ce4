"""The command that every figure shares: RESULTS in, one PDF and one PNG out."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cosa_theory.ground.errors import InputError
from cosa_theory.page.document import read_document
from cosa_theory.page.figures import FigureSpec
from cosa_theory.page.presentations import PRESENTATIONS
from cosa_theory.page.results import read_results, read_table
from cosa_theory.page.style import save_figure
from cosa_theory.studies.spectrum.figures import FIGURES

__all__ = ["draw", "draw_table", "parser"]


def _spec(name: str, command: str) -> FigureSpec[Any]:
    return FIGURES[name] if command == "spectrum" else PRESENTATIONS[command].figures[name]


def parser(name: str, spec: FigureSpec[Any], example: str) -> argparse.ArgumentParser:
    """Return the argument parser of the figure `name`; `example` is a folder of results."""
    command = argparse.ArgumentParser(
        prog=f"python -m figures.{name}",
        description=f"{spec.title}. {spec.caption}",
        epilog=f"example: python -m figures.{name} {example} --out results/figures",
    )
    command.add_argument("results", type=Path, metavar="RESULTS", help="folder of stored results")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    return command


def draw(name: str, arguments: Sequence[str] | None = None, command: str = "spectrum") -> int:
    """Draw a figure from the stored results of a `cosa-theory` command.

    Parameters
    ----------
    name : str
        A key of `studies.spectrum.figures.FIGURES`, or of the figures of another command's
        presentation.
    arguments : sequence of str, optional
        Instead of those of the process.
    command : str
        Whose results are read.

    Returns
    -------
    int
        The exit code: 2 where input must be mended.
    """
    spec = _spec(name, command)

    def tables(folder: Path) -> Any:
        if command == "spectrum":
            return read_results(folder)
        return read_document(folder, command).tables

    example = f"results/{'report' if command == 'spectrum' else command}"
    return _run(name, spec, tables, arguments, example)


def draw_table(
    name: str, spec: FigureSpec[Any], table: str, arguments: Sequence[str] | None = None
) -> int:
    """Draw a figure from the table that an experiment stored as RESULTS/`table`.parquet.

    The drawing takes a mapping with that one table under its name; the exit code is 2 where input
    must be mended.
    """

    def tables(folder: Path) -> dict[str, pd.DataFrame]:
        path = folder / f"{table}.parquet"
        if not path.is_file():
            raise InputError(
                f"{path} is missing: make it with `python -m experiments.{table} --out {folder}`"
            )
        return {table: read_table(path)}

    return _run(name, spec, tables, arguments, example=f"results/{table}")


def _run(
    name: str,
    spec: FigureSpec[Any],
    read: Callable[[Path], Any],
    arguments: Sequence[str] | None,
    example: str,
) -> int:
    chosen = parser(name, spec, example).parse_args(arguments)
    try:
        tables = read(chosen.results)
        if not spec.drawable(tables):
            raise InputError(f"{chosen.results} holds nothing to draw for the figure {name}")
        written = save_figure(spec.draw(tables), chosen.out, name)
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    print(*written, sep="\n")
    return 0
