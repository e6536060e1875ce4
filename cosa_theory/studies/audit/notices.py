"""What a reader of an audit's tables should know, said once."""

from collections.abc import Iterator

import pandas as pd

from cosa_theory.deltas.matching import first_few
from cosa_theory.studies.layers import cut_core_notices, low_rank_notices

__all__ = ["audit_notices"]


def audit_notices(layers: pd.DataFrame, rank: int) -> Iterator[str]:
    """Yield plain sentences about what the outcomes alone do not tell, from the table of layers.

    `rank` is the budget that was asked for.
    """
    updates = layers[layers["subject"] == "update"]
    yield from _about_the_core(updates, rank)
    for subject, rows in layers.groupby("subject", sort=False):
        yield from _about_the_numbers(str(subject), rows)


def _about_the_core(layers: pd.DataFrame, rank: int) -> Iterator[str]:
    total = len(layers)
    names = layers["layer"]
    yield from cut_core_notices(layers)
    small = layers[(layers["rank_budget"] < rank).fillna(False)]
    if len(small):
        least, most = small["rank_budget"].min(), small["rank_budget"].max()
        yield (
            f"A core of the budget of rank {rank} would train more than half of "
            f"{_of(len(small), total, 'matrix')}, which get that of rank "
            f"{least if least == most else f'{least} to {most}'} instead: "
            f"{first_few(list(small['layer']), 3)}."
        )
    beyond = names[layers["participation_needed"] > layers[["m", "n"]].min(axis=1)]
    if len(beyond):
        yield (
            f"In {_of(len(beyond), total, 'matrix')} a + b + 1 is above min(m, n): no update has "
            f"so flat a spectrum ({first_few(list(beyond), 3)})."
        )
    whole = names[(layers["a"] == layers["m"]) | (layers["b"] == layers["n"])]
    if len(whole):
        yield (
            f"In {_of(len(whole), total, 'matrix')} a = m or b = n: that factor is taken as the "
            "identity, which loses nothing; a square Gaussian factor would span the same and be "
            f"far worse conditioned ({first_few(list(whole), 3)})."
        )


def _about_the_numbers(subject: str, layers: pd.DataFrame) -> Iterator[str]:
    total = len(layers)
    zero = layers["norm"] == 0
    if zero.any():
        yield (
            f"{_of(int(zero.sum()), total, subject)} zero: what is about {subject}s is undecided "
            f"there ({first_few(list(layers.loc[zero, 'layer']), 3)})."
        )
    entries = layers["m"] * layers["n"]
    floor = ~zero & (layers["norm"] <= layers["rounding_rms"] * entries**0.5)
    if floor.any():
        yield (
            f"{_of(int(floor.sum()), total, subject)} no larger than the rounding of the stored "
            f"type, and may be nothing else ({first_few(list(layers.loc[floor, 'layer']), 3)})."
        )
    yield from low_rank_notices(layers, subject)
    sparse = ~zero & (layers["exact_zeros"] > 0.5)
    if sparse.any():
        share = layers.loc[sparse, "exact_zeros"].median()
        yield (
            f"{_of(int(sparse.sum()), total, subject)} exactly zero in more than half of the "
            f"entries (median {share:.0%}): rows that no text has touched, or changes lost in the "
            f"rounding of the stored type ({first_few(list(layers.loc[sparse, 'layer']), 3)})."
        )
    measured = layers[layers["error"].notna() & layers["predicted_error"].notna()]
    measured = measured[measured["error_low"] < measured["error_high"]]
    if len(measured):
        low, high, law = (measured[name] for name in ("error_low", "error_high", "predicted_error"))
        inside = int(((low <= law) & (law <= high)).sum())
        yield (
            f"The predicted error √(1 − ab/(mn)) of {subject}s lies in the measured 95 % interval "
            f"in {_of(inside, len(measured), 'matrix')} ({0.95 * len(measured):.0f} expected)."
        )


def _of(count: int, total: int, noun: str) -> str:
    """Return "3 of 39 updates are", or "1 of 39 matrices" for matrices."""
    if noun == "matrix":
        return f"{count} of {total} matri{'x' if total == 1 else 'ces'}"
    return f"{count} of {total} {noun}{'' if total == 1 else 's'} {'is' if count == 1 else 'are'}"
