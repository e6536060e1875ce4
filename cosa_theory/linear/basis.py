"""The CoSA basis: two fixed factors L and R, and the best core of an update in closed form."""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from scipy.linalg import LinAlgError, eigh, solve_triangular, svd, svdvals
from scipy.linalg.lapack import get_lapack_funcs

from cosa_theory.ground.threads import one_thread
from cosa_theory.linear.operators import Factor, KroneckerOperator, as_working_array, to_host
from cosa_theory.projections import make_projection

__all__ = ["CosaBasis", "RankDeficientWarning"]

_NORM_BLOCK = 1 << 16  # entries of ΔW held in float64 at a time
_UNRESOLVED = 1e-8  # λ_min/λ_max of a float64 Gram matrix under which its roots lose their digits


class RankDeficientWarning(UserWarning):
    """A factor has fewer independent directions than the core has rows or columns."""


class CosaBasis:
    """The updates L Y R of one layer, with fixed factors L (m × a) and R (b × n).

    Parameters
    ----------
    L : array, tensor, sparse array or LinearOperator, shape (m, a)
    R : array, tensor, sparse array or LinearOperator, shape (b, n)
        The factors, at whatever scale they have. They are not copied and must not change
        afterwards: what is computed from them alone is kept.

    Attributes
    ----------
    L, R : as given
        The factors.
    m, n, a, b : int
        Sizes of the update (m × n) and of the core (a × b).

    Raises
    ------
    ValueError
        If a factor is empty, not two-dimensional or complex.

    Notes
    -----
    Methods compute in the type, library and device of the array they are given: float32 in,
    float32 out, whatever the factors are; the small a × a and b × b problems are solved on the
    host. Neither L Y R nor the Kronecker dictionary is formed unless it is the result.

    Examples
    --------
    >>> import numpy as np
    >>> basis = CosaBasis.sample(64, 48, 8, 6, seed=1)
    >>> update = basis.synthesize(np.ones((8, 6)))
    >>> bool(np.allclose(basis.best_core(update), 1.0))
    True
    """

    def __init__(self, L: Any, R: Any) -> None:
        self._left, self._right = Factor(L, "L"), Factor(R, "R")
        self.m, self.a = self._left.shape
        self.b, self.n = self._right.shape
        self._ranges: dict[np.dtype, tuple[_Range, _Range]] = {}

    @classmethod
    def sample(
        cls,
        m: int,
        n: int,
        a: int,
        b: int,
        *,
        kind: str = "gaussian",
        seed: int = 0,
        scale: str = "synthesis",
        key: str | tuple[str | int, ...] = (),
        dtype: Any = "float64",
        **options: Any,
    ) -> CosaBasis:
        """Draw a basis: L is the transpose of an a × m projection, R a b × n projection.

        Parameters
        ----------
        m, n, a, b : int
            Sizes of the update (m × n) and of the core (a × b).
        kind, seed, scale, dtype, **options
            As in `cosa_theory.projections.make_projection`; ``"synthesis"`` gives
            E‖L Y R‖² = ‖Y‖².
        key : str or tuple
            Names the layer; L is drawn with key (key, "L") and R with (key, "R").

        Returns
        -------
        CosaBasis
            The same values in every process, for every order of draws.

        Raises
        ------
        ValueError
            As `make_projection` does for a projection of these sizes.
        """
        parts = (key,) if isinstance(key, str) else tuple(key)
        settings = {"seed": seed, "scale": scale, "dtype": dtype, **options}
        L = make_projection(kind, a, m, key=(*parts, "L"), **settings).T
        if isinstance(L, np.ndarray):
            # safetensors writes the memory of an array as it lies, whatever the strides say.
            L = np.ascontiguousarray(L)
        return cls(L, make_projection(kind, b, n, key=(*parts, "R"), **settings))

    def __repr__(self) -> str:
        return f"CosaBasis(m={self.m}, n={self.n}, a={self.a}, b={self.b})"

    @property
    def L(self) -> Any:
        """The left factor, m × a."""
        return self._left.matrix

    @property
    def R(self) -> Any:
        """The right factor, b × n."""
        return self._right.matrix

    @property
    def rank_wall(self) -> int:
        """The largest rank an update can have, min(a, b) (or m or n where that is smaller)."""
        return min(self.a, self.b, self.m, self.n)

    def dictionary(self) -> KroneckerOperator:
        """Return Y ↦ L Y R, which is L ⊗ Rᵀ (mn × ab) on row-major vectors."""
        return KroneckerOperator(
            self._left, self._right.T, "the dictionary Ψ = L ⊗ Rᵀ", "dictionary"
        )

    def sensing(self) -> KroneckerOperator:
        """Return ΔW ↦ Lᵀ ΔW Rᵀ, which is Lᵀ ⊗ R (ab × mn) on row-major vectors."""
        return KroneckerOperator(
            self._left.T, self._right, "the sensing operator Φ = Lᵀ ⊗ R", "sensing"
        )

    def synthesize(self, Y: Any) -> Any:
        """Return the update L Y R, shape (…, m, n), of a core or a stack of cores (…, a, b)."""
        return self.dictionary().apply(Y)

    def encode(self, dW: Any) -> Any:
        """Return the measurements Lᵀ ΔW Rᵀ, shape (…, a, b), of one update or a stack of them.

        This is the adjoint of `synthesize`, not its inverse: see `best_core`.
        """
        return self.sensing().apply(dW)

    def best_core(self, dW: Any, ridge: float = 0.0) -> Any:
        """Return the core of the update closest to ΔW, argmin_Y ‖ΔW − L Y R‖² + ridge ‖Y‖².

        Without a ridge this is L⁺ ΔW R⁺, from the Cholesky factors of LᵀL and RRᵀ, or from an
        orthogonal factorisation where those are too ill conditioned for half of the digits.

        Parameters
        ----------
        dW : array or tensor, shape (m, n)
            The update.
        ridge : float
            Weight of the Tikhonov penalty, zero or positive.

        Returns
        -------
        array or tensor, shape (a, b)
            The best core, in the library, type and device of `dW`. No gradient flows through it.

        Raises
        ------
        ValueError
            If `dW` has another shape or a NaN or infinite entry, or the ridge is negative or not
            finite, or a factor has a NaN or infinite entry.

        Warns
        -----
        RankDeficientWarning
            If L has rank below a or R rank below b and there is no ridge: of the many best
            cores the one of least norm is returned.

        References
        ----------
        L⁺ ΔW R⁺ is the least-squares solution of least norm: R. Penrose, "On best approximate
        solutions of linear matrix equations", Proc. Cambridge Phil. Soc. 52 (1956), 17-19.
        """
        if not (math.isfinite(ridge) and ridge >= 0):
            raise ValueError(f"ridge must be finite and zero or positive, got {ridge}")
        dW = self._checked_update(dW)
        if ridge == 0:
            self._warn_if_deficient(_host_dtype(dW))
            return self._projected_core(dW)
        left, right = self._sides(_host_dtype(dW))
        moments = left.correlate(right.correlate(self._products(dW).T).T)
        (values_L, vectors_L), (values_R, vectors_R) = left.eigen, right.eigen
        damped = moments / (np.outer(values_L, values_R) + ridge)
        return _like(vectors_L @ damped @ vectors_R.T, dW)

    def project(self, dW: Any) -> Any:
        """Return P_L ΔW P_R, the update L Y R closest to ΔW (m × n).

        It is unique even where the best core is not. Types and errors are those of `best_core`.
        """
        dW = self._checked_update(dW)
        left, right = self._sides(_host_dtype(dW))
        weights = right.weights(left.weights(self._coordinates(dW)).T).T
        return KroneckerOperator(left.analysis.T, right.analysis.T).apply(_like(weights, dW))

    def captured_energy(self, dW: Any) -> float:
        """Return ‖P_L ΔW P_R‖²/‖ΔW‖², the share of the update's energy that the best core holds.

        Parameters
        ----------
        dW : array or tensor, shape (m, n)
            The update, at any scale. No other array of its size is made.

        Returns
        -------
        float
            In [0, 1]; NaN if ΔW is zero.

        Raises
        ------
        ValueError
            If `dW` has another shape or a NaN or infinite entry, or a factor has one.
        """
        dW = self._checked_update(dW)
        largest = max(float(dW.max()), -float(dW.min()))
        if largest == 0:
            return math.nan
        coordinates = self._coordinates(dW).astype(np.float64) / largest
        energy = float(np.vdot(coordinates, coordinates))
        return min(energy / _squared_norm(dW, largest), 1.0)

    def singular_value_range(self) -> tuple[float, float]:
        """Return the least and greatest singular value of the dictionary Y ↦ L Y R.

        They are the products of those of L and R, so ‖L Y R‖ lies between min·‖Y‖ and max·‖Y‖
        for every core Y, and both ends are reached. The least is 0 if a > m or b > n. Computed in
        float64.

        Raises
        ------
        ValueError
            If a factor has a NaN or infinite entry.
        """
        return self._singular_value_range

    @cached_property
    def _singular_value_range(self) -> tuple[float, float]:
        (low_L, high_L), (low_R, high_R) = map(
            _extreme_singular_values, (self._left, self._right.T)
        )
        return low_L * low_R, high_L * high_R

    def _checked_update(self, dW: Any) -> Any:
        dW = as_working_array(dW)
        if tuple(dW.shape) != (self.m, self.n):
            raise ValueError(
                f"expected an update of shape ({self.m}, {self.n}), got {tuple(dW.shape)}"
            )
        if is_torch_array(dW):
            dW = dW.detach()
        _check_finite(dW)
        return dW

    def _sides(self, dtype: np.dtype) -> tuple[_Range, _Range]:
        """Return what is needed to project on the columns of L and of Rᵀ, in one precision."""
        if dtype not in self._ranges:
            self._ranges[dtype] = (_range(self._left, dtype), _range(self._right.T, dtype))
        return self._ranges[dtype]

    def _products(self, dW: Any) -> np.ndarray:
        """Return the product of ΔW with what stands for L and R on either side, on the host."""
        left, right = self._sides(_host_dtype(dW))
        return to_host(KroneckerOperator(left.analysis, right.analysis).apply(dW))

    def _coordinates(self, dW: Any) -> np.ndarray:
        """Return Q_Lᵀ ΔW Q_R for orthonormal bases of the columns of L and Rᵀ, on the host."""
        left, right = self._sides(_host_dtype(dW))
        return right.coordinates(left.coordinates(self._products(dW)).T).T

    def _projected_core(self, dW: Any) -> Any:
        left, right = self._sides(_host_dtype(dW))
        return _like(right.core(left.core(self._coordinates(dW)).T).T, dW)

    def _warn_if_deficient(self, dtype: np.dtype) -> None:
        found = [
            f"{name} ({rows} × {columns}) has rank {side.rank}, below {size_name} = {size}"
            for name, rows, columns, side, size_name, size in (
                ("L", self.m, self.a, self._sides(dtype)[0], "a", self.a),
                ("R", self.b, self.n, self._sides(dtype)[1], "b", self.b),
            )
            if side.rank < size
        ]
        if found:
            warnings.warn(
                f"{' and '.join(found)}: many cores give the best update, and the one of least "
                "norm is returned; use a smaller core to have only one",
                RankDeficientWarning,
                stacklevel=3,
            )


class _CholeskyRange:
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


class _OrthogonalRange:
    """The range of an ill-conditioned or deficient factor M = U S Vᵀ, null directions left out.

    What multiplies ΔW is Uᵀ, so no digit is lost to the square of M's condition number.
    """

    def __init__(self, factor: Factor, dtype: np.dtype) -> None:
        # Two steps, because the singular values of the small triangle are those of M.
        Q, triangle = np.linalg.qr(factor.dense(dtype))
        U, values, Vt = _robust_svd(triangle.astype(np.float64))
        floor = max(factor.shape) * np.finfo(dtype).eps * values[0]
        self.rank = int(np.count_nonzero(values > floor))
        if self.rank == 0:
            raise ValueError(f"every entry of {factor.name} is zero: it expresses no update")
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


def _robust_svd(triangle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a thin SVD, by QR iteration where divide and conquer does not converge.

    Padded Hadamard factors have many equal singular values and some zero; on their triangles
    LAPACK's divide and conquer fails now and then, in float64 too, as rounding falls.
    """
    try:
        return svd(triangle, full_matrices=False, check_finite=False)
    except LinAlgError:
        return svd(triangle, full_matrices=False, check_finite=False, lapack_driver="gesvd")


_Range = _CholeskyRange | _OrthogonalRange


def _range(factor: Factor, dtype: np.dtype) -> _Range:
    """Return the range of a factor, by Cholesky where that keeps at least half of the digits."""
    gram = factor.gram(dtype)
    if not np.isfinite(gram).all():
        raise ValueError(f"{factor.name} has a NaN or infinite entry, or entries too large")
    if factor.shape[1] <= factor.shape[0]:
        potrf, pocon = get_lapack_funcs(("potrf", "pocon"), (gram,))
        norm = np.abs(gram).sum(axis=0).max()
        # The matrix is symmetric, so its transpose is the same in the order LAPACK wants.
        with one_thread():
            cholesky, failed = potrf(gram.T, lower=True, overwrite_a=True, clean=True)
            rcond = 0.0 if failed else pocon(cholesky, norm, uplo="L")[0]
        if rcond > math.sqrt(np.finfo(dtype).eps):
            return _CholeskyRange(factor, cholesky)
    return _OrthogonalRange(factor, dtype)


def _extreme_singular_values(factor: Factor) -> tuple[float, float]:
    """Return the least and greatest singular value of M (d × k) as a map of k-vectors."""
    dtype = np.dtype(np.float64)
    injective = factor.shape[1] <= factor.shape[0]
    gram = (factor if injective else factor.T).gram(dtype)
    if not np.isfinite(gram).all():
        raise ValueError(f"{factor.name} has a NaN or infinite entry, or entries too large")
    values = np.linalg.eigvalsh(gram)
    if not injective:
        return 0.0, math.sqrt(max(values[-1], 0.0))
    if values[0] > _UNRESOLVED * values[-1]:
        return math.sqrt(values[0]), math.sqrt(values[-1])
    direct = svdvals(factor.dense(dtype), check_finite=False)
    return float(direct[-1]), float(direct[0])


def _host_dtype(X: Any) -> np.dtype:
    """Return the type the small problems of an array are solved in: at least float32."""
    return np.dtype(np.float64 if X.dtype.itemsize == 8 else np.float32)


def _like(Y: np.ndarray, dW: Any) -> Any:
    """Return a small host array in the library, type and device of `dW`."""
    if not is_torch_array(dW):
        return np.ascontiguousarray(Y, dtype=dW.dtype)
    import torch

    return torch.as_tensor(np.ascontiguousarray(Y)).to(device=dW.device, dtype=dW.dtype)


def _check_finite(dW: Any) -> None:
    """Refuse NaN and infinite entries; one pass, and no array of the size of ΔW."""
    xp = array_namespace(dW)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(dW.sum())
    if math.isfinite(total):
        return
    for row in range(dW.shape[0]):  # rare: name the first culprit, or find an overflow of the sum
        wrong = ~xp.isfinite(dW[row])
        if bool(wrong.any()):
            column = int(xp.argmax(xp.astype(wrong, xp.int8)))
            raise ValueError(
                f"the update has a NaN or infinite entry, first at ({row}, {column}): "
                "repair it or leave the matrix out"
            )


def _squared_norm(dW: Any, unit: float) -> float:
    """Return ‖ΔW/unit‖² in float64, a few rows at a time; the unit keeps squares in range."""
    xp = array_namespace(dW)
    rows = max(1, _NORM_BLOCK // dW.shape[1])
    total = 0.0
    for start in range(0, dW.shape[0], rows):
        block = xp.astype(dW[start : start + rows], xp.float64) / unit
        total += float(xp.sum(xp.vecdot(block, block)))
    return total
