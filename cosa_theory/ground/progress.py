"""How far long work is, on standard error: a bar on a terminal, elsewhere a line now and then."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import note as say

__all__ = ["Advance", "progress_bar"]

_FIRST, _LONGEST = 5.0, 60.0  # seconds until the first line, and between lines at most


class Advance(Protocol):
    """Moves a bar: `done` of `total` (None where the end is not known), and what is said of it."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        """Move it."""


@contextmanager
def progress_bar(title: str, shown: bool = True, *, notes: bool = False) -> Iterator[Advance]:
    """Yield the function that moves a bar while the block runs; the bar is gone when it ends.

    The title says what is counted. Notes are shown, if wanted, beside the time since the start, in
    place of the time left. Where standard error is not a terminal, a line says the same: the first
    after five seconds, then in intervals that double up to a minute, however long one step takes.
    Work that ends sooner says nothing.
    """
    if not shown or sys.stderr is None or sys.stderr.closed:
        yield lambda done, total, note="", /: None
    elif sys.stderr.isatty():
        with _bar(title, notes) as advance:
            yield advance
    else:
        with _lines(title, notes) as advance:
            yield advance


@contextmanager
def _bar(title: str, notes: bool) -> Iterator[Advance]:
    from rich import progress as rich  # here: what shows no bar does not load what draws it
    from rich.console import Console

    left = (rich.TimeRemainingColumn(), rich.TextColumn("left"))
    since = (rich.TimeElapsedColumn(), rich.TextColumn("{task.fields[note]}", markup=False))
    counts = (rich.TextColumn(title), rich.BarColumn(), rich.MofNCompleteColumn())
    columns = counts + (since if notes else left)
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, note="")

        def advance(done: int, total: int | None, note: str = "", /) -> None:
            bar.update(task, completed=done, total=total, note=printable(note))

        yield advance


@contextmanager
def _lines(title: str, notes: bool) -> Iterator[Advance]:
    state, over = _State(title, notes), threading.Event()

    def speak() -> None:
        wait = _FIRST
        while not over.wait(wait):
            say(state.line())
            wait = min(2 * wait, _LONGEST)

    speaker = threading.Thread(target=speak, name="progress", daemon=True)
    speaker.start()
    try:
        yield state.advance
    finally:
        over.set()
        speaker.join()


class _State:
    """How far the work is, and what a line says of it."""

    def __init__(self, title: str, notes: bool) -> None:
        self._title, self._notes = title, notes
        self._begun = time.monotonic()
        self._done, self._note = 0, ""
        self._total: int | None = None
        self._first: tuple[int, float] | None = None

    def advance(self, done: int, total: int | None, note: str = "", /) -> None:
        self._done, self._total, self._note = done, total, note
        if self._first is None:  # what an earlier run finished took no time of this one
            self._first = (0, self._begun) if done <= 1 else (done, time.monotonic())

    def line(self) -> str:
        """Return such as "matrices 120 of 400, 3 min left"."""
        now = time.monotonic()
        if self._first is None:
            return f"{self._title}, {_duration(now - self._begun)} so far"
        total = "" if self._total is None else f" of {self._total:,}"
        count = f"{self._title} {self._done:,}{total}"
        (first, since), left = self._first, (self._total or 0) - self._done
        if self._notes:
            said = f", {self._note}" if self._note else ""
            return f"{count}, {_duration(now - self._begun)} so far{said}"
        if left > 0 and self._done > first:
            return f"{count}, {_duration(left * (now - since) / (self._done - first))} left"
        return f"{count}, {_duration(now - self._begun)} so far"


def _duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours: 42 s, 3 min, 2 h 5 min."""
    if seconds < 99.5:
        return f"{max(seconds, 1):.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
