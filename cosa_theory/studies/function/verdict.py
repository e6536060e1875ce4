"""The verdict of the study of function, in one plain sentence."""

import pandas as pd

from cosa_theory.page.views import percent

__all__ = ["middle_rank", "shown_texts", "verdict"]

_CONTROLS = ("noise", "shuffled")


def middle_rank(approximations: pd.DataFrame) -> int | None:
    """Return the budget that verdict and narrow tables speak of: the middle one of the cores."""
    cores = approximations[approximations["group"] == "CoSA core"]
    ranks = sorted({int(rank) for rank in cores["rank"].dropna()})
    if not ranks:
        ranks = sorted({int(rank) for rank in approximations["rank"].dropna()})
    return ranks[len(ranks) // 2] if ranks else None


def shown_texts(function: pd.DataFrame) -> str:
    """Return the set of texts that the verdict speaks of: the domain's where there is one."""
    found = list(function["texts"].unique())
    return "domain" if "domain" in found else str(found[0])


def verdict(approximations: pd.DataFrame, function: pd.DataFrame) -> str:
    """Say what a core returns under each decoder, beside low rank and the controls."""
    rank, texts = middle_rank(approximations), shown_texts(function)
    rows = function[(function["texts"] == texts) & (function["gain"] == 1.0)]

    def returned(name: str, at: int | None = rank) -> float | None:
        one = rows[rows["approximation"] == name]
        one = one[one["rank"].isna() | (one["rank"] == at)]
        return None if one.empty else float(one["recovered"].iloc[0])

    kinds = [name.removeprefix("adjoint_") for name in rows["approximation"] if "adjoint_" in name]
    kind = "haar" if "haar" in kinds else kinds[0] if kinds else ""
    adjoint, core, low = returned(f"adjoint_{kind}"), returned(f"best_core_{kind}"), returned("svd")
    on = f"of the change on {texts} texts"
    clauses = []
    if adjoint is not None and core is not None:
        clauses.append(
            f"CoSA's core returns {percent(adjoint)} {on} when decoded by its adjoint, "
            f"{percent(core)} by least squares"
        )
    if low is not None:
        words = "truncated SVD of equal size" if clauses else f"truncated SVD of rank {rank}"
        clauses.append(f"{words} returns {percent(low)}" + ("" if clauses else f" {on}"))
    if not clauses:
        best = rows.sort_values("recovered").iloc[-1]
        clauses.append(f"{best['label']} returns most {on}: {percent(best['recovered'])}")
    controls = [one for name in _CONTROLS if (one := returned(name)) is not None]
    if controls:
        clauses.append(f"noise and a shuffled update return {percent(max(controls))} at most")
    at = "" if rank is None else f" (budget of rank {rank})"
    return "; ".join(clauses) + f"{at}."
