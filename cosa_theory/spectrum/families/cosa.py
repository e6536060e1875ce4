"""CoSA updates ΔW ≈ L Y R: the best core under fixed random projections."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import eye_array, issparse

from cosa_theory import laws
from cosa_theory.linear.basis import CosaBasis, RankDeficientWarning
from cosa_theory.projections import ENSEMBLES, KINDS, Ensemble, spanning_rows
from cosa_theory.spectrum.budget import cosa_shape
from cosa_theory.spectrum.families.base import (
    Captured,
    Certainty,
    Cost,
    Draws,
    Fit,
    Size,
    Update,
    plan_draws,
    register,
    t_interval,
)

__all__ = ["Cosa"]

_DENSE_BELOW = 1 << 13  # entries of a factor, up to which draws are measured together
_DOUBTFUL = 1e-3  # least over greatest pivot of a factor, below which its rank is looked into


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
    sided: bool = False
    certainty: Certainty = "exact"
    group: str = "CoSA core"
    reference: str = "S. Wei et al., arXiv 2602.05148 (2026)"

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

    def of(self, update: Update) -> "Cosa":
        """Return this family, which needs nothing but ΔW (see `Family.of`)."""
        return self

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

    def fit(self, update: Update, size: Size, draws: Draws) -> Fit:
        """Return the best core of one draw (see `Family.fit`)."""
        assert size.a is not None
        assert size.b is not None
        basis = CosaBasis.sample(
            *update.shape,
            size.a,
            size.b,
            kind=self.ensemble.name,
            seed=draws.seed,
            key=draws.key,
            dtype=update.delta.dtype,
        )
        if _is_zero(basis.L) or _is_zero(basis.R):
            return Fit((np.zeros((size.a, size.b), update.delta.dtype),), basis.synthesize)
        with warnings.catch_warnings():  # of many best cores any one will do
            warnings.simplefilter("ignore", RankDeficientWarning)
            return Fit((basis.best_core(update.delta),), basis.synthesize)

    def cost(self, m: int, n: int, size: Size) -> Cost:
        """Return the cost with dense projections, whatever the ensemble (see `Family.cost`)."""
        assert size.a is not None
        assert size.b is not None
        frozen = size.a * m + size.b * n
        return Cost.of(size, frozen, frozen + size.parameters)

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
        small = max(a * m, b * n) <= _DENSE_BELOW
        measure = self._shares if small else self._shares_one_by_one
        return t_interval(measure(update, size, draws, range(count)), draws.confidence, law)

    def _shares(
        self, update: Update, size: Size, draws: Draws, indices: range | list[int]
    ) -> NDArray[np.float64]:
        """Measure small draws together, because calls cost more than products there.

        With ΔW scaled by its largest entry and orthonormal bases Q of all ranges at once, the
        share is ‖Q_Lᵀ ΔW Q_R‖²/‖ΔW‖². A draw of doubtful rank is measured by itself.
        """
        (m, n), delta = update.shape, update.delta.astype(np.float64)
        delta /= max(delta.max(), -delta.min())
        left, regular_left = self._bases(size.a, m, draws, indices, "L", update.delta.dtype)
        right, regular_right = self._bases(size.b, n, draws, indices, "R", update.delta.dtype)
        products = np.swapaxes(left, 1, 2) @ delta @ right
        shares = np.sum(products**2, axis=(1, 2)) / np.sum(delta**2)
        doubtful = np.flatnonzero(~(regular_left & regular_right))
        chosen = [indices[place] for place in doubtful.tolist()]
        shares[doubtful] = self._shares_one_by_one(update, size, draws, chosen)
        return np.minimum(shares, 1.0)

    def _bases(
        self,
        k: int | None,
        d: int,
        draws: Draws,
        indices: range | list[int],
        role: str,
        dtype: np.dtype[Any],
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return orthonormal bases of the row spaces (count × d × k), and whose rank is sure."""
        if k == d:
            return np.eye(d)[None], np.ones(1, dtype=bool)
        drawn = [self._factor(k, d, draws, (index, role), dtype) for index in indices]
        dense = [_dense(A) for A in drawn]
        bases, triangles = np.linalg.qr(np.stack(dense).astype(np.float64).swapaxes(1, 2))
        pivots = np.abs(np.diagonal(triangles, axis1=1, axis2=2))
        return bases, pivots.min(axis=1) > _DOUBTFUL * pivots.max(axis=1)

    def _shares_one_by_one(
        self, update: Update, size: Size, draws: Draws, indices: range | list[int]
    ) -> NDArray[np.float64]:
        (m, n), dtype = update.shape, update.delta.dtype
        shares = np.zeros(len(indices))
        for place, index in enumerate(indices):
            L = self._factor(size.a, m, draws, (index, "L"), dtype)
            R = self._factor(size.b, n, draws, (index, "R"), dtype)
            if not (_is_zero(L) or _is_zero(R)):
                shares[place] = CosaBasis(L.T, R).captured_energy(update.delta)
        return shares

    def _factor(
        self, k: int | None, d: int, draws: Draws, role: tuple[int, str], dtype: np.dtype[Any]
    ) -> Any:
        """Return a k × d matrix with the row space of the projection that a basis would draw."""
        assert k is not None
        if k == d:
            return eye_array(d, dtype=dtype, format="csr")
        key = (*draws.key, "draw", *role)
        return spanning_rows(self.ensemble.name, k, d, seed=draws.seed, key=key, dtype=dtype)


def _is_zero(A: Any) -> bool:
    """Return whether a factor is zero, as a sparse one of few entries may be drawn."""
    return not (A.count_nonzero() if issparse(A) else not isinstance(A, np.ndarray) or A.any())


def _dense(A: Any) -> NDArray[Any]:
    if isinstance(A, np.ndarray):
        return A
    return A.toarray() if issparse(A) else A @ np.eye(A.shape[1], dtype=A.dtype)


def _work(m: int, n: int, a: int, b: int) -> float:
    """Count the multiply-adds of one draw: the Gram matrices, and ΔW times the smaller factor."""
    return float(m) * n * min(a, b) + float(a < m) * m * a * a + float(b < n) * n * b * b


for _kind in KINDS:
    register(Cosa(ENSEMBLES[_kind]), place=10 + ENSEMBLES[_kind].order)
