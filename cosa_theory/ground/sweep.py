"""A sweep: many small cells to one table, in parallel, resumable.

A cell is a frozen dataclass of plain settings, a seed among them, and a function that maps it to
one or several rows of numbers. What decides the numbers names its file: the experiment's name, the
settings, the library's version and the version of the experiment's own code. The table of a sweep
is the concatenation of its cells in their order, and resuming is skipping the cells that are there.
"""

import dataclasses
import json
import math
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from joblib.externals.loky.process_executor import BrokenProcessPool

from cosa_theory.ground.cells import cell_name, read_cell, write_cell
from cosa_theory.ground.checks import real, refuse, whole
from cosa_theory.ground.errors import InputError, quoted
from cosa_theory.ground.files import remove_leftovers
from cosa_theory.ground.program import note
from cosa_theory.ground.progress import progress_bar
from cosa_theory.ground.workers import in_processes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["run_cells", "stored_cells"]

Cell = TypeVar("Cell")
Row = Mapping[str, Any]

_PROVENANCE = ("status", "seconds", "library_version", "code_version", "cell")


@dataclass(frozen=True)
class _Outcome:
    """What became of one cell: its rows, or why there are none."""

    status: Literal["done", "timed out", "failed"]
    seconds: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class _Job:
    """One cell with what identifies it and where its file belongs."""

    position: int
    cell: Any
    identity: Mapping[str, Any]
    path: Path


def run_cells(
    compute: Callable[[Cell], Row | Iterable[Row]],
    cells: Sequence[Cell],
    *,
    name: str,
    version: int,
    folder: str | os.PathLike[str],
    jobs: int | None = None,
    dask: str | None = None,
    timeout: float | None = None,
    progress: bool = True,
) -> "pd.DataFrame":
    """Compute every cell that has no file yet, and return the table of all.

    Parameters
    ----------
    compute : callable
        Maps a cell to one row or several, mappings of column to number, text or None. It may use
        no random numbers but those that follow from the cell. Its linear algebra runs on one
        thread.
    cells : sequence of frozen dataclasses
        Different from each other; their fields are plain values and become columns (as JSON text
        where they are not single values).
    name, version : str and int
        The experiment, and a number to raise whenever its code changes what it computes.
    folder : path
        Where the cells' files are kept, for all sweeps of this experiment.
    jobs : int, optional
        How many cells at once, on this machine; by default one for each core. The table does not
        depend on it.
    dask : str, optional
        Address of the scheduler of a running Dask cluster to compute on instead, such as
        "tcp://10.0.0.1:8786". Its workers need this checkout; files are written here alone.
    timeout : float, optional
        Seconds after which a cell is given up and its process killed. Its only row then has the
        status "timed out" and no numbers. It is tried again by a sweep with a longer limit.
    progress : bool
        Whether to show on standard error how far it is, see `progress_bar`.

    Returns
    -------
    pandas.DataFrame
        The rows of all cells in their order. Columns: the fields of the cells; what `compute`
        returned; status ("done" or "timed out"), seconds (of the whole cell), library_version,
        code_version, cell (the first 16 digits of the hash that names its file).

    Raises
    ------
    ValueError
        Cells that are not frozen dataclasses of plain values.
    InputError
        Equal cells, settings out of range, or a cluster that cannot be used.
    RuntimeError
        If cells failed: all are named, with what they raised. The others are computed first, and
        kept; so are those finished before an interruption (KeyboardInterrupt) or the sudden end
        of a worker.
    """
    if jobs is not None:
        whole("jobs", jobs)
    if timeout is not None:
        real("timeout", timeout, above=0)
    planned = _plan(cells, name, version, Path(folder))
    remove_leftovers(folder)
    finished = {job.position: stored for job in planned if (stored := _read(job, timeout))}
    missing = [job for job in planned if job.position not in finished]
    tasks = [(compute, job.cell) for job in missing]
    failures: list[tuple[_Job, _Outcome]] = []
    with progress_bar(name, progress) as advance, _resumable(planned, Path(folder)):
        advance(len(finished), len(planned))
        for at, result in in_processes(_attempt, tasks, jobs=jobs, dask=dask, limit=timeout):
            job, outcome = missing[at], _outcome(result, timeout)
            if outcome.status == "failed":
                failures.append((job, outcome))
            else:
                finished[job.position] = _store(job, outcome, timeout)
            advance(len(finished) + len(failures), len(planned))
    if failures:
        raise _failure(failures, len(planned))
    return _table([(job, finished[job.position]) for job in planned])


def stored_cells(
    cells: Sequence[Any], *, name: str, version: int, folder: str | os.PathLike[str]
) -> "pd.DataFrame":
    """Return the rows of those cells that are finished, as `run_cells` does; compute nothing."""
    planned = _plan(cells, name, version, Path(folder))
    return _table([(job, stored) for job in planned if (stored := _read(job, None))])


def _plan(cells: Sequence[Any], name: str, code: int, folder: Path) -> list[_Job]:
    """Name every cell; equal ones would be one file, and are refused."""
    jobs: dict[str, _Job] = {}
    library = metadata.version("cosa-theory")  # which is looked up on the disk
    for position, cell in enumerate(cells):
        made = getattr(type(cell), "__dataclass_params__", None)
        if made is None or not made.frozen:
            raise refuse(f"cell {position}", cell, "a frozen dataclass")
        identity = {
            "experiment": name,
            "config": dataclasses.asdict(cell),
            "library": library,
            "code": code,
        }
        try:
            key = cell_name(identity)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{cell!r} has a field that is not a plain value: {error}") from error
        if key in jobs:
            raise InputError(
                f"cells {jobs[key].position} and {position} are both {quoted(cell)}: name each "
                "value of the settings once"
            )
        jobs[key] = _Job(position, cell, identity, folder / f"{key}.json")
    return list(jobs.values())


def _attempt(compute: Callable[[Any], Row | Iterable[Row]], cell: Any) -> _Outcome:
    """Compute a cell; what it raises becomes part of the outcome."""
    started = time.perf_counter()
    try:
        result = compute(cell)
        rows = [result] if isinstance(result, Mapping) else list(result)
        taken = {*_PROVENANCE, *(entry.name for entry in dataclasses.fields(cell))}
        for row in rows:
            if clash := taken.intersection(row):
                raise ValueError(f"the result's column {sorted(clash)[0]!r} has a taken name")
        plain = json.loads(json.dumps(rows, default=_plain))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        return _Outcome("failed", seconds, problem=problem, traceback=traceback.format_exc())
    return _Outcome("done", time.perf_counter() - started, plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"a result holds {value!r}, which is neither number, text, list nor None")


def _outcome(result: _Outcome | Exception, limit: float | None) -> _Outcome:
    if isinstance(result, TimeoutError):
        return _Outcome("timed out", limit or math.inf)
    if isinstance(result, Exception):
        return _Outcome("failed", 0.0, problem=str(result))
    return result


@contextmanager
def _resumable(planned: Sequence[_Job], folder: Path) -> Iterator[None]:
    """Say what is kept, and how to go on, when the block is interrupted."""

    def state() -> str:
        # What is on disk: an interruption may come between the writing of a cell and its entry.
        kept = sum(job.path.is_file() for job in planned)
        return (
            f"{kept} of {len(planned)} cells are finished and kept in {folder}; "
            "the same command goes on from there"
        )

    try:
        yield
    except KeyboardInterrupt:
        note(f"interrupted: {state()}")
        raise
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"a worker process ended by itself (out of memory?): {state()}; "
            "fewer jobs need less memory, and with a time limit such an end costs one cell alone"
        ) from error


def _store(job: _Job, outcome: _Outcome, limit: float | None) -> dict[str, Any]:
    record = {
        "identity": job.identity,
        "status": outcome.status,
        "limit": limit if outcome.status == "timed out" else None,
        "seconds": outcome.seconds,
        "rows": outcome.rows,
    }
    write_cell(job.path, record)
    return record


def _read(job: _Job, timeout: float | None) -> dict[str, Any] | None:
    """Return a cell's record, or None if it must be computed: not there, or timed out early."""
    record = read_cell(job.path)
    if record is None or not _is_of(record, job):
        return None
    limit = record["limit"]
    again = limit is not None and (timeout is None or timeout > limit)
    return None if again else record


def _is_of(record: Mapping[str, Any], job: _Job) -> bool:
    """Return whether a record has all that a finished cell has, and is this one's."""
    rows = record.get("rows")
    return (
        record.get("identity") == json.loads(json.dumps(job.identity))
        and record.get("status") in ("done", "timed out")
        and isinstance(record.get("limit", ""), (int, float, type(None)))
        and isinstance(record.get("seconds"), (int, float))
        and isinstance(rows, list)
        and all(isinstance(row, dict) for row in rows)
    )


def _table(records: Sequence[tuple[_Job, Mapping[str, Any]]]) -> "pd.DataFrame":
    import pandas as pd  # here: the processes that compute cells start without it

    rows = []
    for job, record in records:
        config = {
            name: value if isinstance(value, (str, int, float, type(None))) else json.dumps(value)
            for name, value in job.identity["config"].items()
        }
        origin = {
            "status": record["status"],
            "seconds": record["seconds"],
            "library_version": job.identity["library"],
            "code_version": job.identity["code"],
            "cell": job.path.stem[:16],
        }
        rows += [{**config, **row, **origin} for row in record["rows"] or [{}]]
    table = pd.DataFrame(rows)
    measured = [column for column in table.columns if column not in _PROVENANCE]
    return table.reindex(columns=[*measured, *_PROVENANCE])


def _failure(failures: Sequence[tuple[_Job, _Outcome]], total: int) -> RuntimeError:
    lines = [f"{len(failures)} of {total} cells failed; the others are finished and kept"]
    failures = sorted(failures, key=lambda failure: failure[0].position)
    lines += [f"{job.cell!r}: {outcome.problem}" for job, outcome in failures]
    error = RuntimeError("\n".join(lines))
    error.add_note(f"The first of them:\n{failures[0][1].traceback}")
    return error
