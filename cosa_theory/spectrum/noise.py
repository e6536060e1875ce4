"""The noise floor of a spectrum: a Marchenko-Pastur law fitted to its median."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.laws import marchenko_pastur_edges
from cosa_theory.laws.noise import marchenko_pastur_cdf, marchenko_pastur_median

__all__ = ["beyond_rounding", "noise_misfit", "noise_sd", "relative_rounding", "spike_level"]

# 99 % quantile of the Tracy-Widom law of order one.
_TRACY_WIDOM_99 = 2.0234
# Times the median of rounding, up to which that of a tail may be nothing else: an update twice as
# large as its rounding in every direction has 1.6.
_LIKE_ROUNDING = 1.5
# Errors grow with the entries, so those of uneven rows reach beyond the edge of even ones, by up to
# this factor; a rank shows there as a gap as wide as this ratio.
_UNEVEN, _GAP = 4.0, 1.5


def noise_sd(sigma: NDArray[np.float64], shape: tuple[int, int]) -> float:
    """Return the noise level that explains the median singular value of an m × n matrix.

    median(σ) / √(max(m, n) · μ_β), a standard deviation per entry, with μ_β the median of the
    Marchenko-Pastur law of ratio β = min(m, n) / max(m, n) (M. Gavish, D. L. Donoho, IEEE Trans.
    Information Theory 60 (2014), section III.E). `sigma` is the whole spectrum. A few large values
    leave the level almost unmoved.
    """
    ratio = min(shape) / max(shape)
    return float(np.median(sigma) / math.sqrt(max(shape) * marchenko_pastur_median(ratio)))


def spike_level(shape: tuple[int, int], noise: float) -> float:
    """Return the level that the largest singular value of m × n noise exceeds in 1 % of draws.

    For independent entries of standard deviation `noise`, in their units:
    noise · √(μ + 2.02 s) with μ = (√(m−½) + √(n−½))², s = √μ (1/√(m−½) + 1/√(n−½))^(1/3), and 2.02
    the 99 % quantile of the Tracy-Widom law: above √m + √n by 0.2 % at 4096 × 4096, 1 % at
    384 × 384.

    Sources: I. M. Johnstone, Annals of Statistics 29 (2001); for the halves Z. Ma, "Accuracy of the
    Tracy-Widom limits for the extreme eigenvalues in white Wishart matrices", Bernoulli 18 (2012).
    """
    m, n = (math.sqrt(size - 0.5) for size in shape)
    spread = (m + n) * (1.0 / m + 1.0 / n) ** (1.0 / 3.0)
    return noise * math.sqrt((m + n) ** 2 + _TRACY_WIDOM_99 * spread)


def relative_rounding(dtype: Any) -> float:
    """Return the error of storing numbers in a numpy or torch type, relative to them, rms of both.

    √(1/(8 ln 2)) · u ≈ 0.42 u with the unit roundoff u; 0 for whole numbers. See docs/theory.md,
    5.2.
    """
    if isinstance(dtype, np.dtype):
        eps = float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
    else:
        import torch

        eps = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    return eps / 2 / math.sqrt(8 * math.log(2))


def beyond_rounding(sigma: NDArray[np.float64], shape: tuple[int, int], rounding_rms: float) -> int:
    """Return how many singular values rounding errors of this size do not explain.

    With k of the min(m, n) values (descending) above the `spike_level` of such errors: all that
    are not zero, if the others lie higher, by their median, than those of (m − k) × (n − k)
    independent errors would. Else k, or those before a gap between that level and four times as
    much. So a low-rank update merged into stored weights has its own rank, and a full update keeps
    the values that happen to be small.
    """
    level = spike_level(shape, rounding_rms)
    most = int(np.count_nonzero(sigma > level))
    rest = sigma[most:]
    if rounding_rms == 0 or rest.size == 0:
        return int(np.count_nonzero(sigma))
    explained = noise_sd(rest, (shape[0] - most, shape[1] - most))
    if explained > _LIKE_ROUNDING * rounding_rms:
        return int(np.count_nonzero(sigma))
    least = int(np.count_nonzero(sigma > _UNEVEN * level))
    bounded = np.concatenate([[_UNEVEN * level], sigma[least:most], [level]])
    gaps = bounded[:-1] / np.maximum(bounded[1:], math.ulp(0))
    return least + int(np.argmax(gaps)) if gaps.max() > _GAP else most


def noise_misfit(sigma: NDArray[np.float64], shape: tuple[int, int], noise: float) -> float:
    """Return how far the bulk of a whole spectrum is from that of independent noise.

    The Kolmogorov-Smirnov distance between the values up to noise · (√m + √n) and the
    Marchenko-Pastur law of the same shape and noise level (positive, as from `noise_sd`): from 0
    (the law itself) to 1 (also where no value lies below the edge).
    """
    edge = noise * marchenko_pastur_edges(*shape, 1.0)[1]
    bulk = np.sort(sigma[sigma <= edge])
    if bulk.size == 0:
        return 1.0
    law = marchenko_pastur_cdf((bulk / noise) ** 2 / max(shape), min(shape) / max(shape))
    steps = np.arange(bulk.size + 1) / bulk.size
    return float(max(np.max(steps[1:] - law), np.max(law - steps[:-1])))
