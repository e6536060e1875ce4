"""C5: at equal parameters, the spectra that are flat enough for CoSA to beat low rank."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from cosa_theory.deltas import LayerDelta, open_pair
from cosa_theory.projections import make_projection, stream
from cosa_theory.spectrum import compare_families, singular_values
from cosa_theory.spectrum.families import crossover
from experiments.pairs import PAIRS
from paper_checks.base import Case, Check, Claim, counts, spread
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

REAL, FLAT = "real update", "flat spectrum"
OTHERS = {
    "sre_encoder": "the sentence encoder that others trained",
    "chgnet": "the interatomic potential that others trained",
}
"""Keys of `experiments.pairs.PAIRS`, and what they are called here."""
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


def trained_by_others() -> dict[str, Iterable[LayerDelta]]:
    """Return the updates of `OTHERS`, by what they are called."""
    return {label: open_pair(*PAIRS[name].paths()) for name, label in OTHERS.items()}


def measure(
    layers: Iterable[LayerDelta],
    seed: int = 0,
    *,
    compare: Callable[..., pd.DataFrame] = crossover,
    others: Callable[[], Mapping[str, Iterable[LayerDelta]]] = trained_by_others,
) -> list[Case]:
    """Return a case for each layer and budget, of all updates, the flat ones, and the controls.

    Zero updates have no ratio and are left out; where all of `layers` are, nothing is measured.
    """
    cases = _real_cases(layers, REAL, compare)
    if not cases:  # without real updates the flat ones would decide alone
        return []
    for label, updates in others().items():
        cases += _real_cases(updates, label, compare)
    most = max(1 / (case.value * case.details["bound"]) for case in cases)
    return [
        *cases,
        *_flat_cases(seed),
        Case.exact("real updates", "control", most, "c5_bound", control=True),
        _noise_control(seed, compare),
    ]


def _real_cases(
    layers: Iterable[LayerDelta], group: str, compare: Callable[..., pd.DataFrame]
) -> list[Case]:
    cases = []
    for layer in layers:
        table = compare(singular_values(layer.delta), *layer.shape)
        for row in table.dropna(subset="crossover_ratio").to_dict(orient="records"):
            names = ("rank_budget", "top_share", "law", "noise_ratio", "excess")
            details = {name: row[name] for name in names}
            details |= {"layer": layer.name, "bound": row["advantage_bound"]}
            name = f"{layer.name}, r = {row['rank_budget']}"
            cases.append(Case.exact(name, group, row["crossover_ratio"], "c5_ratio", details))
    return cases


def _noise_control(seed: int, compare: Callable[..., pd.DataFrame]) -> Case:
    """Measure drawn noise, whose excess over the null is 1."""
    excesses = [
        compare(singular_values(stream(seed, "C5 noise", m, n).standard_normal((m, n))), m, n)
        for m, n in FLAT_SIZES
    ]
    worst = float(np.max([np.abs(table["excess"].to_numpy() - 1).max() for table in excesses]))
    return Case.exact("drawn noise", "control", worst, "c5_noise", control=True)


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
    """Return how often and by how much each side wins, and what noise gives in its place."""
    groups: dict[str, list[Case]] = {group: [] for group in (REAL, *OTHERS.values(), FLAT)}
    for case in cases:
        if not case.control:
            groups[case.group].append(case)
    flat = groups.pop(FLAT)
    if not groups[REAL]:
        return "There was no update with a spectrum."
    return (
        f"On updates with a flat spectrum it {counts(flat)} cases: CoSA holds "
        f"{spread(1 / case.value for case in flat)} times as much as low rank. "
        + " ".join(_of_real(group, own) for group, own in groups.items() if own)
    )


def _of_real(group: str, cases: Sequence[Case]) -> str:
    layers = {case.details["layer"] for case in cases}
    flat_enough = {case.details["layer"] for case in cases if case.outcome == "holds"}
    ties = sum(case.outcome == "holds" and case.details["law"] >= 1 for case in cases)
    tied = f"; {ties} of these are ties, where both hold everything" if ties else ""
    return (
        f"On {'real updates' if group == REAL else group} it {counts(cases)} pairs of matrix and "
        f"budget ({len(flat_enough)} of {len(layers)} matrices are flat enough at some budget{tied}"
        f"): low rank holds {spread(case.value for case in cases)} times as much as CoSA, where "
        f"noise of the same shape gives {spread(case.details['noise_ratio'] for case in cases)}; "
        f"the excess over it is {spread(case.details['excess'] for case in cases)}."
    )


CHECK = Check(CLAIM, measure, describe, needs_pair=True)
