"""The noise floor of a spectrum: a Marchenko-Pastur law fitted to its median."""

import math

import numpy as np
from numpy.typing import NDArray

from cosa_theory.laws import marchenko_pastur_edges
from cosa_theory.laws.noise import marchenko_pastur_cdf, marchenko_pastur_median

__all__ = ["noise_misfit", "noise_sd", "spike_level"]

# 99 % quantile of the Tracy-Widom law of order one.
_TRACY_WIDOM_99 = 2.0234


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
