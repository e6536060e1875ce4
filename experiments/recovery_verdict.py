"""What the table of `experiments.recovery` says, in a few sentences."""

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["RECOVERED", "margins", "reach", "verdict"]

RECOVERED = 1e-3
"""Relative error up to which a sparse update counts as recovered."""


def margins(table: pd.DataFrame) -> pd.DataFrame:
    """Return the ℓ1 recoveries of real updates, with `gain`, share minus least_norm_share."""
    rows = table[(table["sweep"] == "real") & (table["status"] == "done")]
    rows = rows[rows["method"] != "least_norm"]
    return rows.assign(gain=rows["share"] - rows["least_norm_share"])


def reach(table: pd.DataFrame) -> "pd.Series[Any]":
    """Return for each method the greatest sparsity up to which the median draw was recovered.

    Parameters
    ----------
    table : pandas.DataFrame
        As `experiments.recovery.run` returns it.

    Returns
    -------
    pandas.Series
        Of whole numbers by method, largest first; 0 where the least sparsity failed already.
    """
    return _reach(table[table["sweep"] == "sparsity"], "method")


def _reach(rows: pd.DataFrame, by: str) -> "pd.Series[Any]":
    error = rows["relative_error"].where(rows["status"] == "done", np.inf)
    held = error.groupby([rows[by], rows["parameter"]]).median() <= RECOVERED
    unbroken = held.groupby(level=0).cummin()  # the index is sorted by sparsity
    sizes = unbroken.index.get_level_values(1).to_numpy() * unbroken.to_numpy()
    found = pd.Series(sizes, unbroken.index).groupby(level=0).max().astype(int)
    return found.sort_values(ascending=False, kind="stable")


def verdict(table: pd.DataFrame, config: Any) -> str:
    """Return the headline about real updates, then what synthetic ones say."""
    return " ".join(filter(None, (_real(table, config), _sparse(table), _dense(table))))


def _real(table: pd.DataFrame, config: Any) -> str:
    rows = margins(table)
    if rows.empty:
        if not config.layers:
            return "No real update was asked for."
        return (
            "No real update was measured: make a pair with `python -m experiments.finetune_delta`."
        )
    won, typical = rows[rows["gain"] > 0], rows["gain"].median()
    matrices = rows["update"].nunique()
    least = table[(table["sweep"] == "real") & (table["method"] == "least_norm")]
    least = least[least["status"] == "done"]
    ratio = least["share"] / least["law"]
    return (
        f"In {len(won)} of {len(rows)} recoveries of {matrices} real update{'s'[: matrices - 1]} "
        f"ℓ1 brought back more than the least-norm answer{_where(won)}; in the median it brought "
        f"back {_percent(abs(typical))} of the energy {'more' if typical > 0 else 'less'}. "
        f"Their duality gaps are at most {_percent(rows['certificate_value'].max())}. The median "
        f"density ‖C‖₁²/(mn‖C‖₂²) of the true coefficients is {rows['density'].median():.2f}, "
        f"where Gaussian noise has {2 / np.pi:.2f}. Least norm itself brings back the law's share "
        f"ab/(mn): {ratio.median():.2f} of it in the median, {ratio.min():.2f} to "
        f"{ratio.max():.2f}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _where(won: pd.DataFrame) -> str:
    """Name the matrices and bases of the recoveries in which ℓ1 won."""
    if won.empty:
        return ""
    names = won["update"].value_counts()
    top = f"{names.iloc[0]} of them of {names.index[0]}"
    if len(names) == 1:
        top = f"all of {names.index[0]}"
    bases = ", ".join(dict.fromkeys(won["basis"]))
    best = won.sort_values("gain").iloc[-1]
    return (
        f" ({top}; bases {bases}; at best {_percent(best['share'])} against "
        f"{_percent(best['least_norm_share'])})"
    )


def _sparse(table: pd.DataFrame) -> str:
    found = reach(table)
    if found.empty:
        return ""
    rows = table[table["sweep"] == "sparsity"].iloc[0]
    text = (
        f"Synthetic sparse updates of {rows['m']} × {rows['n']} come back from {rows['a']} × "
        f"{rows['b']} cores, in the median draw, up to {_levels(found)}"
    )
    ensembles = _reach(table[table["sweep"] == "ensemble"], "kind")
    return f"{text}; and by ensemble up to {_levels(ensembles)}." if len(ensembles) else f"{text}."


def _levels(found: "pd.Series[Any]") -> str:
    """Name what reaches each sparsity, the greatest first."""
    return "; ".join(
        f"s = {size} ({', '.join(group.index)})" if size else f"none ({', '.join(group.index)})"
        for size, group in found.groupby(found, sort=False)
    )


def _dense(table: pd.DataFrame) -> str:
    rows = table[(table["sweep"] == "compression") & (table["status"] == "done")]
    nuclear = rows[rows["method"] == "nuclear"]
    rows = rows[(rows["update"] != "sparse") & ~rows["method"].isin(["least_norm", "nuclear"])]
    if rows.empty:
        return ""
    won = int(np.count_nonzero(rows["share"] > rows["least_norm_share"]))
    kinds = ", ".join(dict.fromkeys(rows["update"]))
    text = f"On synthetic updates that are not sparse ({kinds}) ℓ1 won in {won} of {len(rows)}"
    if len(nuclear):
        same = int((nuclear["share"] - nuclear["least_norm_share"]).abs().le(1e-6).sum())
        text += (
            f", and on those of low rank the least nuclear norm gave the least-norm answer in "
            f"{same} of {len(nuclear)}"
        )
    return text + "."
