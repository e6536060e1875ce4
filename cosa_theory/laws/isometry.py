"""Closed forms of restricted isometry: composition, limits that sizes set, and sharp thresholds.

Sizes are those of the layer: ΔW is m × n, L is m × a, R is b × n. Ψ = L ⊗ Rᵀ is the tall dictionary
and Φ = Lᵀ ⊗ R the wide sensing operator; each function says which one it is about. Sizes are
positive whole numbers or arrays of them; an argument out of its range raises `InputError`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cosa_theory.ground.checks import choice, numbers, sizes, whole
from cosa_theory.laws.synthesis import Numbers, bai_yin_edges

__all__ = [
    "RIP_ALGORITHMS",
    "dictionary_edges",
    "kronecker_rip_upper",
    "measurement_bound",
    "rip_condition",
    "scale_free_constant",
    "spark_wall",
    "uniform_sparsity_limit",
]

RIP_ALGORITHMS = ("basis_pursuit", "omp", "iht", "htp", "cosamp")
"""Names of the algorithms that `rip_condition` knows."""


def kronecker_rip_upper(delta_a: Numbers, delta_b: Numbers) -> Any:
    """Return (1 + δ_s(A))(1 + δ_s(B)) − 1, which δ_s(A ⊗ B) never exceeds.

    Parameters
    ----------
    delta_a, delta_b : float or array
        The factors' constants of one order, or upper bounds of them.

    References
    ----------
    docs/theory.md, 2.2. S. Jokar, V. Mehrmann, "Sparse solutions to underdetermined Kronecker
    product systems", Linear Algebra and its Applications 431 (2009); M. F. Duarte, R. G. Baraniuk,
    "Kronecker compressive sensing", IEEE Trans. Image Processing 21 (2012).
    """
    first, second = numbers("delta_a", delta_a, least=0), numbers("delta_b", delta_b, least=0)
    return first + second + first * second


def measurement_bound(s: Numbers, m: Numbers, n: Numbers) -> Any:
    """Return s·ln max(m, n), the rows that the smaller factor of Φ needs for order-s isometry.

    With independent sub-Gaussian factors Lᵀ (a × m) and R (b × n), Φ = Lᵀ ⊗ R has a small δ_s with
    high probability once min(a, b) is of this order. The factor before it depends on the constant
    and the probability wanted and is not known: this is an order of magnitude, not a guarantee.

    References
    ----------
    docs/theory.md, 2.5. Y. He, G. Joseph, "On the restricted isometry property of
    Kronecker-structured matrices", arXiv 2409.08699v1 (2024).
    """
    order, m, n = sizes(s=s, m=m, n=n)
    return order * np.log(np.maximum(m, n))


def spark_wall(a: Numbers, b: Numbers) -> Any:
    """Return min(a, b) + 1, which the spark of Φ = Lᵀ ⊗ R cannot exceed where a < m and b < n.

    spark(A ⊗ B) = min(spark A, spark B), and a factor with k rows and more columns has a spark of
    at most k + 1. The dependent columns lie in one column of ΔW (limited by a) or one row (by b).

    References
    ----------
    docs/theory.md, 2.3. S. Jokar, V. Mehrmann, Linear Algebra and its Applications 431 (2009).
    """
    a, b = sizes(a=a, b=b)
    return np.minimum(a, b) + 1


def uniform_sparsity_limit(a: Numbers, b: Numbers) -> Any:
    """Return ⌊min(a, b)/2⌋: no method finds every update with more nonzero entries from its core.

    Every s-sparse ΔW is the only one with its measurements Lᵀ ΔW Rᵀ exactly when 2s < spark(Φ), and
    the spark is at most `spark_wall`; a core of ab unstructured measurements would allow ab/2.

    References
    ----------
    docs/theory.md, 2.3. D. L. Donoho, M. Elad, PNAS 100 (2003), for uniqueness by the spark.
    """
    return np.floor((spark_wall(a, b) - 1) / 2)


def scale_free_constant(least: float, greatest: float) -> float:
    """Return (κ² − 1)/(κ² + 1), κ² = greatest/least: the constant after the best rescaling.

    Multiplying A by c turns both ends of ‖Ax‖²/‖x‖² into c² times themselves; the larger of their
    distances from 1 is least where c² is 2/(least + greatest). See docs/theory.md, 2.1.

    Parameters
    ----------
    least, greatest : float
        Both ends of ‖Ax‖²/‖x‖². Ends that changed places give 0, two zeros give 1.
    """
    return max((greatest - least) / (greatest + least), 0.0) if greatest > 0 else 1.0


def dictionary_edges(*factors: tuple[Numbers, Numbers]) -> tuple[Any, Any]:
    """Return the range of the singular values of Ψ = L ⊗ Rᵀ for large factors.

    They are the products of those of its factors, so at synthesis scale they fill
    [(1 − √(a/m))(1 − √(b/n)), (1 + √(a/m))(1 + √(b/n))] asymptotically, for factors with
    independent entries; at analysis scale they are √(mn/(ab)) times as large. Over all cores, dense
    ones included, δ = max(greatest² − 1, 1 − least²). Factors with orthonormal columns give 0.

    Parameters
    ----------
    *factors : (int or array of int, int or array of int)
        Rows and columns (m, a) and (n, b) of L and of Rᵀ; a factor that is an identity is left out.

    References
    ----------
    docs/theory.md, 2.1. R. A. Horn, C. R. Johnson, "Topics in Matrix Analysis" (1991), theorem
    4.2.15, for the products; Z. D. Bai, Y. Q. Yin, Annals of Probability 21 (1993), 1275-1294, for
    one factor.
    """
    low, high = 1.0, 1.0
    for rows, columns in factors:
        edges = bai_yin_edges(rows, columns)
        low, high = low * edges[0], high * edges[1]
    return low, high


def rip_condition(algorithm: str, s: int) -> tuple[int, float]:
    """Return k and t such that δ_k < t lets an algorithm find every s-sparse vector.

    See docs/theory.md, 2.7.

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
    s = whole("s", s)
    conditions = {
        "basis_pursuit": (2 * s, math.sqrt(1 / 2)),
        "omp": (s + 1, 1 / math.sqrt(s + 1)),
        "iht": (3 * s, math.sqrt(1 / 3)),
        "htp": (3 * s, math.sqrt(1 / 3)),
        "cosamp": (4 * s, 0.5),
    }
    return conditions[choice("algorithm", algorithm, RIP_ALGORITHMS)]
