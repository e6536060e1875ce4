"""What an isometry constant buys: which algorithms recover every vector of which sparsity."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cosa_theory.ground.checks import MOST_SIZE, real, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.isometry.certificates import RipBound, RipBracket
from cosa_theory.laws.isometry import rip_condition

__all__ = ["Guarantee", "recovery_guarantees"]

_MOST_ORDER = MOST_SIZE**2
"""The entries of the largest update: no vector has more that are not zero."""


@dataclass(frozen=True)
class Guarantee:
    """The largest sparsity at which a sufficient condition holds.

    Parameters
    ----------
    algorithm : str
        Such as "basis pursuit".
    condition : str
        The condition, with s the number of nonzero entries.
    sparsity : float
        The largest s for which it is shown to hold; 0 where it is shown for none, infinity for
        orthogonal columns.
    order : int
        The order of the constant the condition needs at that s (at s = 1 where sparsity is 0).
    threshold : float
        What that constant must stay below.
    delta : float
        What is known of it: an upper bound; NaN where no order that high is known.
    scale_free : bool
        Whether the bound is that of the matrix at its best scale, because the algorithm finds the
        same vector at every scale.
    sharp : bool
        Whether there are matrices at the threshold for which the algorithm fails.
    source : str
        Who proved it.
    """

    algorithm: str
    condition: str
    sparsity: float
    order: int
    threshold: float
    delta: float
    scale_free: bool
    sharp: bool
    source: str


# Name, name for people, condition, whether the scale is free, whether sharp, source.
_ALGORITHMS = (
    ("basis_pursuit", "basis pursuit (ℓ1)", "δ_2s < 1/√2", True, True, "Cai & Zhang 2014"),
    ("omp", "orthogonal matching pursuit", "δ_(s+1) < 1/√(s+1)", True, True, "Mo 2015"),
    ("iht", "iterative hard thresholding, unit step", "δ_3s < 1/√3", False, False, "Foucart 2011"),
    ("htp", "hard thresholding pursuit, unit step", "δ_3s < 1/√3", False, False, "Foucart 2011"),
    ("cosamp", "CoSaMP", "δ_4s < 1/2", True, False, "Song, Xia & Liu 2013"),
)


def recovery_guarantees(
    delta: float | RipBound | RipBracket | Mapping[int, Any],
    *,
    order: int | None = None,
    coherence: float | None = None,
) -> tuple[Guarantee, ...]:
    """Tell which algorithms recover every s-sparse vector, up to which s.

    Parameters
    ----------
    delta : float, RipBound, RipBracket or mapping of int to one of these
        An upper bound of δ at one order or, as a mapping, at several. δ_t ≤ δ_k for t ≤ k, so one
        order speaks for all below. Numbers must be exact constants or upper bounds of them.
    order : int, optional
        The order, where `delta` is a number.
    coherence : float, optional
        The mutual coherence μ in [0, 1]: then the condition (2s − 1)μ < 1 is looked at too.

    Returns
    -------
    tuple of Guarantee
        Basis pursuit, orthogonal matching pursuit, IHT and HTP with unit step, CoSaMP, and the
        coherence condition where μ is given. Sources and thresholds are those of
        `cosa_theory.laws.isometry.rip_condition`. All conditions are strict. For bounds that know
        both ends, algorithms that do not depend on the scale of the matrix are judged at its best
        scale.

    Raises
    ------
    InputError
        If a lower bound is given, which guarantees nothing; if a constant or coherence is out of
        range; or if an order is missing, no whole number from 1 to 2⁴⁸, or not that of the bound.

    References
    ----------
    docs/theory.md, 2.7. For coherence: D. L. Donoho, M. Elad, PNAS 100 (2003); J. A. Tropp, "Greed
    is good", IEEE Trans. Information Theory 50 (2004). For the rest see `rip_condition`.
    """
    known = _known(delta, order)
    found = [_guarantee(known, *algorithm) for algorithm in _ALGORITHMS]
    if coherence is not None:
        found.append(_by_coherence(coherence))
    return tuple(found)


def _known(delta: Any, order: int | None) -> dict[int, tuple[float, float]]:
    """Return by order the constant as it is, and at the best scale where that is known."""
    if isinstance(delta, (RipBound, RipBracket)):
        if order not in (None, delta.s):
            raise InputError(f"order is {order}, but the bound is of order {delta.s}: leave it out")
        delta = {delta.s: delta}
    elif not isinstance(delta, Mapping):
        if order is None:
            raise InputError("order is missing: say of which order the constant is")
        delta = {order: delta}
    elif order is not None:
        raise InputError("order is for a single number: the mapping names its orders")
    elif not delta:
        raise InputError("no constant is given: the mapping of orders to constants is empty")
    orders = {whole("order", key, most=_MOST_ORDER): value for key, value in delta.items()}
    return {key: _constants(key, value) for key, value in orders.items()}


def _constants(order: int, value: Any) -> tuple[float, float]:
    if isinstance(value, RipBracket):
        value = value.upper_bound
    if isinstance(value, RipBound):
        if value.side == "lower":
            raise InputError(
                f"δ_{order} is a lower bound ({value.method}), which guarantees nothing: give an "
                "upper bound or a bracket"
            )
        if value.s != order:
            raise InputError(f"a bound of order {value.s} stands at order {order}")
        return value.value, min(value.scale_free, value.value)
    number = real(f"δ_{order}", value, least=0.0)
    return number, number


def _guarantee(
    known: Mapping[int, tuple[float, float]],
    key: str,
    name: str,
    condition: str,
    scale_free: bool,
    sharp: bool,
    source: str,
) -> Guarantee:
    def bound(order: int) -> float:
        above = [pair[scale_free] for k, pair in known.items() if k >= order]
        return min(above, default=math.nan)

    def fails(s: int) -> bool:
        order, threshold = rip_condition(key, s)
        return not bound(order) < threshold

    # With s the order and its bound grow and the threshold falls, so that what fails once fails
    # from there on; no condition needs an order below s + 1.
    shown = bisect_left(range(1, max(known) + 1), True, key=fails)
    order, threshold = rip_condition(key, max(shown, 1))
    return Guarantee(
        algorithm=name,
        condition=condition,
        sparsity=shown,
        order=order,
        threshold=threshold,
        delta=bound(order),
        scale_free=scale_free,
        sharp=sharp,
        source=source,
    )


def _by_coherence(coherence: float) -> Guarantee:
    coherence = real("coherence", coherence, least=0.0, most=1.0)
    shown = math.inf
    if coherence > 0:
        shown = math.ceil((1 + 1 / coherence) / 2) - 1
        while (2 * shown - 1) * coherence >= 1:  # the quotient was rounded up
            shown -= 1
    at = max(shown, 1)
    return Guarantee(
        algorithm="basis pursuit and orthogonal matching pursuit",
        condition="(2s − 1)μ < 1",
        sparsity=shown,
        order=2,
        threshold=1 / (2 * at - 1),
        delta=coherence,
        scale_free=True,
        sharp=True,
        source="Donoho & Elad 2003; Tropp 2004",
    )
