"""The verdict of a survey in one plain sentence, computed from its tables."""

import numpy as np
import pandas as pd

from cosa_theory.studies.spectrum.budgets import at_budget, common_budgets, named_budget

__all__ = ["LARGEST_MISFIT", "verdict"]

LARGEST_MISFIT = 0.1
"""Kolmogorov-Smirnov distance up to which a tail counts as noise (see `SpectrumSummary`)."""


def verdict(crossover: pd.DataFrame, families: pd.DataFrame) -> str:
    """Say in one sentence which of low rank and CoSA wins at equal trainable parameters.

    The winner of each matrix is the one named in `crossover`, low rank by its exact share and CoSA
    by its expected one. The sentence is about one budget: the middle one of those that most
    matrices share, and for a matrix without it the nearest it has. It says so if other budgets
    give another count.
    """
    total = crossover["layer"].nunique()
    if not total:
        return "No matrix was compared."
    live = crossover[crossover["top_share"].notna()]
    zero = total - live["layer"].nunique()
    if live.empty:
        return f"Nothing to compare: {_all(total, 'update')} zero."
    common = common_budgets(live)
    rank = common[len(common) // 2]
    chosen = at_budget(live, rank)
    counts = _counts(chosen)
    sentence = f"{_who_wins(counts)} at equal trainable parameters ({named_budget(chosen, rank)})"
    sentence += f": {_shares(chosen, families)}"
    found = {other: _counts(at_budget(live, other)) for other in common}
    wins = [f"{one['low rank']} at rank {other}" for other, one in found.items() if one != counts]
    if wins:
        sentence += f"; low rank wins in {' and in '.join(wins)}"
    if zero:
        sentence += f"; {zero} zero update{'s are' if zero > 1 else ' is'} left out"
    return sentence + "."


def _all(count: int, noun: str) -> str:
    return f"the only {noun} is" if count == 1 else f"all {count} {noun}s are"


def _counts(chosen: pd.DataFrame) -> dict[str, int]:
    found = chosen["winner"].value_counts()
    return {winner: int(found.get(winner, 0)) for winner in ("low rank", "cosa", "tie")}


def _who_wins(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    of = f"of {total} matri{'x' if total == 1 else 'ces'}"
    low, cosa, tie = counts["low rank"], counts["cosa"], counts["tie"]
    ties = f", and {tie} tie{'s' if tie == 1 else ''}" if tie else ""
    if low and cosa:
        return f"Low rank wins in {low} {of} and CoSA in {cosa}{ties}"
    if low or cosa:
        return f"{'Low rank' if low else 'CoSA'} wins in {low or cosa} {of}{ties}"
    return f"Low rank and CoSA tie in {tie} {of}"


def _shares(chosen: pd.DataFrame, families: pd.DataFrame) -> str:
    """Compare the medians."""
    measured = families[families["family"] == "cosa_gaussian"]
    joined = chosen.merge(
        measured[["layer", "rank_budget", "captured"]], on=["layer", "rank_budget"], how="left"
    )
    low = f"the truncated SVD holds {_median_and_range(joined['top_share'])}"
    if joined["captured"].notna().all():
        core = f"a Gaussian CoSA core of the same size {_median_and_range(joined['captured'])}"
    else:
        core = f"a CoSA core of the same size {_median_and_range(joined['law'])} in expectation"
    factor, null, excess = (
        float(np.median(joined[name])) for name in ("crossover_ratio", "noise_ratio", "excess")
    )
    size, side = _factor(factor)
    noise, its_side = _factor(null)
    return (
        f"{low} of the update's energy, {core}, a median factor of {size} for {side}, where noise "
        f"of the same shape gives {noise}{'' if its_side == side else f' for {its_side}'} (median "
        f"excess {_number(excess)})"
    )


def _factor(ratio: float) -> tuple[str, str]:
    """Return a crossover ratio as the factor by which a side is ahead, and the side."""
    return (_number(1 / ratio), "CoSA") if ratio < 1 else (_number(ratio), "low rank")


def _median_and_range(shares: pd.Series) -> str:
    values = 100 * shares.to_numpy(dtype=float)
    median = f"{_number(float(np.median(values)))} %"
    low, high = _number(float(values.min())), _number(float(values.max()))
    return median if low == high else f"{median} (median; range {low}–{high} %)"


def _number(value: float) -> str:
    """Write a positive number with two digits, and whole above ten."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}" if value >= 1e-3 else f"{value:.0e}"
