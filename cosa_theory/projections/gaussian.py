"""The Gaussian ensemble."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.projections.ensembles import Ensemble, Streams, independent_entries, register
from cosa_theory.projections.streams import CHUNK

__all__ = ["gaussian"]


def gaussian(
    streams: Streams, k: int, d: int, variance: Fraction, dtype: np.dtype[Any]
) -> NDArray[np.floating[Any]]:
    """Independent normal entries, aᵢⱼ ~ N(0, variance); see `Ensemble`.

    Filled in row-major order from the stream, in chunks: no temporary of its size.

    Notes
    -----
    The values come from numpy's ziggurat sampler, which a later numpy may change; the other
    ensembles but Haar need raw bits alone. `cosa_theory.projections.draw_fingerprint` tells
    whether a stored seed still means the same matrix.
    """
    generator, sd = streams("entries"), math.sqrt(variance)
    out = np.empty(k * d, dtype)
    chunk = np.empty(min(CHUNK, out.size))
    for start in range(0, out.size, CHUNK):
        part = chunk[: out.size - start]
        generator.standard_normal(out=part)
        np.multiply(part, sd, out=out[start : start + CHUNK], casting="same_kind")
    return out.reshape(k, d)


register(
    Ensemble(
        name="gaussian",
        label="Gaussian",
        order=1,
        draw=gaussian,
        moments=lambda k, d: independent_entries(k, 3.0),
        norm_law="chi_square",
    )
)
