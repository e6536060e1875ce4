"""The job: which trainings there are, in which order, shared by several processes."""

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cosa_theory.ground.cells import cell_name
from cosa_theory.ground.program import note
from cosa_theory.ground.sweep import run_cells, stored_cells
from experiments.rates import best_quarter, grown
from experiments.subspace.arms import ARMS
from experiments.subspace.cells import Cell, train
from experiments.subspace.power import paired_spread, seeds_needed
from experiments.subspace.study import Study

__all__ = ["MEASURED", "NAME", "VERSION", "Job", "work"]

NAME, MEASURED, VERSION = "subspace", "subspace_measured", 1

_WAIT = 20.0  # seconds until a process that has nothing to do looks again


@dataclass(frozen=True)
class Job:
    """The trainings of a study, as far as finished ones tell.

    Parameters
    ----------
    study : Study
        What is asked for.
    folder : path
        Of finished cells.
    tasks, arms : tuple of str
        Train only these, none for all.
    """

    study: Study
    folder: Path
    tasks: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    _chosen: dict[tuple[str, str], tuple[list[Cell], int]] = field(default_factory=dict)

    def finished(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """Return the rows of those that are finished."""
        return stored_cells(cells, name=NAME, version=VERSION, folder=self.folder)

    def cells(self) -> list[Cell]:
        """Return the trainings that are known to be wanted, in their order.

        Of each stage the rates and pilots of its tasks, then their tests, seed by seed; last the
        crossed design. What depends on trainings that are not finished is not known yet.
        """
        found: list[Cell] = []
        for stage in sorted({one.stage for one in self.study.tasks.values()}):
            tasks = [name for name, one in self.study.tasks.items() if one.stage == stage]
            for task in tasks:
                arms = self.study.arms(task)
                found += [cell for arm in arms for cell in self.tuning(task, arm)[0]]
                found += self.pilot(task)
            tests = [one for task in tasks for one in self.tested(task)]
            found += sorted(tests, key=lambda cell: cell.seed)
        return [
            one
            for one in dict.fromkeys([*found, *self.crossed()])
            if (not self.tasks or one.task in self.tasks)
            and (not self.arms or one.arm in self.arms)
        ]

    def _cell(
        self, task: str, arm: str, quarter: int, seed: int, part: str, draw: int | None = None
    ) -> Cell:
        setting = self.study.tasks[task]
        return Cell(
            task,
            arm,
            quarter,
            seed,
            seed if draw is None else draw,
            part,
            setting.model,
            setting.data,
            setting.steps,
            setting.batch,
            setting.tokens,
            setting.items,
            self.study.rank,
            self.study.head_rate,
            self.study.warm_up,
        )

    def tuning(self, task: str, arm: str) -> tuple[list[Cell], int | None]:
        """Return the trainings that choose a rate, and the rate once they are finished.

        Three around the guess, and more on the side of the best until it is inside.
        """
        if (task, arm) in self._chosen:
            return self._chosen[task, arm]
        centre = ARMS[arm].centres[self.study.tasks[task].decoder]
        quarters = [centre - 1, centre, centre + 1]
        while True:
            cells = [
                self._shorter(task, arm, quarter, self.study.tuning_seeds[0])
                for quarter in quarters
            ]
            table = self.finished(cells)
            if len(table) < len(cells):
                return cells, None
            best = best_quarter(table)
            more = grown(quarters, best)
            if more is None:
                return self._chosen.setdefault((task, arm), (cells, best))
            quarters = more

    def _shorter(self, task: str, arm: str, quarter: int, seed: int) -> Cell:
        cell = self._cell(task, arm, quarter, seed, "validation")
        steps = math.ceil(cell.steps * self.study.tuning_share)
        items = self.study.tasks[task].tuning_items or cell.items
        return dataclasses.replace(cell, steps=steps, items=items)

    def pilot(self, task: str) -> list[Cell]:
        """Return the trainings from which the number of seeds follows, as far as rates are known.

        None where the number is given, or the task lacks an arm of the pilot.
        """
        arms = [one for one in self.study.pilot if one in self.study.arms(task)]
        if self.study.tasks[task].seeds or len(arms) < len(self.study.pilot):
            return []
        best = {arm: self.tuning(task, arm)[1] for arm in arms}
        return [
            self._shorter(task, arm, quarter, seed)
            for seed in self.study.tuning_seeds
            for arm, quarter in best.items()
            if quarter is not None
        ]

    def seeds(self, task: str) -> int:
        """Return how many seeds are tested: as given, as the pilot asks, or 0 before it is done."""
        study = self.study
        cells = self.pilot(task)
        if study.tasks[task].seeds or not cells:
            return study.tasks[task].seeds
        table = self.finished(cells)
        if len(table) < len(study.pilot) * len(study.tuning_seeds):
            return 0
        needed = seeds_needed(paired_spread(table), study.smallest_effect, study.confidence)
        return min(max(needed, study.least), study.most)

    def tested(self, task: str) -> list[Cell]:
        """Return the trainings that are compared, of the arms whose rates are known."""
        best = {arm: self.tuning(task, arm)[1] for arm in self.study.arms(task)}
        return [
            self._cell(task, arm, quarter, seed, "test")
            for seed in range(self.seeds(task))
            for arm, quarter in best.items()
            if quarter is not None
        ]

    def crossed(self) -> list[Cell]:
        """Return the crossed design: seeds of the projections times those of all else."""
        wanted = self.study.crossed
        task, arm, seeds = wanted["task"], wanted["arm"], wanted["seeds"]
        if task not in self.study.tasks or arm not in self.study.arms(task):
            return []
        best = self.tuning(task, arm)[1]
        if best is None or not self.seeds(task):
            return []
        return [
            self._cell(task, arm, best, seed, "test", draw)
            for draw in range(seeds)
            for seed in range(seeds)
        ]

    def measured(self, task: str) -> tuple[Cell, list[Cell]] | None:
        """Return a task's full fine-tuning, and each arm at its start, which is measured on it.

        None for the language model, whose gradients take gigabytes, and before the rate of full
        fine-tuning is known.
        """
        if self.study.tasks[task].decoder or "full" not in self.study.arms(task):
            return None
        best = self.tuning(task, "full")[1]
        if best is None:
            return None
        seed = self.study.tuning_seeds[0]
        cells = {
            arm: self._cell(task, arm, best, seed, "start", draw=0) for arm in self.study.arms(task)
        }
        return cells["full"], list(cells.values())

    def claim(self, cell: Cell) -> Path:
        """Return the file that whoever trains a cell holds locked."""
        name = cell_name(dataclasses.asdict(cell) | {"code": VERSION})
        return self.folder.parent / "claims" / f"{name}.lock"


def work(job: Job, until: float = math.inf) -> None:
    """Train what is not finished, one after another, until nothing is left or the time is over.

    Several processes may work at the same folder: each locks the cell that it trains.

    Parameters
    ----------
    job : Job
        What there is to do.
    until : float
        As of `time.monotonic`: no training is begun later.
    """
    durations: dict[str, list[float]] = {}
    over: set[tuple[Any, ...]] = set()  # finished or failed
    failed = 0
    runs = job.folder.parent / "runs"
    while True:
        missing = [one for one in job.cells() if dataclasses.astuple(one) not in over]
        over |= _done(job.finished(missing))
        missing = [one for one in missing if dataclasses.astuple(one) not in over]
        if not missing or time.monotonic() > until:
            break
        for cell in missing:
            with _claimed(job.claim(cell)) as mine:
                if not mine or len(job.finished([cell])):
                    continue
                began = time.monotonic()
                settings: dict[str, Any] = {"name": NAME, "version": VERSION, "folder": job.folder}
                compute = partial(train, runs=runs)
                try:
                    row = run_cells(compute, [cell], jobs=1, progress=False, **settings).iloc[0]
                except RuntimeError as error:
                    note(f"failed, and left: {error}")
                    over.add(dataclasses.astuple(cell))
                    failed += 1
                    break
                durations.setdefault(cell.task, []).append(time.monotonic() - began)
                note(_report(cell, float(row["loss"]), missing, durations))
                break
        else:
            time.sleep(_WAIT)
    if failed:
        raise RuntimeError(f"{failed} trainings failed, see above; the others are kept")


def _done(table: pd.DataFrame) -> set[tuple[Any, ...]]:
    if not len(table):
        return set()
    return set(zip(*(table[one.name] for one in dataclasses.fields(Cell)), strict=True))


def _report(
    cell: Cell, loss: float, missing: Sequence[Cell], durations: dict[str, list[float]]
) -> str:
    """Say what was found, and how long the known rest takes one process."""
    typical = {task: statistics.median(times) for task, times in durations.items()}
    rest = [one for one in missing if one != cell]
    known = statistics.median(typical.values())
    left = sum(
        typical.get(one.task, known) * one.steps / cell.steps
        if one.task == cell.task
        else typical.get(one.task, known)
        for one in rest
    )
    return (
        f"{cell.task} {cell.arm}, rate 10^{cell.quarter / 4:g}, seed {cell.seed}, {cell.part}: "
        f"loss {loss:.4f} in {durations[cell.task][-1]:.0f} s; {len(rest)} known cells left, "
        f"some {left / 3600:.1f} h of one process"
    )


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Hold a file's lock, which ends with the process; yield whether it was free."""
    try:
        import fcntl
    except ImportError:  # Windows: for one process at a time
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)
