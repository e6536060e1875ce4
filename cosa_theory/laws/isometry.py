"""Closed forms of restricted isometry: composition, limits that sizes set, and sharp thresholds.

Sizes are those of the layer: ΔW is m × n, L is m × a, R is b × n. Ψ = L ⊗ Rᵀ is the tall dictionary
and Φ = Lᵀ ⊗ R the wide sensing operator; each function says which one it is about.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np

from cosa_theory.laws.synthesis import bai_yin_edges, scale_gain

__all__ = [
    "RIP_ALGORITHMS",
    "best_scale_constant",
    "core_constant",
    "kronecker_rip_upper",
    "measurement_bound",
    "rip_condition",
    "spark_wall",
    "uniform_sparsity_limit",
]

Numbers: TypeAlias = Any  # a number, or an array of them

RIP_ALGORITHMS = ("basis_pursuit", "omp", "iht", "htp", "cosamp")
"""Names of the algorithms that `rip_condition` knows."""


def _whole(**sizes: Numbers) -> list[Any]:
    arrays = []
    for name, size in sizes.items():
        array = np.asarray(size, dtype=np.float64)
        if not np.all((array >= 1) & (array == np.floor(array)) & np.isfinite(array)):
            raise ValueError(f"{name} must be a positive whole number, got {size}")
        arrays.append(array)
    return arrays


def _constants(**deltas: Numbers) -> list[Any]:
    arrays = []
    for name, delta in deltas.items():
        array = np.asarray(delta, dtype=np.float64)
        if not np.all(array >= 0):
            raise ValueError(f"{name} must be zero or positive, got {delta}")
        arrays.append(array)
    return arrays


def kronecker_rip_upper(delta_a: Numbers, delta_b: Numbers) -> Any:
    """Return (1 + δ_s(A))(1 + δ_s(B)) − 1, which δ_s(A ⊗ B) never exceeds.

    Parameters
    ----------
    delta_a, delta_b : float or array
        The factors' constants of one order, or upper bounds of them.

    Raises
    ------
    ValueError
        If one is negative or NaN.

    References
    ----------
    S. Jokar, V. Mehrmann, "Sparse solutions to underdetermined Kronecker product systems", Linear
    Algebra and its Applications 431 (2009); M. F. Duarte, R. G. Baraniuk, "Kronecker compressive
    sensing", IEEE Trans. Image Processing 21 (2012).
    """
    first, second = _constants(delta_a=delta_a, delta_b=delta_b)
    return first + second + first * second


def measurement_bound(s: Numbers, m: Numbers, n: Numbers, constant: float = 1.0) -> Any:
    """Return C·s·ln max(m, n), the rows that the smaller factor of Φ needs for order-s isometry.

    With independent sub-Gaussian factors Lᵀ (a × m) and R (b × n), Φ = Lᵀ ⊗ R has a small δ_s with
    high probability once min(a, b) is of this order. C depends on the constant and the probability
    wanted and is not known; with C = 1 this is an order of magnitude, not a guarantee.

    Parameters
    ----------
    s : int or array of int
        The order.
    m, n : int or array of int
        Sizes of the update.
    constant : float
        C, positive.

    Raises
    ------
    ValueError
        If a size is not a positive whole number or the constant is not positive.

    References
    ----------
    Y. He, G. Joseph, "On the restricted isometry property of Kronecker-structured matrices", arXiv
    2409.08699v1 (2024).
    """
    if not constant > 0:
        raise ValueError(f"constant must be positive, got {constant}")
    order, m, n = _whole(s=s, m=m, n=n)
    return constant * order * np.log(np.maximum(m, n))


def spark_wall(a: Numbers, b: Numbers) -> Any:
    """Return min(a, b) + 1, which the spark of Φ = Lᵀ ⊗ R cannot exceed where a < m and b < n.

    spark(A ⊗ B) = min(spark A, spark B), and a factor with k rows and more columns has a spark of
    at most k + 1. The dependent columns lie in one column of ΔW (limited by a) or one row (by b).

    Raises
    ------
    ValueError
        If a size is not a positive whole number.

    References
    ----------
    S. Jokar, V. Mehrmann, Linear Algebra and its Applications 431 (2009).
    """
    a, b = _whole(a=a, b=b)
    return np.minimum(a, b) + 1


def uniform_sparsity_limit(a: Numbers, b: Numbers) -> Any:
    """Return ⌊min(a, b)/2⌋: no method finds every update with more nonzero entries from its core.

    Every s-sparse ΔW is the only one with its measurements Lᵀ ΔW Rᵀ exactly when 2s < spark(Φ), and
    the spark is at most `spark_wall`; a core of ab unstructured measurements would allow ab/2.

    Raises
    ------
    ValueError
        If a size is not a positive whole number.

    References
    ----------
    D. L. Donoho, M. Elad, PNAS 100 (2003), for uniqueness by the spark.
    """
    return np.floor((spark_wall(a, b) - 1) / 2)


def best_scale_constant(condition: Numbers) -> Any:
    """Return (κ² − 1)/(κ² + 1), the isometry constant of a matrix after its best rescaling.

    Parameters
    ----------
    condition : float or array
        κ ≥ 1, the quotient of the largest and the least singular value; infinity gives 1.

    Raises
    ------
    ValueError
        If a condition number is below 1 or NaN.
    """
    inverse = 1.0 / np.asarray(condition, dtype=np.float64)
    if not np.all((inverse >= 0) & (inverse <= 1)):
        raise ValueError(f"condition must be at least 1, got {condition}")
    return (1 - inverse**2) / (1 + inverse**2)


def core_constant(
    m: Numbers,
    n: Numbers,
    a: Numbers,
    b: Numbers,
    scale: Literal["synthesis", "analysis"] = "synthesis",
) -> Any:
    """Return the isometry constant of Ψ over all cores, dense ones included, for large factors.

    At synthesis scale the singular values of Ψ = L ⊗ Rᵀ fill [(1 − √(a/m))(1 − √(b/n)),
    (1 + √(a/m))(1 + √(b/n))] asymptotically, for factors with independent entries; at analysis
    scale they are √(mn/(ab)) times as large. Factors with orthonormal columns give 0 instead.

    Parameters
    ----------
    m, n, a, b : int or array of int
        Sizes of the layer and of the core, a ≤ m and b ≤ n.
    scale : {"synthesis", "analysis"}
        Entries of variance 1/m and 1/n, or 1/a and 1/b.

    Returns
    -------
    float or array
        max(greatest² − 1, 1 − least²).

    Raises
    ------
    ValueError
        If the sizes are not admissible or the scale is unknown.

    References
    ----------
    Z. D. Bai, Y. Q. Yin, Annals of Probability 21 (1993), 1275-1294.
    """
    if scale not in ("synthesis", "analysis"):
        raise ValueError(f"scale is {scale!r}: it must be synthesis or analysis")
    (low_L, high_L), (low_R, high_R) = bai_yin_edges(m, a), bai_yin_edges(n, b)
    gain = scale_gain(m, n, a, b) if scale == "analysis" else 1.0
    return np.maximum(gain * (high_L * high_R) ** 2 - 1, 1 - gain * (low_L * low_R) ** 2)


def rip_condition(algorithm: str, s: int) -> tuple[int, float]:
    """Return k and t such that δ_k < t lets an algorithm find every s-sparse vector.

    =============  =======  ==========  ==============================================
    algorithm      order    threshold   known to be sharp
    =============  =======  ==========  ==============================================
    basis_pursuit  2s       1/√2        yes [1]_
    omp            s + 1    1/√(s + 1)  yes, in s steps [2]_
    iht, htp       3s       1/√3        no; unit step, so the scale matters [3]_
    cosamp         4s       1/2         no [4]_
    =============  =======  ==========  ==============================================

    Parameters
    ----------
    algorithm : str
        One of `RIP_ALGORITHMS`.
    s : int
        The number of nonzero entries.

    Raises
    ------
    ValueError
        If the algorithm is unknown or s is not a positive whole number.

    References
    ----------
    .. [1] T. T. Cai, A. Zhang, "Sparse representation of a polytope and recovery of sparse signals
       and low-rank matrices", IEEE Trans. Information Theory 60 (2014), 122-132.
    .. [2] Q. Mo, "A sharp restricted isometry constant bound of orthogonal matching pursuit", arXiv
       1501.01708 (2015).
    .. [3] S. Foucart, "Hard thresholding pursuit: an algorithm for compressive sensing", SIAM J.
       Numerical Analysis 49 (2011), 2543-2563; S. Foucart, H. Rauhut, "A mathematical introduction
       to compressive sensing" (2013), chapter 6.
    .. [4] C.-B. Song, S.-T. Xia, X.-J. Liu, "Improved analyses for SP and CoSaMP algorithms in
       terms of restricted isometry constants", arXiv 1309.6073 (2013).
    """
    _whole(s=s)
    conditions = {
        "basis_pursuit": (2 * s, math.sqrt(1 / 2)),
        "omp": (s + 1, 1 / math.sqrt(s + 1)),
        "iht": (3 * s, math.sqrt(1 / 3)),
        "htp": (3 * s, math.sqrt(1 / 3)),
        "cosamp": (4 * s, 0.5),
    }
    if algorithm not in conditions:
        raise ValueError(
            f"algorithm is {algorithm!r}: it must be one of {', '.join(RIP_ALGORITHMS)}"
        )
    return conditions[algorithm]
