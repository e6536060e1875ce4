"""CoSA updates ΔW ≈ L Y R: the best core under fixed random projections."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import eye_array

from cosa_theory import laws
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.projections import ENSEMBLES, Ensemble, spanning_rows
from cosa_theory.spectrum.budget import cosa_shape
from cosa_theory.spectrum.families.base import (
    Captured,
    Draws,
    Size,
    Update,
    plan_draws,
    register,
    t_interval,
)

__all__ = ["Cosa"]

# Below so many entries the calls of a sparse or structured product take longer than a dense one.
_DENSE_BELOW = 1 << 13


@dataclass(frozen=True)
class Cosa:
    """All updates L Y R with the projections L (m × a) and R (b × n) drawn from one ensemble.

    The best core captures ‖P_L ΔW P_R‖² of ‖ΔW‖², with P_L and P_R the orthogonal projections on
    the ranges; on average over draws that is ab/(mn) for every ΔW, if the ranges are rotation
    invariant (Gaussian, Haar), or the entries independent and symmetric and the factors of full
    rank. A factor that comes out rank deficient is measured as it is, and captures less: sparse
    ones on small layers, and SRHT ones where the size d of a side is padded to the next power of
    two, N. (With N = 4·N/4 and d = 3N/4, for example, rows i, i + N/4, i + N/2, i + 3N/4 of a
    Hadamard matrix agree up to sign on the part cut off, so that a combination of the four
    vanishes on the rest.)

    A side of full size (a = m or b = n) spans everything, so it is taken as the identity: nothing
    is drawn for it, and its share is exact.

    Parameters
    ----------
    ensemble : Ensemble
        Of both projections.
    """

    ensemble: Ensemble
    needs_base: bool = False

    @property
    def name(self) -> str:
        """Key of `FAMILIES`."""
        return f"cosa_{self.ensemble.name}"

    @property
    def label(self) -> str:
        """Name in figures and tables."""
        return f"CoSA, {self.ensemble.label}"

    @property
    def data_dependent(self) -> bool:
        """Whether L and R know something of the update."""
        return self.ensemble.data_dependent

    def size(self, m: int, n: int, parameters: int) -> Size:
        """Return the shape of the core with the largest product ab ≤ P (see `Family.size`)."""
        shape = cosa_shape(m, n, parameters)
        return Size(
            parameters=shape.parameters,
            text=f"a={shape.a}, b={shape.b}",
            a=shape.a,
            b=shape.b,
            rank=min(shape.a, shape.b),
        )

    def capture(self, update: Update, sizes: Sequence[Size], draws: Draws) -> list[Captured]:
        """Measure each size over its own number of draws (see `Family.capture`).

        The number is planned from the variance law of Gaussian projections, so that it depends on
        nothing drawn. Draw i spans what ``CosaBasis.sample(m, n, a, b, kind=kind, seed=seed,
        key=(*key, "draw", i), dtype=dtype)`` spans, with the type of the update.
        """
        return [self._capture(update, size, draws) for size in sizes]

    def _capture(self, update: Update, size: Size, draws: Draws) -> Captured:
        m, n = update.shape
        a, b = size.a, size.b
        assert a is not None
        assert b is not None
        if (a, b) == (m, n):
            return Captured.exact(1.0, law=1.0)
        law = float(laws.energy_law(m, n, a, b))
        variance = float(laws.energy_variance(m, n, a, b, update.participation_ratio))
        count = plan_draws(law, variance, _work(m, n, a, b), draws)
        shares = np.empty(count)
        for index in range(count):
            L = self._factor(a, m, draws, (index, "L"), update.delta.dtype)
            R = self._factor(b, n, draws, (index, "R"), update.delta.dtype)
            shares[index] = CosaBasis(L.T, R).captured_energy(update.delta)
        return t_interval(shares, draws.confidence, law)

    def _factor(
        self, k: int, d: int, draws: Draws, role: tuple[int, str], dtype: np.dtype[Any]
    ) -> Any:
        """Return a k × d matrix with the row space of the projection that a basis would draw."""
        small = k * d <= _DENSE_BELOW
        if k == d:
            return np.eye(d, dtype=dtype) if small else eye_array(d, dtype=dtype, format="csr")
        key = (*draws.key, "draw", *role)
        A = spanning_rows(self.ensemble.name, k, d, seed=draws.seed, key=key, dtype=dtype)
        return A @ np.eye(d, dtype=dtype) if small and not isinstance(A, np.ndarray) else A


def _work(m: int, n: int, a: int, b: int) -> float:
    """Count the multiply-adds of one draw: the Gram matrices, and ΔW times the smaller factor."""
    return float(m) * n * min(a, b) + float(a < m) * m * a * a + float(b < n) * n * b * b


for _ensemble in ENSEMBLES.values():
    register(Cosa(_ensemble), place=10 + _ensemble.order)
