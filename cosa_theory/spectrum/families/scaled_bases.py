"""Frozen random factors between trained diagonals: VeRA, RandLoRA; and sums of them: NoLA."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from cosa_theory.spectrum.families.base import Cost, Draws, Fit, Size, Update
from cosa_theory.spectrum.families.fitted import ROUNDS, Matrix, add, climb, solved

__all__: list[str] = []

# Beyond these a search would take minutes: such a fit spends less than its budget, and says so.
_LARGEST_VERA = 512  # rank
_LARGEST_NOLA = 256  # bases on each side
_RANK_NOLA = 8
_STARTS, _GAIN = 2, 1e-2
_WORK, _FEWEST = 5e10, 4  # multiply-adds of a search, and its fewest rounds
_FEW_ROWS = 64  # up to which all pairs of rows of a factor are multiplied
_ENTRIES = 1 << 21  # of what is solved for together


def _vera_size(m: int, n: int, parameters: int) -> Size:
    rank = min(parameters - m, _LARGEST_VERA)
    if rank < 1:
        return Size.unmet(f"rank 1 takes {m + 1:,} numbers")
    return Size(m + rank, f"r={rank}", None, None, min(m, n, rank), (rank,))


def _vera(update: Update, size: Size, draws: Draws) -> Fit:
    """Return diag(b) B diag(d) A with B (m × r), A (r × n) Gaussian: alternating least squares.

    Given d, each b_i projects a row of ΔW on that of B diag(d) A. Given b, d solves r equations
    with the matrix (Bᵀ diag(b)² B) ∘ (A Aᵀ).
    """
    delta, (rank,) = update.delta, size.parts
    m, n = delta.shape
    drawn = draws.stream("vera")
    B, A = drawn.standard_normal((m, rank)), drawn.standard_normal((rank, n))
    crossed, cross = A @ A.T, delta @ A.T
    total = float(np.vdot(delta, delta))
    State = tuple[Matrix, Matrix]

    def better(state: State) -> tuple[State, float]:
        made = B * state[1]
        squares = np.sum((made @ crossed) * made, axis=1)
        b = np.sum(made * cross, axis=1) / np.where(squares > 0, squares, 1)
        scaled = b[:, None] * B
        right = np.sum(scaled * cross, axis=0)
        d = solved((scaled.T @ scaled) * crossed, right)
        return (b, d), float(right @ d) / total

    none = np.empty(0)
    starts = [(none, drawn.standard_normal(rank)) for _ in range(_STARTS)]
    (b, d), _ = climb(starts, better, _GAIN)
    return Fit((b, d), lambda b, d: (b[:, None] * B * d) @ A)


def _randlora_size(m: int, n: int, parameters: int) -> Size:
    short = min(m, n)
    counts = range(parameters // short, 0, -1)
    for count in counts:
        rank = -(-short // count)
        if count * (rank + short) <= parameters:
            text = f"{count} bases of rank {rank}"
            return Size(count * (rank + short), text, None, None, short, (count, rank))
    return Size.unmet(f"one basis takes {2 * short:,} numbers")


def _randlora(update: Update, size: Size, draws: Draws) -> Fit:
    """Return Σ_j B_j diag(λ_j) A diag(γ_j) with B_j (long × r), A (r × short) drawn.

    Given γ, λ solves one system with as many unknowns as the short side; given λ, each column has
    its own for its γ, one number for each j. The short side is on the right, as in its paper.
    """
    wide = update.shape[0] < update.shape[1]
    delta = update.delta.T if wide else update.delta
    (count, rank), (long, short) = size.parts, delta.shape
    drawn = draws.stream("randlora")
    B, A = drawn.standard_normal((long, count * rank)), drawn.standard_normal((rank, short))
    outer, seen = B.T @ B, (B.T @ delta).reshape(count, rank, short)
    total = float(np.vdot(delta, delta))
    State = tuple[Matrix, Matrix]

    def right_sides(gamma: Matrix) -> Matrix:
        return (A[None] * gamma[:, None]).reshape(count * rank, short)

    def better(state: State) -> tuple[State, float]:
        rows = right_sides(state[1])
        right = np.einsum("jak,ak,jk->ja", seen, A, state[1], optimize=True).ravel()
        weights = solved(outer * (rows @ rows.T), right)
        scaled = (weights[:, None] * outer * weights).reshape(count, rank, count, rank)
        rights = np.einsum("ja,ak,jak->kj", weights.reshape(count, rank), A, seen, optimize=True)
        gamma = np.empty((count, short))
        for at, grams in _column_grams(scaled, A):
            gamma[:, at] = solved(grams, rights[at]).T
        return (weights, gamma), float(np.sum(gamma.T * rights)) / total

    starts = [
        (np.empty(0), 1 + 0.1 * drawn.standard_normal((count, short))) for _ in range(_STARTS)
    ]
    rounds = max(_FEWEST, min(ROUNDS, int(_WORK / (count * rank * short**2))))
    (weights, gamma), _ = climb(starts, better, _GAIN, rounds)

    def build(weights: Matrix, gamma: Matrix) -> Matrix:
        made = (B * weights) @ right_sides(gamma)
        return made.T if wide else made

    return Fit((weights, gamma), build)


def _column_grams(scaled: Matrix, A: Matrix) -> Iterator[tuple[slice, Matrix]]:
    """Yield, for some columns k of A at a time, Σ_ab A_ak S_iajb A_bk, a matrix (i, j) for each.

    Of few rows a it is one product with all pairs of rows; of many, one for each i.
    """
    count, rank, short = *scaled.shape[:2], A.shape[1]
    few = rank <= _FEW_ROWS
    if few:
        pairs = scaled.transpose(1, 3, 0, 2).reshape(rank**2, count**2)
    step = max(16, _ENTRIES // max(count**2, rank**2 if few else count * rank))
    for first in range(0, short, step):
        at = slice(first, first + step)
        part = A[:, at]
        width = part.shape[1]
        if few:
            products = (part[:, None] * part[None]).reshape(rank**2, width).T @ pairs
            yield at, products.reshape(width, count, count)
            continue
        grams = np.empty((width, count, count))
        for i in range(count):  # whose upper triangle is the lower one
            seen = scaled[i, :, : i + 1].reshape(rank, -1).T @ part
            half = np.einsum("jak,ak->kj", seen.reshape(i + 1, rank, width), part)
            grams[:, i, : i + 1] = grams[:, : i + 1, i] = half
        yield at, grams


def _nola_size(m: int, n: int, parameters: int) -> Size:
    each = min(parameters // 2, _LARGEST_NOLA)
    if each < 1:
        return Size.unmet("one basis on each side takes 2 numbers")
    rank = min(m, n, _RANK_NOLA)
    return Size(2 * each, f"{each} bases on each side, r={rank}", None, None, rank, (each, rank))


def _nola(update: Update, size: Size, draws: Draws) -> Fit:
    """Return (Σ β_i B_i)(Σ α_j A_j) with k drawn B_i (m × r) and A_j (r × n).

    Given one factor the coefficients of the other solve k equations.
    """
    delta, (count, rank) = update.delta, size.parts
    m, n = delta.shape
    drawn = draws.stream("nola")
    left = drawn.standard_normal((count, m, rank)) / m**0.5
    right = drawn.standard_normal((count, rank, n)) / n**0.5
    total = float(np.vdot(delta, delta))
    State = tuple[Matrix, Matrix]

    def pairs(bases: Matrix) -> Matrix:
        """Return the products of all columns of all Z_i and Z_j, (i, j) × (columns, columns)."""
        flat = bases.transpose(1, 0, 2).reshape(bases.shape[1], count * rank)
        whole = (flat.T @ flat).reshape(count, rank, count, rank)
        return whole.transpose(0, 2, 1, 3).reshape(count**2, rank**2)

    turned = np.swapaxes(right, 1, 2)
    left_pairs, right_pairs = pairs(left), pairs(turned)

    def half(bases: Matrix, known: Matrix, other: Matrix, seen: Matrix) -> tuple[Matrix, float]:
        """Return the coefficients of bases Z_i in Z other, with `seen` = ΔW otherᵀ."""
        gram = (known @ (other @ other.T).ravel()).reshape(count, count)
        projected = bases.reshape(count, -1) @ seen.ravel()
        found = solved(gram, projected)
        return found, float(found @ projected)

    def better(state: State) -> tuple[State, float]:
        other = np.tensordot(state[1], right, 1)
        beta, _ = half(left, left_pairs, other, delta @ other.T)
        columns = np.tensordot(beta, left, 1)
        alpha, held = half(turned, right_pairs, columns.T, delta.T @ columns)
        return (beta, alpha), held / total

    starts = [(np.empty(0), drawn.standard_normal(count)) for _ in range(_STARTS)]
    (beta, alpha), _ = climb(starts, better, _GAIN)
    return Fit(
        (beta, alpha),
        lambda beta, alpha: np.tensordot(beta, left, 1) @ np.tensordot(alpha, right, 1),
    )


_add = partial(add, group="frozen factors")

_add(
    8,
    "vera",
    "VeRA (two diagonals between frozen factors)",
    "D. Kopiczko et al., arXiv 2310.11454 (2023)",
    _vera_size,
    _vera,
    lambda m, n, size: Cost.of(size, size.parts[0] * (m + n), size.parts[0] * (m + n + 1) + m),
    "lower bound",
    drawn=True,
)
_add(
    9,
    "randlora",
    "RandLoRA (sum of scaled frozen products)",
    "P. Albert et al., arXiv 2502.00987 (2025)",
    _randlora_size,
    _randlora,
    lambda m, n, size: Cost.of(
        size,
        size.parts[1] * (size.parts[0] * max(m, n) + min(m, n)),
        size.parts[0] * size.parts[1] * (m + n) + size.parameters,
    ),
    "lower bound",
    drawn=True,
)
_add(
    25,
    "nola",
    "NoLA (factors as sums of drawn ones)",
    "S. Koohpayegani et al., arXiv 2310.02556 (2023)",
    _nola_size,
    _nola,
    lambda m, n, size: Cost.of(
        size, size.parts[0] * size.parts[1] * (m + n), size.parts[1] * (m + n)
    ),
    "lower bound",
    drawn=True,
)
