"""Structured matrices: circulant blocks, a Kronecker product, blocks of rank one, a diagonal."""

import math
from functools import partial
from itertools import product

import numpy as np
from scipy.sparse.linalg import eigsh

from cosa_theory.projections import stream
from cosa_theory.spectrum.families.base import Cost, Draws, Fit, Size, Update
from cosa_theory.spectrum.families.fitted import Matrix, add

__all__: list[str] = []

_SMALL = 256  # side of a Gram matrix, up to which all of its eigenvectors are computed


def _divisors(number: int) -> list[int]:
    small = [one for one in range(1, math.isqrt(number) + 1) if number % one == 0]
    return sorted({*small, *(number // one for one in small)})


def _circulant_size(m: int, n: int, parameters: int) -> Size:
    for block in _divisors(math.gcd(m, n)):
        if m * n <= parameters * block:
            count = m * n // block
            return Size(count, f"blocks of {block}", None, None, min(m, n), (block,))
    return Size.unmet(f"the largest circulant blocks leave {m * n // math.gcd(m, n):,} numbers")


def _circulants(update: Update, size: Size, draws: Draws) -> Fit:
    """Return the mean of ΔW along the wrapped diagonals of every block."""
    (m, n), (block,) = update.shape, size.parts
    rows, columns = m // block, n // block
    # Entry (p, q) of a circulant is its number (p − q) modulo the block's side.
    turn = (np.arange(block)[:, None] - np.arange(block)[None, :]) % block
    cut = update.delta.reshape(rows, block, columns, block).swapaxes(1, 2)
    numbers = np.zeros((rows, columns, block))
    along = (np.arange(block)[:, None] + np.arange(block)[None, :]) % block
    for number in range(block):  # rows p = q + number
        numbers[:, :, number] = cut[:, :, along[number], np.arange(block)].mean(axis=2)

    def build(numbers: Matrix) -> Matrix:
        return numbers[:, :, turn].swapaxes(1, 2).reshape(m, n)

    return Fit((numbers,), build, held=block * float(np.vdot(numbers, numbers)))


def _circulant_cost(m: int, n: int, size: Size) -> Cost:
    """Return the cost by fast Fourier transforms of the blocks, some 5 block log₂ block each."""
    (block,) = size.parts
    transforms = 5 * math.ceil(math.log2(block)) * (m + n) if block > 1 else 0
    return Cost.of(size, 0, size.parameters + transforms)


def _kronecker_size(m: int, n: int, parameters: int) -> Size:
    """Return the most numbers within the budget; of equal ones the most square outer factor."""
    best: tuple[int, int, int, int] | None = None
    for p, q in product(_divisors(m), _divisors(n)):
        count = p * q + (m // p) * (n // q)
        if count <= parameters and (best is None or (count, -abs(p - q)) > best[:2]):
            best = count, -abs(p - q), p, q
    if best is None:
        least = min(p * q + m * n // (p * q) for p, q in product(_divisors(m), _divisors(n)))
        return Size.unmet(f"the smallest pair of factors takes {least:,} numbers")
    count, _, p, q = best
    rank = min(p, q) * min(m // p, n // q)
    return Size(count, f"{p} × {q} ⊗ {m // p} × {n // q}", None, None, rank, (p, q))


def _kronecker(update: Update, size: Size, draws: Draws) -> Fit:
    """Return the nearest Kronecker product: the best rank-one matrix of ΔW's rearrangement.

    C. Van Loan, N. Pitsianis, "Approximation with Kronecker products" (1993).
    """
    (m, n), (p, q) = update.shape, size.parts
    r, s = m // p, n // q
    rearranged = update.delta.reshape(p, r, q, s).swapaxes(1, 2).reshape(p * q, r * s)
    outer, inner = _leading(rearranged)
    return Fit(
        (outer.reshape(p, q), inner.reshape(r, s)),
        lambda outer, inner: np.kron(outer, inner),
        held=float(np.vdot(outer, outer)),
    )


def _leading(X: Matrix) -> tuple[Matrix, Matrix]:
    """Return u and v of the best u vᵀ of each matrix of a stack (the last two axes), ‖v‖ = 1."""
    if X.shape[-2] > X.shape[-1]:
        v = _top(np.swapaxes(X, -1, -2) @ X)
        return (X @ v[..., None])[..., 0], v
    u = _top(X @ np.swapaxes(X, -1, -2))
    v = (u[..., None, :] @ X)[..., 0, :]
    sigma = np.linalg.norm(v, axis=-1, keepdims=True)
    return u * sigma, v / np.where(sigma > 0, sigma, 1)


def _top(gram: Matrix) -> Matrix:
    """Return the first eigenvector of each Gram matrix: of large ones by Lanczos' iteration."""
    side = gram.shape[-1]
    if side <= _SMALL:
        return np.asarray(np.linalg.eigh(gram)[1][..., -1])
    begin = stream(0, "leading").standard_normal(side)
    flat = gram.reshape(-1, side, side)
    found = [eigsh(one, 1, v0=begin)[1][:, 0] if one.any() else begin * 0 for one in flat]
    return np.stack(found).reshape(gram.shape[:-1])


def _monarch_size(m: int, n: int, parameters: int) -> Size:
    for blocks in reversed(_divisors(math.gcd(m, n))):
        if blocks * (m + n) <= parameters:
            count = blocks * (m + n)
            text = f"{blocks} × {blocks} blocks of rank 1"
            return Size(count, text, None, None, min(m, n, blocks * blocks), (blocks,))
    return Size.unmet(f"one block of rank 1 takes {m + n:,} numbers")


def _monarch(update: Update, size: Size, draws: Draws) -> Fit:
    """Return every block's best matrix of rank one: a product of two block diagonals, permuted."""
    (m, n), (blocks,) = update.shape, size.parts
    cut = update.delta.reshape(blocks, m // blocks, blocks, n // blocks).swapaxes(1, 2)
    trained = _leading(cut)

    def build(left: Matrix, right: Matrix) -> Matrix:
        made: Matrix = left[..., :, None] * right[..., None, :]
        return made.swapaxes(1, 2).reshape(m, n)

    return Fit(trained, build, held=float(np.vdot(trained[0], trained[0])))


def _diagonal_size(m: int, n: int, parameters: int) -> Size:
    for blocks in _divisors(math.gcd(m, n)):
        if m * n <= parameters * blocks:
            return Size(m * n // blocks, f"{blocks} blocks", None, None, min(m, n), (blocks,))
    return Size.unmet(f"the smallest blocks have {m * n // math.gcd(m, n):,} numbers")


def _diagonal(update: Update, size: Size, draws: Draws) -> Fit:
    (m, n), (blocks,) = update.shape, size.parts
    at = np.arange(blocks)
    cut = update.delta.reshape(blocks, m // blocks, blocks, n // blocks)

    def build(kept: Matrix) -> Matrix:
        made = np.zeros(cut.shape)
        made[at, :, at] = kept
        return made.reshape(m, n)

    kept = cut[at, :, at]
    return Fit((kept,), build, held=float(np.vdot(kept, kept)))


_add = partial(add, group="structured")

_add(
    48,
    "c3a",
    "C3A (circulant blocks)",
    "A. Chen et al., arXiv 2407.19342 (2024)",
    _circulant_size,
    _circulants,
    _circulant_cost,
    law=True,
)
_add(
    50,
    "lokr",
    "LoKr (one Kronecker product)",
    "S.-Y. Yeh et al., arXiv 2309.14859 (2023)",
    _kronecker_size,
    _kronecker,
    # (P ⊗ Q) x: the inner factor on each of q columns, then the outer on each of r rows.
    lambda m, n, size: Cost.of(size, 0, (m // size.parts[0]) * (n + size.parts[0] * size.parts[1])),
)
_add(
    51,
    "monarch",
    "Monarch (every block of rank one)",
    "T. Dao et al., arXiv 2204.00595 (2022); MoRe: W. Tan et al., arXiv 2408.17383 (2024)",
    _monarch_size,
    _monarch,
    lambda m, n, size: Cost.of(size, 0, size.parameters),
)
_add(
    52,
    "block_diagonal",
    "block diagonal",
    "Z. Qiu et al., arXiv 2306.07280 (2023), without its rotation",
    _diagonal_size,
    _diagonal,
    lambda m, n, size: Cost.of(size, 0, size.parameters),
    law=True,
)
