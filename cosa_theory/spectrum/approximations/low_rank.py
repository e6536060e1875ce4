"""Low rank: the best, all but the best, and what sketches find without a decomposition."""

from functools import partial

import numpy as np

from cosa_theory.projections import make_projection
from cosa_theory.spectrum.approximations.base import (
    Given,
    Matrix,
    Stored,
    budget,
    register,
    rounded,
)

__all__ = ["remainder"]

_TESTS = 10  # vectors that estimate the error of a sketch
_SECOND = 1.5  # columns of the second sketch of Nyström over those of the first


def _within(m: int, n: int, rank: int) -> int:
    return min(rank, m, n)


def _factors(m: int, n: int, rank: int) -> Stored:
    return Stored.of(min(_within(m, n, rank) * (m + n), m * n))


def _truncated(given: Given) -> Matrix:
    """Return the best update of rank r: C. Eckart, G. Young, Psychometrika 1 (1936)."""
    left, sigma, right = given.singular
    rank = _within(*given.shape, given.rank)
    return rounded(left[:, :rank] * sigma[:rank]) @ rounded(right[:rank])


def remainder(given: Given) -> Matrix:
    """Return all of ΔW but what `_truncated` keeps, which is not rounded."""
    left, sigma, right = given.singular
    rank = _within(*given.shape, given.rank)
    return given.delta - (left[:, :rank] * sigma[:rank]) @ right[:rank]


def _range_finder(given: Given) -> Matrix:
    """Return Q Qᵀ ΔW for the range Q of ΔW Ω, Ω Gaussian with r columns.

    Two passes over ΔW: N. Halko, P.-G. Martinsson, J. Tropp, SIAM Review 53 (2011).
    """
    m, n = given.shape
    rank = _within(m, n, given.rank)
    omega = _gaussian(given, rank, n, "range finder")
    basis = np.linalg.qr(given.delta @ omega.T)[0]
    return rounded(basis) @ rounded(basis.T @ given.delta)


def _nystroem_sizes(m: int, n: int, rank: int) -> tuple[int, int]:
    """Return the columns k and l of the two sketches: m k + n l ≤ r(m + n) with l near 1.5 k."""
    first = max(1, int(budget(m, n, rank) / (m + _SECOND * n)))
    second = max(first, (budget(m, n, rank) - first * m) // n)
    return min(first, n), min(second, m)


def _nystroem(given: Given) -> Matrix:
    """Return (ΔW Ω)(Θ ΔW Ω)⁺(Θ ΔW), from one pass over ΔW.

    Generalised Nyström: Y. Nakatsukasa, arXiv 2009.11392 (2020). It is exact where ΔW has a rank
    of at most the columns of Ω.
    """
    m, n = given.shape
    first, second = _nystroem_sizes(m, n, given.rank)
    omega = _gaussian(given, first, n, "right sketch")
    theta = _gaussian(given, second, m, "left sketch")
    columns, rows = rounded(given.delta @ omega.T), rounded(theta @ given.delta)
    basis, triangle = np.linalg.qr(rows @ omega.T)
    return (columns @ np.linalg.pinv(triangle)) @ (basis.T @ rows)


def _nystroem_stored(m: int, n: int, rank: int) -> Stored:
    first, second = _nystroem_sizes(m, n, rank)
    return Stored.of(first * m + second * n)


def _gaussian(given: Given, k: int, d: int, role: str) -> Matrix:
    drawn: Matrix = make_projection(
        "gaussian", k, d, seed=given.seed, key=(*given.key, role), dtype=given.delta.dtype
    )
    return drawn


def _tested(given: Given, made: Matrix) -> tuple[float, float]:
    """Estimate ‖ΔW − Â‖² as the mean of ‖ΔW g − Â g‖² over ten Gaussian g, and its variance.

    ΔW g is gathered in the pass that sketches ΔW, and is not stored. The estimate has no bias, and
    variance 2‖EᵀE‖²/10 with E = ΔW − Â: at most 45 % of ‖E‖², and less over many layers. See
    docs/theory.md, 6.5; N. Halko, P.-G. Martinsson, J. Tropp, SIAM Review 53 (2011), section 4.3.
    """
    vectors = _gaussian(given, _TESTS, given.shape[1], "test vectors").T
    gaps = (given.delta @ vectors - made @ vectors).astype(np.float64)
    squares = _TESTS * np.sum(gaps**2, axis=0)
    return float(squares.mean()), float(squares.var(ddof=1)) / _TESTS


_register = partial(register, group="low rank")

_register(0, name="svd", label="truncated SVD", make=_truncated, stored=_factors)
_register(
    1,
    name="range_finder",
    label="two-pass range finder",
    make=_range_finder,
    stored=_factors,
    estimate=_tested,
)
_register(
    2,
    name="nystroem",
    label="single-pass Nyström",
    make=_nystroem,
    stored=_nystroem_stored,
    estimate=_tested,
)
