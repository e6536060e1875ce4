"""Several pieces of work at once, each on one thread: here in threads or processes, or on Dask.

A stream of matrices is worked on in threads, which share what they read (`map_cells`); a list of
small settings in processes (`in_processes`), because what they do is not all linear algebra.
Where the address of a Dask cluster is given, both are worked on there, and files are read and
written here alone.
"""

import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cosa_theory.ground.cells import from_cell
from cosa_theory.ground.checks import whole

__all__ = ["in_processes", "map_cells", "map_unordered"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Identity = tuple[Mapping[str, Any], Sequence[NDArray[Any]]]


def map_cells(
    compute: Callable[[Item], dict[str, Any]],
    items: Iterable[Item],
    *,
    identity: Callable[[Item], Identity],
    folder: Path | None = None,
    workers: int = 1,
    dask: str | None = None,
    advance: Callable[[int, dict[str, Any]], None] = lambda done, result: None,
) -> list[dict[str, Any]]:
    """Return the results of a stream of large items in their order, each from its cell or computed.

    Parameters
    ----------
    compute : callable
        Maps an item to its result, plain JSON values.
    items : iterable
        What to work on; read here, one after another, and only while a worker is free.
    identity : callable
        Maps an item to what decides its result, as `cosa_theory.ground.cells.cell_name` takes it.
    folder : Path, optional
        Where cells are; without it nothing is stored.
    workers : int
        How many at once on this machine.
    dask : str, optional
        Address of the scheduler of a running Dask cluster to compute on instead; as many items are
        in flight as it has workers.
    advance : callable
        Called as ``advance(done, result)`` after each item, in the order in which they finish.

    Raises
    ------
    Exception
        As `map_unordered` does; `InputError` if the cluster cannot be used.
    """
    whole("workers", workers)
    results: dict[int, dict[str, Any]] = {}
    with _caller(workers, dask) as (most, call):

        def cell(item: Item) -> dict[str, Any]:
            return from_cell(folder, *identity(item), partial(call, compute, item))

        for position, result in map_unordered(cell, items, most):
            results[position] = result
            advance(len(results), result)
    return [results[position] for position in sorted(results)]


@contextmanager
def _caller(workers: int, dask: str | None) -> Iterator[tuple[int, Callable[..., Any]]]:
    """Yield how many calls to make at once, and what makes one: here, or on a cluster."""
    if dask is None:
        yield workers, lambda function, item: function(item)
        return
    from cosa_theory.ground.cluster import connected

    with connected(dask) as client:

        def call(function: Callable[[Any], Any], item: Any) -> Any:
            # Scattered: a graph that holds a large matrix would pass through the scheduler.
            sent = client.scatter(item, hash=False)
            return client.submit(_on_one_thread, function, sent, pure=False).result()

        yield len(client.nthreads()), call


def _on_one_thread(function: Callable[[Item], Result], item: Item) -> Result:
    with threadpool_limits(1):
        return function(item)


def map_unordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield (position from 0, result) of every item, in the order in which they are finished.

    Items are read here, one after another, and only while fewer than `workers` are worked on: no
    more than that many are held. The function is called from several threads if `workers` is above
    1, the linear algebra of each call on one thread, because two threads on one small matrix can be
    far slower than one, while two matrices on two threads are not.

    Raises the first exception of `items` or `function`. What is still being worked on is abandoned,
    and does not keep the process from ending.
    """
    with threadpool_limits(1):
        yield from (_one_by_one if workers == 1 else _several)(function, items, workers)


def _one_by_one(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[int, Result]]:
    position = 0  # not enumerate, which would hold an item while the next one is read
    for item in items:
        result = function(item)
        del item
        yield position, result
        position += 1  # noqa: SIM113


def _several(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[int, Result]]:
    finished: queue.SimpleQueue[tuple[int, Result | None, BaseException | None]]
    finished = queue.SimpleQueue()

    def work(position: int, item: Item) -> None:
        try:
            finished.put((position, function(item), None))
        except BaseException as error:  # handed to the caller, who raises it
            finished.put((position, None, error))

    def next_finished() -> tuple[int, Result]:
        position, result, error = finished.get()
        if error is not None:
            raise error
        return position, result  # type: ignore[return-value]

    # Its threads are daemons: an interruption does not wait for a matrix to be finished.
    with ThreadPool(workers) as pool:
        position = running = 0
        for item in items:
            pool.apply_async(work, (position, item))
            del item
            position, running = position + 1, running + 1
            if running == workers:
                yield next_finished()
                running -= 1
        for _ in range(running):
            yield next_finished()


def in_processes(
    function: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    *,
    jobs: int | None = None,
    dask: str | None = None,
    limit: float | None = None,
) -> Iterator[tuple[int, Result | Exception]]:
    """Yield (position from 0, result) of every call, in the order in which they are finished.

    Parameters
    ----------
    function : callable
        Called with each tuple of `arguments`, its linear algebra on one thread.
    arguments : sequence of tuple
        Small: each call is sent by itself, so that none waits for others.
    jobs, dask
        Processes on this machine, by default one for each core (1 is this process), or the address
        of a scheduler as for `map_cells`.
    limit : float, optional
        Seconds after which a call is given up and its process killed. In place of its result comes
        the TimeoutError of a call over the limit or, where there is a limit, the RuntimeError of a
        process that ended by itself.

    Raises
    ------
    Exception
        What `function` raises; `InputError` if the cluster cannot be used;
        `joblib.externals.loky.process_executor.BrokenProcessPool` where a process ended by itself
        and there is no limit.
    """
    from joblib import Parallel, cpu_count, delayed

    from cosa_theory.ground.stoppable import stop_idle

    if not arguments:
        return
    tasks = (delayed(_evaluate)(function, *task, limit) for task in enumerate(arguments))
    workers = min(jobs or cpu_count(), len(arguments))
    with _backend(dask):
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
        try:
            yield from parallel(tasks)
        finally:
            stop_idle()


@contextmanager
def _backend(dask: str | None) -> Iterator[None]:
    from joblib import parallel_config

    if dask is None:
        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield
    else:
        from cosa_theory.ground.cluster import connected

        with connected(dask) as client, parallel_config(backend="dask", client=client):
            yield


def _evaluate(
    function: Callable[..., Result], position: int, arguments: tuple[Any, ...], limit: float | None
) -> tuple[int, Result | Exception]:
    """Call a function where this is called, or in a process beside it if there is a limit."""
    call = partial(_on_one_thread, partial(_starred, function), arguments)
    if limit is None:
        return position, call()
    from cosa_theory.ground.stoppable import call_within

    try:
        return position, call_within(limit, call)
    except (TimeoutError, RuntimeError) as error:
        return position, error


def _starred(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    return function(*arguments)
