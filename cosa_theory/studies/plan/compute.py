"""A plan: CoSA as asked for, in its most economical shapes, and LoRA of equal size."""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.expressions import by_pattern
from cosa_theory.laws import informed_share
from cosa_theory.laws.norms import GramMoments
from cosa_theory.nn.settings import CosaSettings
from cosa_theory.nn.shapes import ModelLayers, model_layers
from cosa_theory.projections import ENSEMBLES, INFORMED
from cosa_theory.studies.known_layers import Known, KnownLayers
from cosa_theory.studies.plan.core_shapes import balanced_settings, budget_settings
from cosa_theory.studies.plan.costs import (
    Budget,
    LayerBudget,
    TrainingStep,
    cosa_budget,
    equal_ranks,
    lora_budget,
)

if TYPE_CHECKING:
    from cosa_theory.nn.moments import Moments

__all__ = ["ASKED", "BALANCED", "LORA", "Plan", "make_plan"]

ASKED, BALANCED, LORA = "cosa", "cosa_balanced", "lora"
"""Keys of `Plan.budgets`."""


@dataclass(frozen=True)
class Plan:
    """Budgets of several adapters on one model, and what the reader should know of them."""

    model: ModelLayers
    settings: CosaSettings  # CoSA as asked for
    balanced: CosaSettings | None  # as many trainable numbers at a·m = b·n, if that differs
    budgets: Mapping[str, Budget]  # "cosa", "cosa_balanced" (if there is one) and "lora"
    notices: tuple[str, ...]


def make_plan(
    source: str | os.PathLike[str] | Mapping[str, Any],
    settings: CosaSettings,
    step: TrainingStep,
    *,
    target_modules: str | Sequence[str] = "all-linear",
    rank: int | None = None,
    parameters: int | None = None,
    moments: "Moments | str | os.PathLike[str] | None" = None,
) -> Plan:
    """Plan adapters for a model, from its configuration alone.

    Parameters
    ----------
    source : path, hub id or mapping
        As for `cosa_theory.nn.shapes.model_layers`.
    settings : CosaSettings
        The adapter. With `rank` or `parameters` its shapes are replaced.
    step : TrainingStep
        A step of training.
    target_modules : str or sequence of str
        As for `cosa_theory.nn.targets.linear_layers`.
    rank : int, optional
        Take the cores that train as much as LoRA of this rank, at a·m = b·n.
    parameters : int, optional
        Likewise, for so many trainable numbers in the whole model.
    moments : Moments or path, optional
        Second moments of the base model's layers, for an informed kind: its shapes are then those
        expected to capture most, and its energy is an estimate. Without them it has none.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        As `model_layers`, `budget_settings` and `CosaSettings.layers`.
    """
    model = model_layers(source, target_modules)
    known, informed = _known(model, settings.kind, moments), settings.kind in INFORMED
    balanced: CosaSettings | None = None
    if rank is not None or parameters is not None:
        settings = budget_settings(settings, model, rank=rank, parameters=parameters, known=known)
    notices = [*model.notices, *_about_clipping(settings, model)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the notice says it, by kinds of layers
        asked = cosa_budget(model, settings, step)
        if informed:
            asked = replace(asked, layers=tuple(_expected(layer, known) for layer in asked.layers))
        elif rank is None and parameters is None:
            balanced = balanced_settings(settings, model)
            economical = cosa_budget(model, balanced, step)
            if [one.shape for one in economical.layers] == [one.shape for one in asked.layers]:
                balanced = None
    budgets = {ASKED: asked}
    if balanced is not None:
        budgets[BALANCED] = economical
    ranks = equal_ranks(asked) if rank is None else dict.fromkeys(model.sizes, rank)
    budgets[LORA] = lora_budget(model, ranks, step)
    notices += [*_about_budget(parameters, asked), *_about_ranks(ranks, model)]
    notices += _about_scale(settings, asked)
    notices += [*_about_whole_sides(settings, budgets), *_about_sparse(settings, asked)]
    return Plan(model, settings, balanced, budgets, tuple(notices))


def _known(
    model: ModelLayers, kind: str, moments: "Moments | str | os.PathLike[str] | None"
) -> dict[str, Known] | None:
    """Return what is known of every layer, by its name in the model."""
    if moments is None:
        return None
    if kind not in INFORMED:
        raise InputError(
            f"moments are given, but kind {kind} is drawn from its seed alone: leave them out, or "
            f"take one of the kinds {', '.join(INFORMED)}",
            argument="moments",
        )
    weights = {name: f"{name}.weight" for name in model.sizes}
    held = KnownLayers(moments, weights.values(), gradients=kind == "gradient").complete()
    found = {name: held.oriented(weights[name], size) for name, size in model.sizes.items()}
    return {name: one for name, one in found.items() if one is not None}


def _expected(layer: LayerBudget, known: Mapping[str, Known] | None) -> LayerBudget:
    """Return a layer with the share that an informed core is expected to capture; no law says it.

    It is not a number where nothing is known.
    """
    if known is None:
        return replace(layer, energy=math.nan)
    (a, b), one = layer.shape, known[layer.name]
    left = None if a == layer.m or one.gradients is None else one.gradients.shares(a)
    share = informed_share(a, layer.m, b, one.inputs.shares(b), left)
    return replace(layer, energy=share)


def _ends(layers: Sequence[LayerBudget]) -> str:
    """Return the last parts of the layers' names, each once."""
    return first_few(list(dict.fromkeys(layer.name.rpartition(".")[2] for layer in layers)))


def _about_clipping(settings: CosaSettings, model: ModelLayers) -> list[str]:
    """Say where the core is larger than the layer; without `clip` the layers refuse it."""
    larger: dict[str, list[str]] = {}
    for name, (m, n) in model.sizes.items():
        a, b = by_pattern(settings.shape_pattern, name, (settings.a, settings.b))
        if a > m or b > n:
            case = f"of {m} × {n} from {a} × {b} to {min(a, m)} × {min(b, n)}"
            larger.setdefault(case, []).append(name.rpartition(".")[2])
    if not larger:
        return []
    cases = (f"{first_few(list(dict.fromkeys(ends)))} {case}" for case, ends in larger.items())
    count = sum(len(ends) for ends in larger.values())
    return [
        f"the core is larger than {count:,} of {len(model.sizes):,} layers, where it is reduced "
        f"with a warning (clip=False refuses it): {'; '.join(cases)}"
    ]


def _about_budget(parameters: int | None, asked: Budget) -> list[str]:
    """Say where whole rows and columns, or known directions, leave much of a budget over."""
    if parameters is None or asked.trainable > 0.99 * parameters:
        return []
    return [
        f"of the budget of {parameters:,} parameters {asked.trainable:,} are trained: what is left "
        "makes no further row or column of a core, or none along which moments are known"
    ]


def _about_ranks(ranks: Mapping[str, int], model: ModelLayers) -> list[str]:
    above = [name for name, size in model.sizes.items() if ranks[name] > min(size)]
    if not above:
        return []
    return [
        f"the rank is above min(m, n) in {len(above):,} of {len(ranks):,} layers: LoRA trains more "
        "there than a full update needs"
    ]


def _about_scale(settings: CosaSettings, asked: Budget) -> list[str]:
    if settings.scale == "synthesis":
        return []
    # Not by their energy: that of informed projections is not ab/(mn).
    gains = [math.sqrt(layer.m * layer.n / layer.trainable) for layer in asked.layers]
    return [
        f"at analysis scale the same core makes an update {min(gains):.3g} to {max(gains):.3g} "
        "times as large as at synthesis scale, √(mn/ab): divide alpha by it for the same update"
    ]


def _about_sparse(settings: CosaSettings, asked: Budget) -> list[str]:
    """Count what is kept where sparse products are dense ones; L Y and Y R keep what they need."""
    if ENSEMBLES[settings.kind].product != "sparse":
        return []
    numbers = 0
    for layer in asked.layers:
        a, b = layer.shape
        # With Y R formed, R meets nothing that has a gradient.
        numbers += a * layer.m + (b * layer.n if layer.order != "right" else 0)
    size = f"{numbers * asked.step.itemsize / 1e6:,.1f} MB"
    return [
        "on a GPU sparse projections are formed as dense matrices for their products and kept for "
        f"backward: up to {size} a step more than is counted here, and the operations of dense ones"
    ]


def _about_whole_sides(settings: CosaSettings, budgets: Mapping[str, Budget]) -> list[str]:
    """Square random factors are nearly singular, orthonormal ones are not."""
    ensemble = ENSEMBLES[settings.kind]
    if ensemble.data_dependent:  # orthonormal, and the identity where a = m
        return []
    moments = partial(ensemble.moments, **settings.options)
    whole = [
        layer
        for method, budget in budgets.items()
        if method != LORA
        for layer in budget.layers
        for core, side in zip(layer.shape, (layer.m, layer.n), strict=False)
        # E⟨column, column⟩² is zero where the columns are orthonormal: those of haar, and of a
        # whole Hadamard matrix, of which no column is left out.
        if core == side and GramMoments(*moments(side, side)).cross > 0
    ]
    if not whole:
        return []
    cost = "at the same cost" if ensemble.product == "dense" else "which are dense"
    return [
        f"where a = m or b = n ({_ends(whole)}) a square {settings.kind} factor is nearly "
        "singular, with condition numbers of hundreds to thousands or worse: kind haar has "
        f"orthonormal factors, {cost}"
    ]
