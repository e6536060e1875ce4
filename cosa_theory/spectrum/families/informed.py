"""CoSA updates whose projections know something of the layer: informed cores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cosa_theory import laws
from cosa_theory.projections import ENSEMBLES, SecondMoments, make_projection
from cosa_theory.spectrum.budget import CosaShape, cosa_shape, one_sided_shape
from cosa_theory.spectrum.families.base import (
    VALUE_BITS,
    Captured,
    Certainty,
    Cost,
    Draws,
    Fit,
    Size,
    Update,
    register,
)
from cosa_theory.spectrum.families.cosa import Cosa
from cosa_theory.spectrum.singular_values import singular_values

__all__ = ["Informed"]


class Moments(Protocol):
    """What an informed family needs to know of a layer."""

    @property
    def inputs(self) -> SecondMoments | None:
        """Of its inputs."""
        ...

    @property
    def gradients(self) -> SecondMoments | None:
        """Of the gradients of its outputs."""
        ...


@dataclass(frozen=True)
class Informed:
    """All updates L Y R with R in the leading directions of the layer's inputs.

    L is the identity where a = m. Elsewhere it is Haar for "activation", whose share is measured
    over draws of L, and for "gradient" spans the leading directions of the output gradients. The
    shape is the one that is expected to capture most, of what is `known` of the layer; there are
    shares of energy for a given update, but no law of them: see docs/theory.md, 7.1 to 7.3.

    Parameters
    ----------
    kind : {"activation", "gradient"}
        The ensemble.
    known : optional
        What has the moments `inputs` and `gradients`, such as an `Update`. Without them sizes are
        what a budget allows: one-sided for "activation", at the least memory for "gradient".
    """

    kind: str
    known: Moments | None = None
    data_dependent: bool = True
    needs_base: bool = False
    sided: bool = True
    certainty: Certainty = "exact"
    group: str = "informed core"
    reference: str = "docs/theory.md, 7.1 to 7.3"

    @property
    def name(self) -> str:
        """Key of `FAMILIES`."""
        return f"cosa_{self.kind}"

    @property
    def label(self) -> str:
        """Name in figures and tables."""
        return f"CoSA, {ENSEMBLES[self.kind].label}"

    def of(self, known: Moments) -> "Informed | None":
        """Return this family with what is known of a layer; None if too little is."""
        sides = (known.inputs, known.gradients)[: 1 + (self.kind == "gradient")]
        return None if any(side is None for side in sides) else replace(self, known=known)

    def size(self, m: int, n: int, parameters: int) -> Size:
        """Return the best shape with ab ≤ P, of m outputs and n inputs (see `Family.size`)."""
        shape = self._shape(m, n, parameters)
        a, b = shape.a, shape.b
        return Size(shape.parameters, f"a={a}, b={b}", a=a, b=b, rank=min(a, b))

    def _shape(self, m: int, n: int, parameters: int) -> CosaShape:
        gradient = self.kind == "gradient"
        if self.known is None:
            return (cosa_shape if gradient else one_sided_shape)(m, n, parameters)
        most = min(n, parameters)
        if not gradient:  # only rounding takes it beyond the one-sided core
            most = min(most, 2 * one_sided_shape(m, n, parameters).b + 1)
        left = _shares(self.known.gradients, min(m, parameters)) if gradient else None
        right = _shares(self.known.inputs, most)
        return CosaShape(*laws.informed_shape(m, n, parameters, right, left))

    def fit(self, update: Update, size: Size, draws: Draws) -> Fit:
        """Return the best core, in orthonormal bases of the two spans (see `Family.fit`)."""
        delta = update.delta.T if update.transposed else update.delta
        a, b = _sides(size)
        right = _vectors(update.inputs, b, delta)
        columns = delta @ right
        left = self._left(update, a, len(delta), draws)
        core = columns if left is None else left.T @ columns

        def build(core: NDArray) -> NDArray:
            made = (core if left is None else left @ core) @ right.T
            return made.T if update.transposed else made

        return Fit((core,), build)

    def _left(self, update: Update, a: int, m: int, draws: Draws) -> NDArray | None:
        """Return an orthonormal basis of what L spans; None for everything."""
        if self.kind == "gradient":
            return _vectors(update.gradients, a, update.delta)
        if a == m:
            return None
        drawn: NDArray = make_projection(
            "haar",
            a,
            m,
            seed=draws.seed,
            scale="synthesis",
            key=(*draws.key, "L"),
            dtype=update.delta.dtype,
        )
        return drawn.T

    def cost(self, m: int, n: int, size: Size) -> Cost:
        """Return the cost with R stored, and L where it is informed (see `Family.cost`)."""
        a, b = _sides(size)
        left = 0 if a == m else a * m
        told = b * n + (left if self.kind == "gradient" else 0)
        frozen = b * n + left
        return Cost.of(size, frozen, frozen + a * b, VALUE_BITS * told)

    def capture(self, update: Update, sizes: Sequence[Size], draws: Draws) -> list[Captured]:
        """Measure each size: exact but for draws of L (see `Family.capture`)."""
        delta = update.delta.T if update.transposed else update.delta
        columns = delta @ _vectors(update.inputs, max(_sides(size)[1] for size in sizes), delta)
        total = float(np.sum(delta.astype(np.float64) ** 2))
        if self.kind == "gradient":
            rows = _vectors(update.gradients, max(_sides(size)[0] for size in sizes), delta)
            columns = rows.T @ columns
        return [self._captured(columns, total, size, draws, len(delta)) for size in sizes]

    def _captured(
        self, columns: NDArray, total: float, size: Size, draws: Draws, m: int
    ) -> Captured:
        """Return the share in the leading b columns, and in a dimensions of their column space."""
        a, b = _sides(size)
        part = columns[:a, :b] if self.kind == "gradient" else columns[:, :b]
        held = min(1.0, float(np.sum(part.astype(np.float64) ** 2)) / total)
        if self.kind == "gradient" or a == m or held == 0:
            return Captured.exact(held)
        side = Size(a * b, size.text, a=a, b=b, rank=min(a, b))
        haar = Cosa(ENSEMBLES["haar"])
        (one,) = haar.capture(Update(part, None, singular_values(part)), [side], draws)
        scaled = {name: held * getattr(one, name) for name in ("mean", "low", "high", "sd")}
        return Captured(**scaled, draws=one.draws)


def _sides(size: Size) -> tuple[int, int]:
    assert size.a is not None
    assert size.b is not None
    return size.a, size.b


def _shares(moments: SecondMoments | None, most: int) -> NDArray[np.float64]:
    """Return the shares of the directions that there are, at most so many."""
    assert moments is not None
    return moments.shares(moments.independent(most))


def _vectors(moments: SecondMoments | None, k: int, like: NDArray) -> NDArray:
    assert moments is not None
    return moments.leading(k)[1].astype(like.dtype)


for _place, _kind in enumerate(("activation", "gradient")):
    register(Informed(_kind), place=40 + _place)
