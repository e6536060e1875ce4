"""Several matrices at once, each on one thread, and never more of them in memory than that."""

import queue
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import ThreadPool
from typing import TypeVar

from threadpoolctl import threadpool_limits

__all__ = ["map_ordered", "map_unordered"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_unordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield (position, result) of every item, in the order in which they are finished.

    Items are read here, one after another, and only while fewer than `workers` are worked on: no
    more than that many are held. The linear algebra of each runs on one thread, because two
    threads on one small matrix can be far slower than one, while two matrices on two threads
    are not.

    Parameters
    ----------
    function : callable
        Maps an item to its result; called from several threads if `workers` is above 1.
    items : iterable
        What to work on.
    workers : int
        How many at once, at least 1.

    Yields
    ------
    tuple of (int, result)
        The position of the item, from 0, and its result.

    Raises
    ------
    Exception
        The first one of `items` or `function`. What is still being worked on is abandoned, and
        does not keep the process from ending.
    """
    with threadpool_limits(1):
        yield from (_one_by_one if workers == 1 else _several)(function, items, workers)


def map_ordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    advance: Callable[[int, Result], None],
) -> list[Result]:
    """Return the results of all items in the order of the items.

    Parameters
    ----------
    function, items, workers
        As for `map_unordered`.
    advance : callable
        Called as ``advance(done, result)`` after each item, in the order in which they finish.

    Returns
    -------
    list

    Raises
    ------
    ValueError
        If `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")
    results: dict[int, Result] = {}
    for position, result in map_unordered(function, items, workers):
        results[position] = result
        advance(len(results), result)
    return [results[position] for position in sorted(results)]


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
