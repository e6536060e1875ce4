"""The tables a person reads: per layer, per module type and per family, at one budget or at all."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from cosa_theory.page.results import Results
from cosa_theory.page.style import family_style
from cosa_theory.page.views import MISSING, Column, View, count, number, percent
from cosa_theory.studies.spectrum.budgets import at_budget, common_budgets, middle_budget
from cosa_theory.studies.spectrum.curves import LARGEST_MISFIT
from cosa_theory.studies.spectrum.family_curves import pool_families

__all__ = ["Column", "View", "family_view", "layer_view", "module_view"]


def _range(values: pd.Series, show: Callable[[Any], str]) -> str:
    """Return the median, with the range where there is one."""
    known = values.dropna().astype(float)
    if known.empty:
        return MISSING
    low, median, high = show(known.min()), show(known.median()), show(known.max())
    return median if low == high else f"{median} ({low.removesuffix(' %')}–{high})"


def _merged(results: Results, rank: int | None) -> pd.DataFrame:
    """Return one row per layer with its crossover and its measured CoSA share at one budget."""
    if rank is None:
        return results.layers
    columns = ["layer", "rank_budget", "top_share", "law", "crossover_ratio", "winner"]
    table = results.layers.merge(
        at_budget(results.crossover, rank)[columns], on="layer", how="left"
    )
    shares = results.families[results.families["family"] == measured_family(results.families)]
    shares = shares[["layer", "rank_budget", "captured", "ci_low", "ci_high"]]
    return table.merge(shares, on=["layer", "rank_budget"], how="left")


def measured_family(families: pd.DataFrame) -> str | None:
    """Return the CoSA ensemble that stands for all in narrow tables: Gaussian where measured."""
    names = [name for name in families["family"].unique() if name.startswith("cosa_")]
    return "cosa_gaussian" if "cosa_gaussian" in names else names[0] if names else None


def _winner(value: Any) -> str:
    names = {"cosa": "CoSA"}
    return MISSING if value is None or pd.isna(value) else names.get(str(value), str(value))


def _interval(row: Mapping[Any, Any]) -> str:
    share = percent(row["captured"])
    if share == MISSING:
        return share
    width = row["ci_high"] - row["ci_low"]
    if not width > 0:
        return share
    # Two digits of the half width decide how many of the share are worth showing.
    decimals = min(max(1 - math.floor(math.log10(50 * width)), 0), 4)
    return f"{100 * row['captured']:.{decimals}f} ± {50 * width:.{decimals}f} %"


def _share_columns(rank: int | None, family: str | None) -> list[Column]:
    columns = [Column(f"top-{rank} share", f"share of ‖ΔW‖² in the {rank} largest singular values")]
    if family is not None:
        label = family_style(family).label
        columns.append(Column("CoSA, measured", f"share captured by {label}: mean over draws"))
    columns.append(Column("CoSA, law", "ab/(mn) at equal trainable parameters"))
    columns.append(Column("ratio", "top share over law: above 1 low rank wins"))
    return [*columns, Column("wins", text=True)]


def layer_view(results: Results) -> View:
    """Return one row per layer: its spectrum, and the comparison at the verdict's budget.

    Parameters
    ----------
    results : Results
        The tables.

    Returns
    -------
    View
        Every layer, in the order of the model.
    """
    rank = middle_budget(results.crossover)
    columns = (
        Column("layer", text=True),
        Column("shape", "m × n, out × in features"),
        Column("‖ΔW‖/‖W‖", "relative Frobenius norm of the update"),
        Column("rank 90 %", "singular values that hold 90 % of ‖ΔW‖²"),
        Column("stable rank", "‖ΔW‖²/σ₁²"),
        Column("particip.", "participation ratio (Σσ²)²/Σσ⁴", detail=True),
        Column("flatness", "geometric over arithmetic mean of σ²"),
        Column("spikes", "singular values above the noise edge, where noise fits", detail=True),
    )
    family = measured_family(results.families)
    shares = tuple(_share_columns(rank, family))
    rows = []
    for row in _merged(results, rank).to_dict("records"):
        cells = [
            str(row["layer"]),
            f"{row['m']} × {row['n']}",
            number(row["relative_norm"]),
            count(row["rank_90"]),
            number(row["stable_rank"]),
            number(row["participation_ratio"]),
            number(row["flatness"]),
            count(row["spikes"] if row["noise_misfit"] <= LARGEST_MISFIT else None),
        ]
        if rank is not None:
            measured = [] if family is None else [_interval(row)]
            cells += [percent(row["top_share"]), *measured, percent(row["law"])]
            cells += [number(row["crossover_ratio"]), _winner(row["winner"])]
        rows.append(tuple(cells))
    title = "Every layer" + (f", at the budget of rank {rank}" if rank is not None else "")
    return View(title, columns + (shares if rank is not None else ()), tuple(rows))


def module_view(results: Results) -> View:
    """Return one row per module type, medians over its layers, at the verdict's budget.

    Parameters
    ----------
    results : Results
        The tables.

    Returns
    -------
    View
        Every module type, in the order of the model.
    """
    rank = middle_budget(results.crossover)
    columns = (
        Column("module", text=True),
        Column("layers", "number of matrices of this type"),
        Column("shape", "m × n, out × in features"),
        Column("‖ΔW‖/‖W‖", "relative Frobenius norm of the update, median"),
        Column("stable rank", "‖ΔW‖²/σ₁², median"),
        Column("flatness", "geometric over arithmetic mean of σ², median"),
    )
    shares = (
        Column(
            f"top-{rank} share", f"of ‖ΔW‖² in the {rank} largest singular values, median (range)"
        ),
        Column("CoSA, law", "ab/(mn) at equal trainable parameters, median"),
        Column("ratio", "top share over law, median (range): above 1 low rank wins"),
        Column("low rank wins", "matrices where the ratio is above 1"),
    )
    rows = []
    for module, group in _merged(results, rank).groupby("module", sort=False):
        shapes = group[["m", "n"]].drop_duplicates()
        shape = f"{shapes.m.iloc[0]} × {shapes.n.iloc[0]}" if len(shapes) == 1 else "several"
        cells = [
            str(module),
            str(len(group)),
            shape,
            number(group["relative_norm"].astype(float).median()),
            number(group["stable_rank"].astype(float).median()),
            number(group["flatness"].astype(float).median()),
        ]
        if rank is not None:
            wins = f"{(group['winner'] == 'low rank').sum()} of {group['winner'].notna().sum()}"
            cells.append(_range(group["top_share"], percent))
            cells.append(percent(group["law"].astype(float).median()))
            cells += [_range(group["crossover_ratio"], number), wins]
        rows.append(tuple(cells))
    title = "By module type" + (f", at the budget of rank {rank}" if rank is not None else "")
    return View(title, columns + (shares if rank is not None else ()), tuple(rows))


def _law(laws: pd.Series) -> str:
    """Three digits, as many as the measured shares beside it are worth."""
    return MISSING if laws.empty else f"{100 * laws.iloc[0]:#.3g} %"


def family_view(results: Results) -> View | None:
    """Return the share of the whole update's energy per family and budget.

    Parameters
    ----------
    results : Results
        The tables.

    Returns
    -------
    View or None
        One row per family, one column per budget; None where no family was compared. Intervals
        are those of the mean over random draws.
    """
    ranks = common_budgets(results.crossover)
    pooled = pool_families(results.families, results.layers, ranks)
    if pooled.empty:
        return None
    columns = [Column("family", text=True)]
    laws = ["law ab/(mn) of a CoSA core"]
    for rank in ranks:
        rows = pooled[pooled["rank_budget"] == rank]
        columns.append(Column(f"rank {rank}", f"{rows['parameters'].max():,} trainable parameters"))
        laws.append(_law(rows["law"].dropna()))
    table = []
    for family in dict.fromkeys(pooled["family"]):
        cells = [family_style(family).label]
        for rank in ranks:
            row = pooled[(pooled["family"] == family) & (pooled["rank_budget"] == rank)]
            cells.append(_interval(row.to_dict("records")[0]) if len(row) else MISSING)
        table.append(tuple(cells))
    table.append(tuple(laws))
    title = "Share of the whole update's energy, all layers together, at the budget of each rank"
    return View(title, tuple(columns), tuple(table))
