"""The linear system every solver gets: coefficients in, measurements out, factor by factor."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, svd

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.threads import one_thread
from cosa_theory.linear.operators import Factor, KroneckerOperator, to_host

__all__ = ["Floats", "Indices", "RowSpace", "System", "check_range", "largest_entry", "like_array"]

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

_SMALL = 1 << 20  # entries of a factor up to which its decomposition is put on one thread


class System:
    """The linear map from the coefficients of an update (or a core) to its measurements.

    Everything is batched: coefficients have shape (B, m, n), measurements (B, p, q), for one or
    several right-hand sides of the same map. See docs/theory.md, 4.2.

    Parameters
    ----------
    operator : KroneckerOperator
        A ⊗ B in the coefficients' basis. A plain matrix Φ is [[1]] ⊗ Φ, with coefficients (1, N).
    matrix_shape : (int, int)
        Shape of the unknown matrix; that of the coefficients, unless `plain`.
    plain : bool
        Whether the operator is a plain matrix rather than a Kronecker product.
    """

    def __init__(
        self, operator: KroneckerOperator, matrix_shape: tuple[int, int], plain: bool = False
    ) -> None:
        self.operator, self.matrix_shape, self.plain = operator, matrix_shape, plain
        self._adjoint = operator.T
        self._row_spaces: dict[Any, RowSpace] = {}

    @property
    def name(self) -> str:
        """What messages call it."""
        return "the matrix Φ" if self.plain else self.operator.name

    @property
    def coefficient_shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.operator.domain_shape

    @property
    def measurement_shape(self) -> tuple[int, int]:
        """(p, q)."""
        return self.operator.range_shape

    @property
    def size(self) -> int:
        """Number of unknowns N = mn."""
        return self.operator.shape[1]

    @property
    def measurements(self) -> int:
        """Number of measurements M = pq."""
        return self.operator.shape[0]

    def apply(self, X: Any) -> Any:
        """Return the measurements (B, p, q) of coefficients (B, m, n)."""
        return self.operator.apply(X)

    def apply_adjoint(self, Y: Any) -> Any:
        """Return the coefficients (B, m, n) that the transposed map makes of (B, p, q)."""
        return self._adjoint.apply(Y)

    @cached_property
    def factors(self) -> tuple[Floats, Floats]:
        """A and B as dense float64 arrays; column i·n + j of A ⊗ B is aᵢ ⊗ bⱼ.

        Raises
        ------
        InputError
            If a factor is zero, or one that is known by its products gives NaN or infinity.
        """
        A, B = (Factor(matrix).dense(np.dtype(np.float64)) for matrix in self.operator.factors)
        for factor in (A, B):
            largest = largest_entry(factor)
            if largest == 0 or not math.isfinite(largest):
                fault = "zero, so it measures nothing" if largest == 0 else "not finite"
                raise InputError(f"{self.name} is {fault}: give an operator with other entries")
        return A, B

    @cached_property
    def column_norms(self) -> Floats:
        """‖aᵢ‖‖bⱼ‖, shape (m, n)."""
        return np.multiply.outer(*(np.linalg.norm(factor, axis=0) for factor in self.factors))

    @cached_property
    def lipschitz(self) -> float:
        """‖A‖²‖B‖², the Lipschitz constant of x ↦ Φᵀ(Φx − y), rounded up."""
        squares = [_largest_eigenvalue(factor) for factor in self.factors]
        return squares[0] * squares[1] * (1 + 1e-12)

    def row_space(self, like: Any) -> RowSpace:
        """Return the singular value decomposition, in the library, type and device of `like`."""
        key = (str(like.dtype), str(like.device) if is_torch_array(like) else "numpy")
        if key not in self._row_spaces:
            left, right = (_thin_svd(factor) for factor in self.factors)
            self._row_spaces[key] = _row_space(left, right, like)
        return self._row_spaces[key]


@dataclass(frozen=True)
class RowSpace:
    """Thin singular value decompositions of both factors, A = U_A S_A V_Aᵀ and B = U_B S_B V_Bᵀ.

    Φ X = U_A ((s tᵀ) ∘ V_Aᵀ X V_B) U_Bᵀ, so the map is diagonal in these coordinates, and
    X ↦ V_A V_Aᵀ X V_B V_Bᵀ is the orthogonal projection on its row space. Directions with singular
    values at rounding level are left out.

    Attributes
    ----------
    left, right : KroneckerOperator
        V_Aᵀ ⊗ V_Bᵀ, and U_Aᵀ ⊗ U_Bᵀ: the coordinates of an update and of its measurements.
    values : array of shape (r, t)
        s tᵀ, all positive.
    """

    left: KroneckerOperator
    right: KroneckerOperator
    values: Any

    def coordinates(self, X: Any) -> Any:
        """Return V_Aᵀ X V_B, shape (B, r, t), for coefficients X (B, m, n)."""
        return self.left.apply(X)

    def coefficients(self, C: Any) -> Any:
        """Return V_A C V_Bᵀ, shape (B, m, n): the least coefficients with coordinates C."""
        return self.left.apply_adjoint(C)

    def measured(self, Y: Any) -> Any:
        """Return U_Aᵀ Y U_B, shape (B, r, t), for measurements Y (B, p, q)."""
        return self.right.apply(Y)

    def measurements(self, D: Any) -> Any:
        """Return U_A D U_Bᵀ, shape (B, p, q)."""
        return self.right.apply_adjoint(D)


def check_range(system: System, Y: Any) -> None:
    """Refuse operators and measurements (B, p, q) whose squares may leave the range of their type.

    With φ the largest entry of Φ and η that of y, the numbers φ, η, η/φ (the size of an update), φη
    (that of correlations) and η/φ² (that of a step's multiplier) must lie between 1e-120 and 1e120,
    or between 1e-12 and 1e12 in single precision: beyond, sums of squares and squares of tolerances
    overflow or vanish, and a certificate computed from them would mean nothing.
    """
    single = to_host(Y[:0]).dtype.itemsize == 4
    limit = 12.0 if single else 120.0
    entries = math.fsum(math.log10(largest_entry(factor)) for factor in system.factors)
    for item in Y:
        measured = math.log10(largest_entry(to_host(item)))
        powers = [entries, *(measured + share * entries for share in (-2, -1, 0, 1))]
        if max(map(abs, powers)) <= limit:
            continue
        advice = "use double precision, or divide" if single else "divide"
        raise InputError(
            f"the largest entry of {system.name} is about 1e{entries:.0f} and that of the "
            f"measurements 1e{measured:.0f}, whose squares or products leave the range of the "
            f"numbers: {advice} both by powers of two"
        )


def like_array(array: NDArray[Any], like: Any) -> Any:
    """Return a numpy array in the library, type and device of another array."""
    if is_torch_array(like):
        import torch

        return torch.as_tensor(np.ascontiguousarray(array)).to(dtype=like.dtype, device=like.device)
    return array.astype(like.dtype, copy=False)


def largest_entry(array: NDArray[Any]) -> float:
    """Return the largest modulus, without an array of moduli."""
    return max(float(array.max()), -float(array.min()))


def _largest_eigenvalue(factor: Floats) -> float:
    """Return ‖M‖² of a factor, from the Gram matrix of its short side."""
    p, m = factor.shape
    gram = factor @ factor.T if p <= m else factor.T @ factor
    return float(np.linalg.eigvalsh(gram)[-1])


def _thin_svd(factor: Floats) -> tuple[Any, Any, Any]:
    """Return U, s, V of a factor without its null directions."""
    with one_thread() if factor.size <= _SMALL else nullcontext():
        try:
            U, s, Vt = svd(factor, full_matrices=False, check_finite=False)
        except LinAlgError:  # divide and conquer can fail on clustered singular values
            U, s, Vt = svd(factor, full_matrices=False, check_finite=False, lapack_driver="gesvd")
    rank = int((s > max(factor.shape) * np.finfo(np.float64).eps * max(s[0], math.ulp(0))).sum())
    return U[:, :rank], s[:rank], Vt[:rank].T


def _row_space(left: tuple[Any, Any, Any], right: tuple[Any, Any, Any], like: Any) -> RowSpace:
    (U_A, s, V_A), (U_B, t, V_B) = left, right
    U_A, V_A, U_B, V_B = (like_array(part, like) for part in (U_A, V_A, U_B, V_B))
    return RowSpace(
        KroneckerOperator(V_A.T, V_B.T),
        KroneckerOperator(U_A.T, U_B.T),
        like_array(np.multiply.outer(s, t), like),
    )
