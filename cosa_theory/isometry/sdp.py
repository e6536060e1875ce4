"""Semidefinite upper bounds of δ_s, from dual points that are feasible by construction."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import choice, finite, real, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.isometry.certificates import RipBound
from cosa_theory.linear.gram import as_gram
from cosa_theory.linear.gram_protocol import outward, rounding_slack

__all__ = ["dual_bound", "rip_sdp"]

# Names of the limits on iterations and seconds, and of the accuracies asked for. The bound is
# evaluated afresh at whatever point comes back, so more digits would not be worth their time.
_SOLVERS: dict[str, tuple[str, str, dict[str, float]]] = {
    "SCS": ("max_iters", "time_limit_secs", {"eps_abs": 1e-4, "eps_rel": 1e-4}),
    "CLARABEL": ("max_iter", "time_limit", {}),
}

_LARGEST = 1e6  # of the multipliers for a Gram matrix with entries of at most 1: more is not one


def dual_bound(G: Any, U: Any, s: int) -> float:
    """Return the bound of λ_max,s(G) that one matrix of multipliers U proves.

    For every symmetric U and every unit vector x with at most s nonzero entries,

        xᵀGx ≤ λ_max(G + U + diag(t)),  t_i = Σ of the s − 1 largest |U_ij|, j ≠ i.

    G is a symmetric d × d matrix (minus a Gram matrix gives minus a bound of its least value); of
    U, as large, the symmetric part off the diagonal counts. The bound is safe against rounding of
    this evaluation, not of G. An argument of another kind raises `InputError`.

    Notes
    -----
    On the support S of x, xᵀGx = xᵀ(G + U + diag t)x − x_Sᵀ(U_S + diag t_S)x_S, and U_S + diag t_S
    is diagonally dominant (each row has at most s − 1 other entries), hence positive semidefinite.
    U = 0 gives the whole spectrum, U = −offdiag(G) Gershgorin's theorem row by row; the dual of
    [1]_, λ_max(G + U) + (s − 1) max |U_ij|, is never below the bound at the same U.

    References
    ----------
    .. [1] A. d'Aspremont, L. El Ghaoui, M. I. Jordan, G. R. G. Lanckriet, "A direct formulation for
       sparse PCA using semidefinite programming", SIAM Review 49 (2007), 434-448.
    """
    G, U = np.asarray(G, dtype=np.float64), np.asarray(U, dtype=np.float64)
    if G.ndim != 2 or G.shape[0] != G.shape[1] or G.shape != U.shape:
        raise InputError(f"G and U must be square and of one size, got {G.shape} and {U.shape}")
    finite("G", G)
    finite("U", U)
    if not np.array_equal(G, G.T):
        raise InputError("G must be symmetric: pass (G + Gᵀ)/2", argument="G")
    s, size = whole("s", s, most=len(G)), len(G)
    off = (U + U.T) / 2
    np.fill_diagonal(off, 0.0)
    largest = np.partition(np.abs(off), size - s, axis=1)[:, size - s :]
    # The s largest of a row, less the last: the zero on the diagonal adds nothing to them.
    sums = largest.sum(axis=1) - largest.min(axis=1)
    scale = float(np.abs(G).max() + np.abs(off).max() + sums.max())
    value = float(np.linalg.eigvalsh(G + off + np.diag(sums))[-1])
    return value + rounding_slack(0, size, scale)


def rip_sdp(
    A: Any,
    s: int,
    *,
    solver: str = "SCS",
    max_iters: int = 2500,
    time_limit: float = 120.0,
    max_columns: int = 150,
) -> RipBound:
    """Bound δ_s(A) from above by a semidefinite relaxation of both sparse eigenvalue problems.

    Minimises `dual_bound` over the multipliers U, for G = AᵀA and for −G. The solver only
    proposes U: the bound is evaluated in float64 at the proposal, at U = 0 and at U = −offdiag(G),
    and the best of the three is kept. So a solver that stops early or fails costs tightness, never
    validity, and the bound is never above those of the spectrum, coherence and the Babel function.

    Parameters
    ----------
    A, s
        As for `cosa_theory.isometry.rip_upper`. Of a Kronecker operator the d × d Gram matrix is
        formed from its factors, which `max_columns` keeps small.
    solver : {"SCS", "CLARABEL"}
        SCS takes seconds at 150 columns; CLARABEL has more digits and suits some 40 columns.
    max_iters, time_limit : int, float
        Most iterations and most seconds of the solver, for each of the two sides.
    max_columns : int
        Refuse more columns than this: time grows about as the cube of their number, memory as
        its square.

    Returns
    -------
    RipBound
        side "upper", method "sdp". `proof` holds U_greatest and U_least, from which
        ``dual_bound(G, U_greatest, s)`` and ``-dual_bound(-G, U_least, s)`` give both ends again;
        `note` says what the solver did not finish.

    References
    ----------
    For the relaxation see `dual_bound`; for the restricted isometry constant A. d'Aspremont, F.
    Bach, L. El Ghaoui, "Optimal solutions for sparse principal component analysis", Journal of
    Machine Learning Research 9 (2008), 1269-1294.
    """
    start = time.perf_counter()
    choice("solver", solver, _SOLVERS)
    limits = solver, whole("max_iters", max_iters), real("time_limit", time_limit, above=0.0)
    held = as_gram(A)
    size = held.columns
    s = whole("s", s, most=size)
    if size > max_columns:
        raise InputError(
            f"the semidefinite bound is meant for at most {max_columns} columns, A has {size}: "
            "use another method, or raise max_columns"
        )
    gram = held.rows(np.arange(size))
    greatest, U_greatest, note_greatest = _side(gram, s, limits)
    negative_least, U_least, note_least = _side(-gram, s, limits)
    notes = [
        f"{side} eigenvalue: {note}."
        for side, note in (("greatest", note_greatest), ("least", note_least))
        if note
    ]
    slack = rounding_slack(held.rows_of_A, size, float(gram.diagonal().max()))
    least, greatest = outward(-negative_least, greatest, slack)
    proof = {"U_greatest": U_greatest, "U_least": U_least}
    seconds, note = time.perf_counter() - start, " ".join(notes)
    return RipBound("upper", s, least, greatest, "sdp", seconds, proof=proof, note=note)


def _side(
    gram: NDArray[np.float64], s: int, limits: tuple[str, int, float]
) -> tuple[float, NDArray[np.float64], str]:
    """Return the best bound of λ_max,s of a symmetric matrix, its multipliers, and a note."""
    off = np.diag(gram.diagonal()) - gram
    points = [np.zeros_like(gram), off]
    note = ""
    if 1 < s < len(gram) and np.any(off):  # elsewhere one of the two points is exact
        proposal, note = _proposed(gram, s, limits)
        if proposal is not None:
            points.append(proposal)
    bounds = [dual_bound(gram, U, s) for U in points]
    best = min(range(len(points)), key=bounds.__getitem__)
    return bounds[best], points[best], note


def _proposed(
    gram: NDArray[np.float64], s: int, limits: tuple[str, int, float]
) -> tuple[NDArray[np.float64] | None, str]:
    """Return the multipliers a solver proposes, whatever its status, and what it complained of."""
    import cvxpy

    solver, max_iters, time_limit = limits
    iterations, seconds, accuracy = _SOLVERS[solver]
    scale = float(np.abs(gram).max())
    problem, multipliers = _relaxation(gram / scale, s)
    settings = {iterations: max_iters, seconds: time_limit, **accuracy}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "may be inaccurate" becomes the note
            problem.solve(solver=solver, **settings)
    except Exception as error:  # whatever a solver throws costs tightness, never the bound
        reason = " ".join(str(error).split()) or type(error).__name__
        return None, f"{solver} failed ({reason}), so this end is that of spectrum or Gershgorin"
    note = "" if problem.status == cvxpy.OPTIMAL else f"{solver} stopped early ({problem.status})"
    values = multipliers.value
    if values is None or not np.abs(values).max() < _LARGEST:  # true for NaN and Inf too
        return None, f"{note or solver} without multipliers: this end is spectrum or Gershgorin"
    U = np.zeros_like(gram)
    U[np.triu_indices(len(gram), 1)] = scale * np.asarray(values, dtype=np.float64)
    return U + U.T, note


def _relaxation(gram: NDArray[np.float64], s: int) -> tuple[Any, Any]:
    """Return the cvxpy problem min_U λ_max(G + U + diag t), and U's entries above the diagonal.

    The sum t_i of the s − 1 largest |U_ij| is the least value over τ_i ≥ 0 of
    (s − 1) τ_i + Σ_j max(|U_ij| − τ_i, 0).
    """
    import cvxpy
    from scipy import sparse

    size = len(gram)
    first, second = np.triu_indices(size, 1)
    pairs = np.arange(len(first))
    ones = np.ones(len(first))
    of_first = sparse.csr_matrix((ones, (pairs, first)), (len(pairs), size))
    of_second = sparse.csr_matrix((ones, (pairs, second)), (len(pairs), size))
    places = np.concatenate([first * size + second, second * size + first])
    spread = sparse.csr_matrix(
        (np.ones(len(places)), (places, np.tile(pairs, 2))), (size**2, len(pairs))
    )
    U, threshold = cvxpy.Variable(len(pairs)), cvxpy.Variable(size, nonneg=True)
    excess_first = cvxpy.Variable(len(pairs), nonneg=True)
    excess_second = cvxpy.Variable(len(pairs), nonneg=True)
    sums = (s - 1) * threshold + of_first.T @ excess_first + of_second.T @ excess_second
    greatest = cvxpy.Variable()
    shifted = gram + cvxpy.reshape(spread @ U, (size, size), order="C") + cvxpy.diag(sums)
    constraints = [greatest * np.eye(size) - shifted >> 0]
    for excess, of_row in ((excess_first, of_first), (excess_second, of_second)):
        constraints += [excess + of_row @ threshold >= U, excess + of_row @ threshold >= -U]
    return cvxpy.Problem(cvxpy.Minimize(greatest), constraints), U
