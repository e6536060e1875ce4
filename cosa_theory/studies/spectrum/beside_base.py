"""What a survey says of updates beside their weights: each number with its null."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from cosa_theory.page.views import MISSING, Column, View, number, percent
from cosa_theory.spectrum.intruders import EXAMINED, THRESHOLD
from cosa_theory.spectrum.overlap import DIRECTIONS, PRINCIPAL

__all__ = ["BASE_TERMS", "LARGEST_SIDE", "base_notices", "base_view", "is_decomposed"]

LARGEST_SIDE = 1024
"""The short side up to which a survey decomposes weights: beyond, that takes far longer than all
spectra together (the singular vectors of W, and five random updates for the null)."""


def is_decomposed(m: int, n: int) -> bool:
    """Return whether a survey measures intruders and overlaps of a matrix of this shape."""
    return min(m, n) <= LARGEST_SIDE


def _range(name: str, show: Callable[[Any], str]) -> Callable[[Mapping[Any, Any]], str]:
    """Return a cell with the range that a null has over its draws."""

    def cell(row: Mapping[Any, Any]) -> str:
        low, high = (show(row[f"{name}_null_{end}"]) for end in ("low", "high"))
        return low if low == high else f"{low}–{high}"

    return cell


def _expected(name: str) -> Callable[[Mapping[Any, Any]], str]:
    """Return a cell with the mean of a null and its standard deviation."""

    def cell(row: Mapping[Any, Any]) -> str:
        mean, sd = percent(row[f"{name}_null"]), row[f"{name}_null_sd"]
        return mean if mean == MISSING else f"{mean} ± {100 * sd:.1f}"

    return cell


def _count(value: Any) -> str:
    return MISSING if pd.isna(value) else f"{value:g}"


_LEADING = f"of the {EXAMINED} leading left singular vectors of W + ΔW"
_RANDOM = "the same for ΔW of these singular values in random directions, five draws"
_PLACED = f"share of the {DIRECTIONS} leading {{}} directions of ΔW in the top {PRINCIPAL:.0%} of W"
_MEAN = "mean and standard deviation for random directions"
_COLUMNS = (
    Column("layer", "layer", text=True),
    Column(
        "intruders",
        "intruders",
        f"{_LEADING}, those with no left singular vector of W at a cosine of {THRESHOLD} or more",
        _count,
    ),
    Column(None, "random", _RANDOM, _range("intruders", _count)),
    Column("lowest_cosine", "cosine", f"{_LEADING}, the least best cosine", number),
    Column(None, "random", _RANDOM, _range("lowest_cosine", number)),
    Column("left_overlap", "left", _PLACED.format("left"), percent),
    Column(None, "random", _MEAN, _expected("left_overlap")),
    Column("right_overlap", "right", _PLACED.format("right"), percent),
    Column(None, "random", _MEAN, _expected("right_overlap")),
    Column("zero_share", "zeros", "share of the entries of ΔW that are zero", percent),
    Column(
        "bf16_lost_share",
        "lost in bf16",
        "share of the entries that vanish where weights are stored in bfloat16, zeros included",
        percent,
    ),
    Column("bf16_lost_null", "dense", "the same for normal entries of this size", percent),
)


def base_view(layers: pd.DataFrame) -> View:
    """Return one row per layer, and one of the medians over those that changed."""
    rows = layers.to_dict("records")
    if len(rows) > 1:
        medians = layers[layers["sigma_max"] > 0].median(numeric_only=True)
        rows.append({"layer": "median", **medians.to_dict()})
    return View.of("Every layer, beside its weight W", _COLUMNS, rows)


def base_notices(layers: pd.DataFrame) -> Iterator[str]:
    """Say where an update is not what its size alone explains, and what was not measured."""
    more = layers[layers["intruders"] > layers["intruders_null_high"]]
    if len(more):
        yield (
            f"{len(more)} of {layers['intruders'].count()} updates bring more intruder dimensions "
            f"than random ones of their singular values ({', '.join(more['layer'][:3])}"
            f"{', …' if len(more) > 3 else ''})."
        )
    in_bf16 = (layers[["base_dtype", "tuned_dtype"]] == "bfloat16").all(axis=1)
    stored = layers[in_bf16 & (layers["sigma_max"] > 0)]
    if len(stored):
        zeros, dense = (stored[name].median() for name in ("zero_share", "bf16_lost_null"))
        yield (
            f"Weights stored in bfloat16 ({len(stored)} matrices): {percent(zeros)} of the "
            f"update's entries are zero (median), where rounding leaves {percent(dense)} of a "
            "dense update of this size."
        )
    large = layers[layers[["m", "n"]].min(axis=1) > LARGEST_SIDE]
    if len(large):
        yield (
            f"No intruder dimensions or overlaps of {len(large)} "
            f"matri{'x' if len(large) == 1 else 'ces'} with both sides above {LARGEST_SIDE:,}, "
            "which would take longer than all else: cosa_theory.spectrum.summarize(delta, "
            "base=base) measures any one."
        )


BASE_TERMS = (
    (
        "Intruder dimensions",
        f"Leading left singular vectors of W + ΔW ({EXAMINED} are looked at) whose absolute cosine "
        f"with every left singular vector of W is below {THRESHOLD} (Shuttleworth et al., arXiv "
        "2410.21228). Every large update has them: the null is an update with the same singular "
        "values and Haar-random directions, drawn five times.",
    ),
    (
        "Principal and off-principal",
        f"How much of the {DIRECTIONS} leading singular directions of ΔW lies in the span of the "
        f"leading ones of W, a tenth of the short side: ‖UₖᵀUᵣ‖²/r. The rest is off-principal. "
        "Random directions have k/m on the left and k/n on the right.",
    ),
    (
        "Zeros, and zeros of bfloat16",
        "An entry below half the spacing of bfloat16 at its weight vanishes where weights are "
        "stored so. The null is a dense update of the same size, with normal entries independent "
        "of W: an update is sparse where more entries vanish than of that one.",
    ),
)
