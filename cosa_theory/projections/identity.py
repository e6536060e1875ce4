"""The identity, as the factor of a side that is not compressed."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array

from cosa_theory.projections.ensembles import Ensemble, Streams, register

__all__ = ["identity"]


def identity(
    streams: Streams, k: int, d: int, variance: Fraction, dtype: np.dtype[Any]
) -> csr_array:
    """√(d·variance) times the first k rows of the d × d identity; see `Ensemble`.

    With k = d, as one-sided cores have it, it is the identity at both scales.
    """
    return csr_array(eye_array(k, d, dtype=dtype) * math.sqrt(d * variance))


register(
    Ensemble(
        name="identity",
        label="identity",
        draw=identity,
        moments=lambda k, d: (1.0, 0.0, 0.0),
        most_rows=lambda d: d,
        order=30,
        product="identity",
        fixed=True,
    )
)
