"""Dense ensembles: Gaussian, Rademacher, Haar."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from cosa_theory.projections.streams import CHUNK, fill_signs

__all__ = ["gaussian", "haar", "haar_draw", "rademacher"]

Draw = Callable[[str], np.random.Generator]
"""From a role, such as "entries" or "signs", to the stream of one matrix for that role."""


def gaussian(
    draw: Draw, k: int, d: int, variance: Fraction, dtype: np.dtype[Any]
) -> NDArray[np.floating[Any]]:
    """Independent normal entries, aᵢⱼ ~ N(0, variance).

    Parameters
    ----------
    draw : callable
        From a role to a stream.
    k, d : int
        Number of rows and of columns.
    variance : fractions.Fraction
        Variance of an entry: 1/k at analysis scale, 1/d at synthesis scale.
    dtype : numpy.dtype
        Of the result; float32 is the rounding of the float64 draw.

    Returns
    -------
    ndarray, shape (k, d)
        Filled in row-major order from the stream, in chunks: no temporary of its size.

    Notes
    -----
    The values come from numpy's ziggurat sampler, which a later numpy may change; the other
    ensembles but Haar need raw bits alone. `cosa_theory.projections.draw_fingerprint` tells
    whether a stored seed still means the same matrix.
    """
    generator, sd = draw("entries"), math.sqrt(variance)
    out = np.empty(k * d, dtype)
    chunk = np.empty(min(CHUNK, out.size))
    for start in range(0, out.size, CHUNK):
        part = chunk[: out.size - start]
        generator.standard_normal(out=part)
        np.multiply(part, sd, out=out[start : start + CHUNK], casting="same_kind")
    return out.reshape(k, d)


def rademacher(
    draw: Draw, k: int, d: int, variance: Fraction, dtype: np.dtype[Any]
) -> NDArray[np.floating[Any]]:
    """Independent signs, aᵢⱼ = ±√variance with probability ½ each [1]_.

    Parameters
    ----------
    draw, k, d, variance, dtype
        As for `gaussian`.

    Returns
    -------
    ndarray, shape (k, d)
        One bit of the stream an entry, in row-major order.

    References
    ----------
    .. [1] D. Achlioptas, "Database-friendly random projections", Journal of Computer and System
       Sciences 66 (2003), theorem 1.1, the first of its two distributions.
    """
    out = np.empty(k * d, dtype)
    fill_signs(out, draw("entries"), math.sqrt(variance))
    return out.reshape(k, d)


def haar_draw(draw: Draw, k: int, d: int) -> NDArray[np.floating[Any]]:
    """Return the float64 standard normal matrix, shape (k, d), that `haar` orthonormalises."""
    return gaussian(draw, k, d, Fraction(1), np.dtype(np.float64))


def haar(
    draw: Draw, k: int, d: int, variance: Fraction, dtype: np.dtype[Any]
) -> NDArray[np.floating[Any]]:
    """Scaled orthonormal rows, A = √(d·variance) Qᵀ with Q uniform on the Stiefel manifold.

    Q (d × k) comes from the QR factorisation of the transposed normal draw with the diagonal of R
    made positive: without that the law would be the LAPACK's, not Haar's [1]_.

    Parameters
    ----------
    draw, k, d, variance, dtype
        As for `gaussian`; k ≤ d. The rows have norm √(d/k) at analysis scale and 1 at synthesis
        scale.

    Returns
    -------
    ndarray, shape (k, d)
        Its last bits depend on the BLAS; those of `haar_draw` do not.

    Raises
    ------
    ValueError
        If k > d.

    References
    ----------
    .. [1] F. Mezzadri, "How to generate random matrices from the classical compact groups",
       Notices of the AMS 54 (2007), section 5.
    """
    if k > d:
        raise ValueError(f"k is {k} with d = {d}; haar has orthonormal rows and needs k at most d")
    Q = _orthonormal(haar_draw(draw, k, d).T)
    Q *= math.sqrt(d * variance)
    return np.ascontiguousarray(Q.T, dtype=dtype)


def _orthonormal(G: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return Q of G = Q R with the diagonal of R positive, in place of the normal draw G (d × k).

    For a tall G the Gram matrix's Cholesky factor is R, in less than half of the time of
    Householder reflections. With d ≥ 1024 and k ≤ d/4 the singular values of G lie between √d/4
    and 7√d/4 but for a probability below 2e⁻³² [1]_: squaring a condition number of at most 7
    costs less than two digits of the sixteen.

    References
    ----------
    .. [1] K. R. Davidson, S. J. Szarek, "Local operator theory, random matrices and Banach
       spaces", Handbook of the Geometry of Banach Spaces 1 (2001), theorem II.13 with t = √d/4.
    """
    d, k = G.shape
    # G is the transpose of a row-major array: LAPACK and BLAS work on it without a copy.
    if d >= 1024 and 4 * k <= d:
        R = np.linalg.cholesky(G.T @ G).T
        return scipy.linalg.blas.dtrsm(1.0, R, G, side=1, overwrite_b=1)
    Q, R = scipy.linalg.qr(G, mode="economic", overwrite_a=True, check_finite=False)
    Q *= np.where(np.diagonal(R) < 0, -1.0, 1.0)
    return Q
