"""Subsampled randomised Hadamard transform, applied by the fast Walsh-Hadamard transform."""

import math
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj
from array_api_compat import device as device_of
from numpy.typing import NDArray
from scipy.linalg import hadamard
from scipy.sparse.linalg import LinearOperator

from cosa_theory.ground.checks import refuse, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.projections.ensembles import Ensemble, Moments, Streams, register
from cosa_theory.projections.streams import fill_signs, raw_words

__all__ = ["SRHT", "SRHTTranspose", "padded_length", "srht", "srht_moments", "walsh_hadamard"]

_RADIX = 16  # a product with the 16 × 16 matrix is faster than four passes of additions


@cache
def _hadamard(order: int) -> NDArray[np.int8]:
    """Return the Hadamard matrix of ±1 of an order up to `_RADIX`."""
    return hadamard(order, dtype=np.int8)


def walsh_hadamard(X: Any) -> Any:
    """Return H X for X of shape (..., N, c), N a power of two, with H of ±1 in Sylvester's order.

    In the dtype of X, for any array namespace and device; H Hᵀ = N I. As H_N = H_16 ⊗ … ⊗ H_16 ⊗
    H_r, the product is a few passes of small matrix products: O(N log N) operations a column.
    """
    xp = array_namespace(X)
    *lead, N, inner = X.shape
    if N < 1 or N & (N - 1):
        raise InputError(f"X has {N} rows: it must have a power of two", argument="X")
    shape, blocks = X.shape, math.prod(lead) * N
    while N > 1:
        radix = min(_RADIX, N)
        blocks //= radix
        H = xp.asarray(_hadamard(radix), dtype=X.dtype, device=device_of(X))
        X = xp.matmul(H, xp.reshape(X, (blocks, radix, inner)))
        inner, N = inner * radix, N // radix
    return xp.reshape(X, shape)


def _floating(X: Any, xp: Any) -> Any:
    """Return X, in float64 if it holds integers."""
    if xp.isdtype(X.dtype, ("real floating", "complex floating")):
        return X
    return xp.astype(X, xp.float64)


class _Structured(LinearOperator):
    """What SRHT and its transpose share: products of scipy's interface, from two methods."""

    def apply(self, X: Any) -> Any:
        """Return A X."""
        raise NotImplementedError

    def apply_transpose(self, X: Any) -> Any:
        """Return Aᵀ X."""
        raise NotImplementedError

    def _matvec(self, x: Any) -> Any:
        return self.apply(x)

    def _matmat(self, X: Any) -> Any:
        return self.apply(X)

    def _rmatvec(self, x: Any) -> Any:
        return self.apply_transpose(x)

    def _rmatmat(self, X: Any) -> Any:
        return self.apply_transpose(X)

    def _adjoint(self) -> LinearOperator:  # the entries are real
        return self._transpose()


class SRHT(_Structured):
    """Subsampled randomised Hadamard transform, A = √(N·v) P H D in O(N log N) a column.

    D flips signs, H is the orthonormal N × N Hadamard matrix with N = 2^⌈log₂ d⌉ (the input is
    padded with zeros), P keeps k of the N rows. Every entry is ±√v: v = 1/k at analysis scale,
    1/d at synthesis scale [1]_.

    A scipy ``LinearOperator``: ``A @ X``, ``A.T @ X``, ``A.matmat``, ``A.rmatmat``; `apply` and
    `apply_transpose` are the same maps for numpy arrays, torch tensors and other array
    namespaces. All compute in the dtype of the array they are given (integers in float64).

    Parameters
    ----------
    signs : ndarray of int8, shape (d,)
        The diagonal of D, +1 or −1.
    rows : ndarray of int64, shape (k,)
        Distinct rows of H that P keeps, in 0 … N − 1.
    magnitude : float
        √v, the absolute value of every entry.
    dtype : numpy.dtype
        The operator's nominal dtype.

    Notes
    -----
    With d a power of two the rows are orthogonal, of norm 1 at synthesis scale. Otherwise they are
    rows of H cut after d entries, E‖Ax‖² = ‖x‖² still holds, but some are linearly dependent more
    often than one would think: at d = 384, cut from 512, any four that agree in all but the two
    highest bits of their number are, which at k = 96 happens in one draw of seven.

    References
    ----------
    .. [1] J. A. Tropp, "Improved analysis of the subsampled randomized Hadamard transform",
       Advances in Adaptive Data Analysis 3 (2011): rows without replacement.
    """

    def __init__(
        self,
        signs: NDArray[np.int8],
        rows: NDArray[np.int64],
        magnitude: float,
        dtype: np.dtype[Any],
    ) -> None:
        super().__init__(dtype, (rows.size, signs.size))
        self.signs, self.rows, self.magnitude = signs, rows, magnitude
        self.padded = padded_length(signs.size)
        # Where row i of H's output goes; k, an extra row of zeros, for the rows that P drops.
        self._places = np.full(self.padded, rows.size)
        self._places[rows] = np.arange(rows.size)

    def apply(self, X: Any) -> Any:
        """Return A X.

        Parameters
        ----------
        X : array, shape (d,) or (..., d, c)
            Any array namespace and device.

        Returns
        -------
        array, shape (k,) or (..., k, c)
            In the dtype of `X`; float64 for integers.

        Raises
        ------
        InputError
            If `X` is no array of numbers, or has not d rows.
        """
        xp, X, vector = self._prepare(X, self.shape[1])
        flips = xp.asarray(self.signs[:, None], dtype=X.dtype, device=device_of(X))
        Z = walsh_hadamard(self._pad(xp, X * flips, self.padded))
        Z = self._take(xp, Z, self.rows) * self.magnitude
        return Z[:, 0] if vector else Z

    def apply_transpose(self, X: Any) -> Any:
        """Return Aᵀ X of shape (d,) or (..., d, c) for X (k,) or (..., k, c), as `apply`."""
        k, d = self.shape
        xp, X, vector = self._prepare(X, k)
        Z = self._take(xp, self._pad(xp, X * self.magnitude, k + 1), self._places)
        flips = xp.asarray(self.signs[:, None], dtype=X.dtype, device=device_of(X))
        Z = walsh_hadamard(Z)[..., :d, :] * flips  # H is symmetric
        return Z[:, 0] if vector else Z

    def fingerprint_arrays(self) -> tuple[str, dict[str, NDArray[Any]]]:
        """Return the kind of container and the arrays that define the operator."""
        return f"srht {self.dtype.name}", {
            "signs": self.signs,
            "rows": self.rows,
            "magnitude": np.array(self.magnitude),
        }

    def _transpose(self) -> "SRHTTranspose":
        return SRHTTranspose(self)

    @staticmethod
    def _prepare(X: Any, rows: int) -> tuple[Any, Any, bool]:
        """Return the namespace, X as floating (..., rows, c), and whether X was a vector."""
        if not is_array_api_obj(X) or getattr(X.dtype, "kind", "f") not in "fiubc":
            raise refuse("X", X, "an array of numbers")
        xp = array_namespace(X)
        vector = X.ndim == 1
        X = _floating(X[:, None] if vector else X, xp)
        if X.ndim < 2 or X.shape[-2] != rows:
            shape = tuple(X.shape)
            raise InputError(f"X has shape {shape}: it must have {rows} rows", argument="X")
        return xp, X, vector

    @staticmethod
    def _pad(xp: Any, X: Any, rows: int) -> Any:
        """Append rows of zeros up to `rows`, without writing into X: gradients pass through."""
        *lead, have, columns = X.shape
        if have == rows:
            return X
        zeros = xp.zeros((*lead, rows - have, columns), dtype=X.dtype, device=device_of(X))
        return xp.concat([X, zeros], axis=-2)

    @staticmethod
    def _take(xp: Any, X: Any, rows: NDArray[np.int64]) -> Any:
        return xp.take(X, xp.asarray(rows, device=device_of(X)), axis=X.ndim - 2)


class SRHTTranspose(_Structured):
    """The transpose of the `SRHT` called `operator`, d × k, with the same methods."""

    def __init__(self, operator: SRHT) -> None:
        super().__init__(operator.dtype, operator.shape[::-1])
        self.operator = operator

    def apply(self, X: Any) -> Any:
        """Return Aᵀ X for the transposed operator A; see `SRHT.apply_transpose`."""
        return self.operator.apply_transpose(X)

    def apply_transpose(self, X: Any) -> Any:
        """Return A X for the transposed operator A; see `SRHT.apply`."""
        return self.operator.apply(X)

    def fingerprint_arrays(self) -> tuple[str, dict[str, NDArray[Any]]]:
        """Return the kind of container and the arrays that define the operator."""
        kind, arrays = self.operator.fingerprint_arrays()
        return f"transposed {kind}", arrays

    def _transpose(self) -> SRHT:
        return self.operator


def padded_length(d: int) -> int:
    """Return N = 2^⌈log₂ d⌉, the length that a vector of length d ≥ 1 is padded to."""
    return 1 << (whole("d", d) - 1).bit_length()


def srht(streams: Streams, k: int, d: int, variance: Fraction, dtype: np.dtype[Any]) -> SRHT:
    """Draw an `SRHT`, whose rows are a uniform subset of k, without replacement; see `Ensemble`."""
    signs = np.empty(d, np.float32)
    fill_signs(signs, streams("signs"), 1.0)
    # The k smallest of N random words; equal words, of probability below N²/2⁶⁵, go by position.
    order = np.argsort(raw_words(streams("rows"), padded_length(d)), kind="stable")
    rows = np.sort(order[:k]).astype(np.int64, copy=False)
    return SRHT(signs.astype(np.int8), rows, math.sqrt(variance), dtype)


def srht_moments(k: int, d: int) -> Moments:
    """Return the moments: pair 1, cross c, excess −2c with c = (N − k)/(k(N − 1)).

    Var‖Ax‖² = (2/k)(1 − ‖x‖₄⁴)(N − k)/(N − 1). Rows drawn with replacement would have 1 for the
    last factor. See docs/theory.md, 3.4.
    """
    N = padded_length(d)
    cross = (N - k) / (k * max(N - 1, 1))
    return 1.0, cross, -2 * cross


register(
    Ensemble(
        name="srht",
        label="Hadamard",
        order=7,
        draw=srht,
        moments=srht_moments,
        most_rows=padded_length,
        magnitude=lambda k, d, variance: math.sqrt(variance),
        product="transform",
    )
)
