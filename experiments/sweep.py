"""Many small cells: in parallel, resumable, each finished one at once a file.

A cell is a frozen dataclass of plain settings, a seed among them, and a function that maps it to
one or several rows of numbers. Its file is named by the SHA-256 of what decides the numbers: the
experiment's name, the settings, the library's version and the version of the experiment's own
code. The table of a sweep is the concatenation of its cells in their order, and resuming is
skipping the cells that are there.
"""

import dataclasses
import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool
from threadpoolctl import threadpool_limits

from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.provenance import provenance
from experiments.cluster import connected
from experiments.stoppable import call_within, stop_idle

__all__ = ["cell_name", "run_cells", "write_table"]

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
) -> pd.DataFrame:
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
        Whether to show a progress bar on standard error, where that is a terminal.

    Returns
    -------
    pandas.DataFrame
        The rows of all cells in their order. Columns: the fields of the cells; what `compute`
        returned; status ("done" or "timed out"), seconds (of the whole cell), library_version,
        code_version, cell (the first 16 digits of the hash that names its file).

    Raises
    ------
    ValueError
        Cells that are not different frozen dataclasses of plain values, or settings out of range.
    InputError
        A cluster that cannot be used.
    RuntimeError
        If cells failed: all are named, with what they raised. The others are computed first, and
        kept; so are those finished before an interruption (KeyboardInterrupt) or the sudden end
        of a worker.
    """
    _check_settings(jobs, timeout)
    planned = _plan(cells, name, version, Path(folder))
    finished = {job.position: stored for job in planned if (stored := _read(job, timeout))}
    missing = [job for job in planned if job.position not in finished]
    failures: list[tuple[_Job, _Outcome]] = []
    with _bar(name, progress) as advance, _resumable(planned, finished, Path(folder)):
        advance(len(finished), len(planned), "")
        for job, outcome in _computed(compute, missing, jobs, dask, timeout):
            if outcome.status == "failed":
                failures.append((job, outcome))
            else:
                finished[job.position] = _store(job, outcome, timeout)
            advance(len(finished) + len(failures), len(planned), job.path.stem)
    if failures:
        raise _failure(failures, len(planned))
    return _table([(job, finished[job.position]) for job in planned])


def cell_name(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an identity as canonical JSON, in hexadecimal digits."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_table(
    table: pd.DataFrame,
    out: str | os.PathLike[str],
    name: str,
    *,
    arguments: Mapping[str, Any],
    verdict: str,
    seed: int | None = None,
) -> None:
    """Store a result as `name`.parquet and, last, `name`.json with verdict and provenance.

    Parameters
    ----------
    table : pandas.DataFrame
        The result.
    out : path
        A folder; files of this name in it are replaced.
    name : str
        Of the experiment.
    arguments, seed
        As for `cosa_theory.ground.provenance.provenance`.
    verdict : str
        The result in a sentence.
    """
    folder = Path(out)
    (folder / f"{name}.json").unlink(missing_ok=True)
    with atomic_path(folder / f"{name}.parquet") as path:
        table.to_parquet(path)
    document = {"verdict": verdict, "provenance": provenance(arguments, seed=seed)}
    with atomic_path(folder / f"{name}.json") as path:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _bar(name: str, shown: bool) -> AbstractContextManager[Callable[[int, int, str], None]]:
    if not shown:
        return nullcontext(lambda done, total, name: None)
    # Here and not above: every worker loads this module, and none the drawing that comes with it.
    from cosa_theory.ground.progress import progress_bar

    return progress_bar(name)


def _check_settings(jobs: int | None, timeout: float | None) -> None:
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}: it must be at least 1")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is {timeout}: it must be a positive number of seconds")


def _plan(cells: Sequence[Any], name: str, code: int, folder: Path) -> list[_Job]:
    """Name every cell; equal ones would be one file, and are refused."""
    jobs: dict[str, _Job] = {}
    for position, cell in enumerate(cells):
        made = getattr(type(cell), "__dataclass_params__", None)
        if made is None or not made.frozen:
            raise ValueError(f"cell {position} is {cell!r}: it must be a frozen dataclass")
        identity = {
            "experiment": name,
            "config": dataclasses.asdict(cell),
            "library": metadata.version("cosa-theory"),
            "code": code,
        }
        try:
            key = cell_name(identity)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{cell!r} has a field that is not a plain value: {error}") from error
        if key in jobs:
            raise ValueError(f"cells {jobs[key].position} and {position} are both {cell!r}")
        jobs[key] = _Job(position, cell, identity, folder / f"{key}.json")
    return list(jobs.values())


def _attempt(compute: Callable[[Any], Row | Iterable[Row]], cell: Any) -> _Outcome:
    """Compute a cell on one thread; what it raises becomes part of the outcome."""
    started = time.perf_counter()
    try:
        with threadpool_limits(1):
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


def _evaluate(
    compute: Callable[[Any], Row | Iterable[Row]], position: int, cell: Any, limit: float | None
) -> tuple[int, _Outcome]:
    """Compute a cell where this is called, or in a process beside it if there is a limit."""
    if limit is None:
        return position, _attempt(compute, cell)
    try:
        return position, call_within(limit, _attempt, compute, cell)
    except TimeoutError:
        return position, _Outcome("timed out", limit)
    except RuntimeError as error:
        return position, _Outcome("failed", 0.0, problem=str(error))


def _computed(
    compute: Callable[[Any], Row | Iterable[Row]],
    missing: Sequence[_Job],
    jobs: int | None,
    dask: str | None,
    limit: float | None,
) -> Iterator[tuple[_Job, _Outcome]]:
    """Yield cells as they are finished."""
    if not missing:
        return
    by_position = {job.position: job for job in missing}
    tasks = (delayed(_evaluate)(compute, job.position, job.cell, limit) for job in missing)
    workers = min(jobs or cpu_count(), len(missing))
    with _backend(dask):
        # Cells are sent one by one, so that none waits for others before its file is written.
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
        try:
            for position, outcome in parallel(tasks):
                yield by_position[position], outcome
        finally:
            stop_idle()


@contextmanager
def _backend(dask: str | None) -> Iterator[None]:
    if dask is None:
        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield
    else:
        with connected(dask) as client, parallel_config(backend="dask", client=client):
            yield


@contextmanager
def _resumable(
    planned: Sequence[_Job], finished: Mapping[int, Any], folder: Path
) -> Iterator[None]:
    """Say what is kept, and how to go on, when the block is interrupted."""

    def state() -> str:
        return (
            f"{len(finished)} of {len(planned)} cells are finished and kept in {folder}; "
            "the same command goes on from there"
        )

    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted: {state()}", file=sys.stderr)
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
    body = json.dumps(record)
    with atomic_path(job.path) as path:
        path.write_text(f"{_digest(body)}\n{body}\n", encoding="utf-8")
    return record


def _read(job: _Job, timeout: float | None) -> dict[str, Any] | None:
    """Return a cell's record, or None if it must be computed: absent, damaged or timed out early.

    The first line of a file is the SHA-256 of the second.
    """
    try:
        digest, body = job.path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError):  # not two lines, or not text
        return None
    if digest != _digest(body):
        return None
    record: dict[str, Any] = json.loads(body)
    limit = record["limit"]
    again = limit is not None and (timeout is None or timeout > limit)
    return None if again else record


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _table(records: Sequence[tuple[_Job, Mapping[str, Any]]]) -> pd.DataFrame:
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
