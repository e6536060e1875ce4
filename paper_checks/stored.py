"""What the committed measurements of all updates say of a claim, beside what is measured anew.

They are the tables of `experiments/reference`, which the experiments write with `--reference`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from cosa_theory.studies.function.pair import Function
from experiments.command import REFERENCE
from paper_checks.base import Case, counts, spread
from paper_checks.c04 import function_cases

__all__ = ["STORED", "describe_stored", "stored_cases"]

RANK = 8
"""Budget at which function is read."""


def stored_cases(claim: str) -> list[Case]:
    """Return the cases of a claim in committed tables; none where no table speaks of it.

    The group of each case is what it is a case of, such as a decoder, and its name says of which
    update.
    """
    return STORED[claim]() if claim in STORED else []


def describe_stored(cases: Sequence[Case]) -> str:
    """Return how often each group of stored cases meets its criterion, and by which values."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        if not case.control:
            groups.setdefault(case.group, []).append(case)
    told = [
        f"{group}: {counts(own)}, {spread(case.value for case in own)}"
        for group, own in groups.items()
    ]
    return f" Of the committed measurements, {'; '.join(told)}." if told else ""


def _table(name: str) -> pd.DataFrame:
    path = REFERENCE / f"{name}.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def _named(case: Case, group: str, update: str) -> Case:
    return replace(case, group=group, name=f"{update}: {case.name}", details={**case.details})


def _function() -> list[Case]:
    """Return C4's cases of every pair, by energy and by function."""
    table = _table("real_updates_function")
    cases: list[Case] = []
    if not len(table):
        return cases
    for pair, rows in table[table["rank"].isna() | (table["rank"] == RANK)].groupby("pair"):
        texts = [
            rows.assign(
                texts=kind, recovered=rows[kind], low=rows[f"{kind}_low"], high=rows[f"{kind}_high"]
            )
            for kind in ("domain", "general")
        ]
        study = Function(rows, pd.concat(texts), pd.DataFrame(), pd.DataFrame())
        for case in function_cases(study):
            what = "energy" if case.threshold == "c4_kept" else "function"
            decoder = case.details.get("decoder", "control")
            cases.append(_named(case, f"{what} by {decoder}, all pairs", str(pair)))
    return cases


def _ratios() -> list[Case]:
    """Return C5's cases: the median over the matrices of every pair, at two budgets."""
    cases = []
    for row in _table("real_updates_energy").to_dict(orient="records"):
        for ending, budget in (("", "the largest budget"), ("_sixteenth", "r = min(m, n)/16")):
            details = {name: row[f"{name}{ending}"] for name in ("noise_ratio", "excess")}
            name, ratio = f"{row['pair']}: {budget}", float(row[f"crossover_ratio{ending}"])
            group = "median over the matrices of a pair"
            cases.append(Case.exact(name, group, ratio, "c5_ratio", details))
    return cases


def _steadiness() -> list[Case]:
    """Return C3's cases: whether gradients vary less where the projections are an isometry."""
    rows: list[Any] = _table("subspace_steadiness").to_dict(orient="records")
    return [
        Case(
            f"{row['task']}, study of subspaces",
            "gradients with orthonormal over those with Gaussian projections",
            row["ratio"],
            row["low"],
            row["high"],
            "c3_steady",
            details={"pairs": row["seeds"]},
        )
        for row in rows
    ]


def _leads() -> Iterator[Case]:
    """Yield C8's cases: how far CoSA is ahead of LoRA in held-out loss, paired on seeds."""
    for name, where in (("informed_training_compared", ""), ("subspace_compared", "task")):
        table = _table(name)
        if not len(table):
            continue
        arm = "arm" if "arm" in table else "method"
        kept = table[(table["against"] == "lora") & table[arm].isin(_COSA)]
        rows: list[Any] = kept.to_dict(orient="records")
        for row in rows:
            value, low, high = -row["difference"], -row["high"], -row["low"]
            task = f"{row[where]}, study of subspaces" if where else "R8, 50 steps"
            details = {"pairs": row["seeds"], "method": row[arm]}
            named = f"{_COSA[row[arm]]} ({task})"
            yield Case(named, "CoSA against LoRA", value, low, high, "c8_loss", details=details)


_COSA = {
    "haar": "orthonormal CoSA",
    "haar_one_sided": "orthonormal one-sided CoSA",
    "cosa_gaussian": "Gaussian CoSA",
    "cosa_haar": "orthonormal CoSA",
    "cosa_released": "CoSA with the released code's shape and scale",
}
"""Arms of the tables that are the paper's method: informed projections are not."""

STORED: dict[str, Callable[[], list[Case]]] = {
    "C3": _steadiness,
    "C4": _function,
    "C5": _ratios,
    "C8": lambda: list(_leads()),
}
"""The claims that committed tables speak of."""
