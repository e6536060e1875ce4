"""Recovery in closed form: the least-norm update, and the best core."""

from __future__ import annotations

from typing import Any

import numpy as np

from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.constraint import flat_norms
from cosa_theory.recovery.methods import solver
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.system import System

__all__ = ["least_norm"]

_IGNORED = "the noise level is not used: noise is fitted as well as it can be"


@solver(2, name="best_core", arrays="any", seeks="least norm", exact=True)
@solver(1, arrays="any", seeks="least norm", exact=True, look=("grey", "--", ""))
def least_norm(
    system: System, Y: Any, *, noise_level: float = 0.0, tolerance: float | None = None
) -> Solution:
    """Return the least-squares solution of least norm, Φ⁺y.

    For sensing with full-rank factors this is L(LᵀL)⁻¹ Y (RRᵀ)⁻¹R, the least update with exactly
    these measurements; for the dictionary it is the best core L⁺ ΔW R⁺, which is the other name
    of this method. The noise level is not used, which the message says: the answer fits noise as
    well as it can.

    Parameters
    ----------
    tolerance : float, optional
        Of ‖Φᵀ(Φx − y)‖/(‖Φ‖‖y‖); by default 1e4 times the rounding unit of the type, about 2e-12
        in double and 1e-3 in single precision.

    Returns
    -------
    Solution
        Certificate "normal equations"; together with x in the row space they characterise Φ⁺y.

    References
    ----------
    R. Penrose, "On best approximate solutions of linear matrix equations", Proc. Cambridge Phil.
    Soc. 52 (1956), 17-19. The factorwise form is the mixed-product rule of Kronecker products.
    """
    space = system.row_space(Y)
    X = space.coefficients(space.measured(Y) / space.values)
    residual = system.apply(X) - Y
    normal = flat_norms(system.apply_adjoint(residual))
    size = float(np.sqrt(system.lipschitz)) * flat_norms(Y)
    if tolerance is None:
        tolerance = 1e4 * float(np.finfo(to_host(Y[:0]).dtype).eps)
    certificate = Certificate("normal equations", normal, normal / size, tolerance)
    return Solution(
        coefficients=X,
        objective=0.5 * flat_norms(residual) ** 2,
        formula="½‖Φx − y‖², and ‖x‖² among its minimisers",
        certificate=certificate,
        status=tuple("optimal" if held else "stalled" for held in certificate.holds),
        iterations=np.zeros(len(normal), np.int64),
        message=_IGNORED if noise_level > 0 else "",
    )
