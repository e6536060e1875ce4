"""Shapes of cores for every layer of a model: for a budget, or for the least memory."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.expressions import by_pattern
from cosa_theory.laws import informed_budget
from cosa_theory.nn.settings import CosaSettings
from cosa_theory.nn.shapes import ModelLayers
from cosa_theory.projections import INFORMED
from cosa_theory.spectrum.budget import cosa_shape
from cosa_theory.spectrum.families.informed import Informed
from cosa_theory.studies.known_layers import Known

__all__ = ["balanced_settings", "budget_settings", "shape_patterns"]


def balanced_settings(settings: CosaSettings, model: ModelLayers) -> CosaSettings:
    """Return settings with as many trainable numbers and the smallest dense projections.

    The memory a·m + b·n is least at a·m = b·n; where that asks for a > m or b > n, the side is
    whole. See `cosa_theory.spectrum.budget.cosa_shape`.
    """
    budgets = {spec.name: spec.a * spec.b for spec in settings.layers(model.sizes).values()}
    return _shaped(settings, model, budgets)


def budget_settings(
    settings: CosaSettings,
    model: ModelLayers,
    *,
    rank: int | None = None,
    parameters: int | None = None,
    known: Mapping[str, Known] | None = None,
) -> CosaSettings:
    """Return settings whose cores have the size of a LoRA, at a·m = b·n; only the shapes differ.

    Cores of the kind "activation" are one-sided. With what is `known` of the layers, informed ones
    have the shapes that are expected to capture most, and those of "activation" share out
    `parameters` over the whole model (`cosa_theory.laws.informed_budget`).

    With `rank` every core has at most as many numbers as LoRA of this rank, r(m + n); with
    `parameters` there are so many in the whole model at most, shared out as LoRA of one rank does;
    what is more than all of a layer goes to the others.
    Raises InputError if the numbers do not reach for one in every layer, or `parameters` are more
    than the layers have weights.
    """
    total = sum(m + n for m, n in model.sizes.values())
    numbers = total * rank if rank is not None else parameters
    if numbers is None:
        raise ValueError("give rank or parameters")
    if rank is not None:
        budgets = {name: rank * (m + n) for name, (m, n) in model.sizes.items()}
    else:
        budgets = _within_layers(model.sizes, numbers)
    if min(budgets.values()) < 1:
        raise InputError(
            f"a budget of {numbers:,} parameters leaves some of the {len(budgets):,} layers none; "
            f"give at least {-(-total // min(sum(size) for size in model.sizes.values())):,}, or "
            "name fewer target modules"
        )
    weights = sum(m * n for m, n in model.sizes.values())
    if rank is None and numbers > weights:
        raise InputError(
            f"a budget of {numbers:,} parameters is more than the {weights:,} weights of the "
            f"{len(budgets):,} layers: give at most as many"
        )
    if known is not None and settings.kind == "activation" and rank is None:
        return _with_shapes(settings, _shared_out(model, numbers, known))
    return _shaped(settings, model, budgets, known)


def _within_layers(sizes: Mapping[str, tuple[int, int]], numbers: int) -> dict[str, int]:
    """Share numbers out as m + n; what is more than the mn of a layer goes to the others."""
    found: dict[str, int] = {}
    rest = dict(sizes)
    while rest:
        total = sum(m + n for m, n in rest.values())
        shares = {name: numbers * (m + n) // total for name, (m, n) in rest.items()}
        whole = {name: m * n for name, (m, n) in rest.items() if shares[name] >= m * n}
        if not whole:
            return found | shares
        found |= whole
        numbers -= sum(whole.values())
        rest = {name: size for name, size in rest.items() if name not in whole}
    return found


def _shared_out(
    model: ModelLayers, parameters: int, known: Mapping[str, Known]
) -> dict[str, tuple[int, int]]:
    """Return one-sided shapes for one budget of the whole model."""
    layers = {}
    for name, (m, n) in model.sizes.items():
        inputs = known[name].inputs
        layers[name] = m, inputs.shares(inputs.independent(min(n, max(1, parameters // m))))
    found = informed_budget(layers, parameters)
    return {name: (model.sizes[name][0], b) for name, b in found.columns.items()}


def _shaped(
    settings: CosaSettings,
    model: ModelLayers,
    budgets: Mapping[str, int],
    known: Mapping[str, Known] | None = None,
) -> CosaSettings:
    shapes = {}
    for name, (m, n) in model.sizes.items():
        if settings.kind in INFORMED:
            family = Informed(settings.kind)
            family = family if known is None else family.of(known[name]) or family
            size = family.size(m, n, budgets[name])
            shapes[name] = (size.a or m, size.b or n)
            continue
        core = cosa_shape(m, n, budgets[name])
        shapes[name] = (core.a, core.b)
    return _with_shapes(settings, shapes)


def _with_shapes(settings: CosaSettings, shapes: Mapping[str, tuple[int, int]]) -> CosaSettings:
    (a, b), _ = Counter(shapes.values()).most_common(1)[0]
    patterns = shape_patterns(shapes)
    others = {pattern: shape for pattern, shape in patterns.items() if shape != (a, b)}
    return replace(settings, a=a, b=b, shape_pattern=others)


def shape_patterns(shapes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Return short patterns that give every layer its shape.

    As `shape_pattern` of `CosaSettings` and of PEFT's configuration: the shortest ends of names,
    with any number for a number, behind which all layers have one shape.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, shape in shapes.items():
        parts = [r"\d+" if part.isdecimal() else re.escape(part) for part in name.split(".")]
        ends = [r"\.".join(parts[-depth:]) for depth in range(1, len(parts) + 1)]
        if any(end in found for end in ends):
            continue
        fitting = (end for end in ends if _all_have(shape, end, shapes))
        found[next(fitting, "^" + re.escape(name))] = shape
    return found


def _all_have(shape: tuple[int, int], end: str, shapes: Mapping[str, tuple[int, int]]) -> bool:
    return all(
        other == shape for name, other in shapes.items() if by_pattern({end: True}, name, False)
    )
