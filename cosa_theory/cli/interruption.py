"""What an interruption says where nothing of a run is kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from cosa_theory.cli.app import note

__all__ = ["interruptible"]


@contextmanager
def interruptible() -> Iterator[None]:
    """End the command with one plain line and exit code 130 on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        note("interrupted: nothing is kept, the same command starts from the beginning")
        raise typer.Exit(130) from None
