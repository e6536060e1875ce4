"""The column space of one factor: orthonormal coordinates in it, and its singular values."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TypeAlias

import numpy as np
from scipy.linalg import LinAlgError, eigh, solve_triangular, svd, svdvals
from scipy.linalg.lapack import get_lapack_funcs

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.threads import one_thread
from cosa_theory.linear.operators import Factor

__all__ = ["CholeskyRange", "OrthogonalRange", "Range", "column_range", "extreme_singular_values"]

# Of the largest squared column norm by bytes of the type, between which no digit is lost.
_SAFE_SQUARES = {4: (1e-25, 1e36), 8: (1e-250, 1e300)}
_UNRESOLVED = 1e-8  # λ_min/λ_max of a float64 Gram matrix under which its roots lose their digits


class CholeskyRange:
    """The range of a well-conditioned factor M (d × k), by the Cholesky factor C of MᵀM = C Cᵀ.

    M C⁻ᵀ has orthonormal columns and is never formed: what multiplies ΔW is M itself.
    """

    def __init__(self, factor: Factor, cholesky: np.ndarray) -> None:
        self.analysis, self.rank, self._cholesky = factor.T, factor.shape[1], cholesky

    def coordinates(self, products: np.ndarray) -> np.ndarray:
        """Turn Mᵀ X into coordinates in the orthonormal basis."""
        with one_thread():
            return solve_triangular(self._cholesky, products, lower=True, check_finite=False)

    def core(self, coordinates: np.ndarray) -> np.ndarray:
        """Turn coordinates into the rows M⁺ X of the core."""
        with one_thread():
            return solve_triangular(
                self._cholesky, coordinates, lower=True, trans="T", check_finite=False
            )

    weights = core  # the projection of X is M M⁺ X

    @cached_property
    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (float64) and eigenvectors of MᵀM."""
        values, vectors = eigh(self._cholesky @ self._cholesky.T, check_finite=False)
        return values.astype(np.float64), vectors

    def correlate(self, products: np.ndarray) -> np.ndarray:
        """Turn Mᵀ X into its coordinates in those eigenvectors."""
        return self.eigen[1].T @ products


class OrthogonalRange:
    """The range of an ill-conditioned or deficient factor M = U S Vᵀ, null directions left out.

    What multiplies ΔW is Uᵀ, so no digit is lost to the square of M's condition number.
    """

    def __init__(self, factor: Factor, dtype: np.dtype) -> None:
        # Two steps, because the singular values of the small triangle are those of M.
        Q, triangle = np.linalg.qr(factor.dense(dtype))
        U, values, Vt = _robust_svd(triangle.astype(np.float64))
        self.rank = int(np.count_nonzero(values > _rounding(factor, dtype, values[0])))
        if self.rank == 0:
            text = f"every entry of {factor.name} is zero: it expresses no update"
            raise InputError(text, argument=factor.name)
        self._values = values[: self.rank].astype(dtype)
        self._vectors = Vt[: self.rank].T.astype(dtype)
        self.analysis = Factor((Q @ U[:, : self.rank].astype(dtype)).T, factor.name)

    def coordinates(self, products: np.ndarray) -> np.ndarray:
        """Return Uᵀ X, which the products already are."""
        return products

    weights = coordinates  # the projection of X is U Uᵀ X

    def core(self, coordinates: np.ndarray) -> np.ndarray:
        """Turn coordinates into the rows M⁺ X of the core, of least norm."""
        return self._vectors @ (coordinates / self._values[:, None])

    @cached_property
    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """Non-zero eigenvalues (float64) and eigenvectors of MᵀM."""
        return self._values.astype(np.float64) ** 2, self._vectors

    def correlate(self, products: np.ndarray) -> np.ndarray:
        """Turn Uᵀ X into the coordinates of Mᵀ X in those eigenvectors."""
        return self._values[:, None] * products


def _rounding(factor: Factor, dtype: np.dtype, largest: float) -> float:
    """Return the singular value up to which one can't be told from zero."""
    return max(factor.shape) * float(np.finfo(dtype).eps) * float(largest)


def _robust_svd(triangle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a thin SVD, by QR iteration where divide and conquer does not converge.

    Padded Hadamard factors have many equal singular values and some zero; on their triangles
    LAPACK's divide and conquer fails now and then, in float64 too, as rounding falls.
    """
    try:
        return svd(triangle, full_matrices=False, check_finite=False)
    except LinAlgError:
        return svd(triangle, full_matrices=False, check_finite=False, lapack_driver="gesvd")


Range: TypeAlias = CholeskyRange | OrthogonalRange


def _safe_gram(factor: Factor, dtype: np.dtype) -> np.ndarray | None:
    """Return MᵀM, or None where squares of entries leave the range of the type."""
    with np.errstate(over="ignore", invalid="ignore"):
        gram = factor.gram(dtype)
    low, high = _SAFE_SQUARES[dtype.itemsize]
    if low < float(gram.diagonal().max()) < high and np.isfinite(gram).all():
        return gram
    if not np.isfinite(factor.dense(dtype)).all():
        text = f"{factor.name} has a NaN or infinite entry: mend it"
        raise InputError(text, argument=factor.name)
    return None


def column_range(factor: Factor, dtype: np.dtype) -> Range:
    """Return the range of a factor, by Cholesky where that keeps at least half of the digits."""
    gram = _safe_gram(factor, dtype)
    if gram is not None and factor.shape[1] <= factor.shape[0]:
        potrf, pocon = get_lapack_funcs(("potrf", "pocon"), (gram,))
        norm = np.abs(gram).sum(axis=0).max()
        # The matrix is symmetric, so its transpose is the same in the order LAPACK wants.
        with one_thread():
            cholesky, failed = potrf(gram.T, lower=True, overwrite_a=True, clean=True)
            rcond = 0.0 if failed else pocon(cholesky, norm, uplo="L")[0]
        if rcond > math.sqrt(np.finfo(dtype).eps):
            return CholeskyRange(factor, cholesky)
    return OrthogonalRange(factor, dtype)


def extreme_singular_values(factor: Factor) -> tuple[float, float]:
    """Return the least and greatest singular value of M (d × k) as a map of k-vectors.

    A least one that rounding alone could have made is 0: M is singular as far as can be told.
    """
    dtype = np.dtype(np.float64)
    injective = factor.shape[1] <= factor.shape[0]
    gram = _safe_gram(factor if injective else factor.T, dtype)
    if gram is not None:
        values = np.linalg.eigvalsh(gram)
        if not injective:
            return 0.0, math.sqrt(max(values[-1], 0.0))
        if values[0] > _UNRESOLVED * values[-1]:
            return math.sqrt(values[0]), math.sqrt(values[-1])
    direct = svdvals(factor.dense(dtype), check_finite=False)
    largest, least = float(direct[0]), float(direct[-1])
    told = injective and least > _rounding(factor, dtype, largest)
    return (least if told else 0.0), largest
