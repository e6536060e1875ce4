"""Orthogonal matching pursuit from the Gram matrices of the factors."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dtpsv

from cosa_theory.ground.threads import one_thread
from cosa_theory.recovery.greedy import Goals, RightSide, solve_each
from cosa_theory.recovery.items import Answer
from cosa_theory.recovery.methods import Monitor, solver
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.system import Floats, System

__all__ = ["omp"]

# ‖r‖² is carried along by subtraction, which leaves eight digits of it above this share of ‖y‖².
_TRUSTED = 1e-8
# Squared distance of a new column from the span of the chosen ones, over its squared norm, below
# which its coefficient has no correct digit.
_DEPENDENT = 1e-13
_FIRST = 64  # columns there is room for at first
_SMALL = 1 << 20  # unknowns up to which the products of a step are too small for two threads


@solver(9, look=("green", "-", "^"))
def omp(
    system: System,
    Y: NDArray[Any],
    *,
    noise_level: float = 0.0,
    sparsity: int | None = None,
    tolerance: float | None = None,
    max_iterations: int = 2000,
    monitor: Monitor | None = None,
) -> Solution:
    """Choose one column of Φ after the other, each time refitting all that are chosen.

    Starting from S = ∅, the column j with the largest |φⱼᵀr|/‖φⱼ‖ joins S, x becomes the
    least-squares fit on S and r = y − Φx [1]_. This ends at the first of: `sparsity` columns;
    ‖r‖ ≤ σ (or tolerance·‖y‖, if that is larger); a residual that no further column can reduce.
    Without a sparsity the number of columns is thus the least at which the measurements are
    explained, at most `max_iterations`.

    Parameters
    ----------
    sparsity : int, optional
        Columns to choose at most.
    max_iterations : int
        The same, where no sparsity is given.

    Returns
    -------
    Solution
        Certificate "residual". Status "fitted" if it holds; "stalled" after the given sparsity, or
        where no column helps; else "iteration limit".

    Notes
    -----
    Correlations come from the normal equations [2]_: Φᵀr = Φᵀy − G x, and for Φ = A ⊗ B the column
    (i, j) of G is the outer product of columns i of AᵀA and j of BᵀB. With s columns chosen,
    Φᵀr is one m × s by s × n product; no matrix of mn × s is held. The Cholesky factor of the
    Gram matrix of S grows by one column each time.

    References
    ----------
    .. [1] Y. C. Pati, R. Rezaiifar, P. S. Krishnaprasad, "Orthogonal matching pursuit: recursive
       function approximation with applications to wavelet decomposition", Asilomar Conf. (1993).
    .. [2] R. Rubinstein, M. Zibulevsky, M. Elad, "Efficient implementation of the K-SVD algorithm
       using batch orthogonal matching pursuit", Technion CS-2008-08 (2008).
    """
    limit = sparsity or min(max_iterations, system.measurements, system.size)
    ended = "stalled" if sparsity else "iteration limit"

    def solve(right: RightSide) -> Answer:
        return _pursue(right, limit, ended, monitor)

    with one_thread() if system.size <= _SMALL else nullcontext():
        return solve_each(system, Y, Goals.of(Y, noise_level, tolerance), solve)


class _Chosen:
    """The chosen columns: their rows of both Gram matrices, and the Cholesky factor of G_SS."""

    def __init__(self, system: System, correlations: Floats, dtype: Any) -> None:
        self.A, self.B = system.factors
        self.correlations = correlations  # Φᵀy
        self.count = 0
        self.rows, self.columns = np.empty(_FIRST, np.int64), np.empty(_FIRST, np.int64)
        self.left = np.empty((_FIRST, self.A.shape[1]), dtype)
        self.right = np.empty((_FIRST, self.B.shape[1]), dtype)
        self.projections = np.empty(_FIRST)  # Rᵀ z = Φ_Sᵀ y for the Cholesky factor R
        self.packed = np.empty(_FIRST * (_FIRST + 1) // 2)  # R by columns
        self.values = np.empty(0)

    def add(self, i: int, j: int) -> bool:
        """Take column (i, j) in and refit; False if it depends on those already there."""
        k = self.count
        if k == len(self.rows):
            self._grow()
        left, right = self.A[:, i] @ self.A, self.B[:, j] @ self.B
        norm = left[i] * right[j]
        offset = k * (k + 1) // 2
        projection, pivot = self.correlations[i, j], norm
        if k:
            gram = left[self.rows[:k]] * right[self.columns[:k]]
            factor = dtpsv(k, self.packed[:offset], gram, trans=1, overwrite_x=True)
            pivot = norm - factor @ factor
            projection -= factor @ self.projections[:k]
            self.packed[offset : offset + k] = factor
        if pivot <= _DEPENDENT * norm:
            return False
        self.packed[offset + k] = math.sqrt(pivot)
        self.projections[k] = projection / math.sqrt(pivot)
        self.left[k], self.right[k] = left, right
        self.rows[k], self.columns[k] = i, j
        self.count = k + 1
        self.values = dtpsv(k + 1, self.packed, self.projections[: k + 1])
        return True

    def _grow(self) -> None:
        more = 2 * len(self.rows)
        for name in ("rows", "columns", "left", "right", "projections"):
            old = getattr(self, name)
            new = np.empty((more, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
        packed = np.empty(more * (more + 1) // 2)
        packed[: len(self.packed)] = self.packed
        self.packed = packed

    def explained(self, out: NDArray[Any]) -> NDArray[Any]:
        """Return G x, shape (m, n)."""
        k = self.count
        weighted = self.left[:k] * self.values[:, None].astype(self.left.dtype)
        return np.matmul(weighted.T, self.right[:k], out=out)

    def residual(self, Y: NDArray[Any]) -> Floats:
        """Return y − Φx, shape (p, q), from the columns themselves."""
        k = self.count
        return Y - (self.A[:, self.rows[:k]] * self.values) @ self.B[:, self.columns[:k]].T

    def refine(self, Y: NDArray[Any]) -> None:
        """Take one step of iterative refinement of the least-squares fit."""
        k = self.count
        left = self.A[:, self.rows[:k]].T @ self.residual(Y)
        normal = np.einsum("kq,qk->k", left, self.B[:, self.columns[:k]])
        step = dtpsv(k, self.packed, dtpsv(k, self.packed, normal, trans=1))
        self.values = self.values + step

    def coefficients(self) -> Floats:
        """Return x as a matrix, shape (1, m, n)."""
        X = np.zeros((1, *self.correlations.shape))
        X[0, self.rows[: self.count], self.columns[: self.count]] = self.values
        return X


def _pursue(right: RightSide, limit: int, ended: str, monitor: Monitor | None) -> Answer:
    """Solve for one right-hand side."""
    system, Y, goal, size = right.system, right.Y[0], right.goal, right.norm
    fixed = right.correlations[0]
    chosen = _Chosen(system, fixed, Y.dtype)
    norms = system.column_norms
    usable = norms > 0
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=usable).astype(Y.dtype)
    constant = fixed.astype(Y.dtype)
    correlations, scores = constant.copy(), np.empty_like(constant)
    residual, history, status = size, [], ended
    rounding = 4 * float(np.finfo(Y.dtype).eps) * size
    while chosen.count < limit:
        np.abs(correlations, out=scores)
        scores *= scale
        i, j = divmod(int(scores.argmax()), scores.shape[1])
        if scores[i, j] <= rounding or not chosen.add(i, j):
            status = "stalled"
            break
        scale[i, j] = 0.0
        squared = residual**2 - float(chosen.projections[chosen.count - 1]) ** 2
        residual = math.sqrt(max(squared, 0.0))
        if squared <= max(_TRUSTED * size**2, goal**2 * (1 + 1e-6)):
            residual = float(np.linalg.norm(chosen.residual(Y)))
        history.append((chosen.count, residual))
        if monitor is not None:
            monitor(chosen.count, residual, chosen.coefficients())
        if residual <= goal:
            break
        np.subtract(constant, chosen.explained(correlations), out=correlations)
    if chosen.count:
        chosen.refine(Y)
    X = chosen.coefficients().astype(Y.dtype)
    residual = float(np.linalg.norm(system.apply(X)[0] - Y))
    status = "fitted" if residual <= goal else status
    return Answer(X, residual, status, chosen.count, history)
