"""One recovery and the document of its result, which an interruption does not lose."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosa_theory import __version__
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_writer import write_arrays
from cosa_theory.studies.recovery.factors import FINGERPRINTS, Factors
from cosa_theory.studies.recovery.iterates import Iterates, cell_path

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from cosa_theory.page.document import Document
    from cosa_theory.recovery import RecoveryProblem, RecoveryResult

__all__ = ["Recovery"]

_SHOWN_ELSEWHERE = (
    *("core", "weight", "start", "moments", "truth", "projections", "device", "out", "as_json"),
)
"""Arguments that do not belong to the identity of a run: paths, whose contents do, and outputs."""

_ROUNDING = 1e-4  # a relative residual that single precision may leave


@dataclass(frozen=True, eq=False)
class Recovery:
    """A problem with all that was asked about it."""

    problem: "RecoveryProblem"
    options: Mapping[str, Any]  # those of the solver
    factors: Factors  # L and R
    settings: Mapping[str, Any]  # the arguments of the command
    core: "NDArray[Any]"  # as it was read
    notices: tuple[str, ...] = ()  # what a user should know of it

    @property
    def method(self) -> str:
        """The name of the solver."""
        return str(self.settings["method"])

    def iterates(self, cells: Path | None) -> Iterates:
        """Return what keeps the iterate of a long run, in a folder of cells if there is one."""
        path = None if cells is None else cell_path(cells, self._identity())
        return Iterates(path, self._update)

    def document(
        self, iterates: Iterates, provenance: Mapping[str, Any], note: Callable[[str], None]
    ) -> "tuple[Document, RecoveryResult]":
        """Solve, and return what was found out beside the result itself.

        `note` takes what a user should know before the answer is there.
        """
        from cosa_theory.page.document import Document
        from cosa_theory.studies.recovery.verdict import recover_verdict

        with _noticed() as noticed:
            with iterates.shown(self.method):
                result = self._solve(iterates, note)
            with iterates.shown("singular values"):
                tables = self._tables(result, iterates.begun)
        if result.message:
            noticed.append(f"{self.method}: {result.message}")
        notices = (*self.notices, *self._out_of_range(), *dict.fromkeys(noticed))
        verdict = recover_verdict(tables)
        return Document("recover", verdict, notices, tables, provenance), result

    def write(self, result: "RecoveryResult", new: Path) -> None:
        """Write the estimate into a new folder."""
        from cosa_theory.studies.recovery.views import ESTIMATE

        write_arrays(new / ESTIMATE, _tensors(result), self._metadata(result))

    def _identity(self) -> dict[str, Any]:
        """Return all that the answer depends on; arrays by their content."""
        from cosa_theory.projections import fingerprint

        weight, start = self.problem.weight, self.options.get("start")
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
            "weight": None if weight is None else fingerprint(weight),
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

    def _solve(self, iterates: Iterates, note: Callable[[str], None]) -> "RecoveryResult":
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
        from cosa_theory.recovery import METHODS, recover
        from cosa_theory.studies.recovery.tables import recovery_tables

        least = None
        if self.problem.truth is not None and METHODS[self.method].seeks != "least norm":
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

    def _metadata(self, result: "RecoveryResult") -> dict[str, str]:
        """Return what the estimate's file says of itself."""
        certificate = result.certificate
        values = {
            "method": result.method,
            "objective": f"{result.formula}: {result.objective!r}",
            "certificate": f"{certificate.kind} {certificate.value!r} "
            f"({certificate.relative!r} relative, tolerance {certificate.tolerance!r})",
            "status": result.status,
            "residual": repr(result.residual),
            "basis": self.problem.transform.name,
            **self.factors.draw,
            **dict(zip(FINGERPRINTS, self.factors.fingerprints, strict=True)),
            "cosa_theory": __version__,
        }
        return {name: str(value) for name, value in values.items()}


def _tensors(result: "RecoveryResult") -> dict[str, "NDArray[Any]"]:
    from cosa_theory.linear.operators import to_host

    named = {"delta": result.estimate, "core": result.core, "debiased": result.debiased}
    return {name: to_host(array) for name, array in named.items() if array is not None}


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
