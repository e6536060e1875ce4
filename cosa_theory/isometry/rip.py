"""Restricted isometry constants: by enumeration where that is affordable, else in a bracket."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from cosa_theory.ground.checks import choice, real, refuse, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.isometry.certificates import RipBound, RipBracket, combine
from cosa_theory.isometry.enumeration import best_of_all
from cosa_theory.isometry.kronecker import kronecker_rip_bounds
from cosa_theory.isometry.lower import rip_lower, search_supports, witness_of
from cosa_theory.isometry.upper import UPPER_METHODS, rip_upper
from cosa_theory.linear.gram import KroneckerGram, as_gram
from cosa_theory.linear.gram_protocol import Gram, Indices

__all__ = ["rip_bracket", "rip_exact"]

_EXACT = 2_000_000  # supports that a bracket enumerates, not searches: a fraction of a second
_SDP_COLUMNS = 150  # columns up to which a bracket solves the semidefinite relaxation


def rip_exact(A: Any, s: int, *, max_supports: int = 50_000_000) -> RipBound:
    """Find the restricted isometry constant δ_s(A) by going through all supports of size s.

    δ_s(A) = max over |S| = s of max(λ_max(G_S) − 1, 1 − λ_min(G_S)), G = AᵀA. Smaller supports need
    no visit: the eigenvalues of a principal submatrix interlace [1]_. See docs/theory.md, 2.6.

    Parameters
    ----------
    A : array, tensor, sparse array, LinearOperator, KroneckerOperator or Gram, shape (k, d)
        The matrix; columns of any norm.
    s : int
        The order, from 1 to d.
    max_supports : int
        How many supports may be visited: 3 to 25 million a second on one core, for s from 14
        down to 4; memory is at most some 2 GB.

    Returns
    -------
    RipBound
        With side "exact" and a witness for either side, whose ‖Ax‖² are its values: right to
        rounding (half of `rounding_slack`).

    Raises
    ------
    InputError
        If there are more than `max_supports` supports, A is not a finite real matrix, or the
        order is not from 1 to d.

    References
    ----------
    .. [1] R. A. Horn, C. R. Johnson, "Matrix Analysis", 2nd ed. (2013), theorem 4.3.28.

    Examples
    --------
    >>> import numpy as np
    >>> rip_exact(np.eye(3), 2).value
    0.0
    """
    begun = time.perf_counter()
    gram = as_gram(A)
    s = whole("s", s, most=gram.columns)
    count = math.comb(gram.columns, s)
    if count > _limit("max_supports", max_supports):
        raise InputError(
            f"order {s} of {gram.columns} columns has {count} supports, more than max_supports = "
            f"{max_supports}: use rip_bracket for both ends of an interval, or raise max_supports",
            argument="max_supports",
        )
    low, high = (witness_of(gram, _best(gram, s, sign), sign) for sign in (-1, 1))
    return RipBound(
        side="exact",
        s=s,
        least=0.0 if s >= gram.dependent_from else low.value,
        greatest=high.value,
        method="enumeration",
        seconds=time.perf_counter() - begun,
        least_witness=low,
        greatest_witness=high,
        evaluations=count,
    )


def _best(gram: Gram, s: int, sign: int) -> Indices:
    """Return the best support of all, starting from a good one so that most need no closer look."""
    candidate = search_supports(gram, s, sign, seed=0, supports=64, starts=16).supports[0]
    if sign < 0 and s >= gram.dependent_from:
        return candidate  # the least eigenvalue is 0, whatever the support
    return best_of_all(gram, candidate, sign)


def rip_bracket(
    A: Any,
    s: int,
    *,
    seed: int = 0,
    exact: int = _EXACT,
    methods: Sequence[str] | None = None,
    about: str | None = None,
) -> RipBracket:
    """Enclose the restricted isometry constant δ_s(A) between two proven ends.

    The constant itself where there are at most `exact` supports; else the best lower bound of
    `rip_lower` and what the upper bounds of `rip_upper` prove together. A Kronecker operator is
    bracketed from its factors, see `kronecker_rip_bounds`, with the semidefinite bound beside that
    where there are few columns. See docs/theory.md, 2.6.

    Parameters
    ----------
    A, s
        As for `rip_exact`.
    seed : int
        Of the search.
    exact : int
        How many supports are worth enumerating; 0 to search always.
    methods : sequence of str, optional
        Names of the upper bounds of `rip_upper` to combine; by default all, the semidefinite one
        up to 150 columns. All bounds from the factors of a Kronecker operator are always taken.
    about : str, optional
        What the matrix is called in the result.

    Returns
    -------
    RipBracket
        All bounds that were computed are in `tried`. A semidefinite solver that stops early
        leaves a wider bracket, with a note.

    Raises
    ------
    InputError
        As `rip_exact` does for A and s, or if `methods` is empty or holds an unknown name.

    Examples
    --------
    >>> from cosa_theory.projections import make_projection
    >>> bracket = rip_bracket(make_projection("gaussian", 20, 30), 2)
    >>> bracket.exact, bracket.lower == bracket.upper
    (True, True)
    """
    gram = as_gram(A)
    s = whole("s", s, most=gram.columns)
    affordable = math.comb(gram.columns, s) <= _limit("exact", exact)
    methods = _upper_methods(methods, gram)
    about = about or gram.about
    if affordable:
        bound = rip_exact(gram, s, max_supports=exact)
        return RipBracket(s, bound, bound, (bound,), about)
    if isinstance(gram, KroneckerGram):
        found = kronecker_rip_bounds(gram.left, gram.right, s, seed=seed, about=about)
        if "sdp" not in methods:
            return found
        tried = (*found.tried, rip_upper(gram, s, method="sdp"))
        upper = combine([bound for bound in tried if bound.side == "upper"])
        return RipBracket(s, found.lower_bound, upper, tried, about)
    lower = rip_lower(gram, s, seed=seed)
    uppers = [rip_upper(gram, s, method=method) for method in methods]
    return RipBracket(s, lower, combine(uppers), (lower, *uppers), about)


def _limit(name: str, value: Any) -> float:
    """Return a number of supports, which may be infinite."""
    return math.inf if value == math.inf else real(name, value)


def _upper_methods(methods: Sequence[str] | None, gram: Gram) -> list[str]:
    """Return the upper bounds to compute, after checking their names."""
    if methods is None:
        affordable = gram.columns <= _SDP_COLUMNS
        return [name for name in UPPER_METHODS if name != "sdp" or affordable]
    if isinstance(methods, str) or not methods:
        raise refuse("methods", methods, f"a sequence of some of {', '.join(UPPER_METHODS)}")
    return [choice("methods", name, UPPER_METHODS) for name in methods]
