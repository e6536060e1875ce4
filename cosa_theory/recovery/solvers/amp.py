"""Approximate message passing, and a damped relative of it for Kronecker operators."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import real
from cosa_theory.recovery.greedy import LARGEST_FIT, Goals, RightSide, UnitColumns, solve_each
from cosa_theory.recovery.items import Answer
from cosa_theory.recovery.methods import Monitor, solver
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.shrinkage import soft_threshold
from cosa_theory.recovery.system import System

__all__ = ["amp", "minimax_threshold"]

_MAD = 0.6744897501960817  # median of |Z| for a standard normal Z
_WHITENED_DAMPING = 0.5
# After whitening τ starts at the first value, and is divided by the last, down to the second,
# where the residual falls by less than a tenth in so many iterations.
_FIRST_THRESHOLD, _LAST_THRESHOLD, _LOWERING, _PATIENCE = 3.0, 1.0, 1.2, 15
_FEW = 8  # entries of a row or column from which no scale of its own is estimated
_DIVERGED = 1e3  # times ‖y‖
_SETTLED = 1e-2  # change of the iterate, as a share of the goal for the residual


@solver(
    13,
    look=("yellow", "--", "<"),
    checks={
        "threshold": partial(real, "threshold", above=0.0),
        "damping": partial(real, "damping", above=0.0, most=1.0),
    },
)
def amp(
    system: System,
    Y: NDArray[Any],
    *,
    noise_level: float = 0.0,
    tolerance: float | None = None,
    threshold: float | None = None,
    damping: float | None = None,
    max_iterations: int = 1000,
    start: NDArray[Any] | None = None,
    monitor: Monitor | None = None,
) -> Solution:
    """Threshold pseudo-data x + Φᵀz softly, with a residual z corrected for the thresholding.

    For a wide matrix with independent entries, its columns taken at unit norm [1]_:

    x ← η(x + Φᵀz; τσ̂),   z ← y − Φx + z ‖x‖₀/M,   σ̂ = ‖z‖/√M,

    where η is soft thresholding and τ by default the minimax threshold of the undersampling M/N,
    with which AMP recovers exactly up to the weak threshold of ℓ1.

    The entries of a Kronecker product are not independent and its factors are not well
    conditioned, and there these iterations diverge. So for any other system the measurements are
    first whitened, which the singular vectors of the factors do exactly: V is the matrix with
    orthonormal rows that spans the rows of Φ, w = Vx. With P = VᵀV, the iterations are those of
    orthogonal AMP [2]_ with damping θ,

    v = x + diag(P)⁻¹ Vᵀ(w − Vx),   u = η(v; τσ̂),   x ← (1 − θ)x + θ (u − κv)/(1 − κ),

    with κ the share of entries of u that are not zero. An entry of ΔW disturbs the pseudo-data of
    its own row and column most, so σ̂ is estimated for each row and column, as the larger of the
    two median absolute deviations over 0.6745; a side of fewer than 8 entries has no such estimate,
    and had better not be compressed. There is no theory for this form; nothing is proved about its
    fixed points, but an answer that explains the measurements says so.

    No sparsity is needed. Should the last iterate not explain the measurements within the goal,
    but least squares on its support do so with at most M/2 entries, that is the answer.

    Parameters
    ----------
    threshold : float, optional
        τ > 0; by default `minimax_threshold`. After whitening, by default, it starts at 3 and is
        lowered by a sixth, down to 1, where the residual falls by less than a tenth in 15
        iterations.
    damping : float, optional
        θ in (0, 1], 1 for none, which is the default; 0.5 after whitening.

    Returns
    -------
    Solution
        Certificate "residual" of the iterate with the least residual. Status "fitted" if it holds,
        "stalled" at a fixed point where it does not, "diverged", or "iteration limit".

    References
    ----------
    .. [1] D. L. Donoho, A. Maleki, A. Montanari, "Message-passing algorithms for compressed
       sensing", PNAS 106 (2009), 18914-18919, equations 1 and 2.
    .. [2] J. Ma, L. Ping, "Orthogonal AMP", IEEE Access 5 (2017), 2020-2033.
    """
    unit = UnitColumns(system, Y)
    columns = int(np.count_nonzero(system.column_norms))
    independent = system.plain and system.measurements < columns
    if damping is None:
        damping = 1.0 if independent else _WHITENED_DAMPING
    message = "" if independent else _why_damped(system, damping)

    def solve(right: RightSide) -> Answer:
        first = np.zeros((1, *system.coefficient_shape), Y.dtype)
        first = first if start is None else start[right.item : right.item + 1] * unit.norms
        if independent:
            level = threshold or minimax_threshold(system.measurements / columns)
            iterates = _independent(unit, right.Y, first, level, damping)
        else:
            iterates = _whitened(unit, right.Y, first, threshold, damping)
        return _watched(right, unit, islice(iterates, max_iterations), monitor, message)

    def objective(answer: Answer) -> float:
        return float(np.abs(answer.coefficients * unit.norms).sum())

    goals = Goals.of(Y, noise_level, tolerance)
    return solve_each(system, Y, goals, solve, "Σ ‖φⱼ‖|xⱼ| over x with Φx = y", objective)


def minimax_threshold(d: float) -> float:
    """Return the threshold τ, in standard deviations, with which AMP bears the most nonzeros.

    The z that attains the maximum in `cosa_theory.laws.l1_weak_threshold` at the undersampling
    d = M/N in (0, 1). Setting the derivative to zero gives d = 2φ/(z + 2φr), with r = 1 − zQ/φ, Q
    the upper tail and φ the density of the standard normal law (D. L. Donoho, A. Maleki,
    A. Montanari, "The noise-sensitivity phase transition in compressed sensing", IEEE Trans.
    Information Theory 57 (2011), 6920-6941).
    """
    from scipy.optimize import brentq
    from scipy.special import erfcx

    def excess(z: float) -> float:
        density = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        r = 1 - z * math.sqrt(math.pi / 2) * float(erfcx(z / math.sqrt(2)))
        return 2 * density - d * (z + 2 * density * r)

    return float(brentq(excess, 0.0, 38.0))


def _why_damped(system: System, damping: float) -> str:
    reason = (
        "it has at least as many measurements as unknowns"
        if system.plain
        else "the entries of a Kronecker product depend on each other"
    )
    return (
        f"the theory of AMP does not hold for {system.name}, since {reason}: its measurements were "
        f"whitened and the iterations damped by {damping:g}"
    )


def _independent(
    unit: UnitColumns, Y: NDArray[Any], U: NDArray[Any], threshold: float, damping: float
) -> Iterator[NDArray[Any]]:
    """Yield the iterates of AMP, scaled to unit columns."""
    measurements = Y.size
    Z = Y - unit.apply(U)
    while True:
        scale = float(np.linalg.norm(Z)) / math.sqrt(measurements)
        estimate = soft_threshold(U + unit.apply_adjoint(Z), threshold * scale)
        U = estimate if damping == 1 else (1 - damping) * U + damping * estimate
        Z = Y - unit.apply(U) + Z * (np.count_nonzero(estimate) / measurements)
        yield estimate


def _whitened(
    unit: UnitColumns, Y: NDArray[Any], U: NDArray[Any], threshold: float | None, damping: float
) -> Iterator[NDArray[Any]]:
    """Yield the iterates of damped orthogonal AMP, scaled to unit columns.

    Without a threshold it starts high, for the sparsest answers, and is lowered where that leads
    no further: one that is too low from the start ends at answers that are not sparse.
    """
    space = unit.system.row_space(Y)
    wanted = space.measured(Y) / space.values
    left, right = (np.einsum("rm,rm->m", factor, factor) for factor in space.left.factors)
    share = np.multiply.outer(left, right)  # diagonal of P
    rows, columns = left > np.finfo(Y.dtype).eps, right > np.finfo(Y.dtype).eps
    inside = np.multiply.outer(rows, columns)
    gain = np.divide(1.0, share, out=np.zeros_like(share), where=inside)
    X = U * unit.inverse
    # Standard deviation of the disturbance for an error spread evenly over all directions.
    spread = math.sqrt(max(np.count_nonzero(inside) / wanted.size - 1, 0.0) / wanted.size)
    level = _FIRST_THRESHOLD if threshold is None else threshold
    norms: list[float] = []
    while True:
        missing = wanted - space.coordinates(X)
        V = X + gain * space.coefficients(missing)
        scale = _noise_scale(V[0], rows, columns, spread * float(np.linalg.norm(missing)))
        estimate = soft_threshold(V, (level * scale).astype(V.dtype))
        kept = min(np.count_nonzero(estimate) / np.count_nonzero(inside), 0.99)
        X = (1 - damping) * X + damping * (estimate - kept * V) / (1 - kept)
        yield estimate * unit.norms
        norms.append(float(np.linalg.norm(wanted - space.coordinates(estimate))))
        if threshold is None and len(norms) > _PATIENCE and norms[-1] > 0.9 * norms[0]:
            level, norms = max(level / _LOWERING, _LAST_THRESHOLD), []
        norms = norms[-_PATIENCE - 1 :]


def _noise_scale(
    V: NDArray[Any], rows: NDArray[np.bool_], columns: NDArray[np.bool_], overall: float
) -> NDArray[Any]:
    """Return the standard deviation of the disturbance at each entry, from medians of |V|.

    Where rows and columns are too short for medians, it is `overall`.
    """
    size = np.abs(V if rows.all() and columns.all() else V[np.ix_(rows, columns)])
    scale = np.full(size.shape, _MAD * overall if max(size.shape) < _FEW else 0.0)
    for axis in (0, 1):
        if size.shape[axis] >= _FEW:
            scale = np.maximum(scale, np.median(size, axis=axis, keepdims=True))
    whole = np.zeros(V.shape)
    whole[np.ix_(rows, columns)] = scale / _MAD
    return whole


def _watched(
    right: RightSide,
    unit: UnitColumns,
    iterates: Iterator[NDArray[Any]],
    monitor: Monitor | None,
    message: str,
) -> Answer:
    """Follow the iterates until they explain the measurements, settle or diverge."""
    best, least, before, history = None, math.inf, None, []
    status = "iteration limit"
    for number, U in enumerate(iterates, 1):
        X = U * unit.inverse
        residual = right.residual(X)
        if not residual <= _DIVERGED * right.norm:
            status = "diverged"
            break
        history.append((number, residual))
        if residual < least:
            best, least = X, residual
        if monitor is not None:
            monitor(number, residual, X)
        if residual <= right.goal:
            status = "fitted"
            break
        if before is not None:
            settled = _SETTLED * (right.goal / right.norm) * np.linalg.norm(U)
            if np.linalg.norm(U - before) <= settled:
                status = "stalled"
                break
        before = U
    if best is None:  # diverged at once
        best, least = np.zeros((1, *unit.system.coefficient_shape), right.Y.dtype), right.norm
    answer = Answer(best, least, status, number, tuple(history), message)
    return answer if status == "fitted" else _finished(right, answer)


def _finished(right: RightSide, answer: Answer) -> Answer:
    """Return the least-squares fit on the support, if that explains the measurements."""
    support = np.flatnonzero(answer.coefficients)
    if not 0 < support.size <= min(right.system.measurements // 2, LARGEST_FIT):
        return answer
    X = right.fit(support)
    residual = math.inf if X is None else right.residual(X)
    if X is None or residual > right.goal:
        return answer
    said = "the answer is least squares on the support of the best iterate"
    message = f"{answer.message}; {said}" if answer.message else said
    return replace(answer, coefficients=X, value=residual, status="fitted", message=message)
