"""What the drawings of recovery show, in words, for readers who do not see them."""

from collections.abc import Mapping

import pandas as pd

from cosa_theory.page.views import count, number, percent
from cosa_theory.recovery import METHODS

__all__ = [
    "NOT_L1",
    "convergence_in_words",
    "estimate_in_words",
    "phase_in_words",
    "recovery_in_words",
]

_OTHER_AIMS = ("least norm", "low rank", "posterior mean")
NOT_L1 = [name for name, one in METHODS.items() if one.seeks in _OTHER_AIMS]
"""Methods that do not search for a sparse update."""

Tables = Mapping[str, pd.DataFrame]


def convergence_in_words(tables: Tables) -> str:
    """Say from where to where objective and certificate went, and in how many iterations."""
    history, result = tables["history"], tables["result"].iloc[0]
    first, last = history.iloc[0], history.iloc[-1]
    parts = [f"From iteration {count(first['iteration'])} to {count(last['iteration'])}"]
    if "objective" in history:
        parts.append(f"the objective goes from {first['objective']:.4g} to {last['objective']:.4g}")
    if "certificate" in history:
        parts.append(
            f"the {result['certificate']} (relative) from {first['certificate']:.2g} to "
            f"{last['certificate']:.2g}, with a tolerance of {float(result['tolerance']):.2g}"
        )
    return f"{', '.join(parts)}."


def estimate_in_words(tables: Tables) -> str:
    """Say how large and how concentrated the estimate is, beside the truth where it is known."""
    parts = []
    for of, sigma in tables["spectrum"].groupby("of", sort=False):
        sizes = tables["magnitudes"]
        sizes = sizes[sizes["of"] == of].sort_values("rank")
        # Of the sorted coefficients some ranks alone are kept: each stands for those before it.
        energy = sizes["rank"].diff().fillna(1) * sizes["magnitude"].astype(float) ** 2
        if sigma["sigma"].max() > 0 and energy.sum() > 0:
            values = _most(sigma["index"], sigma["sigma"].astype(float) ** 2)
            entries = _most(sizes["rank"], energy)
            parts.append(
                f"the {of} has a largest singular value of {number(sigma['sigma'].max())}; 90 % of "
                f"its energy is in {count(values)} singular values and {count(entries)} "
                "coefficients"
            )
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else "Every coefficient is zero."


def _most(ranks: pd.Series, energy: pd.Series) -> int:
    """Return the rank up to which 90 % of the energy lies, from the largest part on."""
    held = energy.cumsum()
    return int(ranks[held >= 0.9 * held.iloc[-1]].iloc[0])


def recovery_in_words(tables: Tables) -> str:
    """Say what ℓ1 and least norm bring back, of updates that were made and of real ones."""
    table = tables["recovery"]
    done = table[table["status"] == "done"]
    searching = [name for name in METHODS if name not in NOT_L1]
    parts = []
    made = done[done["sweep"] == "compression"]
    for update, rows in made.groupby("update", sort=False):
        parts.append(f"{update} {_errors(rows, searching)}")
    text = f"Median relative errors, all compressions: {'; '.join(parts)}. " if parts else ""
    real = done[done["sweep"] == "real"]
    if len(real):
        sought = real.loc[real["method"].isin(searching), "share"].astype(float)
        plain = real.loc[real["method"] == "least_norm", "share"].astype(float)
        text += (
            f"Of {real['update'].nunique()} real updates ℓ1 brings back "
            f"{percent(sought.median())} in the median and least norm {percent(plain.median())}."
        )
    return text.strip() or "Sparse updates by solver, noise, ensemble and basis."


def _errors(rows: pd.DataFrame, searching: list[str]) -> str:
    sought = rows.loc[rows["method"].isin(searching), "relative_error"].astype(float).median()
    plain = rows.loc[rows["method"] == "least_norm", "relative_error"].astype(float).median()
    return f"{number(sought)} by ℓ1 and {number(plain)} by least norm"


def phase_in_words(tables: Tables) -> str:
    """Say at which density half of the recoveries succeed, beside the weak threshold."""
    lines = tables["phase_lines"]
    parts = []
    for (structure, packing), rows in lines.groupby(["structure", "packing"], sort=False):
        known = rows.dropna(subset=["rho50"])
        if known.empty:
            parts.append(f"{structure}, {packing}: nowhere")
            continue
        over = (known["rho50"] / known["weak_threshold"]).astype(float)
        parts.append(
            f"{structure}, {packing}: ρ from {number(known['rho50'].min())} to "
            f"{number(known['rho50'].max())}, {number(over.median())} times the weak threshold in "
            f"the median of {len(known)} lines"
        )
    return f"Half of the recoveries succeed at: {'; '.join(parts)}."
