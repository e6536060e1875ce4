"""What a solver returns: an estimate with the certificate that judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import finite
from cosa_theory.ground.errors import InputError
from cosa_theory.linear.operators import to_host

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STATUSES", "Certificate", "RecoveryResult", "Solution", "relative_error"]

STATUSES = {
    "optimal": "the duality gap, or the normal equations, hold within the tolerance",
    "fitted": "the measurements are explained within the tolerance or the noise level; no "
    "optimality is claimed",
    "stalled": "no further progress is possible in this precision, or on this support",
    "iteration limit": "the iterations ended before the certificate held",
    "diverged": "the iterations moved away; the best iterate is returned",
    "infeasible": "no unknown satisfies the constraints",
}
"""What became of a problem, from best to worst."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """A number that proves how good an answer is, and which anyone can recompute.

    See docs/theory.md, 4.3.

    Parameters
    ----------
    kind : {"duality gap", "residual", "normal equations"}
        ``duality gap``: objective minus the dual objective at `dual`, an upper bound on how far
        the objective is from its minimum. ``residual``: ‖Φx − y‖. ``normal equations``:
        ‖Φᵀ(Φx − y)‖.
    value : float, or array of shape (B,) for a batch
        The number itself.
    relative : float or array of shape (B,)
        What is compared with the tolerance: the gap over the objective, the residual over ‖y‖, the
        normal equations over ‖Φ‖‖y‖, unless the solver says otherwise.
    tolerance : float
        Its limit.
    dual : array or tensor, shape (p, q) or (B, p, q), optional
        The feasible dual point, for a gap, in the precision it was judged in.
    """

    kind: Literal["duality gap", "residual", "normal equations"]
    value: Any
    relative: Any
    tolerance: float
    dual: Any = field(default=None, repr=False)

    @property
    def holds(self) -> Any:
        """Whether `relative` is within the tolerance (elementwise for a batch)."""
        return self.relative <= self.tolerance


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver makes of a `System` and a stack of right-hand sides; B of each.

    Parameters
    ----------
    coefficients : array or tensor, shape (B, m, n)
        The answers in the sparsifying basis.
    objective : ndarray, shape (B,)
        What `formula` says, at the answers.
    formula : str
        The problem solved, with its constants.
    certificate : Certificate
        With arrays of shape (B,).
    status : tuple of str
        Of each, among `STATUSES`.
    iterations : ndarray of int, shape (B,)
        Of each.
    history : mapping of str to ndarray
        One entry per check of the certificate: "iteration", and what was checked.
    message : str
        What the user should know besides.
    """

    coefficients: Any
    objective: NDArray[np.float64]
    formula: str
    certificate: Certificate
    status: tuple[str, ...]
    iterations: NDArray[np.int64]
    history: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, eq=False)
class RecoveryResult:
    """An estimate of ΔW, or of a core for it.

    Parameters
    ----------
    method : str
        The solver.
    estimate : array or tensor, shape (m, n) or (B, m, n)
        The update: the unknown itself, or L Y R where the unknown is the core Y.
    core : array or tensor, shape (a, b) or (B, a, b), or None
        The core: the unknown itself, or that of the update L Y R closest to the estimate. None
        for an unstructured operator.
    coefficients : array or tensor
        Of the unknown in the sparsifying basis, shaped as the unknown.
    debiased : array or tensor, or None
        The update from least squares on the support of the coefficients, which undoes the
        shrinkage of ℓ1. None where it was not asked for, the method does not seek sparse
        coefficients, or that of some item is not determined: see
        `cosa_theory.recovery.support.debias`.
    objective : float or array of shape (B,)
        The value of `formula` at the coefficients.
    formula : str
        What was minimised, with its constants.
    certificate : Certificate
        How far the answer can be from what it claims.
    residual : float or array of shape (B,)
        ‖Φx̂ − y‖/‖y‖, recomputed at exit.
    status : str
        Among `STATUSES`; of a batch, the worst.
    statuses : tuple of str
        Of each right-hand side.
    iterations : int or array of shape (B,)
    seconds : float
        Of the whole call.
    history : mapping of str to array
        What was checked at which iteration.
    message : str
        What the user should know besides.
    """

    method: str
    estimate: Any
    core: Any
    coefficients: Any
    debiased: Any
    objective: Any
    formula: str
    certificate: Certificate
    residual: Any
    status: str
    statuses: tuple[str, ...]
    iterations: Any
    seconds: float
    history: Mapping[str, NDArray[Any]]
    message: str

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.estimate.shape))
        worst = float(np.max(self.residual))
        return (
            f"RecoveryResult({self.method}: {self.status}, estimate {shape}, relative residual "
            f"{worst:.3g}, {self.certificate.kind} {np.max(self.certificate.relative):.3g} "
            f"relative (tolerance {self.certificate.tolerance:.3g}), {self.seconds:.3g} s)"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each right-hand side, with every number of the result.

        Columns: method, status, formula, objective, certificate (its kind), value, relative,
        tolerance, holds, residual, nonzeros (of the coefficients), iterations, seconds (of all
        right-hand sides together), message.
        """
        import pandas as pd

        proof, count = self.certificate, len(self.statuses)
        support = self.support.reshape(count, -1)
        columns = {
            "method": self.method,
            "status": list(self.statuses),
            "formula": self.formula,
            "objective": np.atleast_1d(self.objective),
            "certificate": proof.kind,
            "value": np.atleast_1d(proof.value),
            "relative": np.atleast_1d(proof.relative),
            "tolerance": proof.tolerance,
            "holds": np.atleast_1d(proof.holds),
            "residual": np.atleast_1d(self.residual),
            "nonzeros": support.sum(axis=1),
            "iterations": np.atleast_1d(self.iterations),
            "seconds": self.seconds,
            "message": self.message,
        }
        return pd.DataFrame(columns)

    def _repr_html_(self) -> str:
        """Return `to_frame` as a notebook shows it, the numbers of one answer below each other."""
        frame = self.to_frame()
        shown = frame.T if len(frame) == 1 else frame
        table: str = shown.to_html(header=len(frame) > 1, max_rows=20)
        return table

    @property
    def converged(self) -> bool:
        """Whether the status of every right-hand side is "optimal" or "fitted"."""
        return set(self.statuses) <= {"optimal", "fitted"}

    @property
    def support(self) -> NDArray[np.bool_]:
        """Where the coefficients are not zero, shaped as they are."""
        return to_host(self.coefficients) != 0

    def relative_error(self, truth: Any, *, debiased: bool = False) -> Any:
        """Return ‖estimate − truth‖/‖truth‖, one number for each right-hand side.

        Parameters
        ----------
        truth : array or tensor, of the shape of the estimate
        debiased : bool
            Whether the debiased estimate is judged instead.

        Raises
        ------
        InputError
            If there is no debiased estimate, or the truth has another shape, a NaN or infinite
            entry, or is zero.
        """
        estimate = self.debiased if debiased else self.estimate
        if estimate is None:
            raise InputError(
                f"there is no debiased estimate of {self.method}: that takes a sparse method, "
                "debiasing=True and a support on which least squares has one answer",
                argument="debiased",
            )
        return relative_error(estimate, truth)


def relative_error(estimate: Any, truth: Any) -> Any:
    """Return ‖estimate − truth‖/‖truth‖ in the Frobenius norm, one number for each matrix.

    Parameters
    ----------
    estimate, truth : array or tensor, shape (m, n) or (B, m, n)

    Raises
    ------
    InputError
        If the shapes differ, or a truth is zero or has a NaN or infinite entry.
    """
    estimate, truth = (np.asarray(to_host(one), dtype=np.float64) for one in (estimate, truth))
    if estimate.shape != truth.shape:
        text = f"truth has shape {truth.shape}: it must be that of the estimate, {estimate.shape}"
        raise InputError(text, argument="truth")
    finite("truth", truth)
    size, unit = _scaled_norms(truth)
    if (size == 0).any():
        raise InputError("truth is zero: no error is relative to that", argument="truth")
    apart, power = _scaled_norms(estimate - truth)
    errors = np.ldexp(apart / size, power - unit)
    return errors if errors.ndim else float(errors)


def _scaled_norms(stack: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return f and e with ‖x‖ = f · 2^e for each matrix, so that no square leaves the range."""
    powers = np.frexp(np.abs(stack).max(axis=(-2, -1)))[1]
    scaled = np.ldexp(stack, -powers[..., None, None])
    return np.linalg.norm(scaled, axis=(-2, -1)), powers
