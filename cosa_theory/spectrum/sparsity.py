"""How sparse an update is, in the bases in which an adapter might hope it is."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosa_theory.ground.checks import choice, matrix, numbers, several
from cosa_theory.ground.scales import in_safe_range
from cosa_theory.linear.operators import to_host
from cosa_theory.linear.transforms import DCT, Coordinate, SingularBasis, Transform

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BASES", "sparsity_profile"]

BASES = ("coordinate", "dct", "singular")


def sparsity_profile(
    delta: ArrayLike,
    base: ArrayLike | None = None,
    bases: Sequence[str] = BASES,
    fractions: Sequence[float] = (0.001, 0.01, 0.1, 0.5),
) -> "pd.DataFrame":
    """Measure the sparsity of an update in several orthonormal bases.

    With x the N = mn coefficients of ΔW in a basis, and |x|_(1) ≥ |x|_(2) ≥ … their magnitudes:
    numerical sparsity ‖x‖₁² / ‖x‖₂², from 1 to N; Gini index 1 − 2 Σ_k (|x|_(k) / ‖x‖₁)(k − ½)/N,
    from 0 (all equal) to 1 − 1/N (one non-zero) [1]_; best s-term error σ_s(x)₁ / ‖x‖₁, the share
    of the ℓ1 norm outside the s largest; weak-ℓp exponent, the p of the decay |x|_(k) ∝ k^(−1/p)
    fitted to the largest tenth (compressible for p < 1; inf for equal magnitudes, 0 for a single
    non-zero). All are free of scale. Independent Gaussian entries have numerical sparsity (2/π) N
    and Gini index √2 − 1 = 0.414 in every basis. See docs/theory.md, 5.4.

    Parameters
    ----------
    delta : array of shape (m, n)
        The update ΔW, a numpy array or torch tensor.
    base : array of shape (m, n), optional
        The weight W it updates; needed by the basis "singular", which is left out without it.
    bases : sequence of {"coordinate", "dct", "singular"}
        Entries, two-dimensional cosine transform, singular basis of W (`linear.transforms`).
    fractions : sequence of float in (0, 1]
        Where to give the best s-term error: s = ⌈fraction · mn⌉.

    Returns
    -------
    pandas.DataFrame
        One row per basis, with the columns `basis`, `entries` (N = mn), `numerical_sparsity`,
        `numerical_sparsity_share` (divided by N), `gini`, `weak_lp`, and one column
        `best_term_error_F` for each fraction F. All null for a zero update.

    Raises
    ------
    InputError
        If a matrix is empty or not finite, the shapes differ, or a basis or fraction is not one
        of those above.

    References
    ----------
    .. [1] N. Hurley, S. Rickard, "Comparing measures of sparsity", IEEE Trans. Information Theory
       55 (2009).
    """
    import pandas as pd

    bases = [choice("bases", name, BASES) for name in several("bases", bases)]
    fractions = several("fractions", fractions)
    numbers("fractions", fractions, above=0, most=1)
    transforms: dict[str, Transform] = {"coordinate": Coordinate(), "dct": DCT()}
    delta = matrix("delta", to_host(delta))
    if base is not None and "singular" in bases:
        transforms["singular"] = SingularBasis(matrix("base", to_host(base), delta.shape))
    delta, _ = in_safe_range(delta)  # the measures are free of scale
    rows = [
        {"basis": name, **_measures(transforms[name].forward(delta), fractions)}
        for name in bases
        if name in transforms
    ]
    return pd.DataFrame(rows)


def _measures(coefficients: NDArray[Any], fractions: Sequence[float]) -> dict[str, float | None]:
    """Return all measures of one array of coefficients, sorting it once."""
    size = coefficients.size
    errors = {f"best_term_error_{fraction:g}": fraction for fraction in fractions}
    names = ("numerical_sparsity", "numerical_sparsity_share", "gini", "weak_lp", *errors)
    row: dict[str, float | None] = {"entries": size}
    magnitudes = _sorted_magnitudes(coefficients)
    if magnitudes[-1] == 0.0:
        return row | dict.fromkeys(names)
    magnitudes /= magnitudes[-1]  # so that no square underflows; every measure is free of scale
    sums = np.cumsum(magnitudes, dtype=np.float64)  # sums[k - 1] holds the k smallest
    sparsity = float(sums[-1] ** 2 / np.sum(magnitudes**2, dtype=np.float64))
    row["numerical_sparsity"] = sparsity
    row["numerical_sparsity_share"] = sparsity / size
    row["gini"] = float(1.0 + 1.0 / size - 2.0 * np.sum(sums) / (size * sums[-1]))
    row["weak_lp"] = _weak_lp(magnitudes)
    for name, fraction in errors.items():
        left_out = size - math.ceil(fraction * size)
        row[name] = float(sums[left_out - 1] / sums[-1]) if left_out else 0.0
    return row


def _sorted_magnitudes(x: NDArray[Any]) -> NDArray[Any]:
    """Return |x| as a vector in ascending order."""
    magnitudes = np.abs(x).ravel()
    magnitudes.sort()
    return magnitudes


def _weak_lp(magnitudes: NDArray[Any]) -> float:
    """Fit p in |x|_(k) ∝ k^(−1/p) by least squares in log-log, evenly over the log of the rank."""
    last = min(max(2, math.ceil(magnitudes.size / 10)), int(np.count_nonzero(magnitudes)))
    if last == 1:
        return 0.0  # a single non-zero decays faster than any power
    ranks = np.unique(np.rint(np.geomspace(1, last, 64)).astype(np.int64))
    slope = np.polyfit(np.log(ranks), np.log(magnitudes[-ranks].astype(np.float64)), 1)[0]
    return float(-1.0 / slope) if slope < -1e-12 else math.inf
