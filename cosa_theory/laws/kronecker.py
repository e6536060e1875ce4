"""Closed forms of ‖A X Bᵀ‖²: the Kronecker variance law and the spectrum it depends on.

Factors are at analysis scale, E‖A X Bᵀ‖² = ‖X‖².
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cosa_theory.ground.checks import sizes
from cosa_theory.laws.norms import GramMoments, _unit_interval
from cosa_theory.laws.synthesis import Numbers

__all__ = [
    "MatrixMoments",
    "core_participation",
    "kronecker_inflation",
    "kronecker_norm_variance",
    "kronecker_variance_law",
    "matrix_moments",
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

    Parameters
    ----------
    X : array, shape (m, n)
        Not zero. Σσ⁴ is computed as ‖XᵀX‖² on the short side, in float64.

    Raises
    ------
    ValueError
        If X is not a matrix, is zero or holds NaN or Inf.
    """
    matrix = np.asarray(X, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"X must be a matrix with at least one entry, got shape {matrix.shape}")
    largest = float(np.max(np.abs(matrix)))
    if not (math.isfinite(largest) and largest > 0):
        raise ValueError("X must be finite and not zero")
    matrix = matrix / largest
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares = matrix * matrix
    energy = float(squares.sum())
    flat = float(np.sum((short @ short.T) ** 2)) / energy**2
    return MatrixMoments(
        participation_ratio=min(max(1 / flat, 1.0), float(min(matrix.shape))),
        row_fourth=float(np.sum(squares.sum(axis=1) ** 2)) / energy**2,
        column_fourth=float(np.sum(squares.sum(axis=0) ** 2)) / energy**2,
        entry_fourth=float(np.sum(squares * squares)) / energy**2,
    )


def kronecker_norm_variance(
    a: Numbers,
    b: Numbers,
    participation_ratio: Numbers,
    *,
    kurtoses: tuple[float, float] = (3.0, 3.0),
    row_fourth: Numbers = 0.0,
    column_fourth: Numbers = 0.0,
    entry_fourth: Numbers = 0.0,
) -> Any:
    """Return Var‖A X Bᵀ‖² for ‖X‖_F = 1 and factors with independent entries at analysis scale.

    2/(ab) + (2/a + 2/b + 2/(ab))/PR(X) for Gaussian factors, where an unstructured Gaussian map
    with ab rows has 2/(ab). Other kurtoses κ_A, κ_B add (κ_A − 3)ρ(1/a + 2/(ab)) +
    (κ_B − 3)γ(1/b + 2/(ab)) + (κ_A − 3)(κ_B − 3)f/(ab), with ρ, γ and f the sums of fourth powers
    of row norms, column norms and entries (`matrix_moments`).

    In the synthesis direction, ‖L Y R‖² at synthesis scale, give (m, n) for (a, b) and the
    participation ratio (and moments) of the core Y.

    Parameters
    ----------
    a, b : int or array of int
        Rows of A (a × m) and of B (b × n).
    participation_ratio : float or array
        PR(X), at least 1.
    kurtoses : tuple of float
        κ_A and κ_B, at least 1 (see `entry_kurtosis`).
    row_fourth, column_fourth, entry_fourth : float or array
        ρ, γ and f, in [0, 1]; without effect for Gaussian factors.

    Raises
    ------
    ValueError
        If a size is not a positive whole number, or a moment or kurtosis is out of range.

    References
    ----------
    Isserlis's theorem applied to both factors; for the Wishart moments of the Gaussian case, R. J.
    Muirhead, Aspects of Multivariate Statistical Theory (1982), section 3.2.
    """
    a, b = sizes(a=a, b=b)
    left, right = (kappa - 3 for kappa in kurtoses)
    if min(left, right) < -2:
        raise ValueError(f"kurtoses must be at least 1, got {kurtoses}")
    rho, gamma, quartic = (
        _unit_interval(name, value)
        for name, value in (
            ("row_fourth", row_fourth),
            ("column_fourth", column_fourth),
            ("entry_fourth", entry_fourth),
        )
    )
    both = 2 / (a * b)
    variance = both * kronecker_inflation(a, b, participation_ratio)
    variance = variance + left * rho * (1 / a + both) + right * gamma * (1 / b + both)
    return np.maximum(variance + left * right * quartic / (a * b), 0.0)


def kronecker_variance_law(left: GramMoments, right: GramMoments, X: MatrixMoments) -> float:
    """Return Var‖A X Bᵀ‖² for ‖X‖_F = 1 and independent factors of any two ensembles.

    With (p, c, e) the `GramMoments` of A, (p', c', e') of B, τ = 1/PR(X), and ρ, γ, f the sums of
    fourth powers of row norms, column norms and entries,

        E‖A X Bᵀ‖⁴ = p p' + 2τ(p c' + c p') + 2 c c'(1 + τ)
                     + e ρ (p' + 2c') + e' γ (p + 2c) + e e' f,

    and the variance is that minus 1; for independent entries it is `kronecker_norm_variance`.

    Parameters
    ----------
    left, right : GramMoments
        Of A (a × m) and of B (b × n); see `gram_moments`.
    X : MatrixMoments
        Of the matrix between them; see `matrix_moments`.

    References
    ----------
    As for `kronecker_norm_variance`, with the moments of `gram_moments` in place of Isserlis's.
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
    only where PR(X) is much larger than a + b + 1: where the spectrum of X is flat.

    Parameters
    ----------
    a, b : int or array of int
        Rows of the two factors.
    participation_ratio : float or array
        PR(X), at least 1.

    Raises
    ------
    ValueError
        If a size is not a positive whole number or the participation ratio is below 1.
    """
    a, b = sizes(a=a, b=b)
    ratio = np.asarray(participation_ratio, dtype=np.float64)
    if not np.all(ratio >= 1 - 1e-9):
        raise ValueError(f"participation_ratio must be at least 1, got {participation_ratio}")
    return 1 + (a + b + 1) / ratio


def core_participation(a: Numbers, b: Numbers) -> Any:
    """Return E[1/PR(Y)] = (a + b + 1)/(ab + 2) of an a × b core with independent normal entries.

    Raises
    ------
    ValueError
        If a size is not a positive whole number.

    References
    ----------
    R. J. Muirhead, Aspects of Multivariate Statistical Theory (1982), section 3.2: E tr (YᵀY)² =
    ab(a + b + 1), and ‖Y‖² is independent of Y/‖Y‖ with E‖Y‖⁴ = ab(ab + 2).
    """
    a, b = sizes(a=a, b=b)
    return (a + b + 1) / (a * b + 2)
