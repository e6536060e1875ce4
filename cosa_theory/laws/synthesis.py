"""Closed forms: what a CoSA layer of given sizes can express, keep and cost.

Sizes are those of the layer: ΔW is m × n, L is m × a, R is b × n and the core Y is a × b, with a ≤
m and b ≤ n where nothing else is said. Every function takes positive whole numbers or arrays of
them, which broadcast, and returns numbers of that shape; other arguments raise `InputError`, but
for `product_flops`, which a layer calls at every step and which checks `order` alone.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from cosa_theory.ground.checks import numbers, refuse, sizes, whole
from cosa_theory.ground.errors import InputError

__all__ = [
    "advantage_bound",
    "bai_yin_edges",
    "best_core_noise",
    "energy_law",
    "energy_variance",
    "equal_budget_rank",
    "gradient_step_squared_cosine",
    "isotropic_core_norm",
    "marchenko_pastur_edges",
    "product_flops",
    "rank_one_energy_moment",
    "rank_wall",
    "scale_gain",
    "update_noise",
]

Numbers: TypeAlias = Any  # a number, or an array of them


def layer_sizes(
    m: Numbers, n: Numbers, a: Numbers, b: Numbers, *, between: bool = False
) -> list[Any]:
    """Return the sizes of a layer as float arrays, after checking a ≤ m and b ≤ n.

    Sizes `between` whole numbers are for curves that are drawn through them.
    """
    given = {"m": m, "n": n, "a": a, "b": b}
    real = (numbers(name, size, least=1) for name, size in given.items())
    arrays = list(np.broadcast_arrays(*(real if between else sizes(**given))))
    for core, side, core_name, side_name in (
        (arrays[2], arrays[0], "a", "m"),
        (arrays[3], arrays[1], "b", "n"),
    ):
        wrong = core > side
        if np.any(wrong):
            raise InputError(
                f"{core_name} is {core[wrong][0]:g}: it must be at most {side_name} = "
                f"{side[wrong][0]:g}; more of the core is redundant",
                argument=core_name,
            )
    return arrays


def energy_law(m: Numbers, n: Numbers, a: Numbers, b: Numbers) -> Any:
    """Return ab/(mn), the mean share of ‖ΔW‖² that the best core captures.

    Exact for every fixed ΔW when the ranges of L and R are independent and rotation invariant
    (Gaussian, Haar): E[P_L] = (a/m) I, and likewise for R. Independent symmetric entries
    (Rademacher, sparse) have the same mean when the factors have full rank. More generally it is
    the mean share of any linear parametrisation whose span has ab dimensions and is turned by
    independent Haar rotations on both sides, and the mean share of a gradient's energy in the
    span of the adapter.

    References
    ----------
    docs/theory.md, 1.3, 1.4 and 5.5. B. Collins and P. Śniady, "Integration with respect to the
    Haar measure on unitary, orthogonal and symplectic group", Communications in Mathematical
    Physics 264 (2006), first moments.
    """
    m, n, a, b = layer_sizes(m, n, a, b)
    return (a * b) / (m * n)


def _projector_covariance(d: Any, k: Any) -> Any:
    """Return the B of a uniformly random projector P of rank k in dimension d.

    E[P_ij P_kl] = A δ_ij δ_kl + B (δ_ik δ_jl + δ_il δ_jk), with B = k(d−k)/(d(d−1)(d+2)) and
    A = k²/d² − 2B/d, because tr P = tr P² = k.
    """
    return k * (d - k) / (d * np.maximum(d - 1, 1) * (d + 2))  # 0 at d = 1, where k = d


def energy_variance(
    m: Numbers, n: Numbers, a: Numbers, b: Numbers, participation_ratio: Numbers
) -> Any:
    """Return the variance of the captured share ‖P_L ΔW P_R‖²/‖ΔW‖² over Gaussian or Haar draws.

    With τ = 1/PR(ΔW), B_m = a(m−a)/(m(m−1)(m+2)), A_m = a²/m² − 2B_m/m, and B_n, A_n from b and n,

        Var = A_m A_n + 2 B_m B_n + 2τ(A_m B_n + A_n B_m + B_m B_n) − (ab/mn)².

    It is evaluated with the squared mean cancelled by hand, so small variances keep their digits.

    Parameters
    ----------
    participation_ratio : float or array
        PR(ΔW) = (Σσ²)²/Σσ⁴ of its singular values, between 1 (rank one) and min(m, n) (flat).

    References
    ----------
    docs/theory.md, 1.3. Follows from the second moments of a random projector: B. Collins and P.
    Śniady, Communications in Mathematical Physics 264 (2006).
    """
    m, n, a, b = layer_sizes(m, n, a, b)
    largest = np.minimum(m, n)
    rounding = 1e-9  # a ratio computed from singular values may leave its range by rounding
    ratio = numbers("participation_ratio", participation_ratio, least=1 - rounding)
    if np.any(ratio > largest * (1 + rounding)):
        raise refuse("participation_ratio", participation_ratio, "at most min(m, n)")
    tau = 1 / np.clip(ratio, 1, largest)
    B_m, B_n = _projector_covariance(m, a), _projector_covariance(n, b)
    both = 2 + 4 / (m * n) + tau * (2 - 4 / m - 4 / n)
    left = 2 * B_m * (b / n) ** 2 * (tau - 1 / m)
    right = 2 * B_n * (a / m) ** 2 * (tau - 1 / n)
    return np.maximum(left + right + B_m * B_n * both, 0.0)


def rank_one_energy_moment(m: Numbers, n: Numbers, a: Numbers, b: Numbers, order: int = 1) -> Any:
    """Return the moment E[share^order] of the captured share of a rank-one ΔW.

    The share of u vᵀ is ‖P_L u‖² ‖P_R v‖² for unit u and v: a product of two independent
    Beta(a/2, (m−a)/2) and Beta(b/2, (n−b)/2) variables (Gaussian or Haar factors), whose moments
    are Π_{i < order} (a + 2i)(b + 2i)/((m + 2i)(n + 2i)).

    Parameters
    ----------
    order : int
        Which moment, 1 or more; the first is `energy_law`.

    References
    ----------
    docs/theory.md, 1.3. N. L. Johnson, S. Kotz and N. Balakrishnan, Continuous Univariate
    Distributions, volume 2 (1995), chapter 25: ‖P u‖² for a random projector is a beta variable.
    """
    m, n, a, b = layer_sizes(m, n, a, b)
    shift = 2 * np.arange(whole("order", order))
    return np.prod([(a + s) * (b + s) / ((m + s) * (n + s)) for s in shift], axis=0)


def rank_wall(a: Numbers, b: Numbers) -> Any:
    """Return min(a, b), the largest rank that an update L Y R can have; see docs/theory.md, 1.2."""
    sizes(a=a, b=b)
    return np.minimum(a, b)


def equal_budget_rank(m: Numbers, n: Numbers, a: Numbers, b: Numbers) -> Any:
    """Return ab/(m+n), the rank of a low-rank update with as many trainable parameters.

    A rank-r update B A trains r(m+n) numbers (Hu et al. 2022, LoRA), a core ab. The result need not
    be whole. At equal parameters the core expresses more of ΔW, on average, exactly when the share
    of energy in the top r singular values is below `energy_law`. Cores with a > m or b > n are
    allowed here. See docs/theory.md, 1.5.
    """
    m, n, a, b = sizes(m=m, n=n, a=a, b=b)
    return a * b / (m + n)


def advantage_bound(m: Numbers, n: Numbers) -> Any:
    """Return (m+n)/max(m,n) ≤ 2, the most by which a core can beat low rank at equal parameters.

    The top r singular values hold at least r/min(m, n) of the energy, and a core of r(m+n)
    parameters holds r(m+n)/(mn) on average; the bound is their quotient, reached only when all
    singular values are equal. See docs/theory.md, 1.7.
    """
    m, n = sizes(m=m, n=n)
    return (m + n) / np.maximum(m, n)


def _inverse_wishart_trace(d: Any, k: Any, side: str, core: str) -> Any:
    """Return E tr (GᵀG)⁻¹ for a Gaussian d × k matrix with entries of variance 1/d."""
    sides, sizes = np.broadcast_arrays(d, k)
    wrong = sizes >= sides - 1
    if wrong.any():
        found = float(sizes[wrong].flat[0])
        raise refuse(core, found, f"below {side} - 1, or the expectation is infinite")
    return d * k / (d - k - 1)


def best_core_noise(m: Numbers, n: Numbers, a: Numbers, b: Numbers, variance: Numbers) -> Any:
    """Return E‖Ŷ − Y‖², the error of the best core of a noisy ΔW; that in ΔW is `update_noise`.

    With Gaussian factors at synthesis scale (entries of variance 1/m and 1/n) and independent
    noise of variance v in every entry of ΔW, E‖Ŷ − Y‖² = v·ab·mn/((m−a−1)(n−b−1)). It is infinite,
    and refused, where a ≥ m − 1 or b ≥ n − 1.

    References
    ----------
    docs/theory.md, 1.9. R. J. Muirhead, Aspects of Multivariate Statistical Theory (1982), section
    3.2: the mean of an inverse Wishart matrix.
    """
    m, n, a, b = layer_sizes(m, n, a, b)
    left = _inverse_wishart_trace(m, a, "m", "a")
    right = _inverse_wishart_trace(n, b, "n", "b")
    return numbers("variance", variance, least=0) * left * right


def update_noise(a: Numbers, b: Numbers, variance: Numbers) -> Any:
    """Return v·ab, the expected squared error of L Ŷ R when every entry of ΔW has noise v.

    The noise is projected on the ab dimensions of the span, whatever the factors are, as long as
    they have full rank. See docs/theory.md, 1.9.
    """
    a, b = sizes(a=a, b=b)
    return numbers("variance", variance, least=0) * a * b


def isotropic_core_norm(m: Numbers, n: Numbers, a: Numbers, b: Numbers) -> Any:
    """Return E‖Y*‖²/‖ΔW‖² = ab/((m−a−1)(n−b−1)) for the best core of an isotropic ΔW.

    Gaussian factors at synthesis scale; ΔW has independent entries of one variance. Sizes, errors
    and reference are those of `best_core_noise`, of which this is the value at v = 1/(mn). See
    docs/theory.md, 1.9.
    """
    m, n, a, b = layer_sizes(m, n, a, b)
    return best_core_noise(m, n, a, b, 1 / (m * n))


def scale_gain(m: Numbers, n: Numbers, a: Numbers, b: Numbers) -> Any:
    """Return mn/(ab) = E‖L Y R‖²/‖Y‖² for factors at analysis scale; at synthesis scale it is 1.

    The analysis scale has entries of variance 1/a and 1/b, the synthesis scale 1/m and 1/n.
    Multiply a layer's alpha by the square root of this to carry a setting from the analysis to
    the synthesis scale. Cores with a > m or b > n are allowed here.
    """
    m, n, a, b = sizes(m=m, n=n, a=a, b=b)
    return m * n / (a * b)


def product_flops(
    m: Numbers,
    n: Numbers,
    a: Numbers,
    b: Numbers,
    tokens: Numbers,
    order: str = "through",
    *,
    training: bool = False,
    input_gradient: bool = True,
    by_left: Numbers | None = None,
    by_right: Numbers | None = None,
) -> Any:
    """Return the floating-point operations of x ↦ L(Y(R x)) on T vectors, in one of three orders.

    A multiply-add counts as two operations. Forward, with dense factors:

    - ``"through"`` the core: T·2(bn + ab + am);
    - ``"left"``, with L Y formed once: T·2b(m + n) + 2abm;
    - ``"right"``, with Y R formed once: T·2a(m + n) + 2abn.

    Training adds the gradient of the core, T·2ab, or T·2bm + 2abm with L Y formed; with Y R formed
    it is taken from R x, which is shorter to keep than x, at T·(2bn + 4ab) and nothing per step.
    The gradient of the input takes the transposed products, as dear as the forward ones. See
    docs/theory.md, 1.10.

    Parameters
    ----------
    m, n, a, b : int or array of int
        Sizes of the layer and of the core, positive.
    tokens : int or array of int
        T, the vectors of one step. The cheaper order depends on it.
    order : {"through", "left", "right"}
        Which products are formed.
    training : bool
        Whether the gradient of the core is computed.
    input_gradient : bool
        While training, whether that of the input is.
    by_left, by_right : float or array, optional
        Operations of one product with L or Lᵀ, and with R or Rᵀ, for factors that are not dense;
        by default 2am and 2bn.

    Returns
    -------
    float or array
        Operations per step; divide by T for the cost of one.
    """
    by_left = 2 * a * m if by_left is None else by_left
    by_right = 2 * b * n if by_right is None else by_right
    back = int(training)
    inner = 1 + int(training and input_gradient)  # R x, and its transpose for the gradient of x
    if order == "through":
        return tokens * (inner * by_right + 2 * a * b * (1 + 2 * back) + (1 + back) * by_left)
    if order == "left":
        formed = (1 + back) * b * by_left
        return tokens * (inner * by_right + 2 * b * m * (1 + 2 * back)) + formed
    if order == "right":
        gradient = back * (by_right + 4 * a * b)
        return tokens * (2 * a * n * inner + gradient + (1 + back) * by_left) + a * by_right
    raise refuse("order", order, "one of through, left, right")


def gradient_step_squared_cosine(
    m: Numbers, n: Numbers, a: Numbers, b: Numbers, orthonormal: bool = False
) -> Any:
    """Return the squared cosine between a gradient G and the first step of descent on the core.

    The step on a core at zero moves W along L Lᵀ G Rᵀ R, not along the projection of G. Its
    squared cosine with G is about ab/((m+a+1)(n+b+1)) for Gaussian factors (the quotient of
    (E⟨step, G⟩)² and E‖step‖² ‖G‖², which concentrates) and ab/(mn) in the mean for Haar factors,
    for which the step is a multiple of the projection.

    Parameters
    ----------
    orthonormal : bool
        Whether both factors are, as Haar's; else they are Gaussian.

    References
    ----------
    docs/theory.md, 5.5. The mean and second moment of a Wishart matrix: R. J. Muirhead, Aspects of
    Multivariate Statistical Theory (1982), section 3.2.
    """
    m, n, a, b = layer_sizes(m, n, a, b)
    if orthonormal:
        return a * b / (m * n)
    return a * b / ((m + a + 1) * (n + b + 1))


def marchenko_pastur_edges(m: Numbers, n: Numbers, variance: Numbers) -> tuple[Any, Any]:
    """Return √v|√m − √n| and √v(√m + √n), the singular values that i.i.d. noise lies between.

    Asymptotic in the sizes, for an m × n matrix of independent entries of mean zero and variance
    v; the largest singular value leaves the interval by a relative order of (m+n)^(−2/3).

    References
    ----------
    docs/theory.md, 5.2. V. A. Marchenko and L. A. Pastur, "Distribution of eigenvalues for some
    sets of random matrices", Mathematics of the USSR-Sbornik 1 (1967).
    """
    m, n = sizes(m=m, n=n)
    scale = np.sqrt(numbers("variance", variance, least=0))
    return scale * np.abs(np.sqrt(m) - np.sqrt(n)), scale * (np.sqrt(m) + np.sqrt(n))


def bai_yin_edges(m: Numbers, a: Numbers) -> tuple[Any, Any]:
    """Return 1 − √(a/m) and 1 + √(a/m), the range of singular values of L at synthesis scale.

    Asymptotic in the sizes at a fixed ratio, for m × a factors with independent entries of mean
    zero and variance 1/m. The dictionary's range is the product of those of its two factors.

    References
    ----------
    docs/theory.md, 2.1. Z. D. Bai and Y. Q. Yin, "Limit of the smallest eigenvalue of a large
    dimensional sample covariance matrix", Annals of Probability 21 (1993), 1275-1294.
    """
    m, _, a, _ = layer_sizes(m, 1, a, 1)
    root = np.sqrt(a / m)
    return 1 - root, 1 + root
