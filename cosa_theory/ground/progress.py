"""The one progress bar, on standard error, of commands, layers and experiments."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Advance", "progress_bar"]


class Advance(Protocol):
    """Moves a bar: `done` of `total` (None where the end is not known), and what is said of it."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        """Move it."""


@contextmanager
def progress_bar(title: str, shown: bool = True, *, notes: bool = False) -> Iterator[Advance]:
    """Yield the function that moves a bar while the block runs; the bar is gone when it ends.

    The title says what is counted. Notes are shown, if wanted, beside the time since the start, in
    place of the time left. Nothing is shown where standard error is not a terminal.
    """
    if not (shown and sys.stderr.isatty()):  # what shows nothing does not load what draws
        yield lambda done, total, note="", /: None
        return
    from rich import progress as rich
    from rich.console import Console

    left = (rich.TimeRemainingColumn(), rich.TextColumn("left"))
    since = (rich.TimeElapsedColumn(), rich.TextColumn("{task.fields[note]}"))
    counts = (rich.TextColumn(title), rich.BarColumn(), rich.MofNCompleteColumn())
    columns = counts + (since if notes else left)
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, note="")

        def advance(done: int, total: int | None, note: str = "", /) -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance
