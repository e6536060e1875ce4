"""A progress bar on standard error, for the commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar with the remaining time while the block runs; gone when it ends.

    Parameters
    ----------
    title : str
        What is counted.

    Yields
    ------
    callable
        To be called as ``advance(done, total, name)``. Nothing is shown where standard error is
        not a terminal.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)

        def advance(done: int, total: int, _name: str) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
