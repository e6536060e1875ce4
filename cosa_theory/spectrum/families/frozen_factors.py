"""Low rank with frozen factors: LoRA-FA, TLoRA, PMSS."""

import math
from functools import partial

import numpy as np
import scipy.linalg

from cosa_theory.projections import make_projection, stream
from cosa_theory.spectrum.families.base import VALUE_BITS, Cost, Draws, Fit, Size, Update
from cosa_theory.spectrum.families.fitted import Matrix, add

__all__: list[str] = []


def _drawn(k: int, d: int, draws: Draws, role: str) -> Matrix:
    """Return orthonormal columns that span those of a Gaussian d × k matrix."""
    rows: Matrix = make_projection("gaussian", k, d, seed=draws.seed, key=(*draws.key, role))
    return np.linalg.qr(rows.T)[0]


def _one_side(m: int, n: int, parameters: int) -> Size:
    rank = min(n, parameters // m)
    if rank < 1:
        return Size.unmet(f"rank 1 takes {m:,} numbers")
    return Size(rank * m, f"r={rank}", None, None, min(rank, m), (rank,))


def _half(update: Update, size: Size, draws: Draws) -> Fit:
    """Return B A with A (r × n) drawn: ΔW on the rows that A spans."""
    rows = _drawn(size.parts[0], update.shape[1], draws, "A").T
    columns = update.delta @ rows.T
    return Fit((columns,), lambda columns: columns @ rows, held=float(np.vdot(columns, columns)))


def _square(m: int, n: int, parameters: int) -> Size:
    rank = min(m, n, math.isqrt(parameters - 1)) if parameters > 1 else 0
    if rank < 1:
        return Size.unmet("rank 1 takes 2 numbers")
    return Size(rank**2 + 1, f"r={rank}", None, None, rank, (rank,))


def _middle(update: Update, size: Size, draws: Draws) -> Fit:
    """Return α A B C with A (m × r) and C (r × n) drawn, B (r × r) trained."""
    m, n = update.shape
    (rank,) = size.parts
    left, right = _drawn(rank, m, draws, "L"), _drawn(rank, n, draws, "R")
    core = left.T @ update.delta @ right
    return Fit(
        (np.ones(1), core),
        lambda alpha, core: alpha[0] * (left @ core @ right.T),
        held=float(np.vdot(core, core)),
    )


def _skeleton(m: int, n: int, parameters: int) -> Size:
    rank = min(m, n, math.isqrt(parameters))
    return Size(rank**2, f"r={rank}", None, None, rank, (rank,))


def _crossed(update: Update, size: Size, draws: Draws) -> Fit:
    """Return C Y D with r columns C and r rows D of W, chosen by pivoted QR of W and of Wᵀ."""
    weight, (rank,) = update.base, size.parts
    assert weight is not None
    chosen = update.once("pivots", lambda: (_pivots(weight, rank), _pivots(weight.T, rank)))
    columns = np.linalg.qr(weight[:, chosen[0][:rank]])[0]
    rows = np.linalg.qr(weight[chosen[1][:rank]].T)[0]
    core = columns.T @ update.delta @ rows
    return Fit((core,), lambda core: columns @ core @ rows.T, held=float(np.vdot(core, core)))


def _pivots(weight: Matrix, count: int) -> Matrix:
    """Return the columns that pivoted QR takes first, of a Gaussian sketch of the rows of W.

    The sketch keeps twice as many rows as columns are wanted, and with them the choice. Of several
    ranks the largest comes first, and the others take the first of its columns.
    """
    drawn = stream(0, "pmss").standard_normal((2 * count, len(weight)))
    sketch = drawn @ weight if 2 * count < len(weight) else weight
    chosen = scipy.linalg.qr(sketch, mode="r", pivoting=True, check_finite=False)[1]
    return chosen[:count]


_add = partial(add, group="frozen factors")

_add(
    5,
    "lora_fa",
    "LoRA-FA (A drawn and frozen)",
    "L. Zhang et al., arXiv 2308.03303 (2023)",
    _one_side,
    _half,
    lambda m, n, size: Cost.of(size, size.parts[0] * n, size.parts[0] * (m + n)),
    drawn=True,
    law=True,
)
_add(
    6,
    "tlora",
    "TLoRA (two frozen factors around r × r)",
    "T. Islam, arXiv 2504.18735 (2025)",
    _square,
    _middle,
    lambda m, n, size: Cost.of(
        size, size.parts[0] * (m + n), size.parts[0] * (m + n + size.parts[0])
    ),
    drawn=True,
)
_add(
    7,
    "pmss",
    "PMSS (columns and rows of W around r × r)",
    "Q. Wang et al., arXiv 2409.16722 (2024)",
    _skeleton,
    _crossed,
    lambda m, n, size: Cost(
        size.parts[0] * (m + n),
        size.parts[0] * (m + n + size.parts[0]),
        VALUE_BITS * size.parameters,
    ),
    needs_base=True,
)
