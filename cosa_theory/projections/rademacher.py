"""The Rademacher ensemble: random signs."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.projections.ensembles import Ensemble, Streams, independent_entries, register
from cosa_theory.projections.streams import fill_signs

__all__ = ["rademacher"]


def rademacher(
    streams: Streams, k: int, d: int, variance: Fraction, dtype: np.dtype[Any]
) -> NDArray[np.floating[Any]]:
    """Independent signs, aᵢⱼ = ±√variance with probability ½ each [1]_; see `Ensemble`.

    One bit of the stream an entry, in row-major order.

    References
    ----------
    .. [1] D. Achlioptas, "Database-friendly random projections", Journal of Computer and System
       Sciences 66 (2003), theorem 1.1, the first of its two distributions.
    """
    out = np.empty(k * d, dtype)
    fill_signs(out, streams("entries"), math.sqrt(variance))
    return out.reshape(k, d)


register(
    Ensemble(
        name="rademacher",
        label="Rademacher",
        order=2,
        draw=rademacher,
        moments=lambda k, d: independent_entries(k, 1.0),
        magnitude=lambda k, d, variance: math.sqrt(variance),
    )
)
