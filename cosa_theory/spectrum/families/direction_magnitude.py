"""Low rank beside a rescaled weight: DoRA and MAP."""

from functools import partial

import numpy as np

from cosa_theory.spectrum.families.base import Cost, Draws, Fit, Size, Update
from cosa_theory.spectrum.families.fitted import Matrix, add, climb, leading_factors

__all__: list[str] = []

_HALVES = 2  # steps of each factor between two of the magnitudes


def _size(m: int, n: int, parameters: int, rows: bool) -> Size:
    scales = m if rows else 2
    rank = min(m, n, (parameters - scales) // (m + n))
    if rank < 1:
        return Size.unmet(f"rank 1 and the magnitudes take {m + n + scales:,} numbers")
    # The rescaled weight alone has full rank.
    return Size(rank * (m + n) + scales, f"r={rank}", None, None, min(m, n), (rank,))


def _fit(update: Update, size: Size, draws: Draws, rows: bool) -> Fit:
    """Return D W + C with D diagonal (DoRA) or a number (MAP), and C of rank r.

    D projects the rows, or all, of ΔW − C on those of W, and each factor of C is a least squares
    problem when the other and D are given. Two starts, both from the best low rank of ΔW: D = 0,
    and D by ΔW alone.
    """
    assert update.base is not None
    delta, weight = update.delta, update.base
    (rank,), axis = size.parts, 1 if rows else None
    squares = np.sum(weight**2, axis=axis, keepdims=True)
    squares[squares == 0] = 1
    total = float(np.vdot(delta, delta))
    State = tuple[Matrix, Matrix, Matrix]

    def scales(left: Matrix) -> Matrix:
        return np.sum(left * weight, axis=axis, keepdims=True) / squares

    def better(state: State) -> tuple[State, float]:
        target = delta - state[0] * weight
        columns, right = state[1:]
        for _ in range(_HALVES):
            columns = np.linalg.qr(target @ right.T)[0]
            right = columns.T @ target
        scale = scales(delta - columns @ right)
        left = delta - scale * weight - columns @ right
        return (scale, columns, right), 1 - float(np.vdot(left, left)) / total

    leading = leading_factors(update, rank)
    starts = [(np.zeros_like(squares), *leading), (scales(delta), *leading)]
    (scale, columns, right), _ = climb(starts, better)
    # MAP's second magnitude, that of C, is redundant beside its factors.
    trained = scale if rows else np.append(scale, 1.0)

    def build(scale: Matrix, columns: Matrix, right: Matrix) -> Matrix:
        by = scale if rows else scale[0]
        return by * weight + (columns @ right) * (1 if rows else scale[1])

    return Fit((trained, columns, right), build)


def _cost(m: int, n: int, size: Size) -> Cost:
    return Cost.of(size, 0, size.parts[0] * (m + n) + m)


_add = partial(add, group="low rank")

_add(
    3,
    "dora",
    "DoRA (low rank and magnitude of every output)",
    "S.-Y. Liu et al., arXiv 2402.09353 (2024)",
    partial(_size, rows=True),
    partial(_fit, rows=True),
    _cost,
    "lower bound",
    needs_base=True,
)
_add(
    4,
    "map",
    "MAP (low rank and one magnitude)",
    "C. Si et al., arXiv 2505.23094 (2025)",
    partial(_size, rows=False),
    partial(_fit, rows=False),
    _cost,
    "lower bound",
    needs_base=True,
)
