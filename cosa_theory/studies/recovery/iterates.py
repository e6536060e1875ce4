"""A long run's iterate: shown while it lasts, on disk from time to time, and taken up again."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosa_theory.ground.files import atomic_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Iterates", "cell_path"]

_EVERY = 15.0  # seconds between writes to disk


def cell_path(folder: Path, described: Mapping[str, Any]) -> Path:
    """Return where the iterate of a run is kept: a name by a hash of all it depends on.

    Parameters
    ----------
    folder : path
        The folder of unfinished pieces.
    described : mapping
        Inputs (as fingerprints) and settings, as plain JSON values.
    """
    text = json.dumps(described, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"


class Iterates:
    """Keeps the latest iterate of one run.

    Parameters
    ----------
    path : path or None
        Where it is kept, from `cell_path`; None to keep nothing.
    to_unknown : callable
        Turns what a solver's monitor is given into one update (m × n), a numpy array.

    Attributes
    ----------
    begun : int
        Iterations of the interrupted runs before this one, 0 without any.
    """

    def __init__(
        self,
        path: Path | None,
        to_unknown: Callable[[Any], "NDArray[Any]"],
    ) -> None:
        self._path, self._to_unknown = path, to_unknown
        self._show: Callable[[int, float], None] = lambda iteration, certificate: None
        self._latest: tuple[int, Any] | None = None
        self._written = time.monotonic()
        self.begun = 0

    @contextmanager
    def shown(self, title: str) -> Iterator[None]:
        """Show a bar while the block runs, with iteration, certificate and time."""
        with _iteration_bar(title) as self._show:
            yield

    def start(self) -> "NDArray[Any] | None":
        """Return the iterate of an interrupted run with the same inputs and settings, if any."""
        from safetensors import SafetensorError, safe_open

        if self._path is None or not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="numpy") as file:
                self.begun = int((file.metadata() or {})["iteration"])
                iterate: NDArray[Any] = file.get_tensor("delta")
        except (SafetensorError, KeyError, ValueError):  # from another program: begin anew
            self.begun = 0
            return None
        return iterate

    def monitor(self, iteration: int, certificate: float, coefficients: Any) -> None:
        """Take a solver's report: show it, and write the iterate if the last write is old."""
        self._latest = (int(iteration), coefficients)
        self._show(self.begun + int(iteration), float(certificate))
        if self._path is not None and time.monotonic() - self._written > _EVERY:
            self.keep()

    def keep(self) -> bool:
        """Write the latest iterate; return whether one is on disk."""
        import numpy as np

        from cosa_theory.studies.recovery.tensors import write_tensors

        if self._path is None:
            return False
        if self._latest is not None:
            iteration, coefficients = self._latest
            iterate = self._to_unknown(coefficients)
            if np.isfinite(iterate).all():
                about = {"iteration": str(self.begun + iteration)}
                with atomic_path(self._path) as path:
                    write_tensors(path, {"delta": iterate}, about)
        self._written = time.monotonic()
        return self._path.exists()

    def where(self) -> str:
        """Say what is kept, and in which folder."""
        return "" if self._path is None else f"the iterate is kept in {self._path.parent}"

    def discard(self) -> None:
        """Delete what a finished run does not need any more."""
        if self._path is not None and self._path.parent.is_dir():
            self._path.unlink(missing_ok=True)
            if not any(self._path.parent.iterdir()):
                self._path.parent.rmdir()


@contextmanager
def _iteration_bar(title: str) -> Iterator[Callable[[int, float], None]]:
    """Show the iteration, its certificate and the time since the start while the block runs.

    Parameters
    ----------
    title : str
        What runs.

    Yields
    ------
    callable
        To be called as ``show(iteration, certificate)``. Nothing is shown where standard error is
        not a terminal.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)

        def show(iteration: int, certificate: float) -> None:
            text = f"{title}: iteration {iteration:,}, certificate {certificate:.1e}"
            bar.update(task, description=text)

        yield show
