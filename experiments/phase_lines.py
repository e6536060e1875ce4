"""The 50 % lines of a table of phase transitions, and what they say."""

import json
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.laws.recovery import l1_weak_threshold
from experiments.crossing import Crossing, fit_crossing

__all__ = ["crossings", "verdict"]

LINE = ["structure", "kind", "packing", "m", "n", "a", "b"]
"""The columns that one success curve, over ρ, has in common."""


def crossings(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return where every success curve of a table crosses one half.

    Parameters
    ----------
    table : pandas.DataFrame
        As `experiments.phase_transition.run` returns it.
    confidence : float
        The level of the intervals.

    Returns
    -------
    pandas.DataFrame
        One row for each structure, kind, packing and core: d, expected_rho, weak_threshold; rho50
        (NaN where the measured curve does not cross one half), rho50_low, rho50_high, width,
        dispersion (see `experiments.crossing.Crossing`); points and trials of the curve, and how
        many are undecided.
    """
    done = table[table["status"] == "done"]
    rows = []
    for names, curve in done.groupby(LINE, sort=False):
        fit = _fitted(curve, confidence)
        first = curve.iloc[0]
        rows.append(
            {
                **dict(zip(LINE, names, strict=True)),
                **{name: first[name] for name in ("d", "expected_rho", "weak_threshold")},
                "rho50": fit.value,
                "rho50_low": fit.low,
                "rho50_high": fit.high,
                "width": fit.width,
                "dispersion": fit.dispersion,
                "points": len(curve),
                "trials": int(curve["trials"].sum()),
                "undecided": int(curve["undecided"].sum()),
            }
        )
    return pd.DataFrame(rows)


def _fitted(curve: pd.DataFrame, confidence: float) -> Crossing:
    """Fit a curve whose points may be a single one, which no curve can be fitted to."""
    counts = [json.loads(text) for text in curve["successes_by_draw"]]
    rho = np.repeat(curve["rho"], [len(count) for count in counts])
    trials = np.repeat(curve["trials"] / curve["draws"], [len(count) for count in counts])
    if len(curve) == 1:
        nan, at = float("nan"), float(curve["rho"].iloc[0])
        above = curve["share"].iloc[0] > 0.5
        return Crossing(nan, *((at, np.inf) if above else (-np.inf, at)), nan, 1.0)
    return fit_crossing(rho, np.concatenate(counts), trials, confidence)


def verdict(table: pd.DataFrame, config: Any) -> str:
    """Return what the table says about the core that all ensembles share.

    Parameters
    ----------
    table : pandas.DataFrame
        As `experiments.phase_transition.run` returns it.
    config : experiments.phase_transition.Config
        Its settings; shape, core and packings are read.
    """
    lines = crossings(table)
    (m, n), (a, b) = config.shape, config.core
    shared = lines[(lines["a"] == a) & (lines["b"] == b)]
    text = (
        f"At (m, n, a, b) = ({m}, {n}, {a}, {b}), with ρ = s/(ab) for s nonzero entries, plain "
        "projections find half of the updates with random supports at "
        f"{_spans(shared, 'plain', 'random')}, where the weak threshold is "
        f"{float(l1_weak_threshold(a * b / (m * n))):.3f}, and Kronecker ones at "
        f"{_spans(shared, 'kronecker', 'random')}."
    )
    packed = [name for name in config.packings if name != "random"]
    places = (
        f"in {'a block' if name == 'block' else f'one {name}'} at "
        f"{_spans(shared, 'kronecker', name)}"
        for name in packed
    )
    if packed:
        text += f" Of packed supports Kronecker ones find half {', '.join(places)}."
    trials, undecided = (int(lines[name].sum()) for name in ("trials", "undecided"))
    return f"{text} Of {trials} trials {undecided} are undecided and count as failures."


def _spans(lines: pd.DataFrame, structure: str, packing: str) -> str:
    """Return the ρ of the 50 % line for the first ensemble, and its range over all."""
    rows = lines[(lines["structure"] == structure) & (lines["packing"] == packing)]
    if rows.empty:
        return "no measured ρ"
    first = rows.iloc[0]
    words = (
        f"ρ = {first['rho50']:.3f} [{max(first['rho50_low'], 0.0):.3f}, {_high(first)}] "
        f"({first['kind']}"
        if np.isfinite(first["rho50"])
        else f"ρ {_beyond(first)} ({first['kind']}"
    )
    known = rows.dropna(subset=["rho50"]).sort_values("rho50")
    if len(known) > 1:
        least, most = known.iloc[0], known.iloc[-1]
        words += f"; from {least['rho50']:.3f}, {least['kind']}, to {most['rho50']:.3f}, "
        words += most["kind"]
    beyond = rows[rows["rho50"].isna()].iloc[int(np.isnan(first["rho50"])) :]
    for _, row in beyond.iterrows():
        words += f"; {_beyond(row)}, {row['kind']}"
    return f"{words})"


def _high(row: pd.Series) -> str:
    """Return the upper end of an interval; too few trials bound it nowhere."""
    return f"{row['rho50_high']:.3f}" if np.isfinite(row["rho50_high"]) else "∞"


def _beyond(row: pd.Series) -> str:
    """Say on which side of the measured sparsities a line is."""
    if np.isfinite(row["rho50_low"]):
        return f"above {row['rho50_low']:.3f}"
    return f"below {row['rho50_high']:.3f}"
