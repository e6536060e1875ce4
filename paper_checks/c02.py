"""C2: whether the Kronecker dictionary of random factors has the restricted isometry property."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cosa_theory import CosaBasis
from cosa_theory.deltas import LayerDelta
from cosa_theory.isometry import (
    RipBracket,
    core_isometry,
    kronecker_rip_bounds,
    rip_exact,
)
from cosa_theory.linear.operators import KroneckerOperator
from paper_checks.base import Case, Check, Claim, counts, spread
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

SPARSE, ALL, UPDATES = "Ψ, sparse cores", "Ψ, all cores", "Φ, sparse updates"
Size = tuple[int, int, int, int]
# (m, n, a, b), the last a layer of 4096 × 4096 with the released core.
TALL: tuple[Size, ...] = ((64, 64, 16, 16), (256, 256, 64, 32), (4096, 4096, 1024, 256))
WIDE: tuple[Size, ...] = ((64, 64, 16, 16), (256, 256, 64, 32), (256, 256, 128, 128))
ORDERS = (2, 4, 8, 16)
# Small enough to enumerate all supports of the product.
ENUMERATED: tuple[tuple[Size, int], ...] = (((16, 16, 8, 8), 2), ((16, 16, 8, 8), 3))

CLAIM = Claim(
    id="C2",
    claim="The Kronecker dictionary of random projections satisfies the restricted isometry "
    "property.",
    source="notes of the released code",
    method="Gaussian factors, one draw at each size. For the tall dictionary Ψ = L ⊗ Rᵀ "
    "(mn × ab), brackets with both ends proven of its constants for sparse cores, from bounds by "
    "its factors and from witnesses, and the exact constant over all cores from the singular "
    "values. For the wide sensing operator Φ = Lᵀ ⊗ R (ab × mn), brackets for sparse updates. The "
    "constants are those at the best scale, (κ² − 1)/(κ² + 1) of the sparse condition number κ; "
    f"orders s = {', '.join(map(str, ORDERS))}.",
    quantity=THRESHOLDS["c2_delta"].quantity,
    criterion=f"{THRESHOLDS['c2_delta']}, for each matrix and order; and as controls "
    f"{THRESHOLDS['c2_product']}, {THRESHOLDS['c2_bracket']}",
)


def measure(
    layers: Iterable[LayerDelta] = (),
    seed: int = 0,
    *,
    tall: Sequence[Size] = TALL,
    wide: Sequence[Size] = WIDE,
    orders: Sequence[int] = ORDERS,
    draw: Callable[..., CosaBasis] = CosaBasis.sample,
    bounds: Callable[..., Any] = kronecker_rip_bounds,
) -> list[Case]:
    """Return a case for each matrix and order, one for all cores of each size, and the controls."""
    cases: list[Case] = []
    for size in tall:
        basis = draw(*size, seed=seed, scale="synthesis", key="C2")
        cases += _sparse_cases(SPARSE, basis.dictionary(), size, orders, seed, bounds)
        cases.append(_dense_case(basis, size))
    for size in wide:
        operator = draw(*size, seed=seed, scale="analysis", key="C2").sensing()
        cases += _sparse_cases(UPDATES, operator, size, orders, seed, bounds)
    return cases + _controls(seed, draw, bounds)


def _sparse_cases(
    group: str,
    operator: KroneckerOperator,
    size: Size,
    orders: Sequence[int],
    seed: int,
    bounds: Callable[..., Any],
) -> list[Case]:
    # The search among supports of the product is left out: products of witnesses do nearly as
    # well, and cost nothing.
    brackets = bounds(*operator.factors, list(orders), seed=seed, search=False)
    return [_bracket_case(group, bracket, size) for bracket in brackets]


def _bracket_case(group: str, bracket: RipBracket, size: Size) -> Case:
    m, n, a, b = size
    low, high = bracket.scale_free
    details = {
        **{"s": bracket.s, "m": m, "n": n, "a": a, "b": b},
        "delta_lower": bracket.lower,
        "delta_upper": bracket.upper,
        "lower_method": bracket.lower_bound.method,
        "upper_method": bracket.upper_bound.method,
    }
    name = f"s = {bracket.s}, {m} × {n} with core {a} × {b}"
    return Case(name, group, low, low, high, "c2_delta", details=details)


def _dense_case(basis: CosaBasis, size: Size) -> Case:
    m, n, a, b = size
    exact = core_isometry(basis)
    details = {"m": m, "n": n, "a": a, "b": b, "delta": exact.delta, "condition": exact.condition}
    name = f"s = ab = {a * b}, {m} × {n} with core {a} × {b}"
    return Case.exact(name, ALL, exact.scale_free, "c2_delta", details)


def _controls(seed: int, draw: Callable[..., CosaBasis], bounds: Callable[..., Any]) -> list[Case]:
    """Compare enumerated constants of small products with their bounds."""
    ratios, distances = [0.0], [0.0]
    for size, s in ENUMERATED:
        basis = draw(*size, seed=seed, scale="synthesis", key="C2")
        for operator in (basis.dictionary(), basis.sensing()):
            exact = rip_exact(operator, s).value
            left, right = (1 + rip_exact(factor, s).value for factor in operator.factors)
            if not left * right <= 1:  # orthonormal factors bound by zero, and reach it to rounding
                ratios.append(exact / (left * right - 1))
            bracket = bounds(*operator.factors, s, seed=seed)
            distances += [bracket.lower - exact, exact - bracket.upper]
    controls = (
        ("product bound", float(np.max(ratios)), "c2_product"),
        ("bracket", float(np.max(distances)), "c2_bracket"),
    )
    return [
        Case.exact(f"{name} of enumerated products", "control", value, key, control=True)
        for name, value, key in controls
    ]


def describe(cases: Sequence[Case]) -> str:
    """Return, for sparse cores, all cores and sparse updates, where the property is proven."""
    sentences = []
    for group, words in (
        (SPARSE, "for sparse cores (the tall Ψ)"),
        (ALL, "over all cores"),
        (UPDATES, "for sparse updates (the wide Φ)"),
    ):
        those = [case for case in cases if case.group == group]
        if not those:
            continue
        held = [case.name for case in those if case.outcome == "holds"]
        where = f": {'; '.join(held)}" if 0 < len(held) < len(those) else ""
        ends = f"lower ends {spread(case.low for case in those)}"
        if group == ALL:
            ends = f"exact constants {spread(case.value for case in those)}"
        sentences.append(f"{words} it {counts(those)}{where} ({ends})")
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]}."


CHECK = Check(CLAIM, measure, describe, needs_pair=False)
