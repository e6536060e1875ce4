"""Second moments of vectors, C = E[x xᵀ]: what the informed ensembles are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from cosa_theory.ground.checks import refuse, whole
from cosa_theory.ground.errors import InputError

__all__ = ["SecondMoments"]

_SYMMETRIC = 1e-3  # of the largest mean square: by how much sums of low precision may differ
_ROWS = 256  # compared with their columns at a time
_DEAD = 1e-6  # of the median mean square: coordinates below it are no larger for being scaled
_DOUBLE = float(np.finfo(np.float64).eps)
_FLOOR = 1e-3  # share of the mean eigenvalue that every direction is taken to have in a prior

Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """C = E[x xᵀ] of vectors x of length n: all of it, or its leading eigenpairs.

    Parameters
    ----------
    matrix : array, shape (n, n), optional
        C, symmetric.
    vectors : array, shape (n, r), optional
        Orthonormal leading eigenvectors of C, where C itself was too large to keep.
    values : array, shape (r,), optional
        Their eigenvalues, descending.
    trace : float, optional
        tr C = E‖x‖²; by default that of `matrix`, or the sum of `values`.
    mean : array, shape (n,), optional
        E x.
    count : int, optional
        Number of vectors that C is the mean of: its rank is no larger.
    where : str, optional
        What to call the layer in messages.

    Raises
    ------
    InputError
        If C is not square, not symmetric (beyond rounding), not finite or zero, neither form of it
        is given, or a part is no array of real numbers or does not fit the others.
    """

    matrix: Matrix | None = None
    vectors: Matrix | None = None
    values: Matrix | None = None
    trace: float | None = None
    mean: Matrix | None = None
    count: int | None = None
    where: str = ""

    def __post_init__(self) -> None:
        of = f" of {self.where}" if self.where else ""
        for name in ("matrix", "vectors", "values", "mean"):
            if (part := getattr(self, name)) is not None:
                object.__setattr__(self, name, _reals(f"{name} of the moments{of}", part))
        parts = [one for one in (self.matrix, self.vectors, self.values) if one is not None]
        if self.matrix is None and (self.vectors is None or self.values is None):
            raise InputError(f"the moments{of} are missing: give matrix, or vectors and values")
        if self.matrix is not None and (
            self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]
        ):
            shape = self.matrix.shape
            raise InputError(f"the moments{of} have shape {shape}: they must be a square matrix")
        shapes = {
            name: one.shape for name, one in vars(self).items() if isinstance(one, np.ndarray)
        }
        if self.matrix is None and not (
            len(shapes["vectors"]) == 2
            and shapes["values"] == shapes["vectors"][1:]
            and shapes["vectors"][1] <= shapes["vectors"][0]
        ):
            raise InputError(
                f"the moments{of} have vectors of shape {shapes['vectors']} and values of shape "
                f"{shapes['values']}: they must be (n, r) and (r,), with r at most n"
            )
        if self.mean is not None and shapes["mean"] != (self.n,):
            raise InputError(
                f"the moments{of} have a mean of shape {shapes['mean']}: it must be ({self.n},)"
            )
        if not all(np.isfinite(one).all() for one in parts):
            raise InputError(
                f"the moments{of} hold NaN or infinite entries: its activations overflow; gather "
                "them in float32, or leave the layer out"
            )
        if self.trace is None:
            of_parts: Any = self.values if self.matrix is None else np.diagonal(self.matrix)
            object.__setattr__(self, "trace", float(np.sum(of_parts, dtype=np.float64)))
        if not self.total > 0:
            raise InputError(f"the moments{of} are zero: no input meets the layer; leave it out")
        if self.matrix is not None and (place := _unequal(self.matrix)):
            row, column = place
            raise InputError(
                f"the moments{of} are not symmetric: entry ({row}, {column}) is "
                f"{self.matrix[row, column]:.4g} and ({column}, {row}) is "
                f"{self.matrix[column, row]:.4g}; give C = E[x xᵀ]"
            )

    @classmethod
    def of(cls, moments: Any, n: int) -> SecondMoments:
        """Return moments given as such or as the matrix C, for vectors of length n.

        Raises
        ------
        InputError
            If they are of vectors of another length, or what `SecondMoments` refuses.
        """
        if not isinstance(moments, cls):
            moments = cls(np.asarray(moments))
        if moments.n != n:
            where = f" of {moments.where}" if moments.where else ""
            raise InputError(
                f"the moments{where} are of vectors of length {moments.n}: the layer has {n}; "
                "gather them with this model",
                argument="moments",
            )
        found: SecondMoments = moments
        return found

    @property
    def n(self) -> int:
        """Length of the vectors."""
        of = self.vectors if self.matrix is None else self.matrix
        assert of is not None
        return len(of)

    @property
    def total(self) -> float:
        """The trace of C, E‖x‖²."""
        assert self.trace is not None
        return self.trace

    def centred(self) -> SecondMoments:
        """Return the covariance C − E[x] E[x]ᵀ, as moments of x − E x.

        Raises
        ------
        InputError
            If the mean was not gathered, or C was too large to keep.
        """
        if self.mean is None or self.matrix is None:
            raise InputError(
                f"the moments{f' of {self.where}' if self.where else ''} cannot be centred: it "
                "takes their mean and all of C; gather them anew, with a larger limit of memory",
                argument="centre",
            )
        floating = np.result_type(self.matrix, np.float32)  # a matrix may hold whole numbers
        covariance = self.matrix - np.outer(self.mean, self.mean).astype(floating)
        return SecondMoments(covariance, count=self.count, where=self.where)

    def leading(self, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the k largest eigenvalues of C, descending, and their eigenvectors (n × k).

        The largest entry of every vector is positive, so that they are unique wherever the
        eigenvalues are distinct.

        Raises
        ------
        InputError
            If C does not have so many independent directions.
        """
        if (found := self.independent(k)) < k:
            raise self._too_few(found, k)
        values, vectors = self._decomposed(k)
        # Those of single precision are orthonormal to single precision.
        basis, triangle = np.linalg.qr(vectors.astype(np.float64))
        basis *= np.sign(np.diagonal(triangle))
        largest = np.take_along_axis(basis, np.abs(basis).argmax(0)[None], 0)
        return values.astype(np.float64), np.ascontiguousarray(basis * np.sign(largest))

    def independent(self, k: int) -> int:
        """Return how many of the k leading directions hold more than rounding, at most `count`."""
        values = self._decomposed(whole("k", k, 1, self.n))[0]
        eps = 10 * self._eps
        if self.matrix is None:  # the eigenvalues of products in double precision
            found = np.sum(values > max(eps**2, 10 * self.n * _DOUBLE) * values[0])
        elif (found := np.sum(values > eps * values[0])) < k:
            # Of the entries' roundings, and of the decomposition of one with a trace of n.
            rounding = eps * self.n**0.5 + 10 * self.n * _DOUBLE
            found = max(found, np.sum(self._scaled_values(k) > rounding))
        return int(found) if self.count is None else min(int(found), self.count)

    @property
    def _eps(self) -> float:
        of = self.values if self.matrix is None else self.matrix
        assert of is not None
        return float(np.finfo(np.result_type(of, np.float32)).eps)

    def _scaled_values(self, k: int) -> NDArray[np.float64]:
        """Return the k largest eigenvalues of C after each coordinate is brought to one size.

        Sums err in entry (i, j) by roundings of √(Cᵢᵢ Cⱼⱼ), not of the largest eigenvalue: an
        input that a language model makes a thousand times as large as others hides none of them.
        """
        assert self.matrix is not None
        squares = np.diagonal(self.matrix).astype(np.float64)
        least = _DEAD * float(np.median(squares[squares > 0]))
        scales = np.sqrt(np.maximum(squares, least))
        return _largest(self.matrix / scales / scales[:, None], k, eigvals_only=True)

    def _too_few(self, found: int, k: int) -> InputError:
        where = f" of {self.where}" if self.where else ""
        if self.matrix is None and self.values is not None and len(self.values) <= found:
            text = f"the moments{where} keep {found} directions, and {k} are asked for: gather "
            return InputError(f"{text}them with more directions", argument="k")
        return InputError(
            f"the inputs{where} have {found} independent directions, and {k} are asked for: take "
            f"texts with at least {k} different tokens, some {4 * k} in all, or a smaller core",
            argument="k",
        )

    def _decomposed(self, k: int) -> tuple[Matrix, Matrix]:
        if self.matrix is None:
            assert self.vectors is not None
            assert self.values is not None
            return self.values[:k], self.vectors[:, :k]
        if self._kept and len(self._kept[0]) >= k:
            values, vectors = self._kept
            return values[:k], vectors[:, :k]
        values, vectors = _largest(self.matrix.astype(np.float64), k)
        held = np.result_type(self.matrix, np.float32)
        self._kept[:] = [values[::-1].copy(), vectors[:, ::-1].astype(held)]
        return self._kept[0], self._kept[1]

    @cached_property
    def _kept(self) -> list[Matrix]:
        """The largest decomposition so far."""
        return []

    def share(self, k: int) -> float:
        """Return (λ₁ + … + λ_k)/tr C: the share of E‖x‖² in the leading k directions.

        It is at most 1, and an estimate of the share of the row energy of an update that the k
        rows hold. See docs/theory.md, 7.2.
        """
        return float(min(1.0, self.shares(k)[-1]))

    def shares(self, k: int) -> NDArray[np.float64]:
        """Return `share` of 1, …, k directions; those without a direction of C add nothing."""
        whole("k", k, 1, self.n)
        values = self._decomposed(k)[0].astype(np.float64)
        values = np.pad(values, (0, k - len(values)))
        return np.minimum(np.cumsum(np.maximum(values, 0)) / self.total, 1.0)

    def weighed(self, rows: Matrix) -> NDArray[np.float64]:
        """Return rows · C', shape (k, n), with C' = n C/tr C + 10⁻³ I.

        C' has a mean eigenvalue near 1 and is regular: a direction that no input has is taken to
        have a thousandth of the mean. See docs/theory.md, 7.4.
        """
        return self.n * self.times(rows) + _FLOOR * rows.astype(np.float64)

    def times(self, G: Matrix, power: float = 1.0) -> NDArray[np.float64]:
        """Return G (C/tr C)ᵖ, shape (k, n), for p > 0; without a decomposition of C for p = 1."""
        if self.matrix is not None and power == 1:
            product: NDArray[np.float64] = G @ (self.matrix.astype(np.float64) / self.total)
            return product
        if self.matrix is not None:
            values, vectors = scipy.linalg.eigh(self.matrix.astype(np.float64), check_finite=False)
        else:
            assert self.values is not None
            assert self.vectors is not None
            values, vectors = self.values.astype(np.float64), self.vectors.astype(np.float64)
        gains = np.maximum(values / self.total, 0) ** power
        found: NDArray[np.float64] = ((G @ vectors) * gains) @ vectors.T
        return found


def _reals(name: str, value: Any) -> Matrix:
    """Return an array of real numbers in its own type."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # rows of several lengths, a tensor of another device
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise refuse(name, value, "an array of real numbers")
    return array


def _largest(C: NDArray[np.float64], k: int, **options: bool) -> Any:
    n = len(C)
    return scipy.linalg.eigh(C, subset_by_index=[n - k, n - 1], check_finite=False, **options)


def _unequal(C: Matrix) -> tuple[int, int] | None:
    """Return a place where a matrix and its transpose differ by more than rounding, if any."""
    most = _SYMMETRIC * float(np.abs(np.diagonal(C)).max(initial=0.0))
    for start in range(0, len(C), _ROWS):
        part = slice(start, start + _ROWS)
        gaps = np.abs(C[part].astype(np.float64) - C[:, part].T)
        if gaps.max() > most:
            row, column = np.unravel_index(gaps.argmax(), gaps.shape)
            return start + int(row), int(column)
    return None
