"""Norms of fixed vectors and matrices over many draws of a projection, beside their laws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosa_theory.ground.checks import whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.estimates import Estimate, variance_interval
from cosa_theory.isometry.jl import as_vectors, squared_norms
from cosa_theory.laws.kronecker import MatrixMoments, kronecker_variance_law, matrix_moments
from cosa_theory.laws.norms import GramMoments
from cosa_theory.linear.operators import KroneckerOperator
from cosa_theory.projections import ENSEMBLES, make_projection

__all__ = ["KroneckerVariance", "jl_ratios", "kronecker_ratios", "kronecker_variance"]


def _unit_rows(X: Any) -> NDArray[np.float64]:
    """Return vectors scaled to norm one, as float64 rows."""
    vectors = as_vectors(X).astype(np.float64, copy=False)
    largest = np.max(np.abs(vectors), axis=1, keepdims=True)
    if np.any(largest == 0):
        raise InputError(f"vector {int(np.argmin(largest))} is zero: leave it out")
    vectors = vectors / largest
    return vectors / np.sqrt(squared_norms(vectors))[:, None]


def jl_ratios(
    kind: str, k: int, X: Any, *, draws: int, seed: int = 0, **options: Any
) -> NDArray[np.float64]:
    """Return ‖A_i x‖²/‖x‖² for every draw of A and every vector, shape (draws, n).

    Rows are independent; the ratios of one row share their A. For Gaussian A and one vector, k
    times the ratio is exactly χ²_k.

    Parameters
    ----------
    kind, k, seed, **options
        As for `cosa_theory.projections.make_projection`, at analysis scale. Draw i has the key
        ("jl", i) and does not depend on their number.
    draws : int
        Independent draws of A.
    X : array, shape (n, d) or (d,)
        Non-zero vectors as rows.

    Raises
    ------
    InputError
        From `make_projection`, or if a vector is zero or not finite.
    """
    draws = whole("draws", draws)
    rows = _unit_rows(X)
    ratios = np.empty((draws, len(rows)))
    transposed = np.ascontiguousarray(rows.T)
    for i in range(draws):
        A = make_projection(kind, k, rows.shape[1], seed=seed, key=("jl", i), **options)
        image = A @ transposed
        ratios[i] = np.einsum("ij,ij->j", image, image)
    return ratios


def kronecker_ratios(
    kind: str,
    a: int,
    b: int,
    X: ArrayLike,
    *,
    draws: int,
    seed: int = 0,
    key: tuple[Any, ...] = (),
    **options: Any,
) -> NDArray[np.float64]:
    """Return ‖A_i X B_iᵀ‖²/‖X‖² over independent draws of both factors, shape (draws,).

    A is a × m and B is b × n for X of shape (m, n), not zero, both of the ensemble `kind` at
    analysis scale, with keys ("jl", *key, i, "A") and ("jl", *key, i, "B"): `key` says what the
    matrix is, such as a layer's name. The rest is as for `jl_ratios`.
    """
    draws = whole("draws", draws)
    matrix = np.asarray(X, dtype=np.float64)
    matrix_moments(matrix)  # refuses what is not a finite, non-zero matrix
    matrix = matrix / np.max(np.abs(matrix))
    matrix = matrix / np.linalg.norm(matrix)
    m, n = matrix.shape
    ratios = np.empty(draws)
    for i in range(draws):
        A = make_projection(kind, a, m, seed=seed, key=("jl", *key, i, "A"), **options)
        B = make_projection(kind, b, n, seed=seed, key=("jl", *key, i, "B"), **options)
        ratios[i] = np.sum(KroneckerOperator(A, B).apply(matrix) ** 2)
    return ratios


@dataclass(frozen=True, eq=False)
class KroneckerVariance:
    """The variance of ‖A X Bᵀ‖²/‖X‖² over draws of the factors, beside its law.

    Parameters
    ----------
    kind, a, b : str, int, int
        Ensemble and rows of the two factors.
    moments : MatrixMoments
        Of X.
    ratios : ndarray of float64, shape (draws,)
        The measured ratios, of mean one.
    measured : Estimate
        Mean of (ratio − 1)², with the interval of `cosa_theory.ground.estimates
        .variance_interval`: a standard error from the fourth moment, normal on the scale of the
        logarithm.
    law : float
        `cosa_theory.laws.kronecker.kronecker_variance_law`.
    """

    kind: str
    a: int
    b: int
    moments: MatrixMoments
    ratios: NDArray[np.float64]
    measured: Estimate
    law: float

    @property
    def unstructured(self) -> float:
        """2/(ab), the variance of an unstructured Gaussian map with as many rows."""
        return 2 / (self.a * self.b)

    @cached_property
    def z(self) -> float:
        """(measured − law) over the standard error of the measured variance."""
        squares = (self.ratios - 1) ** 2
        error = float(squares.std(ddof=1)) / math.sqrt(squares.size)
        return (self.measured.value - self.law) / error if error > 0 else 0.0


def kronecker_variance(
    kind: str,
    a: int,
    b: int,
    X: ArrayLike,
    *,
    draws: int = 1000,
    seed: int = 0,
    key: tuple[Any, ...] = (),
    confidence: float = 0.95,
    density: float | None = None,
) -> KroneckerVariance:
    """Measure Var‖A X Bᵀ‖² for ‖X‖_F = 1 over independent draws, and compute its law.

    Parameters
    ----------
    kind, a, b, X, draws, seed, key
        As for `kronecker_ratios`; at least two draws.
    confidence : float
        Level of the interval.
    density : float, optional
        Of both factors for kind "very_sparse"; by default 1/√m and 1/√n.

    Raises
    ------
    InputError
        As for `kronecker_ratios`.
    """
    draws = whole("draws", draws, 2)  # a variance needs two
    options = {} if density is None else {"density": density}
    ratios = kronecker_ratios(kind, a, b, X, draws=draws, seed=seed, key=key, **options)
    moments, (m, n) = matrix_moments(X), np.shape(X)
    left, right = (
        GramMoments(*ENSEMBLES[kind].moments(k, d, **options)) for k, d in ((a, m), (b, n))
    )
    law = kronecker_variance_law(left, right, moments)
    measured = variance_interval(ratios, 1.0, confidence)
    return KroneckerVariance(kind, a, b, moments, ratios, measured, law)
