"""Recovery with a prior: the mean of ΔW given its measurements, if its rows are of covariance C."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import real_matrix
from cosa_theory.projections import SecondMoments
from cosa_theory.recovery.constraint import flat_norms
from cosa_theory.recovery.methods import solver
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.system import Floats, System

__all__ = ["prior"]

_FLAT = "without moments the prior knows nothing: all directions are alike to it"


def _moments(value: Any) -> SecondMoments:
    return (
        value if isinstance(value, SecondMoments) else SecondMoments(real_matrix("moments", value))
    )


@solver(
    8,
    seeks="posterior mean",
    on_update=True,
    exact=True,
    checks={"moments": _moments},
    look=("purple", "-", "P"),
)
def prior(
    system: System,
    Y: NDArray[Any],
    *,
    noise_level: float = 0.0,
    moments: SecondMoments | None = None,
    tolerance: float | None = None,
) -> Solution:
    """Return the posterior mean of ΔW, for rows of ΔW that are independent N(0, τ² C).

    With Φ = A ⊗ B and γ the variance of a measurement's noise over τ² it is X = Aᵀ W B C, where W
    solves (AAᵀ) W (B C Bᵀ) + γ W = Y: the minimiser of ‖A X Bᵀ − Y‖² + γ tr(X C⁻¹ Xᵀ). The prior's
    scale is that of the measurements, τ² = (‖Y‖² − σ²)/(tr(AAᵀ) tr(B C Bᵀ)), and γ is σ²/(τ² M) for
    M measurements; without noise neither matters. C is regularised (`SecondMoments.weighed`), so
    directions that no input has are taken last. Computed in float64.

    Parameters
    ----------
    moments : array (n × n) or SecondMoments, optional
        C of the layer's inputs, at any scale; by default the identity, with which it is the least
        norm, or a ridge.
    tolerance : float, optional
        Of the norm of the normal equations over that of their operator times ‖y‖, in the metric of
        C: ‖Φᵀ(Φx − y + γw)C^(1/2)‖/(‖A‖ ‖B C^(1/2)‖ ‖y‖). By default 1e4 rounding units, 2e-12.

    Returns
    -------
    Solution
        Certificate "normal equations".

    References
    ----------
    docs/theory.md, 7.4. A. M. Stuart, "Inverse problems: a Bayesian perspective", Acta Numerica 19
    (2010), section 2.
    """
    A, B = system.factors
    Y = Y.astype(np.float64)
    weighed = _weighing(moments, B.shape[1])
    seen = weighed(B)
    (left, U), (right, V) = _spectrum(A @ A.T), _spectrum(seen @ B.T)
    norms = flat_norms(Y)
    scale = (norms**2 - noise_level**2) / (left.sum() * right.sum())
    damping = noise_level**2 / (scale * system.measurements)
    gains = np.multiply.outer(left, right) + damping[:, None, None]
    weights = U @ np.divide(U.T @ Y @ V, gains, out=np.zeros_like(Y), where=gains > 0) @ V.T
    X = A.T @ weights @ seen
    residual = system.apply(X) - Y
    gradient = system.apply_adjoint(residual + damping[:, None, None] * weights)
    in_metric = np.sum(np.stack([weighed(one) for one in gradient]) * gradient, axis=(1, 2))
    normal = np.sqrt(np.maximum(in_metric, 0))
    if tolerance is None:
        tolerance = 1e4 * float(np.finfo(np.float64).eps)
    size = np.sqrt(left.max() * right.max()) * norms
    certificate = Certificate("normal equations", normal, normal / size, tolerance)
    cost = np.sum(system.apply_adjoint(weights) * X, axis=(1, 2))
    noisy = noise_level > 0
    return Solution(
        coefficients=X,
        objective=0.5 * flat_norms(residual) ** 2 + 0.5 * damping * cost,
        formula="½‖Φx − y‖²"
        + (" + ½γ tr(ΔW C⁻¹ ΔWᵀ)" if noisy else ", and tr(ΔW C⁻¹ ΔWᵀ) among its minimisers"),
        certificate=certificate,
        status=tuple("optimal" if held else "stalled" for held in certificate.holds),
        iterations=np.zeros(len(Y), np.int64),
        message=_FLAT if moments is None else "",
    )


def _weighing(moments: SecondMoments | None, n: int) -> Any:
    """Return what multiplies rows of length n by C."""
    return np.asarray if moments is None else SecondMoments.of(moments, n).weighed


def _spectrum(gram: Floats) -> tuple[Floats, Floats]:
    """Return eigenvalues, those of rounding as zero, and eigenvectors."""
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    noise = len(values) * np.finfo(np.float64).eps * values[-1]
    return np.where(values > noise, values, 0.0), vectors
