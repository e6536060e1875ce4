"""Nuclear-norm recovery: the update of least nuclear norm that explains its measurements."""

from __future__ import annotations

from typing import Any

import numpy as np

from cosa_theory.recovery.constraint import Constraint
from cosa_theory.recovery.items import Answer, judged, least, relative_gap
from cosa_theory.recovery.methods import Monitor, default_tolerance, solver
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.system import Floats, System

__all__ = ["nuclear"]

_TOLERANCE = 1e-7  # in double precision
_CHECK_EVERY = 10
_FIRST_STEP = 0.1  # of the least-norm answer's largest singular value
_STEP_SHARE = 0.2  # of ‖X‖/‖Φᵀν‖, as in basis pursuit


@solver(7, seeks="low rank", on_update=True, exact=True)
def nuclear(
    system: System,
    Y: Any,
    *,
    noise_level: float = 0.0,
    tolerance: float | None = None,
    max_iterations: int = 5000,
    start: Any = None,
    monitor: Monitor | None = None,
) -> Solution:
    """Minimise ‖ΔW‖_* subject to ‖Φ vec(ΔW) − y‖ ≤ σ.

    An iteration takes a singular value decomposition of an m × n matrix.

    Parameters
    ----------
    tolerance : float, optional
        Of the relative gap: 1e-7 by default, 1e-5 in single precision.

    Returns
    -------
    Solution
        `certificate.dual` is ν with ‖Φᵀν‖ ≤ 1 in the spectral norm, and the gap is
        ‖ΔW‖_* − ⟨y, ν⟩ + σ‖ν‖. Status "optimal", "stalled", "iteration limit" or "infeasible".
        Computed in float64.

    Notes
    -----
    Douglas-Rachford splitting as in `bpdn`, with soft thresholding of the singular values [1]_.

    Unstructured Gaussian measurements recover low rank this way [1]_. Kronecker measurements do
    not, and the iteration ends where it starts: with P_A, P_B the projections on the row spaces of
    the factors, every X with Φ X = y has P_A X P_B = X₀, the least-norm answer. Compression does
    not raise the nuclear norm, so ‖X₀‖_* ≤ ‖X‖_*, with equality only for X = X₀ (a block beside
    or across from X₀ adds to it): X₀ is the only minimiser. Its dual point is exact, the polar
    factor of X₀, which lies in the row space. So the nuclear norm returns nothing that least norm
    does not, and a rank-one u vᵀ with u outside the range of P_A or v outside that of P_B is lost.

    References
    ----------
    .. [1] B. Recht, M. Fazel, P. A. Parrilo, "Guaranteed minimum-rank solutions of linear matrix
       equations via nuclear norm minimization", SIAM Review 52 (2010), 471-501; the thresholding:
       J.-F. Cai, E. J. Candès, Z. Shen, SIAM Journal on Optimization 20 (2010), 1956-1982,
       theorem 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> from cosa_theory import CosaBasis
    >>> from cosa_theory.recovery import RecoveryProblem, recover
    >>> basis = CosaBasis.sample(12, 10, 6, 5, seed=1, scale="analysis")
    >>> update = np.outer(np.arange(12.0), np.ones(10))
    >>> problem = RecoveryProblem(basis.sensing(), basis.encode(update))
    >>> low_rank, least = recover(problem, "nuclear"), recover(problem, "least_norm")
    >>> low_rank.status, bool(np.allclose(low_rank.estimate, least.estimate))
    ('optimal', True)
    """
    limit = max(_TOLERANCE, default_tolerance(Y)) if tolerance is None else tolerance

    def solve(item: int, constraint: Constraint) -> Answer:
        first = None if start is None else start[item]
        return _Splitting(system, constraint, limit).run(first, max_iterations, monitor)

    return least(system, Y, noise_level, "‖X‖_* subject to {}", limit, solve, _norm)


def _norm(X: Floats) -> float:
    return float(np.linalg.svd(X, compute_uv=False).sum())


class _Splitting:
    """The splitting for one right-hand side."""

    def __init__(self, system: System, constraint: Constraint, tolerance: float) -> None:
        self.constraint, self.space = constraint, constraint.space
        self.shape, self.coefficient_shape = system.matrix_shape, system.coefficient_shape
        self.tolerance = tolerance
        self.history: list[tuple[int, float, float]] = []

    def _coordinates(self, X: Floats) -> Floats:
        found: Floats = self.space.coordinates(X.reshape(1, *self.coefficient_shape))
        return found

    def _matrix(self, C: Floats) -> Floats:
        found: Floats = self.space.coefficients(C).reshape(self.shape)
        return found

    def run(self, start: Floats | None, max_iterations: int, monitor: Monitor | None) -> Answer:
        """Iterate until the gap closes; the least-norm answer may be the end already."""
        centre = self.constraint.centre
        least_norm = self._matrix(centre)
        U, s, Vt = np.linalg.svd(least_norm, full_matrices=False)
        polar = self._coordinates(U @ Vt)
        answer = self._judged(0, least_norm, polar, monitor)
        if answer.status == "optimal":
            return answer
        gamma = _FIRST_STEP * float(s[0])
        x = least_norm if start is None else np.asarray(start, np.float64).reshape(self.shape)
        c, d, multiplier = self._coordinates(x), gamma * polar, None
        rescale_at = _CHECK_EVERY
        for iteration in range(1, max_iterations + 1):
            U, s, Vt = np.linalg.svd(x + self._matrix(d), full_matrices=False)
            last, x = x, (U * np.maximum(s - gamma, 0.0)) @ Vt
            before, c = c, self._coordinates(x)
            h, proof = 2 * c - before - d, d
            projected, multiplier = self.constraint.project(h, multiplier)
            d = projected - h
            if iteration % _CHECK_EVERY and iteration != max_iterations:
                continue
            nearest, _ = self.constraint.project(c, multiplier)
            feasible = x + self._matrix(nearest - c)
            answer = self._judged(iteration, feasible, proof, monitor)
            if answer.status == "optimal":
                return answer
            if float(np.abs(x - last).max()) <= 4e-16 * float(np.abs(x).max()):
                return self._judged(iteration, feasible, proof, None, "stalled")
            if iteration == rescale_at:
                rescale_at *= 2
                size, dual_size = float(np.linalg.norm(x)), float(np.linalg.norm(d))
                ratio = _STEP_SHARE * size / dual_size if size * dual_size > 0 else 1.0
                gamma, d = gamma * ratio, d * ratio
        return answer

    def _judged(
        self,
        iteration: int,
        X: Floats,
        D: Floats,
        monitor: Monitor | None,
        otherwise: str = "iteration limit",
    ) -> Answer:
        """Return a feasible X with the gap that a dual direction D proves."""
        objective = _norm(X)
        largest = float(np.linalg.norm(self._matrix(D), 2))
        answer = judged(
            self.constraint, X, objective, D, largest, self.tolerance, iteration, self.history,
            otherwise=otherwise,
        )  # fmt: skip
        relative = relative_gap(answer.value, objective)
        if otherwise == "iteration limit":
            self.history.append((iteration, objective, relative))
        if monitor is not None:
            monitor(iteration, relative, X)
        return answer
