"""One recovery from start to stored result, which an interruption does not lose."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cosa_theory import __version__
from cosa_theory.cli.app import CELLS, check_out, note, store_and_print
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.tensor_writer import write_arrays
from cosa_theory.studies.recovery.iterates import Iterates, cell_path
from cosa_theory.studies.recovery.tensors import FINGERPRINTS, Projections

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from cosa_theory.page.document import Document
    from cosa_theory.recovery import RecoveryProblem, RecoveryResult

__all__ = ["Run"]

_SHOWN_ELSEWHERE = ("core", "weight", "start", "truth", "projections", "device", "out", "as_json")
"""Arguments that do not belong to the identity of a run: paths, whose contents do, and outputs."""

_ROUNDING = 1e-4  # a relative residual that single precision may leave


@dataclass(frozen=True, eq=False)
class Run:
    """A problem with all that was asked about it.

    Parameters
    ----------
    problem : RecoveryProblem
        What is to be solved.
    method : str
        By which solver.
    options : mapping
        Its options.
    factors : Projections
        L and R.
    settings : mapping
        The arguments of the command.
    core : ndarray
        As it was read.
    """

    problem: "RecoveryProblem"
    method: str
    options: Mapping[str, Any]
    factors: Projections
    settings: Mapping[str, Any]
    core: "NDArray[Any]"

    def deliver(
        self,
        out: Path | None,
        as_json: bool,
        notices: tuple[str, ...],
        provenance: Mapping[str, Any],
    ) -> None:
        """Solve, store if a folder is named, and print.

        Parameters
        ----------
        out : path or None
            The folder; nothing is written into it before the answer is complete, but the iterate
            of a long run.
        as_json : bool
            Whether one JSON document is printed instead of text.
        notices : tuple of str
            What is known already.
        provenance : mapping
            Where the result comes from.
        """
        from cosa_theory.page.document import Document
        from cosa_theory.studies.recovery.views import ESTIMATE, recover_verdict

        path = None if out is None else cell_path(out / CELLS, self._identity())
        iterates = Iterates(path, self._update)
        with _folder(out), _interruptible(iterates), _noticed() as noticed:
            with iterates.shown(self.method):
                result = self._solve(iterates)
            with iterates.shown("singular values"):
                tables = self._tables(result, iterates.begun)
        if result.message:
            noticed.append(f"{self.method}: {result.message}")
        every = (*notices, *self._out_of_range(), *dict.fromkeys(noticed))
        document = Document(
            "recover", recover_verdict(tables), every, tables, provenance, beside=(ESTIMATE,)
        )
        self._store_and_print(document, result, out, as_json)
        iterates.discard()

    def _identity(self) -> dict[str, Any]:
        """Return all that the answer depends on; arrays by their content."""
        from cosa_theory.projections import fingerprint

        problem, start = self.problem, self.options.get("start")
        chosen = {
            name: value
            for name, value in self.settings.items()
            if name not in _SHOWN_ELSEWHERE and not isinstance(value, Path)
        }
        return {
            "version": __version__,
            "settings": chosen,
            "core": fingerprint(self.core),
            "projections": self.factors.fingerprints,
            "weight": None if problem.weight is None else fingerprint(problem.weight),
            "start": None if start is None else fingerprint(start),
        }

    def _update(self, coefficients: Any) -> "NDArray[Any]":
        """Return one update from what a solver's monitor is given."""
        from cosa_theory.linear.operators import to_host
        from cosa_theory.recovery import METHODS

        problem = self.problem
        on_update = METHODS[self.method].on_update
        update = coefficients if on_update else problem.to_unknown(coefficients)
        host: NDArray[Any] = to_host(update.reshape(problem.update_shape))
        return host

    def _solve(self, iterates: Iterates) -> "RecoveryResult":
        """Call the solver; where it can be watched and started, from what is left of a run."""
        from cosa_theory.recovery import options_of, recover

        options = dict(self.options)
        taken = options_of(self.method)
        if "monitor" in taken:
            options["monitor"] = iterates.monitor
        kept = iterates.start() if "start" in taken else None
        if kept is not None:
            options["start"] = kept
            note(f"resumed at iteration {iterates.begun:,} of an interrupted run")
            if "max_iterations" in options:
                options["max_iterations"] = max(1, options["max_iterations"] - iterates.begun)
        result = recover(self.problem, self.method, **options)
        if result.status == "infeasible":
            raise InputError(f"{self.method} has no answer to give, {result.message}")
        return result

    def _tables(self, result: "RecoveryResult", begun: int) -> "dict[str, pd.DataFrame]":
        from cosa_theory.recovery import recover
        from cosa_theory.studies.recovery.tables import recovery_tables

        least = None
        if self.problem.truth is not None and result.method not in ("least_norm", "best_core"):
            least = recover(self.problem, "least_norm").estimate
        described = {
            "projections": self.factors.source,
            "dtype": self.settings["dtype"],
            "resumed_from": begun,
            **dict(zip(FINGERPRINTS, self.factors.fingerprints, strict=True)),
        }
        return recovery_tables(self.problem, result, described, least)

    def _out_of_range(self) -> tuple[str, ...]:
        """Say whether the core is one that no update has, as one larger than ΔW can be."""
        from cosa_theory.recovery import recover

        basis, (a, b) = self.factors.basis, self.core.shape
        if a <= basis.m and b <= basis.n:
            return ()
        left = recover(self.problem, "least_norm").residual
        if left <= _ROUNDING:
            return ()
        return (
            f"no update of {basis.m} × {basis.n} has this core of {a} × {b}: the nearest leaves "
            f"a relative residual of {left:.2g}; unless that is noise, make sure that --shape and "
            "the projections are the right ones",
        )

    def _store_and_print(
        self, document: "Document", result: "RecoveryResult", out: Path | None, as_json: bool
    ) -> None:
        from cosa_theory.page.document import write_document
        from cosa_theory.studies.recovery.views import ESTIMATE
        from cosa_theory.studies.shown import document_text, write_document_page

        def store(folder: Path) -> Path:
            # The estimate takes its place last and at once: until then the earlier one is whole.
            with atomic_path(folder / ESTIMATE) as path:
                write_arrays(path, _tensors(result), self._metadata(result))
                write_document(document, folder)
            return write_document_page(document, folder)

        for notice in document.notices:
            note(f"note: {notice}")
        show = document.as_json if as_json else partial(document_text, document)
        store_and_print(store, show, out)

    def _metadata(self, result: "RecoveryResult") -> dict[str, str]:
        """Return what the estimate's file says of itself."""
        certificate = result.certificate
        drawn = {} if self.settings["projections"] else {
            "kind": self.settings["kind"] or "gaussian",
            "scale": self.settings["scale"] or "synthesis",
            "seed": self.settings["seed"],
            "key": self.settings["key"] or "",
        }  # fmt: skip
        values = {
            "method": result.method,
            "objective": f"{result.formula}: {result.objective!r}",
            "certificate": f"{certificate.kind} {certificate.value!r} "
            f"({certificate.relative!r} relative, tolerance {certificate.tolerance!r})",
            "status": result.status,
            "residual": repr(result.residual),
            "basis": self.problem.transform.name,
            **drawn,
            **dict(zip(FINGERPRINTS, self.factors.fingerprints, strict=True)),
            "cosa_theory": __version__,
        }
        return {name: str(value) for name, value in values.items()}


def _tensors(result: "RecoveryResult") -> dict[str, "NDArray[Any]"]:
    from cosa_theory.linear.operators import to_host

    named = {"delta": result.estimate, "core": result.core, "debiased": result.debiased}
    return {name: to_host(array) for name, array in named.items() if array is not None}


@contextmanager
def _folder(out: Path | None) -> Iterator[None]:
    """Make the folder of the results; if there are none, leave no empty one behind."""
    there = out is not None and out.exists()
    check_out(out)
    try:
        yield
    except BaseException:
        if out is not None and not there and not any(out.iterdir()):
            out.rmdir()
        raise


@contextmanager
def _interruptible(iterates: Iterates) -> Iterator[None]:
    """On Ctrl-C keep the iterate, say what is kept, and end with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        kept = iterates.keep()
        note(f"interrupted: {iterates.where() if kept else 'nothing is kept'}, the same command "
             f"{'resumes' if kept else 'starts from the beginning'}")  # fmt: skip
        raise typer.Exit(130) from None


@contextmanager
def _noticed() -> Iterator[list[str]]:
    """Collect what the library warns of; leave warnings of other libraries as they are."""
    notices: list[str] = []
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", UserWarning)
        yield notices
    for one in raised:
        if issubclass(one.category, UserWarning):
            notices.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
