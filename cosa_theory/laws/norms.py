"""Closed forms of squared norms under a random projection: variances and failure probabilities.

All projections are at analysis scale, E‖Ax‖² = ‖x‖². The ensembles share one law, because the
rows and the signs of each make the second moments of the Gram matrix G = AᵀA depend on three
numbers alone (see `GramMoments`), which each ensemble states in its record. An argument out
of its range raises `InputError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy  # its parts are loaded where they are first used
from numpy.typing import ArrayLike

from cosa_theory.ground.checks import choice, numbers, refuse, sizes
from cosa_theory.laws.synthesis import Numbers

__all__ = ["GramMoments", "chi_square_failure", "exact_failure", "fourth_power", "haar_failure"]

Tail = Literal["both", "upper", "lower"]


def fourth_power(X: ArrayLike) -> Any:
    """Return ‖x‖₄⁴/‖x‖₂⁴ of a vector, or of every row of a matrix.

    Between 1/d (all entries equal in magnitude) and 1 (one nonzero entry); NaN for a zero vector.
    See docs/theory.md, 3.2.

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

        See docs/theory.md, 3.2 and 3.4.

        Parameters
        ----------
        fourth_power : float or array
            ‖x‖₄⁴, from 1/d to 1.
        """
        # A sum of shares may leave [0, 1] by rounding.
        quartic = np.minimum(numbers("fourth_power", fourth_power, least=0, most=1 + 1e-9), 1.0)
        return np.maximum(self.pair - 1 + 2 * self.cross + self.excess * quartic, 0.0)


def _of_tails(lower: Any, upper: Any, tail: Tail) -> Any:
    choice("tail", tail, ("both", "upper", "lower"))
    return {"lower": lower, "upper": upper, "both": lower + upper}[tail]


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

    References
    ----------
    docs/theory.md, 3.1. S. Dasgupta and A. Gupta, "An elementary proof of a theorem of Johnson and
    Lindenstrauss", Random Structures & Algorithms 22 (2003), whose exponential bounds this
    replaces.
    """
    (k,) = sizes(k=k)
    eps = numbers("eps", eps, above=0)
    lower = scipy.special.gammainc(k / 2, np.maximum(k / 2 * (1 - eps), 0.0))
    return _of_tails(lower, scipy.special.gammaincc(k / 2, k / 2 * (1 + eps)), tail)


def haar_failure(k: Numbers, d: Numbers, eps: Numbers, tail: Tail = "both") -> Any:
    """Return P(|(d/k)·Beta(k/2, (d − k)/2) − 1| > ε), exact for √(d/k) times orthonormal rows.

    Parameters
    ----------
    k, d : int or array of int
        Rows and columns, k ≤ d; at k = d the map is an isometry and never fails.
    eps, tail
        As for `chi_square_failure`.
    """
    k, d, eps = np.broadcast_arrays(*sizes(k=k, d=d), numbers("eps", eps, above=0))
    if np.any(k > d):
        raise refuse("k", float(k[k > d][0]), "at most d, the most orthonormal rows")
    whole = k == d
    beta = np.where(whole, 1.0, (d - k) / 2)
    low, high = np.maximum(k / d * (1 - eps), 0.0), np.minimum(k / d * (1 + eps), 1.0)
    lower = np.where(whole, 0.0, scipy.special.betainc(k / 2, beta, low))
    upper = np.where(whole, 0.0, scipy.special.betaincc(k / 2, beta, high))
    return _of_tails(lower, upper, tail)[()]


def exact_failure(law: str | None, k: int, d: int, eps: Numbers) -> Any:
    """Return P(|‖Ax‖² − 1| > ε) by the law of ‖Ax‖² for every unit x; NaN where none is known.

    Parameters
    ----------
    law : {"chi_square", "beta"} or None
        χ²_k/k (`chi_square_failure`) or (d/k)·Beta(k/2, (d − k)/2) (`haar_failure`): what the
        record of an ensemble says in `norm_law`.
    k, d : int
        Rows and columns.
    eps : float or array
        ε > 0.
    """
    if law == "chi_square":
        return chi_square_failure(k, eps)
    if law == "beta":
        return haar_failure(k, d, eps)
    return np.full(np.shape(eps), math.nan)
