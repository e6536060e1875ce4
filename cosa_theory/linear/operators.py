"""The Kronecker operator X ↦ A X Bᵀ, applied factor by factor and never formed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace, is_numpy_array, is_torch_array
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from cosa_theory.ground.errors import InputError

__all__ = ["Factor", "KroneckerOperator", "as_working_array", "to_host"]

# A sparse product spends about eight times as long on a stored entry as BLAS does on a dense one,
# so a factor with more than one entry in eight is faster dense (Achlioptas, at one in three, is).
_SPARSE_COST = 8
_DENSE_FROM = 1 / _SPARSE_COST
# A fast Walsh-Hadamard transform is bound by memory: each of its additions costs about as much as
# this many multiply-adds of a matrix product.
_TRANSFORM_COST = 16
# Columns per product with a sparse factor: a block of this width stays in cache, which is up to
# four times as fast as the whole width.
_SPARSE_BLOCK = 64
# Columns per product with an operator, so that its own work arrays stay small.
_OPERATOR_BLOCK = 128
# Sparse times sparse beats a dense product of the same matrices below about this density.
_SPARSE_GRAM_BELOW = 1 / 32
_GRAM_BLOCK = 256  # columns of an operator, or rows of a sparse array, held dense at a time


def as_working_array(X: Any, name: str = "the matrix") -> Any:
    """Return `X` as an array that the operators compute in, without a copy where none is needed.

    numpy arrays (and anything numpy can read) keep float32 and float64 and otherwise become
    float64; torch tensors keep every floating type and otherwise become float64.

    Raises
    ------
    InputError
        If the entries are complex or not numbers; it begins with the `name`.
    """
    if is_torch_array(X):
        if X.is_complex():
            raise InputError(f"{name} has entries of type {X.dtype}: they must be real numbers")
        return X if X.is_floating_point() else X.double()
    array = np.asarray(X)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has entries of type {array.dtype}: they must be real numbers")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def to_host(X: Any) -> Any:
    """Return a tensor as a numpy array, half precision in float32; anything else as it is."""
    if not is_torch_array(X):
        return X
    host = X.detach().cpu()
    return (host if host.element_size() >= 4 else host.float()).numpy()


def _stored(matrix: Any, name: str) -> Any:
    """Return a factor as a dense array, a csr or csc array, a tensor or an operator."""
    if sparse.issparse(matrix):
        form = matrix if matrix.format in ("csr", "csc") else matrix.tocsr()
        if form.dtype.kind not in "fiub":
            raise InputError(f"{name} must have real entries, got {form.dtype}")
        return form if form.dtype in (np.float32, np.float64) else form.astype(np.float64)
    if is_torch_array(matrix) and str(matrix.layout) != "torch.strided":
        raise InputError(f"{name} is a sparse tensor: give it as a scipy sparse array")
    if hasattr(matrix, "matvec") and not isinstance(matrix, LinearOperator):
        matrix = aslinearoperator(matrix)  # of PyLops, or anyone's
    if not isinstance(matrix, LinearOperator):
        matrix = as_working_array(matrix, name)
    elif np.dtype(matrix.dtype).kind not in "fiub":
        raise InputError(f"{name} has entries of type {matrix.dtype}: it must be a real operator")
    if len(matrix.shape) != 2 or 0 in matrix.shape:
        shape = tuple(matrix.shape)
        raise InputError(f"{name} must be a matrix with at least one entry, got shape {shape}")
    return matrix


class Factor:
    """A fixed real matrix M (p × q) that multiplies numpy arrays and torch tensors.

    M is kept as it was given: a dense numpy array, a torch tensor on any device, a scipy sparse
    array or a `LinearOperator`. Products run in the type and on the device of the other operand;
    the copy of M this needs (if any) is kept for the next product, so M must not be changed
    afterwards.

    Parameters
    ----------
    matrix : array, tensor, sparse array or LinearOperator, shape (p, q)
        An operator with methods ``apply`` and ``apply_transpose`` (such as an SRHT) works on
        tensors too; any other, which `scipy.sparse.linalg.aslinearoperator` takes (one of PyLops,
        or an object with `shape`, `matvec` and `rmatvec`), works on numpy arrays only.
    name : str
        What error messages call it.
    """

    def __init__(self, matrix: Any, name: str = "factor") -> None:
        self.matrix = _stored(matrix, name)
        self.name = name
        self.shape: tuple[int, int] = (int(self.matrix.shape[0]), int(self.matrix.shape[1]))
        self._parent: Factor | None = None
        self._last: tuple[Any, Any] = (None, None)

    @property
    def is_sparse(self) -> bool:
        """Whether M is a sparse array thin enough for sparse products to pay."""
        if not sparse.issparse(self.matrix):
            return False
        return self.matrix.nnz <= _DENSE_FROM * self.shape[0] * self.shape[1]

    @property
    def is_operator(self) -> bool:
        """Whether M is known only by its products."""
        return isinstance(self.matrix, LinearOperator)

    @property
    def dtype(self) -> np.dtype:
        """The nearest numpy type of M's entries."""
        if is_torch_array(self.matrix):
            return np.dtype(np.float64 if self.matrix.element_size() == 8 else np.float32)
        return np.dtype(self.matrix.dtype)

    @property
    def T(self) -> Factor:
        """The transpose, q × p, which shares M and its converted copy."""
        if self._parent is not None:
            return self._parent
        transpose = Factor.__new__(Factor)
        transpose.matrix, transpose.name = self.matrix.T, self.name
        transpose.shape = self.shape[::-1]
        transpose._parent, transpose._last = self, (None, None)
        return transpose

    @property
    def work(self) -> float:
        """Cost of M x for one column x, in multiply-adds of a dense product."""
        p, q = self.shape
        if self.is_sparse:
            return float(_SPARSE_COST * self.matrix.nnz)
        if hasattr(self.matrix, "apply_transpose"):
            size = max(p, q)
            return min(p * q, _TRANSFORM_COST * size * math.log2(2 * size))
        return float(p * q)

    def like(self, X: Any) -> Any:
        """Return M in the library, type and device of the array `X`; sparse M stays sparse."""
        if self._parent is not None:
            return self._parent.like(X).T
        key = (X.dtype, getattr(X, "device", None) if is_torch_array(X) else None)
        if self._last[0] != key:
            convert = _to_numpy if is_numpy_array(X) else _to_torch
            self._last = (key, convert(self.matrix, X, self.is_sparse))
        return self._last[1]

    def left(self, X: Any) -> Any:
        """Return M X for X of shape (…, q, c)."""
        if not (self.is_sparse or self.is_operator):
            return self.like(X) @ X
        xp = array_namespace(X)
        columns = xp.moveaxis(X, -2, 0)
        product = self._times(xp.reshape(columns, (self.shape[1], -1)))
        return xp.moveaxis(xp.reshape(product, (self.shape[0], *columns.shape[1:])), 0, -2)

    def right(self, X: Any) -> Any:
        """Return X Mᵀ for X of shape (…, c, q)."""
        rows = array_namespace(X).reshape(X, (-1, self.shape[1]))  # a stack in one product
        implicit = self.is_sparse or self.is_operator
        product = self._times(rows.T).T if implicit else rows @ self.like(X).T
        return product.reshape(*X.shape[:-1], self.shape[0])

    def dense(self, dtype: np.dtype) -> np.ndarray:
        """Return M as a dense numpy array of one type."""
        if self.is_operator:
            return self.left(np.eye(self.shape[1], dtype=dtype))
        M = to_host(self.matrix).astype(dtype, copy=False)
        return M.toarray() if sparse.issparse(M) else M

    def gram(self, dtype: np.dtype) -> np.ndarray:
        """Return MᵀM (q × q) as a numpy array of one type, with little memory beside it."""
        size = self.shape[1]
        if self.is_operator:
            gram, eye = np.empty((size, size), dtype), np.eye(size, dtype=dtype)
            for start in range(0, size, _GRAM_BLOCK):
                block = slice(start, start + _GRAM_BLOCK)
                gram[:, block] = self.T.left(self.left(eye[:, block]))
            return gram
        M = to_host(self.matrix).astype(dtype, copy=False)
        if not sparse.issparse(M):
            return M.T @ M  # numpy sees the symmetry and does half of the work
        if M.nnz < _SPARSE_GRAM_BELOW * M.shape[0] * M.shape[1]:
            return (M.T @ M).toarray()
        gram, rows = np.zeros((size, size), dtype), M.tocsr()
        for start in range(0, self.shape[0], _GRAM_BLOCK):
            dense = rows[start : start + _GRAM_BLOCK].toarray()
            gram += dense.T @ dense
        return gram

    def _times(self, X: Any) -> Any:
        """Return M X for a sparse or implicit M and a matrix X, in blocks of columns."""
        if self.is_sparse:
            M = self.like(X)
            return _by_blocks(M.__matmul__, X, _SPARSE_BLOCK) if is_numpy_array(X) else M @ X
        if hasattr(self.matrix, "apply_transpose"):
            return _by_blocks(self.matrix.apply, X, _OPERATOR_BLOCK)
        if not is_numpy_array(X):
            raise InputError(
                f"{self.name} is a {type(self.matrix).__name__}, which multiplies numpy arrays "
                "only: pass a numpy array, or give the factor as a dense array"
            )
        return _by_blocks(self.matrix.matmat, X, _OPERATOR_BLOCK)


def _by_blocks(multiply: Callable[[Any], Any], X: Any, width: int) -> Any:
    """Return M X from the products of M with `width` columns of X at a time, in the type of X."""
    starts = range(0, max(X.shape[1], 1), width)  # a stack may be empty
    blocks = (multiply(X[:, i : i + width]) for i in starts)
    if not is_numpy_array(X):
        return array_namespace(X).concat(list(blocks), axis=1)
    first = next(blocks)
    product = np.empty((first.shape[0], X.shape[1]), X.dtype)
    product[:, :width] = first
    for number, block in enumerate(blocks, 1):
        product[:, number * width : (number + 1) * width] = block
    return product


def _to_numpy(matrix: Any, X: np.ndarray, keep_sparse: bool) -> Any:
    """Return a dense or sparse factor for products with the numpy array `X`."""
    matrix = to_host(matrix).astype(X.dtype, copy=False)
    return matrix if keep_sparse or not sparse.issparse(matrix) else matrix.toarray()


def _to_torch(matrix: Any, X: Any, keep_sparse: bool) -> Any:
    """Return a dense or sparse factor for products with the tensor `X`."""
    import torch

    if is_torch_array(matrix):
        return matrix.detach().to(device=X.device, dtype=X.dtype)
    if not keep_sparse:
        array = matrix.toarray() if sparse.issparse(matrix) else matrix
        # torch shares the memory of an array where it can, but takes no read-only or flipped one.
        if not array.flags.writeable or min(array.strides) < 0:
            array = array.copy()
        return torch.as_tensor(array).to(device=X.device, dtype=X.dtype)
    # Coordinate form, because compressed rows have no half-precision products on the CPU.
    coordinates = matrix.tocoo()
    indices = torch.as_tensor(np.stack(coordinates.coords).astype(np.int64))
    values = torch.as_tensor(coordinates.data)
    entries = torch.sparse_coo_tensor(indices, values, matrix.shape, check_invariants=False)
    return entries.to(device=X.device, dtype=X.dtype).coalesce()


class KroneckerOperator(LinearOperator):
    """The linear map X ↦ A X Bᵀ on matrices, which is A ⊗ B on row-major vectors.

    Parameters
    ----------
    A : array, tensor, sparse array or LinearOperator, shape (p, m)
    B : array, tensor, sparse array or LinearOperator, shape (q, n)
        The factors, kept as they are and never multiplied out. They may differ in kind and type,
        and must not change afterwards (see `Factor`).
    name : str
        What results about it call it.
    role : {"dictionary", "sensing", "general"}
        What it is to a CoSA layer: the map from cores to updates, the one from updates to their
        measurements, or neither.

    Attributes
    ----------
    shape : tuple of int
        (p·q, m·n).
    dtype : numpy.dtype
        The common type of the two factors. Products run in the type of the array given instead:
        float32 in, float32 out, whatever the factors are; whole numbers become float64.

    Raises
    ------
    InputError
        If a factor is empty, not two-dimensional or complex.

    Notes
    -----
    With row-major vectors ``KroneckerOperator(A, B) @ X.ravel()`` equals
    ``numpy.kron(A, B) @ X.ravel()`` and ``(A @ X @ B.T).ravel()``; with vec stacking columns,
    vec(A X Bᵀ) = (B ⊗ A) vec(X) [1]_. A product costs the cheaper of A(X Bᵀ) and (A X)Bᵀ, and no
    array larger than X, the result and one in between. Nothing is rescaled: where that one
    leaves the range of its type, so does the result.

    References
    ----------
    .. [1] C. F. Van Loan, "The ubiquitous Kronecker product", Journal of Computational and
       Applied Mathematics 123 (2000), 85-100.

    Examples
    --------
    >>> import numpy as np
    >>> A, B = np.arange(6.0).reshape(2, 3), np.ones((4, 5))
    >>> K = KroneckerOperator(A, B)
    >>> K.shape
    (8, 15)
    >>> K.apply(np.eye(3, 5)).shape
    (2, 4)
    """

    def __init__(
        self,
        A: Any,
        B: Any,
        name: str = "the Kronecker product A ⊗ B",
        role: Literal["dictionary", "sensing", "general"] = "general",
    ) -> None:
        self.name, self.role = name, role
        self._A = A if isinstance(A, Factor) else Factor(A, "A")
        self._B = B if isinstance(B, Factor) else Factor(B, "B")
        (p, m), (q, n) = self._A.shape, self._B.shape
        super().__init__(np.result_type(self._A.dtype, self._B.dtype), (p * q, m * n))

    @property
    def factors(self) -> tuple[Any, Any]:
        """The two factors (A, B)."""
        return self._A.matrix, self._B.matrix

    @property
    def domain_shape(self) -> tuple[int, int]:
        """The shape (m, n) of the matrices it maps."""
        return self._A.shape[1], self._B.shape[1]

    @property
    def range_shape(self) -> tuple[int, int]:
        """The shape (p, q) of the matrices it maps to."""
        return self._A.shape[0], self._B.shape[0]

    def apply(self, X: Any) -> Any:
        """Return A X Bᵀ.

        Parameters
        ----------
        X : array or tensor, shape (…, m, n)
            One matrix, or a stack of them along leading dimensions.

        Returns
        -------
        array or tensor, shape (…, p, q)
            In the library, type and device of `X`; a tensor's gradient flows through.

        Raises
        ------
        InputError
            If the last two dimensions are not (m, n), the entries are not real, or a factor that
            works on numpy arrays only meets a tensor.
        """
        X = as_working_array(X)
        (p, m), (q, n) = self._A.shape, self._B.shape
        if tuple(X.shape[-2:]) != (m, n):
            raise InputError(
                f"expected a matrix of shape ({m}, {n}), or a stack of them, "
                f"got shape {tuple(X.shape)}"
            )
        left_first = self._A.work * n + self._B.work * p
        right_first = self._B.work * m + self._A.work * q
        if left_first < right_first:
            return self._B.right(self._A.left(X))
        return self._A.left(self._B.right(X))

    def apply_adjoint(self, Y: Any) -> Any:
        """Return Aᵀ Y B for Y of shape (…, p, q); the result has shape (…, m, n).

        Types, devices and errors are those of `apply`.
        """
        return self._transpose().apply(Y)

    def _transpose(self) -> KroneckerOperator:
        return KroneckerOperator(self._A.T, self._B.T, f"the transpose of {self.name}")

    _adjoint = _transpose  # the factors are real

    def _matmat(self, V: Any) -> np.ndarray:
        V = np.asarray(V)
        # One matrix per column, each contiguous, so that BLAS takes them as they are.
        stack = np.ascontiguousarray(V.T).reshape(V.shape[1], *self.domain_shape)
        return self.apply(stack).reshape(V.shape[1], self.shape[0]).T

    def _matvec(self, v: Any) -> np.ndarray:
        return self.apply(np.asarray(v).reshape(self.domain_shape)).reshape(self.shape[0])

    def _rmatmat(self, V: Any) -> np.ndarray:
        return self._transpose()._matmat(V)

    def _rmatvec(self, v: Any) -> np.ndarray:
        return self._transpose()._matvec(v)
