"""Lower bounds of restricted isometry constants, with vectors that prove them."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from cosa_theory.ground.checks import whole
from cosa_theory.isometry.certificates import RipBound, Witness, inward
from cosa_theory.isometry.search import (
    Found,
    best_pairs,
    climb,
    grow,
    merged,
    random_supports,
    sample_best,
    settle,
    top_eigenpairs,
)
from cosa_theory.linear.gram import DenseGram, KroneckerGram, as_gram
from cosa_theory.linear.gram_protocol import Gram, Indices, rounding_slack
from cosa_theory.projections import stream

__all__ = ["rip_lower", "search_supports", "witness_of"]

_SEEDS = 4096  # columns up to which all are tried as the first of a pair; beyond, an eighth of it
_ROWS = 1 << 21  # entries of G that one round of climbing reads, about: it limits the starts
_SETTLED = 4  # supports to improve by exchanges of two columns
_EXCHANGED = 1 << 20  # pairs of columns up to which that is worth its time
_SEARCHED = 1 << 14  # columns of a Kronecker product up to which all are candidates
_GRID = 96  # columns of each factor, about, that make up the grid searched beyond
_FACTOR_DRAWS, _FACTOR_STARTS = 500, 32  # random supports and starts of a factor's own search


def rip_lower(
    A: Any, s: int, *, seed: int = 0, supports: int = 2000, starts: int = 256
) -> RipBound:
    """Bound the restricted isometry constant δ_s(A) from below by searching for bad supports.

    Draws supports at random, grows others from the worst pairs of columns, and improves the best of
    both by swapping columns until no swap gains, for the least and for the greatest eigenvalue
    separately. Where there are few enough columns, no exchange of two columns gains on what is
    returned either. What is found is proven by its vectors: `least_witness` and `greatest_witness`.
    See docs/theory.md, 2.6.

    Parameters
    ----------
    A, s
        As for `cosa_theory.isometry.rip_exact`. A Kronecker operator is never formed, and its
        search starts from supports packed in one row, one column or a block of its domain too.
        Order 1 is exact: the column norms.
    seed : int
        Of the random supports; the same seed finds the same bound.
    supports : int
        How many supports to draw at random, at least 1.
    starts : int
        How many supports to improve by swaps, a quarter of them the best of those drawn, a quarter
        grown from pairs, the others as drawn; fewer on large matrices. 0 for none.

    Returns
    -------
    RipBound
        Its values are ‖Ax‖² of the witnesses, computed from A and moved inwards by what rounding
        could do (`rounding_slack`). `evaluations` counts the candidates whose bound was evaluated.

    Raises
    ------
    InputError
        If A is not a finite real matrix, the order is not from 1 to d, or a count is negative.

    Notes
    -----
    Deciding δ_s is NP-hard [1]_, so a search can stop short of it; on 20 × 30 Gaussian matrices
    with s ≤ 4 it does not.

    References
    ----------
    .. [1] A. S. Bandeira, E. Dobriban, D. G. Mixon, W. F. Sawin, "Certifying the restricted
       isometry property is hard", IEEE Trans. Information Theory 59 (2013), 3448-3450.

    Examples
    --------
    >>> from cosa_theory.projections import make_projection
    >>> bound = rip_lower(make_projection("gaussian", 20, 30), 3)
    >>> bound.side, bound.support.size
    ('lower', 3)
    """
    begun = time.perf_counter()
    gram = as_gram(A)
    s = whole("s", s, most=gram.columns)
    supports, starts = whole("supports", supports), whole("starts", starts, 0)
    finds = {
        sign: search_supports(gram, s, sign, seed=seed, supports=supports, starts=starts)
        for sign in (-1, 1)
    }
    low = witness_of(gram, finds[-1].supports[0], -1)
    high = witness_of(gram, finds[1].supports[0], 1)
    slack = rounding_slack(gram.rows_of_A, s, gram.largest)
    least, greatest = inward(low.value, high.value, slack)
    note = ""
    if s >= gram.dependent_from:
        least = 0.0
        first = gram.dependent_from
        why = "a column is zero" if first == 1 else f"some {first} columns are dependent"
        note = f"The least is exactly 0: {why}."
    return RipBound(
        side="lower",
        s=s,
        least=least,
        greatest=greatest,
        method="search",
        seconds=time.perf_counter() - begun,
        least_witness=low,
        greatest_witness=high,
        note=note,
        evaluations=sum(find.evaluations for find in finds.values()),
    )


def witness_of(gram: Gram, support: Indices, sign: int) -> Witness:
    """Return the extreme eigenvector on a support with ‖Ax‖² computed from A."""
    support = np.sort(support)
    _, vectors = top_eigenpairs(gram, support[None], sign)
    x = vectors[0] / np.linalg.norm(vectors[0])
    return Witness(support, x, gram.squared_norm(support, x), gram.columns)


def search_supports(
    gram: Gram, s: int, sign: int, *, seed: int, supports: int, starts: int
) -> Found:
    """Return supports with a great λ_max(σ G_S), best first: see `rip_lower`."""
    if s == 1:
        return _single_columns(gram, sign)
    generator = stream(seed, "rip", "supports", s, (sign + 1) // 2)
    if isinstance(gram, KroneckerGram) and starts > 0:
        return _search_packed(gram, s, sign, generator, supports, starts)
    return _search(gram, s, sign, generator, supports, starts)


def _single_columns(gram: Gram, sign: int) -> Found:
    """Return the column of extreme norm."""
    best = np.array([(sign * gram.diagonal).argmax()])
    return Found(best[:, None], sign * gram.diagonal[best], gram.columns)


def _search(
    gram: Gram, s: int, sign: int, generator: np.random.Generator, supports: int, starts: int
) -> Found:
    """Search from the best drawn supports, from grown pairs, and from drawn ones as they come.

    The last matter: good starts are much alike, and lead to few different ends.
    """
    drawn = random_supports(generator, supports, s, gram.columns)
    leaders = sample_best(gram, drawn, sign)
    if starts == 0:
        return leaders
    starts = max(4, min(starts, _ROWS // (s * gram.columns)))
    quarter = max(1, starts // 4)
    columns = np.arange(gram.columns)
    if gram.columns > _SEEDS:
        columns = np.unique(generator.integers(0, gram.columns, _SEEDS // 8))
    pairs = best_pairs(gram, columns, sign)
    grown = grow(gram, pairs.head(quarter).supports, s, sign)
    begin = np.concatenate([leaders.supports[:quarter], grown.supports, drawn[: 2 * quarter]])
    climbed = climb(gram, begin, sign)
    tried = leaders.evaluations + pairs.evaluations + grown.evaluations
    found = replace(climbed, evaluations=climbed.evaluations + tried)
    if math.comb(s, 2) * gram.columns**2 > _EXCHANGED or s == gram.columns:
        return found
    return merged(found, *(settle(gram, each, sign) for each in found.supports[:_SETTLED]))


def _search_packed(
    gram: KroneckerGram,
    s: int,
    sign: int,
    generator: np.random.Generator,
    supports: int,
    starts: int,
) -> Found:
    """Search a Kronecker product, also from supports packed in a block of its domain.

    G restricted to the block I × J is G_A[I] ⊗ G_B[J], so that extreme supports of the factors
    make extreme blocks; a block of one row or one column is where the factors' spark tells. Of a
    large domain only the rows and columns that the factors' best supports use are searched.
    """
    (m, n), root = gram.domain_shape, math.isqrt(s)
    shapes = sorted({(1, s), (s, 1), (root, s // root), (s // root, root)})
    shapes = [(min(p, m), min(q, n)) for p, q in shapes]
    sides = [
        {
            size: _search_factor(factor, size, sign, generator, starts)
            for size in sorted({shape[axis] for shape in shapes})
        }
        for axis, factor in enumerate((gram.left, gram.right))
    ]
    grid, rows, columns = gram, np.arange(m), np.arange(n)
    if gram.columns > _SEARCHED:
        rows, columns = (_used_columns(finds, s) for finds in sides)
        grid = gram.restricted(rows, columns)
    blocks = []
    for p, q in shapes:
        i = np.searchsorted(rows, sides[0][p].supports[0])
        j = np.searchsorted(columns, sides[1][q].supports[0])
        blocks.append(_filled(np.add.outer(i * columns.size, j).ravel(), s, grid.columns))
    packed = climb(grid, np.stack(blocks), sign)
    found = merged(packed, _search(grid, s, sign, generator, supports, starts))
    i, j = np.divmod(found.supports, columns.size)
    tried = sum(find.evaluations for finds in sides for find in finds.values())
    return Found(rows[i] * n + columns[j], found.values, found.evaluations + tried)


def _search_factor(
    factor: DenseGram, size: int, sign: int, generator: np.random.Generator, starts: int
) -> Found:
    if size == 1:
        return _single_columns(factor, sign)
    return _search(factor, size, sign, generator, _FACTOR_DRAWS, min(starts, _FACTOR_STARTS))


def _used_columns(finds: dict[int, Found], s: int) -> Indices:
    """Return the columns of a factor that its best supports of several sizes use, increasing."""
    count = max(1, _GRID // s)
    return np.unique(np.concatenate([find.supports[:count].ravel() for find in finds.values()]))


def _filled(support: Indices, s: int, columns: int) -> Indices:
    """Return the support with other columns added up to size s, the first that there are."""
    others = np.setdiff1d(np.arange(min(columns, 2 * s)), support)
    return np.concatenate([support, others[: s - support.size]])
