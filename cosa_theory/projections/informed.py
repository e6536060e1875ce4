"""The informed ensembles: rows in the leading directions of the inputs, or of the gradients."""

import math
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from cosa_theory.ground.checks import real
from cosa_theory.ground.errors import InputError
from cosa_theory.projections.ensembles import Ensemble, Moments, Streams, register
from cosa_theory.projections.second_moments import SecondMoments

__all__ = ["informed"]

_OPTIONS = ("moments", "power", "whiten", "centre")


def informed(
    streams: Streams,
    k: int,
    d: int,
    variance: Fraction,
    dtype: np.dtype[Any],
    *,
    moments: Any = None,
    power: float | None = None,
    whiten: bool = False,
    centre: bool = False,
    of: str = "the layer's inputs",
) -> NDArray[np.floating[Any]]:
    """Rows that span the leading directions of C = E[x xᵀ], √(d·variance) times orthonormal ones.

    Without `power` the k rows are the leading eigenvectors, by descending eigenvalue. With a power
    p they are an orthonormal basis of the span of k combinations g Cᵖ with standard normal g: less
    concentrated, but a continuous function of C, so that C need not be known to the last bits.
    With `whiten` they are (Q C Qᵀ)^(−1/2) Q, for those orthonormal rows Q, at the same Frobenius
    norm: the projected inputs are then uncorrelated and of one size. With `centre` C is the
    covariance. See `Ensemble` and docs/theory.md, 7.2.
    """
    if moments is None:
        raise InputError(
            f"moments is missing: this ensemble is drawn from the second moments of {of}; gather "
            "them with cosa_theory.nn.layer_moments, or take one of the oblivious kinds",
            argument="moments",
        )
    C = SecondMoments.of(moments, d)
    C = C.centred() if centre else C
    if power is None:
        values, vectors = C.leading(k)
        rows = vectors.T
        spread = np.diag(values)
    else:
        C.leading(k)  # which refuses too few directions
        rows = streams("entries").standard_normal((k, d))
        power, steps = math.modf(real("power", power, above=0, most=1000))
        # Orthonormalised between steps, which changes no span: else high powers of the smaller
        # eigenvalues are lost in the rounding of the largest.
        for step in ([power] if power else []) + [1.0] * int(steps):
            rows = _orthonormal_rows(C.times(rows, step))
        spread = C.times(rows) @ rows.T * C.total
    if whiten:
        rows = _inverse_root(spread) @ rows
        rows *= math.sqrt(k) / np.linalg.norm(rows)
    return np.ascontiguousarray(rows * math.sqrt(d * variance), dtype=dtype)


def _orthonormal_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    Q, T = scipy.linalg.qr(rows.T, mode="economic", check_finite=False)
    return np.ascontiguousarray((Q * np.where(np.diagonal(T) < 0, -1.0, 1.0)).T)


def _inverse_root(S: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = scipy.linalg.eigh((S + S.T) / 2)
    least = np.finfo(np.float64).eps * values[-1]
    return (vectors / np.sqrt(np.maximum(values, least))) @ vectors.T


def _no_law(k: int, d: int, **options: Any) -> Moments:
    raise InputError("an informed projection has no law of its own: it depends on the data")


_informed = partial(
    Ensemble, moments=_no_law, options=_OPTIONS, most_rows=lambda d: d, data_dependent=True
)
register(
    _informed(name="activation", label="informed by inputs", draw=informed, order=20, left="haar")
)
register(
    _informed(
        name="gradient",
        label="informed by gradients",
        draw=partial(informed, of="the gradients of the layer's outputs, or of its inputs"),
        order=21,
    )
)
