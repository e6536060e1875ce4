"""The tables of a plan: totals by method, costs by kind of layer, recommended shapes."""

import re
from typing import Any

import pandas as pd

from cosa_theory.nn.settings import CosaSettings
from cosa_theory.studies.plan.compute import Plan
from cosa_theory.studies.plan.costs import Budget, LayerBudget

__all__ = ["plan_tables"]


def plan_tables(plan: Plan) -> dict[str, pd.DataFrame]:
    """Return a plan as tables.

    "totals", a row per method; "shapes", a row per method and kind of layer; and "recommended", a
    row per pattern of layers, if there are more economical shapes. Columns that end in _bytes are
    bytes, in flops_per_token operations, forward and backward.
    """
    tables = {"totals": _totals(plan), "shapes": _shapes(plan)}
    if plan.balanced is not None:
        tables["recommended"] = _recommended(plan.balanced)
    return tables


def _costs(budget: Budget) -> dict[str, Any]:
    return {
        "trainable": budget.trainable,
        "trainable_bytes": budget.trainable_bytes,
        "gradient_bytes": budget.trainable_bytes,
        "optimizer_bytes": budget.optimizer_bytes,
        "frozen_bytes": budget.frozen_bytes,
        "saved_bytes_per_token": budget.saved_bytes,
        "formed_bytes": budget.formed_bytes,
        "flops_per_token": budget.flops,
        "base_flops_per_token": budget.base_flops,
        "energy": budget.energy,
    }


def _totals(plan: Plan) -> pd.DataFrame:
    rows = []
    for method, budget in plan.budgets.items():
        ranks = [layer.rank for layer in budget.layers]
        rows.append(
            {
                "method": method,
                "architecture": plan.model.architecture,
                "layers": len(budget.layers),
                "base_weights": budget.base_weights,
                "kind": plan.settings.kind,
                "shared": plan.settings.share_projections,
                "tokens": budget.step.tokens,
                "dtype": budget.step.dtype,
                "optimizer": budget.step.optimizer,
                **_costs(budget),
                "memory_bytes": budget.memory_bytes,
                "least_rank": min(ranks),
                "most_rank": max(ranks),
                "file_bytes": budget.file_bytes,
            }
        )
    return pd.DataFrame(rows)


def _shapes(plan: Plan) -> pd.DataFrame:
    """Sum up layers that have one size, one shape and names that differ in numbers only."""
    groups: dict[tuple[Any, ...], list[LayerBudget]] = {}
    for method, budget in plan.budgets.items():
        for layer in budget.layers:
            pattern = re.sub(r"(?<![^.])\d+(?![^.])", "*", layer.name)
            key = (pattern, layer.m, layer.n, method, layer.shape, layer.order)
            groups.setdefault(key, []).append(layer)
    step = next(iter(plan.budgets.values())).step
    kinds = list(dict.fromkeys(key[:3] for key in groups))
    rows = []
    for key in sorted(groups, key=lambda key: kinds.index(key[:3])):
        pattern, m, n, method, shape, order = key
        a, b = shape if len(shape) == 2 else (None, None)
        rows.append(
            {
                "pattern": pattern,
                "layers": len(groups[key]),
                "m": m,
                "n": n,
                "method": method,
                "a": a,
                "b": b,
                "rank": min(shape),
                "order": order,
                **_costs(Budget(tuple(groups[key]), step, 0)),
            }
        )
    return pd.DataFrame(rows).astype({"a": "Int64", "b": "Int64"})


def _recommended(settings: CosaSettings) -> pd.DataFrame:
    rest = "all others" if settings.shape_pattern else "all"
    shapes = {**settings.shape_pattern, rest: (settings.a, settings.b)}
    return pd.DataFrame(
        [{"pattern": pattern, "a": a, "b": b} for pattern, (a, b) in shapes.items()]
    )
