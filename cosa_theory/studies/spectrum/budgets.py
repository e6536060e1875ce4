"""Which budget a view shows: layers of different sizes do not share all of them."""

import pandas as pd

__all__ = ["at_budget", "common_budgets", "leading", "middle_budget", "named_budget"]


def common_budgets(crossover: pd.DataFrame) -> list[int]:
    """Return the rank budgets that the most layers share, in increasing order.

    Zero updates (no top_share) count only if all are zero.
    """
    live = crossover[crossover["top_share"].notna()]
    shared = (live if len(live) else crossover).groupby("rank_budget")["layer"].nunique()
    return sorted(int(rank) for rank in shared[shared == shared.max()].index)


def middle_budget(crossover: pd.DataFrame) -> int | None:
    """Return the middle one of the common budgets, that of the verdict and of small tables.

    None for an empty table.
    """
    budgets = common_budgets(crossover)
    return budgets[len(budgets) // 2] if budgets else None


def at_budget(table: pd.DataFrame, rank: int) -> pd.DataFrame:
    """Return the rows of each layer at its budget nearest to `rank`, the smaller of two.

    As many rows per layer as it has at that budget; small layers may only have a nearby one.
    """
    pairs = table[["layer", "rank_budget"]].drop_duplicates()
    distance = (pairs["rank_budget"] - rank).abs()
    ordered = pairs.assign(distance=distance).sort_values(["distance", "rank_budget"])
    nearest = ordered.drop_duplicates("layer").drop(columns="distance")
    return table.merge(nearest, on=["layer", "rank_budget"])


def _is_shared(chosen: pd.DataFrame, rank: int) -> bool:
    return bool((chosen["rank_budget"] == rank).all())


def named_budget(chosen: pd.DataFrame, rank: int) -> str:
    """Return the name of a budget, given the rows of `at_budget` for it."""
    return f"rank {rank}" + (
        "" if _is_shared(chosen, rank) else ", or the nearest that a small matrix has"
    )


def leading(chosen: pd.DataFrame, rank: int) -> str:
    """Return how many singular values these rows are about: "r" where that differs."""
    return str(rank) if _is_shared(chosen, rank) else "r"
