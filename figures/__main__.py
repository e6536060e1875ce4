"""All figures again, from whatever tables are stored: `python -m figures --out results/figures`.

Nothing is computed. Of a figure whose table is not there, the command that makes it is said.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cosa_theory.ground.program import note, program
from cosa_theory.page.document import Tables, read_document, read_table, showing
from cosa_theory.page.presentation import Drawing
from cosa_theory.studies import presentation
from cosa_theory.studies.informed.figures import INFORMED_FIGURE
from cosa_theory.studies.jl.figures import CURVES_FIGURE, VARIANCE_FIGURE
from cosa_theory.studies.rip.brackets import BRACKETS_FIGURE
from experiments.command import REFERENCE
from figures.atlas import DRAWING as ATLAS
from figures.command import check_figure, store_figure
from figures.subspace import DRAWING as SUBSPACE

__all__ = ["Source", "committed", "sources"]

_REPORT = {"": "spectrum", "function": "function", "audit": "audit", "recovery": "experiments"}
"""The documents in the folder of the main job, by the folders inside."""


@dataclass(frozen=True)
class Source:
    """Where one figure comes from.

    Attributes
    ----------
    name : str
        Of its files.
    drawing : Drawing
        How it is drawn.
    stored : pathlib.Path
        The file that has to be there.
    read : callable
        Returns its tables.
    made_by : str
        The command that stores them.
    """

    name: str
    drawing: Drawing
    stored: Path
    read: Callable[[], Tables]
    made_by: str


_COMMITTED = (
    ("informed", INFORMED_FIGURE, ("informed",)),
    ("atlas", ATLAS, ("atlas", "atlas_leads")),
    ("subspace", SUBSPACE, ("subspace_compared", "subspace_arms", "subspace_measured")),
)
"""Figures of committed tables: the experiment, the drawing and the tables, the first needed."""


def committed(*names: str) -> Tables:
    """Return committed tables by their names, as figures take them, those that are there."""
    blank = {"source": "", "calibration": ""}
    stored = {name: REFERENCE / f"{name}.csv" for name in names}
    return {name: pd.read_csv(at).fillna(blank) for name, at in stored.items() if at.is_file()}


def _of_document(folder: Path, command: str) -> Tables:
    return read_document(folder, command).tables


def _of_table(stored: Path) -> Tables:
    return {stored.stem: read_table(stored)}


def sources(results: Path) -> Iterator[Source]:
    """Yield every figure that a folder of results, or a committed table, has the numbers of."""
    for experiment, drawing, names in _COMMITTED:
        yield Source(
            experiment,
            drawing,
            REFERENCE / f"{names[0]}.csv",
            partial(committed, *names),
            f"python -m experiments.{experiment}",
        )
    report = results / "report"
    for folder, command in _REPORT.items():
        stored = report / folder / f"{command}.json"
        for name, drawing in presentation(command).drawings().items():
            yield Source(
                name,
                drawing,
                stored,
                partial(_of_document, stored.parent, command),
                "make report",
            )
    tables = {
        "jl_curves": CURVES_FIGURE,
        "rip_brackets": BRACKETS_FIGURE,
        "variance_law": VARIANCE_FIGURE,
    }
    for table, drawing in tables.items():
        stored = results / table / f"{table}.parquet"
        yield Source(
            table,
            drawing,
            stored,
            partial(_of_table, stored),
            f"python -m experiments.{table}",
        )


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all that can be drawn; the exit code is 0 whatever is missing."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("results/figures"), metavar="DIR")
    chosen = parser.parse_args(arguments)
    for source in sources(chosen.results):
        if not source.stored.is_file():
            note(f"not drawn: {source.name}, whose table {source.made_by} stores")
            continue
        check_figure(chosen.out, source.name)
        with showing(source.stored.parent):
            tables = source.read()
            if source.drawing.drawable(tables):
                store_figure(source.drawing.draw(tables), chosen.out, source.name)
            else:
                note(f"not drawn: {source.name}, of which {source.stored} holds nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
