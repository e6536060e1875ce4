"""The very sparse ensemble: independent entries, of which a share 1/√d is not zero."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from cosa_theory.ground.checks import real
from cosa_theory.projections.bernoulli import bernoulli_signs, most_rows
from cosa_theory.projections.ensembles import (
    Ensemble,
    Moments,
    Streams,
    independent_entries,
    register,
)

__all__ = ["very_sparse"]


def _density(density: float | Fraction | None, d: int) -> Fraction:
    """Return the density as an exact fraction, 1/√d where it is None."""
    if density is None:
        return Fraction(1 / math.sqrt(d))
    number = real("density", density, above=0, most=1)
    return density if isinstance(density, Fraction) else Fraction(number)


def very_sparse(
    streams: Streams,
    k: int,
    d: int,
    variance: Fraction,
    dtype: np.dtype[Any],
    *,
    density: float | Fraction | None = None,
) -> csr_array:
    """Independent entries: ±√(variance/q) with probability q/2 each, else 0 [1]_; see `Ensemble`.

    Parameters
    ----------
    density : float or fractions.Fraction, optional
        The probability q of a nonzero, in (0, 1]; by default 1/√d.

    References
    ----------
    .. [1] P. Li, T. J. Hastie, K. W. Church, "Very sparse random projections", KDD 2006.
    """
    return bernoulli_signs(streams, k, d, variance, dtype, _density(density, d))


def _magnitude(
    k: int, d: int, variance: Fraction, density: float | Fraction | None = None
) -> float:
    return math.sqrt(variance / _density(density, d))


def _moments(k: int, d: int, density: float | Fraction | None = None) -> Moments:
    """Return the moments of independent entries of kurtosis 1/q."""
    kurtosis = math.sqrt(d) if density is None else 1 / float(_density(density, d))
    return independent_entries(k, kurtosis)


register(
    Ensemble(
        name="very_sparse",
        label="very sparse",
        order=4,
        draw=very_sparse,
        moments=_moments,
        options=("density",),
        most_rows=most_rows,
        magnitude=_magnitude,
        product="sparse",
    )
)
