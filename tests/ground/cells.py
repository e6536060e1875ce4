"""Cells for the tests of sweeps; `python -m tests.ground.cells FOLDER LOG` runs some."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cosa_theory.ground.sweep import run_cells
from cosa_theory.projections import stream


@dataclass(frozen=True)
class Cell:
    """What to do, with a number of its own; `log` gets a line at each computation."""

    number: int
    act: str = "draw"
    log: str = ""
    seed: int = 0


def compute(cell):
    if cell.log:
        with open(cell.log, "a") as log:
            log.write(f"{cell.number}\n")
    if cell.act == "nap":
        time.sleep(0.15)
    if cell.act == "hang" and cell.number == 2:
        spin()
    if cell.act == "raise" and cell.number in (1, 3):
        raise ValueError(f"no luck with {cell.number}")
    if cell.act == "die" and cell.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    draws = stream(cell.seed, "cells", cell.number).standard_normal(2)
    return [{"draw": draw, "place": place, "note": None} for place, draw in enumerate(draws)]


def spin():
    """Stay in compiled code that no signal handler of Python's interrupts."""
    sum(range(10**12))


def cells(count, **settings):
    return [Cell(number, **settings) for number in range(count)]


def sweep(folder, log, jobs):
    return run_cells(
        compute,
        cells(14, act="nap", log=str(log)),
        name="cells",
        version=1,
        folder=folder,
        jobs=jobs,
    )


if __name__ == "__main__":
    from experiments.command import run_command
    from tests.ground import cells as module  # so that workers know it by its own name

    # A shell that runs the tests in the background has its children ignore the interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(
        run_command(lambda: module.sweep(Path(sys.argv[1]), sys.argv[2], jobs=int(sys.argv[3])))
    )
