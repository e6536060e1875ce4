"""Closed forms of squared norms under a random projection: variances and failure probabilities.

All projections are at analysis scale, E‖Ax‖² = ‖x‖². Seven ensembles share one law, because the
rows and the signs of each make the second moments of the Gram matrix G = AᵀA depend on three
numbers alone (see `GramMoments`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from cosa_theory.ground.checks import sizes
from cosa_theory.laws.synthesis import Numbers

__all__ = [
    "GramMoments",
    "chi_square_failure",
    "entry_kurtosis",
    "fourth_power",
    "gram_moments",
    "haar_failure",
    "haar_norm_variance",
    "norm_variance",
    "sjlt_norm_variance",
    "srht_norm_variance",
]

Tail = Literal["both", "upper", "lower"]

_KURTOSES = {"gaussian": 3.0, "rademacher": 1.0, "achlioptas": 3.0}


def entry_kurtosis(kind: str, d: int | None = None, density: float | None = None) -> float:
    """Return the kurtosis E z⁴/(E z²)² of an entry, for ensembles with independent entries.

    3 for gaussian and achlioptas, 1 for rademacher, 1/q for very_sparse of density q.

    Parameters
    ----------
    kind : {"gaussian", "rademacher", "achlioptas", "very_sparse"}
        The ensemble.
    d : int, optional
        Number of columns; very_sparse without a density has q = 1/√d.
    density : float, optional
        q of very_sparse.

    Raises
    ------
    ValueError
        If the entries of the ensemble are not independent, or a density is needed and missing.

    References
    ----------
    D. Achlioptas, "Database-friendly random projections", JCSS 66 (2003); P. Li, T. J. Hastie and
    K. W. Church, "Very sparse random projections", KDD 2006.
    """
    if kind in _KURTOSES:
        return _KURTOSES[kind]
    if kind != "very_sparse":
        raise ValueError(
            f"kind is {kind!r}; its entries are not independent ones of a known kurtosis: "
            "use gram_moments"
        )
    if density is None:
        if d is None:
            raise ValueError("very_sparse needs its density, or d for the default 1/√d")
        return math.sqrt(sizes(d=d)[0])
    if not 0 < density <= 1:
        raise ValueError(f"density is {density!r}; it must be in (0, 1]")
    return 1 / float(density)


def _unit_interval(name: str, value: Numbers) -> Any:
    array = np.asarray(value, dtype=np.float64)
    if not np.all((array >= 0) & (array <= 1 + 1e-9)):
        raise ValueError(f"{name} must lie in [0, 1], got {value}")
    return np.minimum(array, 1.0)


def fourth_power(X: ArrayLike) -> Any:
    """Return ‖x‖₄⁴/‖x‖₂⁴ of a vector, or of every row of a matrix.

    Between 1/d (all entries equal in magnitude) and 1 (one nonzero entry); NaN for a zero vector.

    Parameters
    ----------
    X : array, shape (d,) or (n, d)
        Vectors along the last axis.
    """
    x = np.asarray(X, dtype=np.float64)
    largest = np.max(np.abs(x), axis=-1, keepdims=True)
    scaled = np.divide(x, largest, out=np.full_like(x, np.nan), where=largest > 0)
    squares = scaled * scaled  # of numbers up to 1: no square overflows
    return np.sum(squares * squares, axis=-1) / np.sum(squares, axis=-1) ** 2


@dataclass(frozen=True)
class GramMoments:
    """Second moments of the Gram matrix G = AᵀA of a k × d projection at analysis scale.

    E G_ij G_pq = pair·[i=j, p=q] + cross·([i=p, j=q] + [i=q, j=p]) + excess·[i=j=p=q], where the
    signs of the ensemble remove every other index pattern. Hence for a unit vector
    E‖Ax‖⁴ = pair + 2 cross + excess ‖x‖₄⁴.

    Parameters
    ----------
    pair : float
        E G_ii G_jj for i ≠ j.
    cross : float
        E G_ij² for i ≠ j.
    excess : float
        E G_ii² − pair − 2 cross: what coordinates aligned with the vector add.
    """

    pair: float
    cross: float
    excess: float

    def norm_variance(self, fourth_power: Numbers) -> Any:
        """Return Var‖Ax‖² for unit vectors with the given ‖x‖₄⁴.

        Parameters
        ----------
        fourth_power : float or array
            ‖x‖₄⁴, from 1/d to 1.
        """
        quartic = _unit_interval("fourth_power", fourth_power)
        return np.maximum(self.pair - 1 + 2 * self.cross + self.excess * quartic, 0.0)


def gram_moments(kind: str, k: int, d: int, density: float | None = None) -> GramMoments:
    """Return the second moments of AᵀA for an ensemble of `cosa_theory.projections`.

    Independent entries of kurtosis κ: pair 1, cross 1/k, excess (κ − 3)/k. sjlt, whose columns
    have norm one exactly and share a row with probability ζ²/k each: 1, 1/k, −2/k, whatever ζ.
    srht with N = 2^⌈log₂ d⌉ rows to choose from: 1, c, −2c with c = (N − k)/(k(N − 1)). haar, by
    invariance and tr G = d: cross c = d(d − k)/(k(d − 1)(d + 2)), pair 1 − 2c/d, excess 0.

    Parameters
    ----------
    kind : str
        One of `cosa_theory.projections.KINDS`.
    k, d : int
        Rows and columns; k ≤ d for haar, k ≤ N for srht.
    density : float, optional
        Of very_sparse; by default 1/√d.

    Raises
    ------
    ValueError
        If a size is not a positive whole number or too large, or the kind is unknown.

    References
    ----------
    haar: B. Collins and P. Śniady, Communications in Mathematical Physics 264 (2006). sjlt: D. M.
    Kane and J. Nelson, Journal of the ACM 61 (2014). srht: J. A. Tropp, Advances in Adaptive Data
    Analysis 3 (2011).
    """
    k, d = (int(size) for size in sizes(k=k, d=d))
    if kind == "sjlt":
        return GramMoments(1.0, 1 / k, -2 / k)
    if kind == "srht":
        cross = _srht_cross(k, d)
        return GramMoments(1.0, cross, -2 * cross)
    if kind == "haar":
        _at_most("haar", k, d)
        cross = d * (d - k) / (k * max(d - 1, 1) * (d + 2))
        return GramMoments(1 - 2 * cross / d, cross, 0.0)
    return GramMoments(1.0, 1 / k, (entry_kurtosis(kind, d, density) - 3) / k)


def _at_most(kind: str, k: int, largest: int) -> None:
    if k > largest:
        raise ValueError(f"k is {k}; {kind} has at most {largest} rows here")


def _srht_cross(k: int, d: int) -> float:
    padded = 1 << (d - 1).bit_length()
    _at_most("srht", k, padded)
    return (padded - k) / (k * max(padded - 1, 1))


def norm_variance(k: Numbers, fourth_power: Numbers, kurtosis: Numbers = 3.0) -> Any:
    """Return Var‖Ax‖² = (2 + (κ − 3)‖x‖₄⁴)/k for unit x and independent entries of kurtosis κ.

    Parameters
    ----------
    k : int or array of int
        Rows of A, at analysis scale: entries of variance 1/k.
    fourth_power : float or array
        ‖x‖₄⁴ of the unit vector, from 1/d to 1 (see `fourth_power`).
    kurtosis : float or array
        κ ≥ 1 (see `entry_kurtosis`); 3 for Gaussian entries, where the vector does not matter.

    Raises
    ------
    ValueError
        If k is not a positive whole number, ‖x‖₄⁴ is outside [0, 1] or κ is below 1.

    References
    ----------
    D. Achlioptas, "Database-friendly random projections", JCSS 66 (2003), section 5, moments of
    a projected norm.
    """
    (k,) = sizes(k=k)
    quartic = _unit_interval("fourth_power", fourth_power)
    kappa = np.asarray(kurtosis, dtype=np.float64)
    if not np.all(kappa >= 1):
        raise ValueError(f"kurtosis must be at least 1, got {kurtosis}")
    return (2 + (kappa - 3) * quartic) / k


def sjlt_norm_variance(k: Numbers, fourth_power: Numbers) -> Any:
    """Return Var‖Ax‖² = (2/k)(1 − ‖x‖₄⁴) of a sparse JL transform, for any nonzeros a column.

    Parameters and errors are those of `norm_variance`, of which this is the value at κ = 1.

    References
    ----------
    D. M. Kane and J. Nelson, "Sparser Johnson-Lindenstrauss transforms", JACM 61 (2014).
    """
    return norm_variance(k, fourth_power, 1.0)


def srht_norm_variance(k: int, d: int, fourth_power: Numbers, replacement: bool = False) -> Any:
    """Return Var‖Ax‖² = (2/k)(1 − ‖x‖₄⁴)(N − k)/(N − 1) of a subsampled Hadamard transform.

    N = 2^⌈log₂ d⌉ is the padded length. Rows drawn with replacement have 1 for the last factor.

    Parameters
    ----------
    k, d : int
        Rows, and length of the vector before padding.
    fourth_power : float or array
        ‖x‖₄⁴ of the unit vector.
    replacement : bool
        Whether rows may repeat; those of `cosa_theory.projections` do not.

    Raises
    ------
    ValueError
        If a size is not a positive whole number, k > N without replacement, or ‖x‖₄⁴ is outside
        [0, 1].

    References
    ----------
    J. A. Tropp, "Improved analysis of the subsampled randomized Hadamard transform", Advances in
    Adaptive Data Analysis 3 (2011): rows without replacement.
    """
    k, d = (int(size) for size in sizes(k=k, d=d))
    cross = 1 / k if replacement else _srht_cross(k, d)
    return 2 * cross * (1 - _unit_interval("fourth_power", fourth_power))


def haar_norm_variance(k: int, d: int) -> float:
    """Return Var‖Ax‖² = 2(d − k)/(k(d + 2)) of √(d/k) times k orthonormal rows, for any unit x.

    ‖Ax‖² is (d/k) times a Beta(k/2, (d − k)/2) variable.

    Raises
    ------
    ValueError
        If a size is not a positive whole number or k > d.
    """
    k, d = (int(size) for size in sizes(k=k, d=d))
    _at_most("haar", k, d)
    return 2 * (d - k) / (k * (d + 2))


def _of_tails(lower: Any, upper: Any, tail: Tail) -> Any:
    if tail not in ("both", "upper", "lower"):
        raise ValueError(f"tail must be one of both, upper, lower, got {tail!r}")
    return {"lower": lower, "upper": upper, "both": lower + upper}[tail]


def _positive_eps(eps: Numbers) -> Any:
    array = np.asarray(eps, dtype=np.float64)
    if not np.all(array > 0):
        raise ValueError(f"eps must be positive, got {eps}")
    return array


def chi_square_failure(k: Numbers, eps: Numbers, tail: Tail = "both") -> Any:
    """Return P(|χ²_k/k − 1| > ε), the exact failure probability of a k-row Gaussian projection.

    Both tails are regularised incomplete gamma functions, evaluated directly and not as one minus
    a number close to one, so that probabilities down to the smallest float keep their digits.

    Parameters
    ----------
    k : int or array of int
        Rows.
    eps : float or array
        ε > 0, on the squared norm; from ε = 1 on the lower tail is zero.
    tail : {"both", "upper", "lower"}
        "upper" is P(χ²_k/k > 1 + ε), "lower" is P(χ²_k/k < 1 − ε).

    Raises
    ------
    ValueError
        If k is not a positive whole number, ε is not positive or the tail is unknown.

    References
    ----------
    S. Dasgupta and A. Gupta, "An elementary proof of a theorem of Johnson and Lindenstrauss",
    Random Structures & Algorithms 22 (2003), whose exponential bounds this replaces.
    """
    (k,) = sizes(k=k)
    eps = _positive_eps(eps)
    lower = special.gammainc(k / 2, np.maximum(k / 2 * (1 - eps), 0.0))
    return _of_tails(lower, special.gammaincc(k / 2, k / 2 * (1 + eps)), tail)


def haar_failure(k: Numbers, d: Numbers, eps: Numbers, tail: Tail = "both") -> Any:
    """Return P(|(d/k)·Beta(k/2, (d − k)/2) − 1| > ε), exact for √(d/k) times orthonormal rows.

    Parameters
    ----------
    k, d : int or array of int
        Rows and columns, k ≤ d; at k = d the map is an isometry and never fails.
    eps, tail
        As for `chi_square_failure`.

    Raises
    ------
    ValueError
        If a size is not a positive whole number, k > d, or ε is not positive.
    """
    k, d, eps = np.broadcast_arrays(*sizes(k=k, d=d), _positive_eps(eps))
    if np.any(k > d):
        raise ValueError("k must be at most d: haar has at most d orthonormal rows")
    whole = k == d
    beta = np.where(whole, 1.0, (d - k) / 2)
    low, high = np.maximum(k / d * (1 - eps), 0.0), np.minimum(k / d * (1 + eps), 1.0)
    lower = np.where(whole, 0.0, special.betainc(k / 2, beta, low))
    upper = np.where(whole, 0.0, special.betaincc(k / 2, beta, high))
    return _of_tails(lower, upper, tail)[()]
