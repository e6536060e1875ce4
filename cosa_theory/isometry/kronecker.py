"""Isometry of a Kronecker product A ⊗ B from its factors, which is all that is ever computed with.

Column i·n + j of A ⊗ B is a_i ⊗ b_j: entry (i, j) of the m × n matrix X in X ↦ A X Bᵀ, row-major.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast, overload

import numpy as np

from cosa_theory.isometry.certificates import (
    RipBound,
    RipBracket,
    Witness,
    checked_matrix,
    checked_order,
    combine,
    inward,
    outward,
    rounding_slack,
)
from cosa_theory.isometry.lower import rip_lower
from cosa_theory.isometry.products import FactorRows, extreme_disc, factor_rows
from cosa_theory.isometry.upper import spectrum_range
from cosa_theory.linear.gram import DenseGram, KroneckerGram

__all__ = [
    "kronecker_rip_bounds",
    "kronecker_upper",
    "norm_condition",
]

_MOST_ROWS = 1 << 20  # of a matrix whose supports were enumerated
# What a search in a factor spends: of some thousand columns under a second, for a bound that is 1 %
# from that of the default.
_EFFORT = {"supports": 500, "starts": 8}


class _Side:
    """One factor: its Gram matrix, and enclosures of its sparse eigenvalues of all orders."""

    def __init__(self, factor: Any, name: str, order: int, seed: int = 0) -> None:
        self.gram = factor if isinstance(factor, DenseGram) else DenseGram(factor, name)
        self.columns = self.gram.columns
        self._order, self._seed = min(order, self.columns), seed
        self._found: dict[int, RipBound] = {}

    @cached_property
    def rows(self) -> FactorRows:
        """The largest entries of its Gram matrix's rows."""
        return factor_rows(self.gram, self._order)

    @cached_property
    def spectrum(self) -> tuple[float, float]:
        """An outer bound of all eigenvalues of the Gram matrix."""
        return outward(*spectrum_range(self.gram))

    @property
    def scale(self) -> float:
        """The greatest squared norm of a column."""
        return float(self.gram.diagonal.max())

    def enclosure(self, order: int) -> tuple[float, float]:
        """Return an outer bound of the sparse eigenvalues: spectrum and Gershgorin, the better."""
        order = min(order, self.columns)
        reach, diagonal = self.rows.reach(order), self.rows.diagonal
        slack = rounding_slack(self.gram.rows_of_A, order, self.scale)
        least, greatest = outward(
            float((diagonal - reach).min()), float((diagonal + reach).max()), slack
        )
        return max(least, self.spectrum[0]), min(greatest, self.spectrum[1])

    def found(self, order: int) -> RipBound:
        """Return a lower bound with witnesses of either side, computed once for each order."""
        order = min(order, self.columns)
        if order not in self._found:
            self._found[order] = rip_lower(self.gram, order, seed=self._seed, **_EFFORT)
        return self._found[order]


def _upper(s: int, ends: tuple[float, float], slack: float, method: str, start: float) -> RipBound:
    least, greatest = outward(*ends, slack)
    return RipBound("upper", s, least, greatest, method, time.perf_counter() - start)


def _product_slack(left: _Side, right: _Side, s: int) -> float:
    """Return what rounding does to a sum of s products of entries of both Gram matrices."""
    return rounding_slack(left.gram.rows_of_A + right.gram.rows_of_A, s, left.scale * right.scale)


def _composed(left: _Side, right: _Side, s: int) -> RipBound:
    """Bound by the products over all ways to spread s entries over rows."""
    start = time.perf_counter()
    ends = [
        (left.enclosure(r), right.enclosure(min(s - r + 1, right.columns)))
        for r in range(1, min(s, left.columns) + 1)
    ]
    least = min(low_left * low_right for (low_left, _), (low_right, _) in ends)
    greatest = max(high_left * high_right for (_, high_left), (_, high_right) in ends)
    return _upper(s, (least, greatest), 4 * math.ulp(greatest), "factors", start)


def _product(left: _Side, right: _Side, s: int) -> RipBound:
    """Bound by the factors' constants of the same order, (1 + δ_s(A))(1 + δ_s(B)) − 1."""
    start = time.perf_counter()
    (low_left, high_left), (low_right, high_right) = left.enclosure(s), right.enclosure(s)
    ends = low_left * low_right, high_left * high_right
    return _upper(s, ends, 4 * math.ulp(ends[1]), "product", start)


def _babel(left: _Side, right: _Side, s: int) -> RipBound:
    start = time.perf_counter()
    ends = (
        -extreme_disc(left.rows, right.rows, s, -1),
        extreme_disc(left.rows, right.rows, s, 1),
    )
    return _upper(s, ends, _product_slack(left, right, s), "babel", start)


def _coherence(left: _Side, right: _Side, s: int) -> RipBound:
    start = time.perf_counter()
    first, second = left.rows, right.rows
    # The product of two off-diagonal magnitudes is never above both of these.
    largest = max(
        float(first.reach(2).max()) * float(second.diagonal.max()),
        float(first.diagonal.max()) * float(second.reach(2).max()),
    )
    reach = (s - 1) * largest
    ends = (
        float(first.diagonal.min()) * float(second.diagonal.min()) - reach,
        float(first.diagonal.max()) * float(second.diagonal.max()) + reach,
    )
    return _upper(s, ends, _product_slack(left, right, s), "coherence", start)


def _spectrum(left: _Side, right: _Side, s: int) -> RipBound:
    start = time.perf_counter()
    (low_left, high_left), (low_right, high_right) = left.spectrum, right.spectrum
    ends = low_left * low_right, high_left * high_right
    return _upper(s, ends, 4 * math.ulp(ends[1]), "spectrum", start)


_METHODS = {"coherence": _coherence, "babel": _babel, "spectrum": _spectrum}


def kronecker_upper(A: Any, B: Any, s: int, method: str = "babel") -> RipBound:
    """Bound δ_s(A ⊗ B) from above by one method of `rip_upper`, from the factors alone.

    Parameters
    ----------
    A, B : array or operator, shapes (p, m) and (q, n)
        The factors.
    s : int
        The order, from 1 to mn.
    method : {"coherence", "babel", "spectrum"}
        The same enclosures as for a plain matrix, exactly: products of the factors' eigenvalues,
        and Gershgorin's discs of AᵀA ⊗ BᵀB, whose rows are products of rows.

    Returns
    -------
    RipBound
        side "upper".

    Raises
    ------
    ValueError
        For another method, a bad factor or an order outside its range.
    """
    if method not in _METHODS:
        raise ValueError(
            f"method is {method!r}: of a Kronecker product it must be one of {', '.join(_METHODS)}"
        )
    left, right = _sides(A, B, [s])
    return _METHODS[method](left, right, checked_order(s, left.columns * right.columns))


def _sides(A: Any, B: Any, orders: Sequence[int], seed: int = 0) -> tuple[_Side, _Side]:
    grams = KroneckerGram(A, B)  # checks both factors, and that no product overflows
    for s in orders:
        checked_order(s, grams.columns)
    most = max(2, *orders)
    return _Side(grams.left, "A", most, seed), _Side(grams.right, "B", most, seed)


def _witness(first: Witness, second: Witness) -> Witness:
    """Return x ⊗ y, whose value is the product of those of x and y."""
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
        least_witness=_joined(low, "least_witness"),
        greatest_witness=_joined(high, "greatest_witness"),
        evaluations=sum(bound.evaluations for pair in pairs for bound in pair),
    )


def _joined(pair: tuple[RipBound, RipBound], name: str) -> Witness:
    first, second = getattr(pair[0], name), getattr(pair[1], name)
    return _witness(first, second)


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
    ValueError
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
        raise ValueError("the order s is missing: it can be left out with two brackets only")
    if isinstance(s, np.ndarray):
        s = cast("int | Sequence[int]", s.tolist())
    if isinstance(s, Sequence) and not s:
        raise ValueError("s is empty: name at least one order")
    orders = list(s) if isinstance(s, Sequence) else [s]
    start = time.perf_counter()
    left, right = _sides(A, B, orders, seed)
    about = about or KroneckerGram(left.gram, right.gram).about
    for side in (left, right):  # what all orders share is computed here, and shared out in time
        _ = side.rows, side.spectrum
    shared = (time.perf_counter() - start) / len(orders)
    brackets = [_bracket(left, right, int(order), shared, seed, about, search) for order in orders]
    return tuple(brackets) if isinstance(s, Sequence) else brackets[0]


def _bracket(
    left: _Side, right: _Side, s: int, shared: float, seed: int, about: str, search: bool
) -> RipBracket:
    spectrum = _spectrum(left, right, s)
    spectrum = RipBound(
        "upper", s, spectrum.least, spectrum.greatest, "spectrum", spectrum.seconds + shared
    )
    uppers = [
        _composed(left, right, s),
        _product(left, right, s),
        _babel(left, right, s),
        _coherence(left, right, s),
        spectrum,
    ]
    lowers = [_products_found(left, right, s)]
    if search:
        lowers.append(rip_lower(KroneckerGram(left.gram, right.gram), s, seed=seed))
    return RipBracket(s, combine(lowers), combine(uppers), (*lowers, *uppers), about)


def _of_brackets(first: Any, second: Any, s: Any, about: str) -> RipBracket:
    """Compose two brackets of one order."""
    start = time.perf_counter()
    if not (isinstance(first, RipBracket) and isinstance(second, RipBracket)):
        raise ValueError("give two matrices or two brackets, not one of each")
    if first.s != second.s or s not in (None, first.s):
        raise ValueError(
            f"the brackets are of orders {first.s} and {second.s}, with s = {s}: all must agree"
        )
    order = first.s
    outer_first, outer_second = _ends(first.upper_bound, 1), _ends(second.upper_bound, 1)
    inner_first, inner_second = _ends(first.lower_bound, -1), _ends(second.lower_bound, -1)
    ends = outer_first[0] * outer_second[0], outer_first[1] * outer_second[1]
    upper = _upper(order, ends, 4 * math.ulp(ends[1]), "product", start)
    greatest = max(inner_first[1] * outer_second[0], outer_first[0] * inner_second[1])
    least = min(inner_first[0] * outer_second[1], outer_first[1] * inner_second[0])
    slack = 4 * math.ulp(greatest)
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
    ValueError
        If a factor is not a real finite matrix.

    References
    ----------
    S. Jokar, V. Mehrmann, Linear Algebra and its Applications 431 (2009), for unit columns.
    """
    norms = [np.linalg.norm(checked_matrix(M, name), axis=0) for M, name in ((A, "A"), (B, "B"))]
    slack = 1e-12  # unit columns have norms off by rounding
    return all(norm.min() <= 1.0 + slack and norm.max() >= 1.0 - slack for norm in norms)
