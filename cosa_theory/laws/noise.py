"""Closed forms of the spectrum of noise: its law, and how far it is from flat.

An argument out of its range raises `InputError`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosa_theory.ground.checks import real, whole

__all__ = ["marchenko_pastur_cdf", "marchenko_pastur_median", "noise_crossover"]

_HALVINGS = 52


def _angle_cdf(angle: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Marchenko-Pastur distribution function at x = 1 + β − 2√β cos(angle).

    The substitution turns the density into (2/π) sin²θ / (1 + β − 2√β cos θ), whose Fourier series
    sums in closed form.
    """
    root = math.sqrt(ratio)
    tail = np.arctan2(root * np.sin(angle), 1.0 - root * np.cos(angle)) - root * np.sin(angle)
    return (angle + root * np.sin(angle) - (1.0 - ratio) / ratio * tail) / math.pi


def _angle(probability: float, ratio: float) -> float:
    """Return the angle at which the distribution function has a value in [0, 1]."""
    low, high = 0.0, math.pi
    for _ in range(_HALVINGS):  # to the last digit; scipy.optimize takes longer to import
        middle = (low + high) / 2
        below = float(_angle_cdf(np.asarray(middle), ratio)) < probability
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def marchenko_pastur_cdf(x: ArrayLike, ratio: float) -> NDArray[np.float64]:
    """Return the Marchenko-Pastur distribution function, in closed form.

    Parameters
    ----------
    x : array
        Eigenvalues of Z Zᵀ / max(m, n), Z of independent entries of variance one, min(m, n) × max.
    ratio : float
        β = min(m, n) / max(m, n), in (0, 1].

    Returns
    -------
    array
        P(eigenvalue ≤ x): 0 below (1 − √β)², 1 above (1 + √β)².

    References
    ----------
    V. A. Marchenko, L. A. Pastur, Math. USSR-Sbornik 1 (1967).
    """
    ratio = real("ratio", ratio, above=0.0, most=1.0)
    cosine = (1.0 + ratio - np.asarray(x, dtype=np.float64)) / (2.0 * math.sqrt(ratio))
    return np.clip(_angle_cdf(np.arccos(np.clip(cosine, -1.0, 1.0)), ratio), 0.0, 1.0)


def marchenko_pastur_median(ratio: float) -> float:
    """Return the median μ_β of the Marchenko-Pastur law of ratio β in (0, 1]."""
    ratio = real("ratio", ratio, above=0.0, most=1.0)
    return 1.0 + ratio - 2.0 * math.sqrt(ratio) * math.cos(_angle(0.5, ratio))


def noise_crossover(m: int, n: int, rank: int) -> float:
    """Return the crossover ratio of independent noise: what its top singular values hold, over law.

    The share of energy in the top r singular values of an m × n matrix of independent entries of
    one variance, divided by r(m + n)/(mn), the share that a core with as many parameters captures.
    Asymptotic in the sizes at a fixed r/min(m, n): finite noise holds a little more, 0.3 % at rank
    8 of 384 × 384, up to 2.2 % at rank 1 of small shapes (`cosa_theory.spectrum.crossover` draws
    those). It tends to 1 + 2√(mn)/(m + n), between 1 and 2, as r/min(m, n) goes to zero. See
    docs/theory.md, 1.6.

    Parameters
    ----------
    m, n : int
        Shape of the layer.
    rank : int
        r, from 1 to min(m, n).

    Notes
    -----
    In the angle θ of x = 1 + β − 2√β cos θ the energy x dF is (2/π) sin²θ dθ, so the share of the
    eigenvalues beyond θ is 1 − (θ − sin θ cos θ)/π, with θ the quantile of 1 − r/min(m, n).
    """
    m, n = whole("m", m), whole("n", n)
    short = min(m, n)
    rank = whole("rank", rank, most=short)
    angle = _angle(1 - rank / short, short / max(m, n))
    share = 1 - (angle - math.sin(angle) * math.cos(angle)) / math.pi
    return share * m * n / (rank * (m + n))
