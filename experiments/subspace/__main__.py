"""The command: train what is not finished, show what is.

python -m experiments.subspace --hours 6     # twice at once, for two cores: they share the work

Trainings that are committed beside the tables count as finished.
"""

import argparse
import dataclasses
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cosa_theory.ground.checks import choice, real
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import note, program
from cosa_theory.ground.provenance import provenance
from cosa_theory.ground.reading import read_json
from cosa_theory.ground.sweep import run_cells
from cosa_theory.page.text import render_view
from cosa_theory.page.views import Column, View, count, number
from experiments.command import (
    REFERENCE,
    check_table,
    command_parser,
    run_command,
    write_reference,
    write_table,
)
from experiments.subspace.arms import ARMS
from experiments.subspace.cells import train
from experiments.subspace.job import MEASURED, NAME, VERSION, Job, work
from experiments.subspace.predictors import measure, path_of
from experiments.subspace.study import STATED, Study, read_study
from experiments.subspace.tables import TABLES, tables_of, verdict

_COMPARED = (
    Column("task", "task", text=True),
    Column("arm", "arm", text=True),
    Column("against", "against", text=True),
    Column("seeds", "seeds", "", count),
    Column("difference", "difference", "of the test loss in nats; negative is better", number),
    Column("low", "from", "95 %, over seeds and items", number),
    Column("high", "to", "", number),
    Column("outcome", "outcome", text=True),
    Column("came", "as expected", text=True),
)
_PILOT = (
    Column("task", "task", text=True),
    Column("spread", "spread", "standard deviation of paired differences, the largest", number),
    Column("needed", "needed", "seeds for half-widths of the smallest effect", count),
    Column("seeds", "seeds", "that are trained", count),
    Column("half_width", "half-width", "expected with them", number),
)
KEPT = REFERENCE / NAME
"""Finished trainings that are committed: the study goes on from them in every checkout."""

_QUICK = {"r8": 30, "functions": 3}
"""Tasks and steps of the quick run."""


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "experiments.subspace",
        "Train and compare random and informed subspaces at equal trainable parameters.",
        out=Path("results") / NAME,
        example="--tasks r8 --arms lora cosa_gaussian --hours 6",
        reference=True,
    )
    add = parser.add_argument
    add("--config", type=Path, default=STATED, metavar="TOML", help="what is studied")
    add("--tasks", nargs="*", default=(), metavar="NAME", help="default: all")
    add("--arms", nargs="*", default=(), metavar="NAME", help="default: all of each task")
    add("--hours", type=float, default=math.inf, help="begin no training later than this")
    add("--tables", action="store_true", help="train nothing, show what is finished")
    add("--predictors", action="store_true", help="measure arms at their start instead")
    add("--power", action="store_true", help="show the pilots and the seeds that follow, and end")
    add("--quick", action="store_true", help="train one cell of each model, in minutes, and end")
    return parser


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    chosen = _parser().parse_args(arguments)

    def body() -> None:
        if not math.isinf(chosen.hours):
            real("--hours", chosen.hours, above=0)
        study = read_study(chosen.config)
        for name, known in (("tasks", study.tasks), ("arms", ARMS)):
            for one in getattr(chosen, name):
                choice(f"--{name}", one, known)
        if chosen.quick:
            _quick(study, chosen.out / "quick")
            return
        check_table(chosen.out, NAME, beside=[f"{NAME}_{one}" for one in TABLES])
        _agreed(study, chosen.out)
        _copied(KEPT, chosen.out / "cells")
        job = Job(study, chosen.out / "cells", tuple(chosen.tasks), tuple(chosen.arms))
        if chosen.predictors:
            _measure(job, chosen.out)
        elif not chosen.tables and not chosen.power:
            work(job, time.monotonic() + 3600 * chosen.hours)
        _deliver(job, chosen.out, power=chosen.power, reference=chosen.reference)

    return run_command(body)


def _agreed(study: Study, out: Path) -> None:
    """Remember what all trainings of a folder have in common; refuse a folder of other ones."""
    names = ("tuning_seeds", "tuning_share", "head_rate", "warm_up", "rank")
    sizes: dict[str, Any] = {name: getattr(study, name) for name in names}
    for task, setting in study.tasks.items():
        fields = dataclasses.asdict(setting)
        sizes[task] = {name: fields[name] for name in fields if name not in ("seeds", "arms")}
    sizes = json.loads(json.dumps(sizes))
    path = out / "study.json"
    if not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")
        return
    known = read_json(path)
    for name in sizes:
        if known.get(name) != sizes[name]:
            raise InputError(
                f"{out} holds trainings of another study: {name} is {known.get(name)} there and "
                f"{sizes[name]} here: take another --out, or the settings as they were",
                argument="--out",
            )


def _copied(source: Path, target: Path) -> None:
    """Copy the cells that a folder lacks: a file is named by all that decides its content."""
    for cell in source.glob("*.json"):
        if not (target / cell.name).is_file():
            with atomic_path(target / cell.name) as temporary:
                shutil.copyfile(cell, temporary)


def _measure(job: Job, out: Path) -> None:
    """Train the full fine-tunings that arms are measured on, and measure every arm at its start."""
    for task in job.tasks or job.study.tasks:
        wanted = job.measured(task)
        if wanted is None:
            note(f"{task}: nothing to measure before the rate of full fine-tuning is known")
            continue
        full, starts = wanted
        paths = out / "paths"
        path_of(full, paths / f"{task}.safetensors", out / "runs")
        settings: dict[str, Any] = {"name": MEASURED, "version": VERSION, "folder": job.folder}
        run_cells(partial(measure, paths=paths), starts, jobs=1, **settings)


def _deliver(job: Job, out: Path, *, power: bool, reference: bool) -> None:
    tables = tables_of(job)
    if power:
        print(render_view(View.of("Pilots", _PILOT, tables["pilot"])))
        return
    text = verdict(tables["compared"])
    settings = {"tasks": list(job.study.tasks), "version": VERSION, "stated": job.study.date}
    named = {f"{NAME}_{name}": table for name, table in tables.items() if len(table)}
    arms = tables["arms"]
    write_table(arms, out, NAME, arguments=settings, verdict=text, beside=named)
    if reference:
        write_reference(named)
        _copied(job.folder, KEPT)
        with atomic_path(REFERENCE / f"{NAME}.json") as temporary:
            origin = {"verdict": text, "provenance": provenance(settings)}
            temporary.write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    print(printable(text))
    if len(tables["compared"]):
        print(render_view(View.of("Held-out loss, paired", _COMPARED, tables["compared"])))


def _quick(study: Study, out: Path) -> None:
    """Train CoSA for a few steps on each model, and print its loss on some held-out items."""
    job = Job(study, out / "cells")
    for task, steps in _QUICK.items():
        cell = job.tuning(task, "cosa_gaussian")[0][1]
        cell = dataclasses.replace(cell, steps=steps, batch=4, items=48)
        settings: dict[str, Any] = {"name": f"{NAME}_quick", "version": VERSION}
        table: pd.DataFrame = run_cells(
            partial(train, runs=out / "runs"), [cell], jobs=1, folder=job.folder, **settings
        )
        row = table.iloc[0]
        print(
            f"{task}: {cell.steps} steps of {cell.batch} items, {row['parameters']:,} trainable "
            f"parameters, {row['step_seconds']:.2f} s a step, loss {row['loss']:.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())
