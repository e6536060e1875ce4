"""Lower bounds of restricted isometry constants, with vectors that prove them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from cosa_theory.isometry.certificates import (
    RipBound,
    Witness,
    checked_order,
    inward,
    rounding_slack,
)
from cosa_theory.isometry.gram import Gram, Indices, as_gram
from cosa_theory.isometry.search import (
    Found,
    best_pairs,
    climb,
    grow,
    merged,
    random_supports,
    sample_best,
    top_eigenpairs,
)
from cosa_theory.projections import stream

__all__ = ["rip_lower", "search_supports", "witness_of"]

_SEEDS = 512  # columns that are tried as the first of a pair
_WIDE = 1 << 22  # entries of the rows of G that one round of climbing reads


def rip_lower(A: Any, s: int, *, seed: int = 0, supports: int = 2000, starts: int = 32) -> RipBound:
    """Bound the restricted isometry constant δ_s(A) from below by searching for bad supports.

    Draws supports at random, grows others from the worst pairs of columns, and improves the best
    of both by swapping columns until no swap gains, for the least and for the greatest eigenvalue
    separately. What is found is proven by its vectors: `least_witness` and `greatest_witness`.

    Parameters
    ----------
    A : array, tensor, sparse array, LinearOperator, KroneckerOperator or Gram, shape (k, d)
        The matrix; columns of any norm. A Kronecker operator is never formed, and its search
        starts from supports packed in one row, one column or a block of its domain too.
    s : int
        The order, from 1 to d. Order 1 is exact: the column norms.
    seed : int
        Of the random supports; the same seed finds the same bound.
    supports : int
        How many supports to draw at random, at least 1.
    starts : int
        How many of the drawn and of the grown supports to improve by swaps; 0 for none.

    Returns
    -------
    RipBound
        Its values are ‖Ax‖² of the witnesses, computed from A and moved inwards by what rounding
        could do (`rounding_slack`). `evaluations` counts the candidates whose bound was evaluated.

    Raises
    ------
    ValueError
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
    s = checked_order(s, gram.columns)
    _check_count("supports", supports, 1)
    _check_count("starts", starts, 0)
    finds = {
        sign: search_supports(gram, s, sign, seed=seed, supports=supports, starts=starts)
        for sign in (-1, 1)
    }
    low = witness_of(gram, finds[-1].supports[0], -1)
    high = witness_of(gram, finds[1].supports[0], 1)
    slack = rounding_slack(gram.rows_of_A, s, float(gram.diagonal.max()))
    least, greatest = inward(low.value, high.value, slack)
    note = ""
    if s >= gram.dependent_from or (low.value == 0.0 and np.count_nonzero(low.coefficients) == 1):
        least = 0.0
    if s >= gram.dependent_from:
        note = f"Some {gram.dependent_from} columns are dependent by dimension: the least is 0."
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
        order = np.argsort(-sign * gram.diagonal, kind="stable")[: max(starts, 1)]
        return Found(order[:, None], sign * gram.diagonal[order], gram.columns)
    generator = stream(seed, "rip", "supports", s, (sign + 1) // 2)
    drawn = sample_best(gram, random_supports(generator, supports, s, gram.columns), sign)
    if starts == 0:
        return drawn
    starts = max(2, min(starts, _WIDE // (s * gram.columns)))
    columns = np.arange(gram.columns)
    if gram.columns > _SEEDS:
        columns = np.unique(generator.integers(0, gram.columns, _SEEDS))
    pairs = best_pairs(gram, columns, sign).head(starts)
    grown = grow(gram, pairs.supports, s, sign)
    climbed = climb(gram, merged(drawn.head(starts), grown).supports, sign)
    return merged(drawn.head(starts), grown, climbed)


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is {value!r}: it must be a whole number of at least {least}")
