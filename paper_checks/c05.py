"""C5: at equal parameters, the spectra that are flat enough for CoSA to beat low rank."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from cosa_theory.deltas import LayerDelta
from cosa_theory.projections import make_projection
from cosa_theory.spectrum import compare_families, singular_values
from cosa_theory.spectrum.families import crossover
from paper_checks.base import Case, Check, Claim, counts, spread
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

REAL, FLAT = "real update", "flat spectrum"
FLAT_SIZES = ((384, 384), (768, 384), (160, 640))

CLAIM = Claim(
    id="C5",
    claim="Low rank is restrictive when the singular values of an update are fairly uniform, and "
    "CoSA is not.",
    source="abstract",
    method="For every matrix of a fully fine-tuned model, and of two that others trained (a "
    "sentence encoder, an interatomic potential), and three budgets, the energy in its top "
    "r singular values (the best any rank-r update can do) over ab/(mn) (what a CoSA core with as "
    "many parameters holds in expectation). Beside it what independent noise of the same shape "
    "gives, and the excess over it, which is reported and does not decide. And updates made with a "
    "perfectly flat spectrum, where CoSA's share is measured over Gaussian draws with a 95 % "
    "interval.",
    quantity=THRESHOLDS["c5_ratio"].quantity,
    criterion=f"{THRESHOLDS['c5_ratio']}, for each matrix and budget; and as controls "
    f"{THRESHOLDS['c5_bound']}, and {THRESHOLDS['c5_noise']}",
)


def measure(
    layers: Iterable[LayerDelta],
    seed: int = 0,
    *,
    compare: Callable[..., pd.DataFrame] = crossover,
) -> list[Case]:
    """Return a case for each layer and budget, the flat ones, and the control.

    Zero updates have no ratio and are left out.
    """
    cases: list[Case] = []
    advantages: list[float] = []
    for layer in layers:
        m, n = layer.shape
        table = compare(singular_values(layer.delta), m, n)
        for row in table.dropna(subset="crossover_ratio").to_dict(orient="records"):
            ratio = float(row["crossover_ratio"])
            advantages.append(1 / (ratio * row["advantage_bound"]))
            details = {name: row[name] for name in ("rank_budget", "top_share", "law")}
            name = f"{layer.name}, r = {row['rank_budget']}"
            cases.append(
                Case.exact(name, REAL, ratio, "c5_ratio", {"layer": layer.name, **details})
            )
    if advantages:  # without real updates the flat ones would decide alone
        cases += _flat_cases(seed)
        cases.append(
            Case.exact("real updates", "control", max(advantages), "c5_bound", control=True)
        )
    return cases


def _flat_cases(seed: int) -> list[Case]:
    """Measure updates with orthonormal rows or columns, where every singular value is the same."""
    cases = []
    for m, n in FLAT_SIZES:
        flat = np.asarray(make_projection("haar", min(m, n), max(m, n), seed=seed, key="C5 flat"))
        flat = flat.T if m > n else flat
        table = compare_families(
            flat, families=("truncated_svd", "cosa_gaussian"), seed=seed, key=f"C5 {m} {n}"
        )
        for rank, rows in table.groupby("rank_budget"):
            of = {row["family"]: row for row in rows.to_dict(orient="records")}
            top, cosa = of["truncated_svd"]["captured"], of["cosa_gaussian"]
            value, low, high = (top / cosa[name] for name in ("captured", "ci_high", "ci_low"))
            name = f"{m} × {n}, r = {rank}"
            details = {"rank_budget": int(str(rank)), "top_share": top, "law": cosa["law"]}
            cases.append(Case(name, FLAT, value, low, high, "c5_ratio", details=details))
    return cases


def describe(cases: Sequence[Case]) -> str:
    """Return how often and by how much each side wins."""
    real = [case for case in cases if case.group == REAL]
    flat = [case for case in cases if case.group == FLAT]
    layers = {case.details["layer"] for case in real}
    flat_enough = {case.details["layer"] for case in real if case.outcome == "holds"}
    if not real:
        return "There was no update with a spectrum."
    return (
        f"On updates with a flat spectrum it {counts(flat)} cases: CoSA holds "
        f"{spread(1 / case.value for case in flat)} times as much as low rank. On real updates it "
        f"{counts(real)} pairs of matrix and budget ({len(flat_enough)} of {len(layers)} matrices "
        "are flat enough at some budget): low rank holds "
        f"{spread(case.value for case in real)} times as much as CoSA."
    )


CHECK = Check(CLAIM, measure, describe, needs_pair=True)
