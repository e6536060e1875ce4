"""The last digits of a lasso solution, from its support and signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from cosa_theory.ground.threads import one_thread
from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.support import gram_block
from cosa_theory.recovery.system import Floats, Indices, System, largest_entry, like_array

__all__ = ["LARGEST_SUPPORT", "LassoFinish", "polish_cost", "polish_lasso"]

LARGEST_SUPPORT = 1500
"""Entries up to which the equations on a support are solved directly."""

_ROUNDS = 30
_GROWTH = 5  # a round adds no more than one entry for so many, and a few
_BLOCK = 1 << 17  # entries of a gradient looked at together
_DROPS = 3  # times that entries of the wrong sign are dropped before others are added
_PATIENCE = 3  # rounds without a smaller gap


@dataclass(frozen=True, eq=False)
class LassoFinish:
    """A solution of the lasso's equations on a support, and what it proves."""

    support: Indices  # row-major indices, (s,)
    values: Floats  # the coefficients there
    dual: Floats  # a feasible dual point (p, q), ‖Φᵀθ‖_∞ ≤ λ
    objective: float  # ½‖Φx − y‖² + λ‖x‖₁
    gap: float  # the duality gap
    relative: float  # the gap over λ‖x‖₁


def polish_lasso(
    system: System, Y: Any, X: Any, lam: float, *, tolerance: float
) -> LassoFinish | None:
    """Solve the stationarity equations of ½‖Φx − y‖² + λ‖x‖₁ on the support of a near solution.

    With the support S and the signs ε right, x_S = (Φ_SᵀΦ_S)⁻¹(Φ_Sᵀy − λε) is the solution. Where
    they are not, the next guess is the set where |‖φⱼ‖² xⱼ + φⱼᵀ(y − Φx)| > λ: entries of the
    wrong sign are dropped, correlations above λ are added. This is the primal-dual active set
    method, a semismooth Newton method [1]_, with two restraints that let it start farther away:
    entries of the wrong sign go first, which takes no product with Φᵀ, and only the largest
    correlations are added. It is given up where the gap does not shrink.

    `Y` (1, p, q) is one right-hand side: the equations and the residual are computed in float64
    whatever its type, the products with Φᵀ in its own. `X` (1, m, n) is the near solution. Returns
    None unless the gap relative to λ‖x‖₁ is within the tolerance.

    References
    ----------
    .. [1] M. Hintermüller, K. Ito, K. Kunisch, "The primal-dual active set strategy as a
       semismooth Newton method", SIAM J. Optimization 13 (2002), 865-888; for the lasso
       R. Griesse, D. A. Lorenz, "A semismooth Newton method for Tikhonov functionals with
       sparsity constraints", Inverse Problems 24 (2008), 035007.
    """
    entries = to_host(X).ravel()
    support = np.flatnonzero(entries)
    signs = np.sign(entries[support]).astype(np.float64)
    y = to_host(Y[0]).astype(np.float64)
    best: LassoFinish | None = None
    failures = 0
    for _ in range(_ROUNDS):
        solved = _solved(system, y, lam, support, signs)
        if solved is None:
            break
        columns, values, signs = solved
        support = columns.support
        residual = y - columns.image(values)
        gradient = to_host(system.apply_adjoint(like_array(residual[None], Y))).ravel()
        kept = to_host(like_array(values, Y)).astype(np.float64)  # what the caller can store
        found = _judged(columns, kept, y, residual, lam, largest_entry(gradient))
        failures = 0 if best is None or found.gap < best.gap else failures + 1
        best = best if failures else found
        # The equations hold on the support, so its correlations are λ times the signs.
        score = columns.squares * values + lam * signs
        stays = np.abs(score) > lam
        gradient[support] = 0
        added = _most_violated(gradient, lam, support.size // _GROWTH + 10)
        settled = stays.all() and (np.sign(score) == signs).all() and added.size == 0
        if settled or failures == _PATIENCE:
            break
        support = np.concatenate([support[stays], added])
        signs = np.concatenate([np.sign(score[stays]), np.sign(gradient[added])])
        del gradient, columns, solved  # before the next ones are made
    return best if best is not None and best.relative <= tolerance else None


def _solved(
    system: System, y: Floats, lam: float, support: Indices, signs: Floats
) -> tuple[_Columns, Floats, Floats] | None:
    """Solve the equations on a support, and again without the entries of the wrong sign.

    Returns the columns left, the solution and its supposed signs; None where the columns are
    dependent or too many.
    """
    drops = 0
    while 0 < support.size <= min(LARGEST_SUPPORT, system.measurements):
        columns = _Columns(system, support)
        values = columns.stationary(y, lam * signs)
        if values is None:
            return None
        right = np.sign(values) == signs
        if right.all() or drops == _DROPS:
            return columns, values, signs
        support, signs, drops = support[right], signs[right], drops + 1
    return None


def polish_cost(system: System, size: int) -> float:
    """Return about how many multiply-adds one round on a support of some size takes."""
    return float(size) ** 2 * (sum(system.measurement_shape) + size / 3)


class _Columns:
    """The columns of Φ on a support."""

    def __init__(self, system: System, support: Indices) -> None:
        A, B = system.factors
        i, j = np.divmod(support, B.shape[1])
        self.support, self._left, self._right = support, A[:, i], B[:, j]
        self._gram = gram_block(system, support)
        self.squares = np.diag(self._gram).copy()

    def correlations(self, y: Floats) -> Floats:
        """Return Φ_Sᵀy."""
        return np.einsum("sq,qs->s", self._left.T @ y, self._right)

    def image(self, values: Floats) -> Floats:
        """Return Φ_S x_S as a p × q matrix."""
        return (self._left * values) @ self._right.T

    def stationary(self, y: Floats, shift: Floats) -> Floats | None:
        """Solve Φ_SᵀΦ_S x = Φ_Sᵀy − shift, once; None if the columns are dependent."""
        with one_thread():
            try:
                # The transpose is the same matrix, in the order that is overwritten in place.
                factor = cho_factor(self._gram.T, overwrite_a=True, check_finite=False)
            except LinAlgError:
                return None
            values = cho_solve(factor, self.correlations(y) - shift, check_finite=False)
            # Once more with the residual, from the columns themselves: G has the square of
            # their condition number.
            rest = self.correlations(y - self.image(values)) - shift
            return values + cho_solve(factor, rest, check_finite=False)


def _judged(
    columns: _Columns, values: Floats, y: Floats, residual: Floats, lam: float, largest: float
) -> LassoFinish:
    """Return a candidate with its duality gap, at a dual point that is a share of `residual`."""
    scale = min(1.0, lam / largest) if largest > 0 else 1.0
    dual = scale * residual
    image = columns.image(values)
    left = y - image
    penalty = lam * float(np.abs(values).sum())
    gap = max(0.5 * float(np.sum((left - dual) ** 2)) + penalty - float(np.vdot(image, dual)), 0.0)
    objective = 0.5 * float(np.vdot(left, left)) + penalty
    relative = gap / max(penalty, np.finfo(np.float64).eps * objective)
    return LassoFinish(columns.support, values, dual, objective, gap, relative)


def _most_violated(gradient: NDArray[Any], lam: float, count: int) -> Indices:
    """Return where correlations exceed λ by more than rounding, the `count` largest at most."""
    limit = lam * (1 + 8 * float(np.finfo(gradient.dtype).eps))
    found = []
    for start in range(0, gradient.size, _BLOCK):  # indices take more room than what they point at
        block = gradient[start : start + _BLOCK]
        above = np.flatnonzero((block > limit) | (block < -limit))
        found.append(start + _largest_of(above, block[above], count))
    candidates = np.concatenate(found)
    return _largest_of(candidates, gradient[candidates], count)


def _largest_of(indices: Indices, values: NDArray[Any], count: int) -> Indices:
    """Return the indices of the `count` values of largest modulus, or all if there are fewer."""
    if indices.size <= count:
        return indices
    return indices[np.argpartition(np.abs(values), indices.size - count)[indices.size - count :]]
