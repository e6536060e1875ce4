"""The exact isometry constant over all cores of a CoSA basis, beside its limit for large sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cosa_theory.ground.errors import InputError
from cosa_theory.laws.isometry import dictionary_edges, scale_free_constant
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.linear.operators import Factor

__all__ = ["CoreIsometry", "core_isometry"]

_SAFE = (1e-75, 1e75)  # of singular values, whose fourth powers are in range


@dataclass(frozen=True)
class CoreIsometry:
    """How much the dictionary Ψ = L ⊗ Rᵀ can change the norm of a core, over all cores.

    Parameters
    ----------
    least, greatest : float
        Least and greatest squared singular value of Ψ: ‖L Y R‖²/‖Y‖² lies between them and
        reaches both.
    gain : float
        The mean squared singular value ‖L‖²‖R‖²/(ab), which is E‖L Y R‖²/‖Y‖² for a core with
        independent entries of one variance: about 1 at synthesis and mn/(ab) at analysis scale.
    bai_yin_least, bai_yin_greatest : float
        Where the two squared singular values lie for large factors with independent entries, at
        this gain; NaN where a > m or b > n.
    """

    least: float
    greatest: float
    gain: float
    bai_yin_least: float
    bai_yin_greatest: float

    @property
    def delta(self) -> float:
        """The isometry constant of order ab, max(greatest − 1, 1 − least)."""
        return max(self.greatest - 1.0, 1.0 - self.least, 0.0)

    @property
    def condition(self) -> float:
        """The condition number κ of Ψ, the quotient of its singular values."""
        return math.sqrt(self.greatest / self.least) if self.least > 0 else math.inf

    @property
    def scale_free(self) -> float:
        """The constant at the best scale, (κ² − 1)/(κ² + 1)."""
        return scale_free_constant(self.least, self.greatest)

    @property
    def bai_yin_delta(self) -> float:
        """The constant that the two limits would give."""
        return max(self.bai_yin_greatest - 1.0, 1.0 - self.bai_yin_least, 0.0)

    @property
    def bai_yin_scale_free(self) -> float:
        """The constant at the best scale that the two limits would give."""
        return scale_free_constant(self.bai_yin_least, self.bai_yin_greatest)

    def scaled(self, factor: float) -> CoreIsometry:
        """Return the same for a dictionary multiplied by √factor, such as at another scale."""
        ends = (self.least, self.greatest, self.gain, self.bai_yin_least, self.bai_yin_greatest)
        return CoreIsometry(*(factor * end for end in ends))


def core_isometry(basis: CosaBasis) -> CoreIsometry:
    """Find the exact isometry constant of the dictionary over all cores, dense ones included.

    The singular values of Ψ = L ⊗ Rᵀ are the products of those of L and R, so two eigenvalue
    problems of sizes a and b decide; Ψ is never formed. With a > m or b > n the least is 0.

    Parameters
    ----------
    basis : CosaBasis
        With factors of any ensemble and scale.

    Returns
    -------
    CoreIsometry

    Raises
    ------
    InputError
        If a factor has a NaN or infinite entry, or squares leave the range of numbers.

    References
    ----------
    docs/theory.md, 2.1. R. A. Horn, C. R. Johnson, "Topics in Matrix Analysis" (1991), Theorem
    4.2.15: singular values of a Kronecker product. The limits: Z. D. Bai, Y. Q. Yin, Annals of
    Probability 21 (1993).
    """
    least, greatest = basis.singular_value_range()
    if greatest > 0 and not _SAFE[0] < greatest < _SAFE[1]:
        raise InputError(
            f"the largest singular value of the dictionary is {greatest:.3g}, whose square leaves "
            "the range of numbers: multiply or divide a factor by a power of two"
        )
    gain = _squared_norm(basis.L, "L") / basis.a * _squared_norm(basis.R, "R") / basis.b
    low = high = math.nan
    if basis.a <= basis.m and basis.b <= basis.n:
        edges = dictionary_edges((basis.m, basis.a), (basis.n, basis.b))
        low, high = (float(gain * edge**2) for edge in edges)
    return CoreIsometry(least**2, greatest**2, gain, low, high)


def _squared_norm(matrix: object, name: str) -> float:
    dense = Factor(matrix, name).dense(np.dtype(np.float64))
    return float(np.vdot(dense, dense))
