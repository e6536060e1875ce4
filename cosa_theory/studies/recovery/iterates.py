"""A long run's iterate: shown while it lasts, on disk from time to time, and taken up again."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosa_theory.ground.cells import cell_name, read_array_cell, write_cell
from cosa_theory.ground.progress import progress_bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Iterates", "cell_path"]

_EVERY = 15.0  # seconds between writes to disk


def cell_path(folder: Path, described: Mapping[str, Any]) -> Path:
    """Return where the iterate of a run is kept, in the folder of unfinished pieces.

    `described` has inputs (as fingerprints) and settings, as `cosa_theory.ground.cells.cell_name`
    takes them.
    """
    return folder / f"{cell_name(described)}.iterate"


class Iterates:
    """Keeps the latest iterate of one run, at the path of `cell_path` or, with None, nowhere.

    `to_unknown` turns what a solver's monitor is given into one update (m × n), a numpy array;
    `begun` counts the iterations of the interrupted runs before this one.
    """

    def __init__(self, path: Path | None, to_unknown: Callable[[Any], "NDArray[Any]"]) -> None:
        self._path, self._to_unknown = path, to_unknown
        self._show: Callable[[int, float], None] = lambda iteration, certificate: None
        self._latest: tuple[int, Any] | None = None
        self._written = time.monotonic()
        self.begun = 0

    @contextmanager
    def shown(self, title: str) -> Iterator[None]:
        """Show a bar while the block runs, with iteration, certificate and time."""
        with progress_bar(title, notes=True) as advance:
            self._show = lambda done, certificate: advance(
                done, None, f"certificate {certificate:.1e}"
            )
            yield

    def start(self) -> "NDArray[Any] | None":
        """Return the iterate of an interrupted run with the same inputs and settings, if any."""
        if self._path is None:
            return None
        record, iterate = read_array_cell(self._path)
        iteration = (record or {}).get("iteration")
        if iterate is None or not isinstance(iteration, int):
            return None
        self.begun = iteration
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

        if self._path is None:
            return False
        if self._latest is not None:
            iteration, coefficients = self._latest
            iterate = self._to_unknown(coefficients)
            if np.isfinite(iterate).all():
                write_cell(self._path, {"iteration": self.begun + iteration}, iterate)
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
