"""What the figures of a survey show, in words, for readers who do not see them."""

import numpy as np
import pandas as pd

from cosa_theory.ground.printable import printable
from cosa_theory.page.document import Tables
from cosa_theory.page.style import family_style
from cosa_theory.page.views import number, percent
from cosa_theory.studies.spectrum.budgets import at_budget, leading, middle_budget, named_budget
from cosa_theory.studies.spectrum.pooling import pool_families

__all__ = ["captured_in_words", "cumulative_in_words", "heatmap_in_words", "spectra_in_words"]


def cumulative_in_words(tables: Tables) -> str:
    """Say what the largest singular values hold at the middle budget, beside law and noise."""
    rank = middle_budget(tables["crossover"])
    if rank is None:
        return "Cumulative energy of every layer; no budget was compared."
    rows = at_budget(tables["crossover"], rank).dropna(subset=["top_share"])
    top = rows["top_share"].astype(float)
    noise = (rows["noise_ratio"] * rows["law"]).median()
    return (
        f"At the budget of {named_budget(rows, rank)}: in {len(rows)} layers, the "
        f"{leading(rows, rank)} largest singular values of ΔW hold "
        f"{percent(top.median())} of its energy (median; {percent(top.min())} to "
        f"{percent(top.max())}). A CoSA core of as many parameters captures "
        f"{percent(rows['law'].median())}, and noise of the same shapes has {percent(noise)} there."
    )


def captured_in_words(tables: Tables) -> str:
    """Say what each family captures of all layers at the middle budget."""
    rank = middle_budget(tables["crossover"])
    if rank is None:
        return "No budget was compared."
    pooled = pool_families(tables["families"], tables["layers"], [rank])
    ordered = pooled.sort_values("captured", ascending=False)
    shares = ", ".join(
        f"{family_style(row['family']).label} {percent(row['captured'])}"
        for row in ordered.to_dict("records")
    )
    ratio = (pooled["captured"] / pooled["law"]).dropna()
    law = ""
    if len(ratio):
        low, high = number(ratio.min()), number(ratio.max())
        law = f" Measured shares are {low} to {high} times their law ab/(mn)."
    budget = named_budget(at_budget(tables["crossover"], rank), rank)
    return f"Share of the energy at the budget of {budget}: {shares or 'none pooled'}.{law}"


def _extremes(table: pd.DataFrame, column: str) -> str:
    values = table[column].to_numpy(dtype=float)
    ends = (
        f"{number(values[place])} in {printable(str(table['layer'].iloc[place]))}"
        for place in (values.argmin(), values.argmax())
    )
    return f"median {number(np.median(values))}, from {' to '.join(ends)}"


def heatmap_in_words(tables: Tables) -> str:
    """Say where flatness and excess have their ends."""
    said = f"Flatness: {_extremes(tables['layers'].dropna(subset=['flatness']), 'flatness')}."
    rank = middle_budget(tables["crossover"])
    if rank is None:
        return said
    rows = at_budget(tables["crossover"], rank).dropna(subset=["excess"])
    if rows.empty:
        return said
    above = int((rows["excess"] > 1).sum())
    return (
        f"{said} Excess over noise at {named_budget(rows, rank)}: {_extremes(rows, 'excess')}; "
        f"above 1 in {above} of {len(rows)} layers."
    )


def spectra_in_words(tables: Tables) -> str:
    """Say how large the updates' singular values are beside the weights', and how they fall."""
    table = tables["spectra"][tables["spectra"]["resolved"].astype(bool)]
    ends = table.groupby(["matrix", "layer"])["sigma"].agg(["max", "min"])
    parts = []
    for matrix, name in (("base", "the base weights W"), ("delta", "the updates ΔW")):
        if matrix in ends.index:
            rows = ends.loc[matrix]
            fall = (rows["max"] / rows["min"]).median()
            parts.append(
                f"{name} have a largest singular value of {number(rows['max'].median())} and fall "
                f"by a factor of {number(fall)} to the smallest that is resolved"
            )
    return f"Medians over layers: {'; '.join(parts)}." if parts else "No value is resolved."
