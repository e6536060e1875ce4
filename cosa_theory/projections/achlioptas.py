"""Achlioptas's sparse ensemble."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from cosa_theory.projections.bernoulli import bernoulli_signs, most_rows
from cosa_theory.projections.ensembles import Ensemble, Streams, independent_entries, register

__all__ = ["achlioptas"]

_DENSITY = Fraction(1, 3)


def achlioptas(
    streams: Streams, k: int, d: int, variance: Fraction, dtype: np.dtype[Any]
) -> csr_array:
    """Independent entries: ±√(3·variance) with probability 1/6 each, else 0 [1]_; see `Ensemble`.

    References
    ----------
    .. [1] D. Achlioptas, "Database-friendly random projections", Journal of Computer and System
       Sciences 66 (2003), theorem 1.1, the second of its two distributions.
    """
    return bernoulli_signs(streams, k, d, variance, dtype, _DENSITY)


register(
    Ensemble(
        name="achlioptas",
        label="Achlioptas",
        order=3,
        draw=achlioptas,
        moments=lambda k, d: independent_entries(k, 3.0),
        most_rows=most_rows,
        magnitude=lambda k, d, variance: math.sqrt(variance / _DENSITY),
    )
)
