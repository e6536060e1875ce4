"""What is to be recovered: an operator, measurements, a basis in which the unknown is sparse."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from array_api_compat import is_torch_array
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from cosa_theory.ground.checks import finite, pair, real, refuse
from cosa_theory.ground.errors import InputError
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.linear.operators import Factor, KroneckerOperator, as_working_array, to_host
from cosa_theory.linear.transforms import DCT, Coordinate, SingularBasis, Transform, Wavelet
from cosa_theory.projections import stream
from cosa_theory.recovery.system import System, largest_entry, like_array

__all__ = ["BASES", "RecoveryProblem"]

BASES = ("coordinate", "dct", "wavelet", "singular")
"""Names of the sparsifying bases, see `cosa_theory.linear.transforms`."""

_LARGEST = 1 << 28  # entries of a matrix known by its products, which takes 2 GiB when formed
_ADJOINT = 1e-3  # share of their norms by which ⟨Φx, y⟩ and ⟨x, Φᵀy⟩ may differ, in half precision


@dataclass(frozen=True, eq=False)
class RecoveryProblem:
    """Measurements y = Φ vec(ΔW) + noise, from which ΔW (or a sparse core) is to be recovered.

    Parameters
    ----------
    operator : KroneckerOperator, array, tensor, sparse array, LinearOperator or the like
        ``basis.sensing()`` of a `cosa_theory.CosaBasis`: the measurements are Lᵀ ΔW Rᵀ and ΔW
        (m × n) is the unknown. ``basis.dictionary()``: the measurements are an update ΔW and the
        unknown is a core Y with L Y R ≈ ΔW. Any other matrix Φ (M × N): unstructured
        measurements of a matrix with N entries in row-major order. It may be known by its products
        alone, as an operator of PyLops or anything else that
        `scipy.sparse.linalg.aslinearoperator` takes; solvers then form its columns once.
    measurements : array or tensor, shape (p, q) or (B, p, q)
        Of one unknown, or of B different ones; one vector of M numbers, or (B, M), for an
        unstructured operator, and also accepted for a Kronecker one. float32 and float64 are
        computed with as they are, lower precisions in float32, whole numbers in float64.
    truth : array or tensor, shape (m, n) or (B, m, n), optional
        Kept for scoring; no solver sees it.
    noise_level : float
        σ, a bound on the Frobenius norm of the noise of each right-hand side.
    basis : {"coordinate", "dct", "wavelet", "singular"} or Transform
        The orthonormal basis in which ΔW is taken to be sparse: ΔW = U C Vᵀ with sparse C. It is
        folded into the operator, (A U) ⊗ (B V), which keeps its structure.
    weight : array or tensor, shape (m, n), optional
        W, whose singular vectors are the basis "singular".
    shape : (int, int), optional
        (m, n) for an unstructured operator: the shape of the estimate. By default the `dims` of an
        operator of PyLops, if they are two, else (1, N).

    Attributes
    ----------
    batched : bool
        Whether there are several right-hand sides.
    Y : array or tensor, shape (B, p, q)
        The measurements as a stack; (B, 1, M) for an unstructured operator.

    Raises
    ------
    InputError
        Shapes that do not fit, NaN or infinite entries, an operator that is complex or whose
        `rmatvec` is missing or not the adjoint of its `matvec`, no measurements or only zeros, a
        noise level that is negative or not below ‖y‖ (zero then explains the measurements), an
        unknown basis, a singular basis without a weight, or a basis for a core.

    Examples
    --------
    >>> import numpy as np
    >>> from cosa_theory import CosaBasis
    >>> basis = CosaBasis.sample(16, 12, 8, 8, seed=1, scale="analysis")
    >>> update = np.zeros((16, 12))
    >>> update[3, 4] = 1.0
    >>> problem = RecoveryProblem(basis.sensing(), basis.encode(update))
    >>> problem.unknown, problem.update_shape
    ('update', (16, 12))
    """

    operator: Any
    measurements: Any
    truth: Any = None
    noise_level: float = 0.0
    basis: str | Transform = "coordinate"
    weight: Any = None
    shape: tuple[int, int] | None = None
    batched: bool = field(init=False)
    Y: Any = field(init=False)

    def __post_init__(self) -> None:
        operator = _checked_operator(self.operator, self.shape)
        object.__setattr__(self, "shape", self.shape or _named_shape(self.operator))
        object.__setattr__(self, "operator", operator)
        object.__setattr__(self, "measurements", _working(self.measurements, "measurements"))
        batched, stack = _stacked(self.measurements, operator, self._plain)
        object.__setattr__(self, "batched", batched)
        object.__setattr__(self, "Y", stack)
        object.__setattr__(self, "noise_level", real("noise_level", self.noise_level, least=0.0))
        _check_size(self.noise_level, stack)
        _check_basis(self.basis, self.weight, self.unknown)
        if self.truth is not None:
            object.__setattr__(self, "truth", self._checked_update(self.truth, "truth"))
        self.transform  # noqa: B018 - a weight that does not fit is found here

    def __repr__(self) -> str:
        many = f", {len(self.Y)} times," if self.batched else ""
        shape = (self.operator.shape[0],) if self._plain else self.operator.range_shape
        return (
            f"RecoveryProblem({_by(shape)} measurements{many} of an update of "
            f"{_by(self.update_shape)}, unknown: the {self.unknown}, basis: "
            f"{self.transform.name}, noise level: {self.noise_level:g})"
        )

    @property
    def _plain(self) -> bool:
        return not isinstance(self.operator, KroneckerOperator)

    @property
    def unknown(self) -> Literal["update", "core"]:
        """What is recovered: an update from its measurements, or a core for a given update."""
        role = getattr(self.operator, "role", "general")
        return "core" if role == "dictionary" else "update"

    @property
    def update_shape(self) -> tuple[int, int]:
        """(m, n) of ΔW."""
        if self._plain:
            return self.shape or (1, int(self.operator.shape[1]))
        operator = self.operator
        return operator.range_shape if self.unknown == "core" else operator.domain_shape

    @cached_property
    def transform(self) -> Transform:
        """The sparsifying basis."""
        if not isinstance(self.basis, str):
            return self.basis
        if self.basis == "singular":
            return SingularBasis(to_host(self._checked_update(self.weight, "weight", most=2)))
        named: dict[str, Callable[[], Transform]] = {"dct": DCT, "wavelet": Wavelet}
        return named.get(self.basis, Coordinate)()

    @cached_property
    def system(self) -> System:
        """The map from coefficients in the basis to measurements."""
        return self._system(self.transform)

    @cached_property
    def update_system(self) -> System:
        """The map from the entries of the unknown itself to measurements."""
        return self.system if self.transform.name == "coordinate" else self._system(Coordinate())

    def _system(self, transform: Transform) -> System:
        if self._plain:
            matrix = Factor(self.operator, "the operator")
            if transform.name != "coordinate":
                rows = matrix.dense(matrix.dtype).reshape(-1, *self.update_shape)
                folded = np.stack([transform.forward(row) for row in rows])
                matrix = Factor(folded.reshape(matrix.shape), "the operator")
            one = Factor(np.ones((1, 1)), "1")
            return System(KroneckerOperator(one, matrix), self.update_shape, plain=True)
        operator = self.operator
        shape = operator.domain_shape
        if transform.name == "coordinate":
            return System(operator, shape)
        factors = [Factor(factor, "factor") for factor in operator.factors]
        dense = [factor.dense(factor.dtype) for factor in factors]
        A, B = transform.rows(dense[0], 0), transform.rows(dense[1], 1)
        name = f"{operator.name} in the {transform.name} basis"
        return System(KroneckerOperator(A, B, name), shape)

    def to_unknown(self, coefficients: Any) -> Any:
        """Return the unknown matrices, (B, m, n) or (B, a, b), that have these coefficients."""
        transform = self.transform
        stack = coefficients.reshape(-1, *self.system.matrix_shape)
        if transform.name == "coordinate":
            return stack
        return _mapped(transform.inverse, stack)

    def to_coefficients(self, unknown: Any) -> Any:
        """Return the coefficients, shaped as the system takes them, of unknown matrices."""
        transform = self.transform
        if transform.name != "coordinate":
            unknown = _mapped(transform.forward, unknown)
        return unknown.reshape(-1, *self.system.coefficient_shape)

    def _checked_update(self, matrix: Any, argument: str, most: int = 3) -> Any:
        matrix = _working(matrix, argument)
        shape, wanted = tuple(matrix.shape), tuple(self.update_shape)
        if shape[-2:] != wanted or len(shape) > most:
            text = f"{argument} has shape {shape}: it must be that of the update, {wanted}"
            raise InputError(text, argument=argument)
        return matrix


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _working(array: Any, argument: str) -> Any:
    """Return finite real numbers in float32 or float64."""
    try:
        array = as_working_array(array)
    except ValueError as error:
        raise InputError(f"{argument} cannot be used: {error}", argument=argument) from error
    if is_torch_array(array):
        array = array.detach()
        array = array if array.element_size() >= 4 else array.float()
    finite(argument, array)
    return array


def _checked_operator(operator: Any, shape: tuple[int, int] | None) -> Any:
    """Return a Kronecker operator as it is, anything else as a checked matrix."""
    if isinstance(operator, CosaBasis):
        raise InputError(
            "operator is a CosaBasis, which maps both ways: give basis.sensing() to recover an "
            "update, or basis.dictionary() to recover a core",
            argument="operator",
        )
    if isinstance(operator, KroneckerOperator):
        if shape is not None and tuple(shape) != operator.domain_shape:
            must = f"left out for a Kronecker operator, which maps matrices {operator.domain_shape}"
            raise refuse("shape", tuple(shape), must)
        for factor in operator.factors:
            _check_entries(factor)
        return operator
    try:
        matrix = Factor(operator, "operator").matrix
    except (ValueError, TypeError) as error:
        raise InputError(f"operator cannot be used: {error}", argument="operator") from error
    _check_entries(matrix)
    columns = matrix.shape[1]
    if shape is not None and not _is_shape(shape, columns):
        must = f"(m, n), two whole numbers: rows and columns of an update of {columns:,} entries"
        raise refuse("shape", shape, f"{must}, as the operator has columns")
    return matrix


def _is_shape(shape: Any, entries: int) -> bool:
    try:
        return math.prod(pair("shape", shape)) == entries
    except InputError:
        return False


def _check_entries(matrix: Any) -> None:
    if not isinstance(matrix, LinearOperator):
        _working(matrix.data if sparse.issparse(matrix) else matrix, "operator")
    elif not hasattr(matrix, "apply_transpose"):
        _check_products(matrix)


def _check_products(operator: LinearOperator) -> None:
    """Refuse an operator without an adjoint, or too large for its columns to be formed."""
    (rows, columns), name = operator.shape, "operator is known by its products alone and"
    if rows * columns > _LARGEST:
        raise InputError(
            f"{name} has {rows:,} × {columns:,} entries, which solvers would form: give a "
            "KroneckerOperator of its factors",
            argument="operator",
        )
    draw = stream(0, "adjoint")
    x, y = draw.standard_normal(columns), draw.standard_normal(rows)
    try:
        image, back = np.asarray(operator.matvec(x)), np.asarray(operator.rmatvec(y))
    except Exception as error:  # it is anyone's code
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        text = f"{name} one of them failed ({said}): it must have matvec and rmatvec, the adjoint"
        raise InputError(text, argument="operator") from error
    if image.dtype.kind not in "fiub" or back.dtype.kind not in "fiub":
        text = f"{name} gives numbers of type {np.result_type(image, back)}: they must be real"
        raise InputError(text, argument="operator")
    largest = max(largest_entry(image), largest_entry(back)) or 1.0  # so that no square overflows
    image, back = image / largest, back / largest
    scale = np.linalg.norm(image) * np.linalg.norm(y) + np.linalg.norm(back) * np.linalg.norm(x)
    if not abs(np.vdot(image, y) - np.vdot(x, back)) <= _ADJOINT * scale:
        text = f"{name} its rmatvec is not the adjoint of its matvec, or not finite: mend it"
        raise InputError(text, argument="operator")


def _named_shape(operator: Any) -> tuple[int, int] | None:
    """Return (m, n) where an operator of PyLops says that it maps matrices."""
    dims: Any = getattr(operator, "dims", None)
    matrix = np.shape(dims) == (2,) and np.asarray(dims).dtype.kind in "iu"
    return (int(dims[0]), int(dims[1])) if matrix else None


def _stacked(measurements: Any, operator: Any, plain: bool) -> tuple[bool, Any]:
    """Return whether there are several right-hand sides, and all of them as (B, p, q)."""
    p, q = (1, operator.shape[0]) if plain else operator.range_shape
    shape, count = tuple(measurements.shape), p * q
    vectors = {1: shape == (count,), 2: plain and shape[1:] == (count,)}
    matrices = {2: not plain and shape == (p, q), 3: not plain and shape[1:] == (p, q)}
    if 0 in shape or not (vectors.get(len(shape)) or matrices.get(len(shape))):
        wanted = f"({count},)" if plain else f"({p}, {q})"
        text = f"measurements has shape {shape}: it must be {wanted}, or a batch along a first axis"
        raise InputError(text, argument="measurements")
    batched = bool(len(shape) == 3 or (len(shape) == 2 and vectors[2]))
    return batched, measurements.reshape(-1, p, q)


def _check_size(noise_level: float, Y: Any) -> None:
    """Refuse measurements that zero explains."""
    rows = to_host(Y).reshape(len(Y), -1)
    largest = np.abs(rows).max(axis=1)
    if (largest == 0).any():
        which = f" in item {largest.argmin()} of the batch" if len(largest) > 1 else ""
        raise InputError(
            f"measurements holds only zeros{which}, which a zero update explains: there is nothing "
            "to recover",
            argument="measurements",
        )
    norms = largest * np.linalg.norm(rows / largest[:, None], axis=1)  # no square underflows
    least = float(norms.min())
    if noise_level >= least:
        must = f"below the norm of the measurements, {least:g}, or zero explains them"
        raise refuse("noise_level", noise_level, must)


def _check_basis(basis: str | Transform, weight: Any, unknown: str) -> None:
    transform = all(hasattr(basis, part) for part in ("name", "forward", "inverse", "rows"))
    if basis not in BASES if isinstance(basis, str) else not transform:
        raise refuse("basis", basis, f"one of {', '.join(BASES)}, or a Transform")
    if (basis == "singular") != (weight is not None):
        state = "missing" if weight is None else "given"
        raise InputError(
            f"weight is {state} and the basis is {basis!r}: it must be there for the basis "
            "'singular', and only for that",
            argument="weight",
        )
    if unknown == "core" and basis != "coordinate":
        raise refuse("basis", basis, "left out, for a core is sparse in its own entries")


def _mapped(function: Callable[[Any], Any], stack: Any) -> Any:
    """Apply a transform of single numpy matrices to a stack of any library."""
    dtype = to_host(stack[:0]).dtype
    done = np.stack([function(matrix) for matrix in to_host(stack)]).astype(dtype, copy=False)
    return like_array(done, stack)
