"""Accuracy of every ensemble beside its time and memory, and the cheapest for a distortion."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory.ground.estimates import Estimate, clustered_share, mean_interval
from cosa_theory.isometry.jl_curves import jl_ratios
from cosa_theory.laws.norms import chi_square_failure
from cosa_theory.projections import ENSEMBLES, KINDS, make_projection
from cosa_theory.studies.jl.costs import application_seconds, projection_bytes

__all__ = [
    "cheapest",
    "chi_square_dimension",
    "failure_curves",
    "jl_ensembles",
    "needed_dimensions",
]

_QUANTILE = 0.95  # the share of vectors whose distortion a target is about
_STEP = 2 ** (1 / 8)  # between the dimensions that a search tries


@lru_cache(maxsize=256)
def chi_square_dimension(eps: float) -> int:
    """Return the least k with P(|χ²_k/k − 1| > ε) ≤ 5 %: what one fixed vector needs."""

    def met(k: int) -> bool:
        return bool(chi_square_failure(k, eps) <= 1 - _QUANTILE)

    high = 1
    while not met(high):
        high *= 2
    return high // 2 + 1 + bisect_left(range(high // 2 + 1, high), True, key=met)


def _ends(name: str, found: Estimate) -> dict[str, float]:
    """Return an estimate that cannot be negative, and the ends of its interval."""
    return {name: found.value, f"{name}_low": max(found.low, 0.0), f"{name}_high": found.high}


def _row(kind: str, k: int, X: NDArray[Any], ratios: NDArray[np.float64], eps: float) -> dict:
    """Summarise draws × vectors; draws are independent, so intervals are over them."""
    distortions = np.abs(ratios - 1)
    return {
        "kind": kind,
        "k": k,
        "d": X.shape[1],
        "vectors": X.shape[0],
        "draws": ratios.shape[0],
        **_ends("mean", mean_interval(distortions.mean(axis=1))),
        **_ends("quantile", mean_interval(np.quantile(distortions, _QUANTILE, axis=1))),
        "max": float(distortions.max()),
        "eps": eps,
        **_ends("failure", clustered_share(distortions > eps)),
        "chi_square": float(chi_square_failure(k, eps)),
    }


def _with_costs(rows: Sequence[dict], X: NDArray[Any], seed: int) -> list[dict]:
    """Add time and memory to the rows that have a k; all are timed together."""
    found = [row for row in rows if "k" in row]
    drawn = [
        make_projection(
            row["kind"], row["k"], X.shape[1], seed=seed, key=("jl", 0), dtype=X.dtype.name
        )
        for row in found
    ]
    times = application_seconds(drawn, X) if drawn else []
    for row, A, seconds in zip(found, drawn, times, strict=True):
        row |= {"seconds": seconds, "bytes": projection_bytes(A, X.dtype)}
    return list(rows)


def jl_ensembles(
    k: int,
    X: NDArray[Any],
    *,
    eps: float,
    kinds: Sequence[str] = KINDS,
    draws: int = 20,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, NDArray[np.float64]]]:
    """Compare ensembles on the rows of X (n × d, nonzero): distortion, time and memory.

    Projections (k × d) are at analysis scale; those that cannot have k rows (haar beyond d, srht
    beyond its padded length) are left out. Distortions are measured in float64; time and memory
    are those of the type of X (float32 or float64). There are at least two draws.

    The table has one row per ensemble: `kind`, `k`, `d`, `vectors`, `draws`; `mean`, `quantile`
    (95 %) and `max` of the distortion |‖Ax‖²/‖x‖² − 1| over the vectors of a draw, mean and
    quantile averaged over draws with Student's 95 % intervals (`_low`, `_high`), maximum over all;
    `eps`, `failure` with its 95 % interval over draws, and `chi_square`, the exact failure
    probability of a Gaussian projection; `seconds` per vector and `bytes`. Beside it are the ratios
    ‖Ax‖²/‖x‖² by kind, draws × vectors.
    """
    ratios = {
        kind: jl_ratios(kind, k, X, draws=draws, seed=seed)
        for kind in kinds
        if ENSEMBLES[kind].has(k, X.shape[1])
    }
    rows = [_row(kind, k, X, found, eps) for kind, found in ratios.items()]
    return pd.DataFrame(_with_costs(rows, X, seed)), ratios


def failure_curves(
    ratios: Mapping[str, NDArray[np.float64]], k: int, eps: Iterable[float]
) -> pd.DataFrame:
    """Return P(distortion > ε) over draws and vectors, with 95 % intervals over draws.

    One row per ensemble and ε: `kind`, `eps`, `probability`, `ci_low`, `ci_high`, `chi_square`.
    """
    rows = [
        (kind, level, *clustered_share(np.abs(found - 1) > level), chi_square_failure(k, level))
        for kind, found in ratios.items()
        for level in map(float, eps)
    ]
    names = ["kind", "eps", "probability", "ci_low", "ci_high", "chi_square"]
    return pd.DataFrame(rows, columns=names)


def cheapest(table: pd.DataFrame, distortion: float) -> pd.Series | None:
    """Return the row with the least time per application among those that meet a distortion.

    It is met where the upper end of the interval of the 95 % quantile is not above it; None where
    no row meets it.
    """
    met = table[table["quantile_high"] <= distortion]
    return None if met.empty else met.sort_values("seconds").iloc[0]


def _grid(d: int) -> list[int]:
    """Return dimensions from 1 to d in steps of about nine per cent, d included."""
    steps = math.ceil(math.log(d) / math.log(_STEP))
    return sorted({min(round(_STEP**i), d) for i in range(steps + 1)} | {d})


def _first_true(holds: Callable[[int], bool], start: int, last: int) -> int | None:
    """Return the least index at which a monotone condition holds, by galloping from `start`."""
    step = 1
    if holds(start):
        high, low = start, start - 1
        while low >= 0 and holds(low):
            high, low, step = low, low - 2 * step, 2 * step
        low = max(low, -1)
    else:
        low, high = start, start + 1
        while high < last and not holds(high):
            low, high, step = high, min(high + 2 * step, last), 2 * step
        if low >= last or not holds(high):
            return None
    return low + 1 + bisect_left(range(low + 1, high), True, key=holds)


def needed_dimensions(
    sets: Mapping[str, NDArray[Any]],
    distortion: float,
    *,
    kinds: Sequence[str] = KINDS,
    draws: int = 20,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Find for every ensemble the least k that keeps 95 % of the vectors within a distortion.

    The least k on a grid (steps of nine per cent, up to d) at which the upper end of the interval
    of the 95 % quantile is at most the target in (0, 1); found by galloping from the dimension that
    a Gaussian projection needs, as the quantile falls with k. Each set of nonzero rows, all of one
    length, is measured by itself; `progress` is called with each kind when it is done.

    One row per set and ensemble: `vectors_of` (the set's name) and the columns of the table of
    `jl_ensembles` at the k found, with the target as `eps`; an ensemble that needs more than d
    rows has no numbers: projecting gains nothing. All projections are timed together, on the
    vectors of the first set.
    """
    first = next(iter(sets.values()))
    rows = []
    for name, vectors in sets.items():
        for kind in kinds:
            found = _needed(kind, vectors, distortion, draws, seed)
            rows.append({"vectors_of": name, **found})
            if progress is not None:
                progress(kind)
    columns = ["vectors_of", *_row("", 1, first[:1], np.ones((2, 1)), 0.5), "seconds", "bytes"]
    return pd.DataFrame(_with_costs(rows, first, seed)).reindex(columns=columns)


def _needed(kind: str, X: NDArray[Any], distortion: float, draws: int, seed: int) -> dict:
    """Return the row of the least k on the grid that meets the target, or one without a k."""
    d = X.shape[1]
    grid = _grid(d)
    start = int(np.searchsorted(grid, min(chi_square_dimension(distortion), d)))
    measured: dict[int, dict] = {}

    def met(place: int) -> bool:
        if place not in measured:
            ratios = jl_ratios(kind, grid[place], X, draws=draws, seed=seed)
            measured[place] = _row(kind, grid[place], X, ratios, distortion)
        return bool(measured[place]["quantile_high"] <= distortion)

    place = _first_true(met, start, len(grid) - 1)
    if place is None:
        return {"kind": kind, "d": d, "vectors": len(X), "eps": distortion}
    return measured[place]
