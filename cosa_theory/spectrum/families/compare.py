"""The comparison of families on one update."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pandas.api.types import pandas_dtype

from cosa_theory import laws
from cosa_theory.ground.checks import choice, matrix, numbers, several
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.scales import in_safe_range
from cosa_theory.linear.operators import to_host
from cosa_theory.projections import SecondMoments
from cosa_theory.projections.streams import key_parts
from cosa_theory.spectrum.budget import check_ranks, cosa_shape, default_ranks, lora_parameters
from cosa_theory.spectrum.families.base import FAMILIES, Captured, Draws, Family, Update
from cosa_theory.spectrum.families.null import noise_top_share
from cosa_theory.spectrum.singular_values import singular_values

__all__ = [
    "CROSSOVER_COLUMNS",
    "FAMILY_COLUMNS",
    "compare_families",
    "crossover",
    "select_families",
]

# Column types of the two tables, which stay the same for an empty table or an all-null column.
FAMILY_COLUMNS = {
    "family": "object",
    "rank_budget": "int64",
    "budget": "int64",
    "parameters": "int64",
    "size": "object",
    "a": "Int64",
    "b": "Int64",
    "captured": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "sd": "float64",
    "draws": "int64",
    "law": "float64",
}
CROSSOVER_COLUMNS = {
    "rank_budget": "int64",
    "parameters": "int64",
    "top_share": "float64",
    "law": "float64",
    "crossover_ratio": "float64",
    "noise_ratio": "float64",
    "excess": "float64",
    "advantage_bound": "float64",
    "winner": "object",
}
# Two shares that differ by less than rounding are a tie, as when both families are everything.
_TIE = 1e-12


def select_families(families: Iterable[str] | None, *, with_base: bool = True) -> list[Family]:
    """Look families up by name, all where None is given; return them in that order, each once.

    Those that need the base weight are left out without it. An unknown name raises `InputError`.
    """
    given = FAMILIES if families is None else several("families", families)
    names = dict.fromkeys(choice("families", name, FAMILIES) for name in given)
    return [FAMILIES[name] for name in names if with_base or not FAMILIES[name].needs_base]


def compare_families(
    delta: ArrayLike,
    base: ArrayLike | None = None,
    *,
    ranks: Iterable[int] | None = None,
    families: Iterable[str] | None = None,
    draws: int = 20,
    seed: int = 0,
    key: str | tuple[str | int, ...] = "",
    sigma: ArrayLike | None = None,
    confidence: float = 0.95,
    moments: Any = None,
    gradients: Any = None,
    transposed: bool = False,
    slope: ArrayLike | None = None,
) -> pd.DataFrame:
    """Measure the share of an update's energy that each family captures at equal parameters.

    See docs/theory.md, 1.4.

    Parameters
    ----------
    delta : array of shape (m, n)
        The update ΔW, a numpy array or torch tensor. Float32, and half precision of torch, is
        computed with in float32; other types in float64.
    base : array of shape (m, n), optional
        The weight W, which LoRA-XS needs; without it that family is left out.
    ranks : iterable of int, optional
        Budgets, as ranks r of LoRA: every family trains at most r(m + n) numbers. By default
        `cosa_theory.spectrum.budget.default_ranks`, three budgets for all but tiny layers.
    families : iterable of str, optional
        Names from `FAMILIES`; all by default.
    draws : int
        The most draws of a random family for one budget; fewer where the variance law says that
        the interval comes within 1 % of the law without them, but at least 4.
    seed : int
        Seed of the projections.
    key : str or tuple
        Name of the layer, part of the key of every draw.
    sigma : array of shape (min(m, n),), optional
        Singular values of ΔW, descending, if they are known already.
    confidence : float
        Coverage of the intervals.
    moments : SecondMoments or array, optional
        Second moments of the layer's inputs (n × n), which cosa_activation and cosa_gradient need;
        without them these families are left out.
    gradients : SecondMoments or array, optional
        Second moments of the gradients of the layer's outputs (m × m), for cosa_gradient.
    transposed : bool
        Whether delta is stored as inputs × outputs, as by Conv1D. The a and b of informed families
        belong to outputs and inputs.
    slope : array of shape (m, n), optional
        The gradient of a loss by the weight, by which the family shira_gradient chooses.

    Returns
    -------
    pandas.DataFrame
        One row for each family and budget: `family`; `rank_budget` (r); `budget` (r(m + n));
        `parameters` (trained, at most the budget); `size` in words; `a` and `b` (the core's shape;
        null without one); `captured` (share of ‖ΔW‖², at most 1, and negative where zero is nearer
        to ΔW; the mean over draws; null for a zero update); `ci_low` and `ci_high` (t interval of
        the mean; equal to the share where it is exact); `sd` (of one draw); `draws` (0 where
        exact); `law` (ab/(mn); null for families that depend on W or ΔW).

    Raises
    ------
    InputError
        If delta is not a matrix of finite numbers, or the shapes of base or sigma do not fit.
    InputError
        If a rank is not a positive integer, a family is unknown, or the key is neither text nor a
        tuple.
    """
    update = _checked_update(delta, base, sigma)
    m, n = update.shape
    update = replace(
        update,
        inputs=None if moments is None else SecondMoments.of(moments, m if transposed else n),
        gradients=None
        if gradients is None
        else SecondMoments.of(gradients, n if transposed else m),
        transposed=transposed,
        slope=None if slope is None else matrix("slope", to_host(slope), update.shape),
    )
    budgets = default_ranks(m, n) if ranks is None else check_ranks(ranks)
    settings = Draws(draws, seed, key_parts(key), confidence)
    records = []
    for one in select_families(families, with_base=base is not None):
        family = one.of(update)
        if family is None:
            continue
        sides = (n, m) if family.sided and transposed else (m, n)
        sizes = [family.size(*sides, lora_parameters(m, n, rank)) for rank in budgets]
        if update.is_zero:
            nothing = Captured.exact(float("nan"))
            results = [nothing] * len(sizes)
        else:
            results = family.capture(update, sizes, settings)
        for rank, size, result in zip(budgets, sizes, results, strict=True):
            law = None if family.data_dependent else size.parameters / (m * n)
            records.append(
                {
                    "family": family.name,
                    "rank_budget": rank,
                    "budget": lora_parameters(m, n, rank),
                    "parameters": size.parameters,
                    "size": size.text,
                    "a": size.a,
                    "b": size.b,
                    "captured": result.mean,
                    "ci_low": result.low,
                    "ci_high": result.high,
                    "sd": result.sd,
                    "draws": result.draws,
                    "law": law,
                }
            )
    return typed_frame(records, FAMILY_COLUMNS)


def crossover(sigma: ArrayLike, m: int, n: int, ranks: Iterable[int] | None = None) -> pd.DataFrame:
    """Say which of low rank and CoSA wins on one spectrum at equal trainable parameters.

    At rank r the truncated SVD holds the share of energy in the top r singular values, whatever an
    adapter with a random span of dimension ab holds ab/(mn) in expectation: CoSA wins exactly where
    the spectrum is so flat that the top-r share is below the law. Since that share is at least
    r/min(m, n), its advantage is at most (m + n)/max(m, n) ≤ 2. Low rank is ahead on independent
    noise too, whose top singular values are above its average: only what exceeds that null speaks
    of structure. See docs/theory.md, 1.5 to 1.7.

    Parameters
    ----------
    sigma : array of shape (min(m, n),)
        Singular values of ΔW, descending.
    m, n : int
        Shape of the layer.
    ranks : iterable of int, optional
        Budgets, as in `compare_families`.

    Returns
    -------
    pandas.DataFrame
        One row for each budget: `rank_budget` (r); `parameters` (r(m + n), spent by low rank and
        not exceeded by CoSA); `top_share`; `law` (ab/(mn), with the integer shape that CoSA can
        afford); `crossover_ratio` (top_share/law: above 1 low rank wins); `noise_ratio` (what
        independent noise of this shape gives in its place, in expectation); `excess`
        (crossover_ratio/noise_ratio: below 1 the spectrum is flatter than noise);
        `advantage_bound` (no spectrum makes 1/crossover_ratio larger); `winner` ("low rank",
        "cosa", or "tie" where the shares agree, as when both span everything). For a zero update
        all but the law, the noise ratio and the bound are null.

    Raises
    ------
    InputError
        If sigma does not have min(m, n) finite, non-negative, descending entries.
    InputError
        If a rank is not a positive integer.
    """
    values = _checked_sigma(sigma, m, n)
    budgets = default_ranks(m, n) if ranks is None else check_ranks(ranks)
    energy = np.cumsum((values / values[0]) ** 2) if values[0] > 0 else None
    bound = float(laws.advantage_bound(m, n))
    records = []
    for rank in budgets:
        budget = lora_parameters(m, n, rank)
        law = cosa_shape(m, n, budget).parameters / (m * n)
        top = None if energy is None else float(energy[min(rank, m, n) - 1] / energy[-1])
        noise = noise_top_share(m, n, rank)
        records.append(
            {
                "rank_budget": rank,
                "parameters": budget,
                "top_share": top,
                "law": law,
                "crossover_ratio": None if top is None else top / law,
                "noise_ratio": noise / law,
                "excess": None if top is None else top / noise,
                "advantage_bound": bound,
                "winner": _winner(top, law),
            }
        )
    return typed_frame(records, CROSSOVER_COLUMNS)


def _winner(top_share: float | None, law: float) -> str | None:
    if top_share is None:
        return None
    if abs(top_share - law) <= _TIE * law:
        return "tie"
    return "low rank" if top_share > law else "cosa"


def typed_frame(records: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    """Build a table with these columns and pandas types, in order, whatever is in the records."""
    return pd.DataFrame(
        {
            name: pd.Series([record[name] for record in records], dtype=pandas_dtype(kind))
            for name, kind in columns.items()
        }
    )


def _checked_update(delta: ArrayLike, base: ArrayLike | None, sigma: ArrayLike | None) -> Update:
    dW = matrix("delta", to_host(delta))
    weight = None if base is None else matrix("base", to_host(base), dW.shape)
    # Neither shares of energy nor singular vectors depend on scale.
    weight = None if weight is None else in_safe_range(weight)[0]
    dW, unit = in_safe_range(dW)
    sigma = sigma if unit == 1 else None
    if sigma is None:
        sigma = singular_values(dW)
    return Update(dW, weight, _checked_sigma(sigma, *dW.shape))


def _checked_sigma(sigma: ArrayLike, m: int, n: int) -> NDArray[np.float64]:
    values = numbers("sigma", sigma, least=0, most=np.finfo(float).max)
    if values.shape != (min(m, n),) or (np.diff(values) > 0).any():
        must = f"the {min(m, n)} singular values of a {m} × {n} matrix, in descending order"
        raise InputError(f"sigma has shape {values.shape}: it must be {must}", argument="sigma")
    return values
