"""Singular vectors of one matrix, through the float64 Gram matrix on its short side."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from cosa_theory.ground.scales import in_safe_range
from cosa_theory.spectrum.singular_values import resolution, row_blocks, short_gram

__all__ = ["best_factors", "gram_vectors", "leading_vectors"]

Matrix = NDArray[Any]


def gram_vectors(
    X: Matrix, k: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the k largest singular values and their vectors on the short side, all by default.

    X is a finite m × n array. The values are in its units, largest first, and the vectors the
    columns of an array of shape (min(m, n), k): right ones of a tall matrix, left ones of another.
    Those of values below `resolution` are left out, so fewer than k may come back; none of X = 0.
    """
    X, unit = in_safe_range(X)
    side = min(X.shape)
    wanted = None if k is None else (side - k, side - 1)
    gram = short_gram(X)
    squares, vectors = eigh(
        gram, lower=True, subset_by_index=wanted, overwrite_a=True, check_finite=False
    )
    sigma = np.sqrt(np.maximum(squares, 0.0))[::-1]
    found = int(np.count_nonzero(sigma > resolution(sigma[0], "gram")))
    return sigma[:found] / unit, vectors[:, ::-1][:, :found]


def leading_vectors(
    X: Matrix, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return U, σ and V of the k largest singular values of X, fewer where they are not resolved.

    U is m × k, V is n × k, both with orthonormal columns and each column of either up to its sign;
    σ is in the units of X. X V = U Σ, and the QR decomposition of that product gives U orthonormal
    to machine precision, where a division by Σ would lose it for small singular values.
    """
    if X.shape[0] < X.shape[1]:
        right, sigma, left = leading_vectors(X.T, k)
        return left, sigma, right
    X, unit = in_safe_range(X)
    sigma, right = gram_vectors(X, k)
    images = [rows @ right for rows in row_blocks(X)]
    return np.linalg.qr(np.concatenate(images))[0], sigma / unit, right


def best_factors(X: Matrix, k: int) -> tuple[Matrix, Matrix]:
    """Return factors (m × k and k × n) of the best approximation of X of rank k: U and Uᵀ X.

    Zeros follow where X has fewer directions, of which no more than min(m, n) are asked for.
    """
    m, n = X.shape
    left, right = np.zeros((m, k), X.dtype), np.zeros((k, n), X.dtype)
    if k:
        U = leading_vectors(X, k)[0].astype(X.dtype, copy=False)
        left[:, : U.shape[1]], right[: U.shape[1]] = U, U.T @ X
    return left, right
