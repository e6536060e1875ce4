"""The CoSA basis: two fixed factors L and R, and the best core of an update in closed form."""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from scipy.sparse.linalg import LinearOperator

from cosa_theory.ground import checks
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.scales import SAFE_ENTRIES
from cosa_theory.linear.operators import Factor, KroneckerOperator, as_working_array, to_host
from cosa_theory.linear.ranges import Range, column_range, extreme_singular_values
from cosa_theory.projections import fingerprint, left_projection, make_projection
from cosa_theory.projections.streams import key_parts

__all__ = ["CosaBasis", "RankDeficientWarning"]

_NORM_BLOCK = 1 << 16  # entries of ΔW held in float64 at a time


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
    InputError
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
        self._ranges: dict[np.dtype, tuple[Range, Range]] = {}
        self._drawn: dict[str, Any] = {}  # the settings of `sample`

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
        left: str | None = None,
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
        left : str, optional
            Another ensemble for L, without options: with a = m, "identity". Of the informed
            ensembles R alone takes ``moments``, those of the layer's inputs (n × n): L is the
            identity where a = m; elsewhere it is Haar for "activation", and drawn from the
            option ``gradients``, moments of the gradients of its outputs (m × m), for "gradient".

        Returns
        -------
        CosaBasis
            The same values in every process, for every order of draws.

        Raises
        ------
        InputError
            As `make_projection` does for a projection of these sizes.
        """
        for name, size in (("m", m), ("n", n), ("a", a), ("b", b)):
            checks.whole(name, size)
        parts = key_parts(key)
        settings = {"seed": seed, "scale": scale, "dtype": dtype}
        own = {name: value for name, value in options.items() if name != "gradients"}
        on_left, of_left = left_projection(kind, a, m, options, left)
        L = make_projection(on_left, a, m, key=(*parts, "L"), **settings, **of_left).T
        if isinstance(L, np.ndarray):
            # safetensors writes the memory of an array as it lies, whatever the strides say.
            L = np.ascontiguousarray(L)
        basis = cls(L, make_projection(kind, b, n, key=(*parts, "R"), **settings, **own))
        named = {"kind": kind, "seed": seed, "scale": scale, "key": key}
        named |= {} if left is None else {"left": left}
        basis._drawn = named | {"dtype": np.dtype(dtype).name} | options
        return basis

    def __repr__(self) -> str:
        """Return how it was drawn, as a call that draws it again, or its sizes."""
        sizes = {"m": self.m, "n": self.n, "a": self.a, "b": self.b}
        said = ", ".join(f"{name}={value!r}" for name, value in (sizes | self._drawn).items())
        return f"CosaBasis.sample({said})" if self._drawn else f"CosaBasis({said})"

    def __eq__(self, other: object) -> bool:
        """Tell whether both factors hold the same numbers in the same type and kind of container.

        An operator that is known by its products alone equals itself only.
        """
        if not isinstance(other, CosaBasis):
            return NotImplemented
        return self is other or self._contents == other._contents

    def __hash__(self) -> int:
        return hash(self._contents)

    @cached_property
    def _contents(self) -> tuple[Any, ...]:
        """What bases are compared by."""
        known = (hasattr(one, "fingerprint_arrays") for one in (self.L, self.R))
        implicit = (isinstance(one, LinearOperator) for one in (self.L, self.R))
        return tuple(
            fingerprint(one) if listed or not products else id(one)
            for one, listed, products in zip((self.L, self.R), known, implicit, strict=True)
        )

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

    def update_energy(self, Y: Any) -> float:
        """Return ‖L Y R‖², which is ⟨LᵀL Y R Rᵀ, Y⟩, without forming the update.

        Parameters
        ----------
        Y : array or tensor, shape (a, b)
            The core, in whose type it is computed (in float32 at least).

        Raises
        ------
        InputError
            If the core has another shape.
        """
        core = to_host(as_working_array(Y, "Y"))
        if core.shape != (self.a, self.b):
            text = f"Y has shape {core.shape}: it must be ({self.a}, {self.b})"
            raise InputError(text, argument="Y")
        dtype = _host_dtype(core)
        left, right = self._left.gram(dtype), self._right.T.gram(dtype)
        return float(np.vdot(left @ core @ right, core))

    def encode(self, dW: Any) -> Any:
        """Return the measurements Lᵀ ΔW Rᵀ, shape (…, a, b), of one update or a stack of them.

        This is the adjoint of `synthesize`, not its inverse: see `best_core`. See docs/theory.md,
        2.4.
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
        InputError
            If `dW` has another shape, a NaN or infinite entry or a best core beyond the range of
            its type, or the ridge is negative or not finite, or a factor has a NaN or infinite
            entry.

        Warns
        -----
        RankDeficientWarning
            If L has rank below a or R rank below b and there is no ridge: of the many best
            cores the one of least norm is returned.

        References
        ----------
        docs/theory.md, 1.1. L⁺ ΔW R⁺ is the least-squares solution of least norm: R. Penrose, "On
        best approximate solutions of linear matrix equations", Proc. Cambridge Phil. Soc. 52
        (1956), 17-19.
        """
        ridge, dW = checks.real("ridge", ridge, least=0.0), self._update(dW)
        dtype = _host_dtype(dW)
        left, right = self._sides(dtype)
        scaled, unit = _in_range(dW)
        if ridge == 0:
            self._warn_if_deficient(dtype)
            core = right.core(left.core(self._coordinates(scaled)).T).T
        else:
            moments = left.correlate(right.correlate(self._products(scaled).T).T)
            (values_L, vectors_L), (values_R, vectors_R) = left.eigen, right.eigen
            damped = moments / (np.outer(values_L, values_R) + ridge)
            core = vectors_L @ damped @ vectors_R.T
        return _unscaled(_like(core, scaled), unit, "best core")

    def project(self, dW: Any) -> Any:
        """Return P_L ΔW P_R, the update L Y R closest to ΔW (m × n).

        It is unique even where the best core is not. Types and errors are those of `best_core`. See
        docs/theory.md, 1.1.
        """
        dW = self._update(dW)
        left, right = self._sides(_host_dtype(dW))
        dW, unit = _in_range(dW)
        weights = right.weights(left.weights(self._coordinates(dW)).T).T
        closest = KroneckerOperator(left.analysis.T, right.analysis.T).apply(_like(weights, dW))
        return _unscaled(closest, unit, "closest update")

    def captured_energy(self, dW: Any) -> float:
        """Return ‖P_L ΔW P_R‖²/‖ΔW‖², the share of the update's energy that the best core holds.

        See docs/theory.md, 1.1 and 1.3.

        Parameters
        ----------
        dW : array or tensor, shape (m, n)
            The update, at any scale. No other array of its size is made, unless its largest entry
            is below 1e-15 or above 1e15.

        Returns
        -------
        float
            In [0, 1]; NaN if ΔW is zero.

        Raises
        ------
        InputError
            If `dW` has another shape or a NaN or infinite entry, or a factor has one.
        """
        dW = self._update(dW)
        dW, _ = _in_range(dW)
        largest = _largest(dW)
        if largest == 0:
            return math.nan
        coordinates = self._coordinates(dW).astype(np.float64) / largest
        energy = float(np.vdot(coordinates, coordinates))
        return min(energy / _squared_norm(dW, largest), 1.0)

    def singular_value_range(self) -> tuple[float, float]:
        """Return the least and greatest singular value of the dictionary Y ↦ L Y R.

        They are the products of those of L and R, so ‖L Y R‖ lies between min·‖Y‖ and max·‖Y‖ for
        every core Y, and both ends are reached. The least is 0 if a > m or b > n, or if a factor is
        singular to rounding. Computed in float64. See docs/theory.md, 2.1.

        Raises
        ------
        InputError
            If a factor has a NaN or infinite entry.
        """
        return self._singular_value_range

    @cached_property
    def _singular_value_range(self) -> tuple[float, float]:
        sides = (self._left, self._right.T)
        (low_L, high_L), (low_R, high_R) = map(extreme_singular_values, sides)
        return low_L * low_R, high_L * high_R

    def _update(self, dW: Any) -> Any:
        """Return ΔW as an array to compute with, after checking shape and entries."""
        dW = as_working_array(dW, "dW")
        if tuple(dW.shape) != (self.m, self.n):
            text = f"dW has shape {tuple(dW.shape)}: it must be ({self.m}, {self.n})"
            raise InputError(text, argument="dW")
        if is_torch_array(dW):
            dW = dW.detach()
        checks.finite("dW", dW)
        return dW

    def _sides(self, dtype: np.dtype) -> tuple[Range, Range]:
        """Return what is needed to project on the columns of L and of Rᵀ, in one precision."""
        if dtype not in self._ranges:
            self._ranges[dtype] = (
                column_range(self._left, dtype),
                column_range(self._right.T, dtype),
            )
        return self._ranges[dtype]

    def _products(self, dW: Any) -> np.ndarray:
        """Return the product of ΔW with what stands for L and R on either side, on the host."""
        left, right = self._sides(_host_dtype(dW))
        # Sums in half precision would overflow from entries of a few hundred on.
        wide = dW.float() if dW.dtype.itemsize < 4 else dW
        return to_host(KroneckerOperator(left.analysis, right.analysis).apply(wide))

    def _coordinates(self, dW: Any) -> np.ndarray:
        """Return Q_Lᵀ ΔW Q_R for orthonormal bases of the columns of L and Rᵀ, on the host."""
        left, right = self._sides(_host_dtype(dW))
        return right.coordinates(left.coordinates(self._products(dW)).T).T

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


def _host_dtype(X: Any) -> np.dtype:
    """Return the type the small problems of an array are solved in: at least float32."""
    return np.dtype(np.float64 if X.dtype.itemsize == 8 else np.float32)


def _largest(dW: Any) -> float:
    return max(float(dW.max()), -float(dW.min()))


def _in_range(dW: Any) -> tuple[Any, float]:
    """Return ΔW times a power of two with which products stay in the range of its type, and it."""
    largest = _largest(dW)
    if largest == 0 or SAFE_ENTRIES[0] < largest < SAFE_ENTRIES[1]:
        return dW, 1.0
    unit = 2.0**100 if largest < 1 else 2.0**-100
    return dW * unit, unit


def _unscaled(Y: Any, unit: float, what: str) -> Any:
    """Return what was computed from `unit` times ΔW in the units of ΔW, if its type can hold it."""
    with np.errstate(over="ignore"):
        Y = Y if unit == 1 else Y / unit
    if not math.isfinite(_largest(Y)):
        text = f"dW has entries so large that its {what} leaves {Y.dtype}: scale it down"
        raise InputError(text, argument="dW")
    return Y


def _like(Y: np.ndarray, dW: Any) -> Any:
    """Return a small host array in the library, type and device of `dW`."""
    if not is_torch_array(dW):
        return np.ascontiguousarray(Y, dtype=dW.dtype)
    import torch

    return torch.as_tensor(np.ascontiguousarray(Y)).to(device=dW.device, dtype=dW.dtype)


def _squared_norm(dW: Any, unit: float) -> float:
    """Return ‖ΔW/unit‖² in float64, a few rows at a time; the unit keeps squares in range."""
    xp = array_namespace(dW)
    rows = max(1, _NORM_BLOCK // dW.shape[1])
    total = 0.0
    for start in range(0, dW.shape[0], rows):
        block = xp.astype(dW[start : start + rows], xp.float64) / unit
        total += float(xp.sum(xp.vecdot(block, block)))
    return total
