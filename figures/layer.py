"""Singular values of one layer against their index, at the width of a column.

Example: `python -m figures.layer results/report encoder.layer.0.output.dense.weight --out figs`
"""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.printable import shortened
from cosa_theory.ground.program import program
from cosa_theory.page.document import read_document, showing
from cosa_theory.studies.spectrum.figures import layer_figure
from figures.command import check_figure, store_figure

__all__ = ["main"]


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw one layer; the exit code is 2 where input must be mended."""
    command = argparse.ArgumentParser(
        prog="python -m figures.layer",
        description="Singular values of base, tuned and update of one layer, at column width.",
        epilog="example: python -m figures.layer results/report "
        "encoder.layer.0.output.dense.weight --out results/figures",
    )
    command.add_argument("results", type=Path, metavar="RESULTS", help="folder of stored results")
    command.add_argument("layer", metavar="LAYER", help="a name in the table of layers")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    chosen = command.parse_args(arguments)
    tables = read_document(chosen.results, "spectrum").tables
    with showing(chosen.results):
        names = list(tables["layers"]["layer"])
        if chosen.layer not in names:
            near = get_close_matches(chosen.layer, names, 3, 0) or names[:1]
            raise InputError(f"no layer is named {chosen.layer!r}; the nearest: {', '.join(near)}")
        figure = layer_figure(tables, chosen.layer)
    name = shortened(chosen.layer.replace("/", "_").removesuffix(".weight"), 100)
    name = name.encode()[:200].decode(errors="ignore")  # what a file system takes, in bytes
    check_figure(chosen.out, name)
    store_figure(figure, chosen.out, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
