"""Closed forms of ‖A X Bᵀ‖²: the Kronecker variance law and the spectrum it depends on.

Factors are at analysis scale, E‖A X Bᵀ‖² = ‖X‖². What is out of its range raises `InputError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cosa_theory.ground.checks import matrix, numbers, sizes
from cosa_theory.ground.errors import InputError
from cosa_theory.laws.norms import GramMoments
from cosa_theory.laws.synthesis import Numbers

__all__ = [
    "MatrixMoments",
    "core_participation",
    "kronecker_inflation",
    "kronecker_variance_law",
    "matrix_moments",
    "participation_ratio",
]


@dataclass(frozen=True)
class MatrixMoments:
    """What the law of ‖A X Bᵀ‖² needs to know about X, after scaling it to ‖X‖_F = 1.

    Parameters
    ----------
    participation_ratio : float
        PR(X) = (Σσ²)²/Σσ⁴, from 1 (rank one) to min(m, n) (flat).
    row_fourth, column_fourth : float
        Sums of the fourth powers of the norms of rows and of columns.
    entry_fourth : float
        Sum of the fourth powers of the entries.
    """

    participation_ratio: float
    row_fourth: float
    column_fourth: float
    entry_fourth: float


def matrix_moments(X: ArrayLike) -> MatrixMoments:
    """Measure the moments of a matrix that the Kronecker variance law reads.

    See docs/theory.md, 3.3.

    Parameters
    ----------
    X : array, shape (m, n)
        Not zero. Σσ⁴ is computed as ‖XᵀX‖² on the short side, in float64.

    Raises
    ------
    InputError
        If X is not a matrix, is zero or holds NaN or Inf.
    """
    given = matrix("X", X).astype(np.float64)
    largest = float(np.max(np.abs(given)))
    if largest == 0:
        raise InputError("X is zero: it must have a nonzero entry", argument="X")
    scaled = given / largest
    short = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
    squares = scaled * scaled
    energy = float(squares.sum())
    flat = float(np.sum((short @ short.T) ** 2)) / energy**2
    return MatrixMoments(
        participation_ratio=min(max(1 / flat, 1.0), float(min(scaled.shape))),
        row_fourth=float(np.sum(squares.sum(axis=1) ** 2)) / energy**2,
        column_fourth=float(np.sum(squares.sum(axis=0) ** 2)) / energy**2,
        entry_fourth=float(np.sum(squares * squares)) / energy**2,
    )


def participation_ratio(sigma: ArrayLike) -> float:
    """Return (Σσ²)²/Σσ⁴ of singular values: from 1 (one alone) to their number; NaN of zeros."""
    values = np.asarray(sigma, dtype=np.float64)
    largest = values.max(initial=0.0)
    if largest == 0:
        return math.nan
    shares = (values / largest) ** 2
    shares /= shares.sum()
    return float(1.0 / np.sum(shares**2))


def kronecker_variance_law(left: GramMoments, right: GramMoments, X: MatrixMoments) -> float:
    """Return Var‖A X Bᵀ‖² for ‖X‖_F = 1 and independent factors of any two ensembles.

    With (p, c, e) the `GramMoments` of A, (p', c', e') of B, τ = 1/PR(X), and ρ, γ, f the sums of
    fourth powers of row norms, column norms and entries,

        E‖A X Bᵀ‖⁴ = p p' + 2τ(p c' + c p') + 2 c c'(1 + τ)
                     + e ρ (p' + 2c') + e' γ (p + 2c) + e e' f,

    and the variance is that minus 1. For independent entries of kurtoses κ and κ' it is

        2/(ab) + (2/a + 2/b + 2/(ab))τ + (κ − 3)ρ(1/a + 2/(ab)) + (κ' − 3)γ(1/b + 2/(ab))
        + (κ − 3)(κ' − 3)f/(ab),

    where an unstructured Gaussian map with ab rows has 2/(ab). In the synthesis direction, ‖L Y R‖²
    at synthesis scale, the rows are m and n and the matrix is the core Y.

    Parameters
    ----------
    left, right : GramMoments
        Of A (a × m) and of B (b × n), from the records of their ensembles.
    X : MatrixMoments
        Of the matrix between them; see `matrix_moments`.

    References
    ----------
    docs/theory.md, 3.3. Isserlis's theorem applied to both factors; for the Wishart moments of the
    Gaussian case, R. J. Muirhead, Aspects of Multivariate Statistical Theory (1982), section 3.2.
    """
    tau = 1 / X.participation_ratio
    p, c, e = left.pair, left.cross, left.excess
    q, h, g = right.pair, right.cross, right.excess
    # p q − 1 is formed from the small parts of p and q, so that tiny variances keep their digits.
    variance = (p - 1) * q + (q - 1) + 2 * tau * (p * h + c * q) + 2 * c * h * (1 + tau)
    variance += e * X.row_fourth * (q + 2 * h) + g * X.column_fourth * (p + 2 * c)
    return max(variance + e * g * X.entry_fourth, 0.0)


def kronecker_inflation(a: Numbers, b: Numbers, participation_ratio: Numbers) -> Any:
    """Return 1 + (a + b + 1)/PR(X), the variance of a Gaussian Kronecker map over 2/(ab).

    It is close to one, so that the Kronecker map is as good as an unstructured one with ab rows,
    only where PR(X) is much larger than a + b + 1: where the spectrum of X is flat. See
    docs/theory.md, 3.3.

    Parameters
    ----------
    a, b : int or array of int
        Rows of the two factors.
    participation_ratio : float or array
        PR(X), at least 1.
    """
    a, b = sizes(a=a, b=b)
    ratio = numbers("participation_ratio", participation_ratio, least=1 - 1e-9)
    return 1 + (a + b + 1) / ratio


def core_participation(a: Numbers, b: Numbers) -> Any:
    """Return E[1/PR(Y)] = (a + b + 1)/(ab + 2) of an a × b core with independent normal entries.

    References
    ----------
    docs/theory.md, 3.3. R. J. Muirhead, Aspects of Multivariate Statistical Theory (1982), section
    3.2: E tr (YᵀY)² = ab(a + b + 1), and ‖Y‖² is independent of Y/‖Y‖ with E‖Y‖⁴ = ab(ab + 2).
    """
    a, b = sizes(a=a, b=b)
    return (a + b + 1) / (a * b + 2)
