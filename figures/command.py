"""The command that every figure shares: RESULTS in, one PDF and one PNG out."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cosa_theory.errors import InputError
from cosa_theory.plotting import FIGURES, save_figure
from cosa_theory.report import read_results

__all__ = ["draw", "parser"]


def parser(name: str) -> argparse.ArgumentParser:
    """Return the argument parser of the figure `name`, a key of `cosa_theory.plotting.FIGURES`."""
    command = argparse.ArgumentParser(
        prog=f"python -m figures.{name}",
        description=f"{FIGURES[name].title}. {FIGURES[name].caption}",
        epilog=f"example: python -m figures.{name} results/report --out results/figures",
    )
    command.add_argument("results", type=Path, metavar="RESULTS", help="folder of stored results")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    return command


def draw(name: str, arguments: Sequence[str] | None = None) -> int:
    """Draw the figure `name` from stored results; the exit code is 2 where input must be mended."""
    chosen = parser(name).parse_args(arguments)
    try:
        results = read_results(chosen.results)
        if not FIGURES[name].drawable(results):
            raise InputError(f"{chosen.results} holds nothing to draw for the figure {name}")
        written = save_figure(FIGURES[name].draw(results), chosen.out, name)
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    print(*written, sep="\n")
    return 0
