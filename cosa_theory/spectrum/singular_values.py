"""Singular values of a weight or an update: exact to a stated resolution, one matrix at a time.

The default route squares the matrix on its short side in float64, which costs a fraction of a
direct SVD and resolves singular values down to 1e-7 of the largest. That is enough for every
spectrum stored in float32 or coarser; `resolution` says where it ends.
"""

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array, is_torch_array
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.blas import dsyrk

from cosa_theory.ground.checks import choice, pair, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.scales import unit_scale
from cosa_theory.projections import stream
from cosa_theory.spectrum.eigenvalues import symmetric_eigenvalues

__all__ = [
    "METHODS",
    "resolution",
    "row_blocks",
    "short_gram",
    "singular_values",
    "singular_values_of_product",
]

METHODS = ("gram", "svd", "randomized")

# Rows upcast to float64 at a time: 32 MiB of them, so that the copy stays small beside the matrix
# while one block still fills a matrix product.
_BLOCK_BYTES = 2**25
# Between these, squared entries neither overflow nor lose anything against the largest one.
_SAFE_SQUARES = (1e-250, 1e300)
_OVERSAMPLING = 10
_POWER_ITERATIONS = 4


def singular_values(X: Any, method: str = "gram", k: int | None = None, seed: int = 0) -> Any:
    """Return the singular values of a matrix, largest first, in float64.

    See docs/theory.md, 5.3.

    Parameters
    ----------
    X : array of shape (m, n)
        A numpy array or a torch tensor on any device, of any real type; lists are taken as numpy.
    method : {"gram", "svd", "randomized"}
        "gram": square roots of the eigenvalues of XᵀX or XXᵀ, whichever is smaller, accumulated in
        float64. The relative error of σ grows like u (σ₁/σ)² with u = 1e-16, so values below
        1e-7 σ₁ are noise (see `resolution`).
        "svd": a direct SVD in float64, two to four times slower, accurate to u·max(m, n)·σ₁.
        "randomized": an approximation of the k largest, by subspace iteration from a random start
        [1]_. It never exceeds the true values (beyond rounding) and is accurate where the
        spectrum decays; on a flat spectrum it may be a few per cent low.
    k : int, optional
        Return only the k largest. Required by "randomized".
    seed : int
        Seed of the random start of "randomized"; the other methods are deterministic.

    Returns
    -------
    array of shape (min(m, n),) or (k,)
        In the units of X's entries; the same library and device as X, float64.

    Raises
    ------
    InputError
        If X is not a non-empty real matrix, holds NaN or infinities, has singular values beyond the
        range of float64, or an argument is not one of those above.

    References
    ----------
    .. [1] N. Halko, P.-G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM
       Review 53 (2011), algorithms 4.4 and 5.1.
    """
    choice("method", method, METHODS)
    X = _as_matrix(X, "X")
    if k is not None or method == "randomized":  # which needs to know how many
        k = whole("k", k, most=min(X.shape))
    if method == "randomized":
        return _randomized(X, int(k or 1), seed)
    return (_gram(X) if method == "gram" else _svd(X))[:k]


def singular_values_of_product(B: Any, A: Any) -> Any:
    """Return the singular values of B A from its thin factors, without forming the product.

    With B = Q_B R_B and Aᵀ = Q_A R_A they are those of the small matrix R_B R_Aᵀ. This is the way
    to the spectrum of a LoRA update: O((m + n) r²) instead of O(mn min(m, n)).

    Parameters
    ----------
    B : array of shape (m, r)
        The left factor, with any scaling already applied.
    A : array of shape (r, n)
        The right factor, of the same library and device.

    Returns
    -------
    array of shape (min(m, n, r),)
        Largest first, float64; all further singular values of B A are zero. Accurate to
        u·max(m, n)·‖B‖‖A‖.

    Raises
    ------
    InputError
        If a factor is not a non-empty finite real matrix, their inner sizes differ, or B A has
        singular values beyond the range of float64.
    """
    B, A = _as_matrix(B, "B"), _as_matrix(A, "A")
    if B.shape[1] != A.shape[0]:
        must = f"it must have {B.shape[1]}, as many as B has columns"
        raise InputError(f"A has {A.shape[0]} rows: {must}", argument="A")
    xp = array_namespace(B, A)
    B, A = xp.astype(B, xp.float64), xp.astype(A, xp.float64)
    unit_B, unit_A = unit_scale(_check_finite(B, "B")), unit_scale(_check_finite(A, "A"))
    left = xp.linalg.qr(B * unit_B, mode="reduced")[1]
    right = xp.linalg.qr((A * unit_A).T, mode="reduced")[1]
    return _unscaled(_svd(left @ right.T), max(unit_B * unit_A, math.ulp(0.0)), "B")


def resolution(
    sigma: ArrayLike, method: str = "gram", shape: tuple[int, int] | None = None
) -> float:
    """Return the level below which singular values are rounding noise.

    See docs/theory.md, 5.3.

    Parameters
    ----------
    sigma : array of shape (k,)
        Singular values in any order, or the largest one alone.
    method : {"gram", "svd", "randomized", "product"}
        How they were computed; "product" stands for `singular_values_of_product`.
    shape : (int, int), optional
        The matrix's shape (m, n); without it, the number of values stands for max(m, n).

    Returns
    -------
    float
        1e-7 σ₁ for "gram", where an eigenvalue of the Gram matrix is wrong by a multiple of u σ₁²
        and σ therefore by about 1 %; u·max(m, n)·σ₁ otherwise, with u = 2.2e-16.
    """
    values = np.atleast_1d(_to_numpy(sigma))
    choice("method", method, (*METHODS, "product"))
    largest = float(values.max(initial=0.0))
    if method == "gram":
        return 1e-7 * largest
    longest = max(values.shape if shape is None else pair("shape", shape))
    return float(np.finfo(np.float64).eps) * longest * largest


def _as_matrix(X: Any, name: str) -> Any:
    """Check kind, shape and type of a matrix, cheaply; values are checked where they are used."""
    if is_torch_array(X):
        X = X.detach()
        real = not X.is_complex() and not X.is_sparse
    else:
        X = X if is_numpy_array(X) else np.asarray(X)
        real = X.dtype.kind in "fiub"
    if X.ndim != 2 or 0 in X.shape:
        shape = tuple(X.shape)
        raise InputError(
            f"{name} has shape {shape}: it must be a matrix with entries", argument=name
        )
    if not real:
        must = "they must be real numbers, densely stored"
        raise InputError(f"{name} has entries of type {X.dtype}: {must}", argument=name)
    return X


def _to_numpy(X: Any) -> NDArray[np.float64]:
    """Return float64 numpy values, sharing memory where they already are that."""
    if is_torch_array(X):
        X = X.detach().to(device="cpu", dtype=array_namespace(X).float64).numpy()
    return np.asarray(X, dtype=np.float64)


def _tall(X: Any) -> Any:
    return X if X.shape[0] >= X.shape[1] else X.T


def _on_host(X: Any) -> bool:
    return is_numpy_array(X) or X.device.type == "cpu"


def _like(values: Any, X: Any) -> Any:
    """Return values in the library of X; those computed off the host are there already."""
    if is_numpy_array(X) or not is_numpy_array(values):
        return values
    return array_namespace(X).asarray(np.ascontiguousarray(values), device=X.device)


def _largest_entry(X: Any) -> float:
    xp = array_namespace(X)
    return max(abs(float(xp.max(X))), abs(float(xp.min(X))))


def _check_finite(X: Any, name: str = "X") -> float:
    """Return the largest magnitude in X, after checking that it is a number."""
    largest = _largest_entry(X)
    if not np.isfinite(largest):
        raise InputError(f"{name} has a NaN or infinite entry: mend it", argument=name)
    return largest


def _unscaled(values: Any, unit: float, name: str = "X") -> Any:
    """Return singular values of a matrix from those of `unit` times it, if they are in range."""
    largest = float(values[0])
    if largest > unit * sys.float_info.max:
        text = f"{name} has entries so large that a singular value leaves float64: scale it down"
        raise InputError(text, argument=name)
    return values / unit


def row_blocks(tall: Any, scale: float = 1.0) -> Iterator[Any]:
    """Yield the rows of a matrix, in blocks, as float64 arrays times `scale`."""
    xp = array_namespace(tall)
    rows = max(1, _BLOCK_BYTES // (8 * tall.shape[1]))
    for start in range(0, tall.shape[0], rows):
        block = tall[start : start + rows, :]
        block = _to_numpy(block) if _on_host(tall) else xp.astype(block, xp.float64, copy=False)
        yield block if scale == 1.0 else block * scale


def short_gram(X: Any, scale: float = 1.0) -> Any:
    """Return the Gram matrix of scale·X on its short side; on the host, its lower triangle only."""
    tall = _tall(X)
    side = tall.shape[1]
    if not _on_host(X):
        xp = array_namespace(X)
        gram = xp.zeros((side, side), dtype=xp.float64, device=X.device)
        for block in row_blocks(tall, scale):
            gram += block.T @ block
        return gram
    gram = np.zeros((side, side), order="F")
    for block in row_blocks(tall, scale):
        # BLAS reads columns first: hand it whichever of block, blockᵀ lies that way, uncopied.
        by_rows = block.flags.c_contiguous
        operand = block.T if by_rows else block
        dsyrk(1.0, operand, beta=1.0, c=gram, trans=int(not by_rows), lower=1, overwrite_c=1)
    return gram


def _gram(X: Any) -> Any:
    """Singular values through the eigenvalues of the float64 Gram matrix."""
    scale = 1.0
    gram = short_gram(X)
    # NaN, infinities, overflow and underflow all show on the diagonal, so that ordinary matrices
    # pay for no pass over their entries.
    squares = gram.diagonal()
    if not _SAFE_SQUARES[0] < float(squares.max()) < _SAFE_SQUARES[1]:
        scale = unit_scale(_check_finite(X))
        gram = short_gram(X, scale)
    if is_numpy_array(gram):
        squares = symmetric_eigenvalues(gram)
        values = np.sqrt(np.maximum(squares, 0.0))[::-1]
        return _like(_unscaled(values, scale), X)
    xp = array_namespace(gram)
    values = xp.sqrt(xp.clip(xp.linalg.eigvalsh(gram), 0.0, None))
    return _unscaled(xp.flip(values, axis=0), scale)


def _svd(X: Any) -> Any:
    """Singular values by a direct SVD in float64."""
    _check_finite(X)
    if _on_host(X):
        return _like(_unscaled(np.linalg.svd(_to_numpy(X), compute_uv=False), 1.0), X)
    xp = array_namespace(X)
    return _unscaled(xp.linalg.svdvals(xp.astype(X, xp.float64)), 1.0)


def _randomized(X: Any, k: int, seed: int) -> Any:
    """Approximate the k largest singular values by subspace iteration on XᵀX (X tall)."""
    scale = unit_scale(_check_finite(X))
    tall = _tall(X)
    width = min(k + _OVERSAMPLING, tall.shape[1])
    basis = stream(seed, "spectrum", "randomized").standard_normal((tall.shape[1], width))
    linalg, concat = np.linalg, np.concatenate
    if not _on_host(X):
        xp = array_namespace(X)
        basis, linalg, concat = xp.asarray(basis, device=X.device), xp.linalg, xp.concat
    for _ in range(_POWER_ITERATIONS):
        basis = linalg.qr(basis)[0]
        basis = sum(block.T @ (block @ basis) for block in row_blocks(tall, scale))
    basis = linalg.qr(basis)[0]
    image = concat([block @ basis for block in row_blocks(tall, scale)])
    return _like(_unscaled(linalg.svdvals(image)[:k], scale), X)
