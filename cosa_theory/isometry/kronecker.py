"""Isometry of a Kronecker product A ⊗ B from its factors, which is all that is ever computed with.

Column i·n + j of A ⊗ B is a_i ⊗ b_j: entry (i, j) of the m × n matrix X in X ↦ A X Bᵀ, row-major.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np

from cosa_theory.ground.checks import refuse, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.isometry.certificates import RipBound, RipBracket, Witness, combine, inward
from cosa_theory.isometry.lower import rip_lower
from cosa_theory.isometry.upper import rip_upper
from cosa_theory.linear.gram import DenseGram, KroneckerGram
from cosa_theory.linear.gram_protocol import outward, rounding_slack

__all__ = ["kronecker_rip_bounds", "norm_condition"]

_MOST_ROWS = 1 << 20  # of a matrix whose supports were enumerated
# What a search in a factor spends: of some thousand columns under a second, for a bound that is 1 %
# from that of the default.
_EFFORT = {"supports": 500, "starts": 8}


class _Side:
    """One factor, with enclosures of its sparse eigenvalues of all orders."""

    def __init__(self, gram: DenseGram, seed: int) -> None:
        self.gram, self.columns, self._seed = gram, gram.columns, seed
        self._found: dict[int, RipBound] = {}

    def enclosure(self, order: int) -> tuple[float, float]:
        """Return an outer bound of the sparse eigenvalues: spectrum and Gershgorin, the better."""
        bounds = self.gram.discs(min(order, self.columns)), self.gram.spectrum_range
        return max(least for least, _ in bounds), min(greatest for _, greatest in bounds)

    def found(self, order: int) -> RipBound:
        """Return a lower bound with witnesses of either side, computed once for each order."""
        order = min(order, self.columns)
        if order not in self._found:
            self._found[order] = rip_lower(self.gram, order, seed=self._seed, **_EFFORT)
        return self._found[order]


def _upper(s: int, ends: tuple[float, float], method: str, start: float) -> RipBound:
    """Return an upper bound from products of ends, each of which is safe against rounding."""
    least, greatest = outward(*ends, 4 * math.ulp(ends[1]))
    return RipBound("upper", s, least, greatest, method, time.perf_counter() - start)


def _composed(left: _Side, right: _Side, s: int) -> RipBound:
    """Bound by the products over all ways to spread s entries over rows."""
    start = time.perf_counter()
    ends = [
        (left.enclosure(r), right.enclosure(min(s - r + 1, right.columns)))
        for r in range(1, min(s, left.columns) + 1)
    ]
    least = min(low_left * low_right for (low_left, _), (low_right, _) in ends)
    greatest = max(high_left * high_right for (_, high_left), (_, high_right) in ends)
    return _upper(s, (least, greatest), "factors", start)


def _product(left: _Side, right: _Side, s: int) -> RipBound:
    """Bound by the factors' constants of the same order, (1 + δ_s(A))(1 + δ_s(B)) − 1."""
    start = time.perf_counter()
    (low_left, high_left), (low_right, high_right) = left.enclosure(s), right.enclosure(s)
    ends = low_left * low_right, high_left * high_right
    return _upper(s, ends, "product", start)


def _joined(first: Witness | None, second: Witness | None) -> Witness:
    """Return x ⊗ y, whose value is the product of those of x and y."""
    assert first is not None  # both were found by a search
    assert second is not None
    support = (first.support[:, None] * second.columns + second.support).ravel()
    coefficients = np.outer(first.coefficients, second.coefficients).ravel()
    value, columns = first.value * second.value, first.columns * second.columns
    return Witness(support, coefficients, value, columns)


def _products_found(left: _Side, right: _Side, s: int) -> RipBound:
    """Bound from below by products x yᵀ of factor witnesses with at most s entries together.

    Among them are supports packed in one row (one entry of x) and in one column (one of y).
    """
    start = time.perf_counter()
    shapes = {(min(s // q, left.columns), q) for q in range(1, min(s, right.columns) + 1)}
    pairs = [(left.found(p), right.found(q)) for p, q in sorted(shapes)]
    high = max(pairs, key=lambda pair: pair[0].greatest * pair[1].greatest)
    low = min(pairs, key=lambda pair: pair[0].least * pair[1].least)
    least, greatest = low[0].least * low[1].least, high[0].greatest * high[1].greatest
    least, greatest = inward(least, greatest, 4 * math.ulp(greatest))
    if 0.0 in (low[0].least, low[1].least):
        least = 0.0
    return RipBound(
        side="lower",
        s=s,
        least=least,
        greatest=greatest,
        method="factor witnesses",
        seconds=time.perf_counter() - start,
        least_witness=_joined(low[0].least_witness, low[1].least_witness),
        greatest_witness=_joined(high[0].greatest_witness, high[1].greatest_witness),
        evaluations=sum(bound.evaluations for pair in pairs for bound in pair),
    )


@overload
def kronecker_rip_bounds(
    A: Any,
    B: Any,
    s: int | None = None,
    *,
    seed: int = ...,
    about: str | None = ...,
    search: bool = ...,
) -> RipBracket: ...
@overload
def kronecker_rip_bounds(
    A: Any,
    B: Any,
    s: Sequence[int],
    *,
    seed: int = ...,
    about: str | None = ...,
    search: bool = ...,
) -> tuple[RipBracket, ...]: ...
def kronecker_rip_bounds(
    A: Any,
    B: Any,
    s: int | Sequence[int] | None = None,
    *,
    seed: int = 0,
    about: str | None = None,
    search: bool = True,
) -> RipBracket | tuple[RipBracket, ...]:
    """Enclose δ_s(A ⊗ B) by what is known of the factors.

    See docs/theory.md, 2.2.

    Parameters
    ----------
    A, B : array or operator, shapes (p, m) and (q, n), or RipBracket of one order
        The factors, or a bracket of each; those of a CosaBasis are
        ``basis.dictionary().factors`` (the tall Ψ) and ``basis.sensing().factors`` (the wide Φ).
    s : int or sequence of int
        The order or orders, from 1 to mn; several share the factors' Gram matrices. With two
        brackets it must be left out.
    seed : int
        Of the search for witnesses.
    about : str, optional
        What A ⊗ B is called in the result; by default by its shape.
    search : bool
        Whether to search supports of A ⊗ B itself, beside products of the factors' witnesses:
        some seconds an order for a layer of an LLM.

    Returns
    -------
    RipBracket, or a tuple of one for each order
        The best of all bounds of either side, each kept in `tried`:

        - "factors": λ_max,s(A ⊗ B) ≤ max over r of λ_max,r(A) λ_max,s−r+1(B), and the mirror image;
        - "product": (1 + δ_s(A))(1 + δ_s(B)) − 1, the same with both orders s, never tighter;
        - "babel", "coherence", "spectrum": as `rip_upper`, of A ⊗ B itself;
        - "factor witnesses" and "search", from below.

    Raises
    ------
    InputError
        For a bad factor, an order outside its range, brackets of different orders, or a bracket
        together with a matrix.

    Notes
    -----
    If X has s nonzero entries in r rows, each row has at most s − r + 1. So the rows of X Bᵀ have
    together a squared norm of at most λ_max,s−r+1(B) ‖X‖², and A maps a matrix with r nonzero rows
    with a gain of at most λ_max,r(A); likewise from below. With equal orders this is the bound of
    [1]_ and [2]_. From below, ‖A(x yᵀ)Bᵀ‖² = ‖Ax‖²‖By‖², and x yᵀ has as many nonzero entries as x
    times those of y. Between two brackets of order s, x ⊗ e_j is s-sparse and every ‖b_j‖² lies
    between the ends of the upper bound of B, which gives a lower bound without witness.

    References
    ----------
    .. [1] S. Jokar, V. Mehrmann, "Sparse solutions to underdetermined Kronecker product systems",
       Linear Algebra and its Applications 431 (2009), 2437-2447.
    .. [2] M. F. Duarte, R. G. Baraniuk, "Kronecker compressive sensing", IEEE Trans. Image
       Processing 21 (2012), 494-504.
    """
    if isinstance(A, RipBracket) or isinstance(B, RipBracket):
        return _of_brackets(A, B, s, about or "the Kronecker product A ⊗ B")
    if s is None:
        raise InputError("the order s is missing: it can be left out with two brackets only")
    start = time.perf_counter()
    gram = KroneckerGram(A, B)
    orders = [whole("s", order, most=gram.columns) for order in np.atleast_1d(s).tolist()]
    if not orders:
        raise refuse("s", s, "one order at least")
    for side in (gram.left, gram.right):  # what all share is computed here, and shared out in time
        _ = side.entries(max(2, *orders)), side.spectrum_range
    sides = _Side(gram.left, seed), _Side(gram.right, seed)
    shared = (time.perf_counter() - start) / len(orders)
    brackets = []
    for order in orders:
        lowers = [_products_found(*sides, order)]
        if search:
            lowers.append(rip_lower(gram, order, seed=seed))
        uppers = _uppers(gram, *sides, order, shared)
        tried = (*lowers, *uppers)
        brackets.append(
            RipBracket(order, combine(lowers), combine(uppers), tried, about or gram.about)
        )
    return brackets[0] if np.ndim(s) == 0 else tuple(brackets)


def _uppers(
    gram: KroneckerGram, left: _Side, right: _Side, s: int, shared: float
) -> list[RipBound]:
    """Return all upper bounds of one order; `shared` is its share of what all orders needed."""
    spectrum = rip_upper(gram, s, "spectrum")
    return [
        _composed(left, right, s),
        _product(left, right, s),
        rip_upper(gram, s, "babel"),
        rip_upper(gram, s, "coherence"),
        replace(spectrum, seconds=spectrum.seconds + shared),
    ]


def _of_brackets(first: Any, second: Any, s: Any, about: str) -> RipBracket:
    """Compose two brackets of one order."""
    start = time.perf_counter()
    if not (isinstance(first, RipBracket) and isinstance(second, RipBracket)):
        raise InputError("give two matrices or two brackets, not one of each")
    if first.s != second.s or s not in (None, first.s):
        raise InputError(
            f"the brackets are of orders {first.s} and {second.s}, with s = {s}: all must agree"
        )
    order = first.s
    outer_first, outer_second = _ends(first.upper_bound, 1), _ends(second.upper_bound, 1)
    inner_first, inner_second = _ends(first.lower_bound, -1), _ends(second.lower_bound, -1)
    ends = outer_first[0] * outer_second[0], outer_first[1] * outer_second[1]
    upper = _upper(order, ends, "product", start)
    greatest = max(inner_first[1] * outer_second[0], outer_first[0] * inner_second[1])
    least = min(inner_first[0] * outer_second[1], outer_first[1] * inner_second[0])
    slack = 4 * math.ulp(max(least, greatest))
    # Both values are attained, or surpassed, by different vectors: they may turn over.
    least, greatest = min(least + slack, upper.greatest), max(greatest - slack, upper.least)
    lower = RipBound(
        "lower",
        order,
        least,
        greatest,
        "factor brackets",
        time.perf_counter() - start,
        note="Follows from the factors' brackets, without a vector of its own.",
    )
    return RipBracket(order, lower, upper, (lower, upper), about)


def _ends(bound: RipBound, sign: int) -> tuple[float, float]:
    """Return the ends of a bound; those of an enumeration moved by what rounding did to them.

    Outwards for sign 1, inwards for −1. An enumerated constant does not know how many rows its
    matrix has, so this allows for more than any that fits in memory with its supports.
    """
    if bound.side != "exact":
        return bound.least, bound.greatest
    slack = sign * rounding_slack(_MOST_ROWS, bound.s, bound.greatest)
    return max(0.0, bound.least - slack), bound.greatest + slack


def norm_condition(A: Any, B: Any) -> bool:
    """Tell whether δ_s(A ⊗ B) ≥ max(δ_s(A), δ_s(B)) is sure by the norms of the columns.

    It is if each factor has a column of norm at most 1 and one of norm at least 1, as factors with
    unit columns have: then x ⊗ b_j is stretched at least as far, or shrunk, as x is by A alone.
    Without the condition the inequality often fails.

    Parameters
    ----------
    A, B : array or operator, shapes (p, m) and (q, n)
        The factors.

    Raises
    ------
    InputError
        If a factor is not a real finite matrix.

    References
    ----------
    docs/theory.md, 2.2. S. Jokar, V. Mehrmann, Linear Algebra and its Applications 431 (2009), for
    unit columns.
    """
    slack = 1e-12  # unit columns have norms off by rounding
    grams = DenseGram(A, "A"), DenseGram(B, "B")
    return all(g.shortest <= 1.0 + slack and g.largest >= 1.0 - slack for g in grams)
