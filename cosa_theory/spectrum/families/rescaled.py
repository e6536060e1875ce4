"""Updates that rescale W: its outputs, its singular values, the channels of a quantised copy."""

from functools import partial

import numpy as np
import scipy.fft

from cosa_theory.spectrum.families.base import Cost, Draws, Fit, Size, Update
from cosa_theory.spectrum.families.fitted import Matrix, add
from cosa_theory.spectrum.families.lora_xs import singular_sides

__all__: list[str] = []

_LEVELS = 15  # between the least and the largest of a row: four bits


def _rows_size(m: int, n: int, parameters: int) -> Size:
    if parameters < m:
        return Size.unmet(f"a scale for every output takes {m:,} numbers")
    return Size(m, f"{m} outputs", None, None, min(m, n), (m,))


def _groups_size(m: int, n: int, parameters: int) -> Size:
    groups = min(parameters, m)
    return Size(groups, f"{groups} groups of outputs", None, None, min(m, n), (groups,))


def _columns_size(m: int, n: int, parameters: int) -> Size:
    if parameters < n:
        return Size.unmet(f"a scale for every input takes {n:,} numbers")
    return Size(n, f"{n} inputs", None, None, min(m, n), (n,))


def _scaled(update: Update, weight: Matrix, groups: int) -> Fit:
    """Return diag(s) W with one s for each group of neighbouring rows: ⟨ΔW, W⟩/‖W‖² there."""
    m = len(weight)
    owner = np.arange(m) * groups // m
    inner = np.bincount(owner, np.sum(update.delta * weight, axis=1), groups)
    squares = np.bincount(owner, np.sum(weight**2, axis=1), groups)
    scales = inner / np.where(squares > 0, squares, 1)
    return Fit(
        (scales,), lambda scales: scales[owner][:, None] * weight, held=float(scales @ inner)
    )


def _outputs(update: Update, size: Size, draws: Draws) -> Fit:
    assert update.base is not None
    return _scaled(update, update.base, size.parts[0])


def _inputs(update: Update, size: Size, draws: Draws) -> Fit:
    assert update.base is not None
    weight = update.base
    squares, inner = np.sum(weight**2, axis=0), np.sum(update.delta * weight, axis=0)
    scales = inner / np.where(squares > 0, squares, 1)
    return Fit((scales,), lambda scales: weight * scales, held=float(scales @ inner))


def _values_size(m: int, n: int, parameters: int) -> Size:
    count = min(m, n, parameters)
    return Size(count, f"{count} singular values", None, None, count, (count,))


def _values(update: Update, size: Size, draws: Draws) -> Fit:
    """Return U diag(s) Vᵀ with the leading singular vectors of W: s_i = u_iᵀ ΔW v_i."""
    assert update.base is not None
    left, right = update.once("sides", partial(singular_sides, update.base, size.parts[0]))
    U, V = left[:, : size.parts[0]], right[:, : size.parts[0]]
    whole = update.once("values", lambda: np.sum(U * (update.delta @ V), axis=0))
    values = whole[: size.parts[0]]
    return Fit((values,), lambda values: (U * values) @ V.T, held=float(values @ values))


def _quantised(weight: Matrix) -> Matrix:
    """Return W on sixteen even steps of each row's range, the whole numbers times one step."""
    low = weight.min(axis=1, keepdims=True)
    step = (weight.max(axis=1, keepdims=True) - low) / _LEVELS
    step[step == 0] = 1
    zero = np.rint(-low / step)
    return (np.clip(np.rint(weight / step) + zero, 0, _LEVELS) - zero) * step


def _channels(update: Update, size: Size, draws: Draws) -> Fit:
    assert update.base is not None
    return _scaled(update, _quantised(update.base), size.parts[0])


def _rotated(update: Update, size: Size, draws: Draws) -> Fit:
    """Return diag(s) Q H with H a rotation of the inputs and Q the quantised W Hᵀ.

    H is a cosine transform after signs that a seed gives, which spreads outliers of W as the
    Hadamard rotations of its paper do and exists for every width.
    """
    assert update.base is not None
    signs = draws.stream("rotation").choice([-1.0, 1.0], update.shape[1])
    turned = _quantised(scipy.fft.dct(update.base * signs, axis=1, norm="ortho"))
    return _scaled(update, scipy.fft.idct(turned, axis=1, norm="ortho") * signs, size.parts[0])


def _scales_cost(m: int, n: int, size: Size) -> Cost:
    return Cost.of(size, 0, max(m, n))


def _second_weight(m: int, n: int, size: Size) -> Cost:
    return Cost.of(size, 0, m * n)


_add = partial(add, group="rescaled W", needs_base=True)

_add(
    53,
    "ia3",
    "IA³ (a scale for every output)",
    "H. Liu et al., arXiv 2205.05638 (2022)",
    _rows_size,
    _outputs,
    _scales_cost,
)
_add(
    54,
    "ia3_inputs",
    "IA³ on inputs (a scale for every input)",
    "H. Liu et al., arXiv 2205.05638 (2022)",
    _columns_size,
    _inputs,
    _scales_cost,
)
_add(
    55,
    "grasp",
    "GRASP (scales of groups of outputs)",
    "M. Bal, A. Sengupta, arXiv 2512.04296 (2025); its shifts are biases, no part of ΔW",
    _groups_size,
    _outputs,
    _scales_cost,
)
_add(
    56,
    "soco",
    "SoCo, ACIP (rescaled singular values of W)",
    "Optimizing Singular Spectrum for LLM Compression (2025); ACIP: arXiv 2502.01717 (2025)",
    _values_size,
    _values,
    lambda m, n, size: Cost.of(size, size.parameters * (m + n), size.parameters * (m + n + 1)),
)
_add(
    57,
    "peqa",
    "PEQA (scales of a W of four bits)",
    "J. Kim et al., arXiv 2305.14152 (2023)",
    _rows_size,
    _channels,
    _scales_cost,
)
_add(
    58,
    "roste",
    "RoSTE (the same after a rotation)",
    "Q. Wei et al., arXiv 2502.09003 (2025)",
    _rows_size,
    _rotated,
    _second_weight,
    drawn=True,
)
