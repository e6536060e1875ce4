"""What knowing the layer's inputs is worth: informed cores, and random cores decoded with a prior.

Both take the second moments C of the layer's inputs from what is `Given`. Neither has a law for a
fixed update; see docs/theory.md, 7.1 and 7.4.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg

from cosa_theory.projections import SecondMoments, make_projection
from cosa_theory.spectrum.approximations.base import (
    VALUE_BITS,
    Given,
    Matrix,
    Stored,
    budget,
    core_shape,
    register,
    rounded,
)
from cosa_theory.spectrum.budget import CosaShape, one_sided_shape

__all__: list[str] = []

Shape = Callable[[int, int, int], CosaShape]


def _oriented(make: Callable[[Given, SecondMoments], Matrix]) -> Callable[[Given], Matrix]:
    """Return what makes Â of layers stored as outputs × inputs or transposed."""

    def made(given: Given) -> Matrix:
        delta = given.delta.T if given.transposed else given.delta
        moments = SecondMoments.of(given.moments, delta.shape[1])
        update = make(replace(given, delta=delta), moments).astype(delta.dtype, copy=False)
        return update.T if given.transposed else update

    return made


def _projection(given: Given, k: int, d: int, role: str) -> Matrix:
    """Return k orthonormal rows, the same draw as of a random core of that size."""
    drawn: Matrix = make_projection(
        "haar", k, d, seed=given.seed, key=(*given.key, role), dtype=given.delta.dtype
    )
    return drawn * given.delta.dtype.type((k / d) ** 0.5)


def _informed(given: Given, moments: SecondMoments, shape: Shape) -> Matrix:
    """Return P_L ΔW P_S, S of the leading eigenvectors of C; L is Haar, or the identity at a = m.

    Best cores: the values stored are its entries in orthonormal bases. Where C has fewer
    directions, the rest of S is drawn.
    """
    m, n = given.delta.shape
    size = shape(m, n, given.rank)
    right = moments.leading(moments.independent(size.b))[1]
    if (missing := size.b - right.shape[1]) > 0:
        drawn = given.stream("directions").standard_normal((n, missing))
        right = np.linalg.qr(np.hstack([right, drawn]))[0]
    right = right.astype(given.delta.dtype)
    core = given.delta @ right
    if size.a == m:
        back: Matrix = rounded(core) @ right.T
        return back
    left = _projection(given, size.a, m, "L")
    return left.T @ rounded(left @ core) @ right.T


def _prior(given: Given, moments: SecondMoments, adjoint: bool) -> Matrix:
    """Return Z (R C Rᵀ)⁻¹ R C, where Z is L(LᵀL)⁻¹Y or L Y, from the core Y of Haar projections.

    C is regularised, see `SecondMoments.weighed`. With orthonormal columns of L scaled by √(m/a),
    the two Z differ by the factor m/a.
    """
    m, n = given.delta.shape
    size = core_shape(m, n, given.rank)
    left, right = _projection(given, size.a, m, "L"), _projection(given, size.b, n, "R")
    core = rounded(left @ given.delta @ right.T).astype(np.float64)
    seen = moments.weighed(right)
    weights = scipy.linalg.solve(seen @ right.T, core.T, assume_a="pos").T
    gain = m / size.a if adjoint else 1.0
    back: Matrix = gain * (left.T @ (weights @ seen))
    return back


def _one_sided(m: int, n: int, rank: int) -> CosaShape:
    return one_sided_shape(m, n, budget(m, n, rank))


def _stored(shape: Shape, m: int, n: int, rank: int) -> Stored:
    """Return the size of a core, and of R or R C, which no seed restores."""
    size = shape(m, n, rank)
    return Stored.of(size.parameters, VALUE_BITS * size.b * n)


def _register(
    place: int, name: str, label: str, shape: Shape, make: Any, directions: Any = None
) -> None:
    register(
        place,
        name=name,
        label=label,
        group="informed core",
        make=_oriented(make),
        stored=partial(_stored, shape),
        directions=directions or (lambda m, n, rank: shape(m, n, rank).b),
    )


_register(
    70,
    "best_core_activation",
    "best core, informed by inputs",
    core_shape,
    partial(_informed, shape=core_shape),
)
_register(
    71,
    "one_sided_activation",
    "best core, informed, one-sided",
    _one_sided,
    partial(_informed, shape=_one_sided),
)
_register(
    72,
    "prior_haar",
    "prior on the right, least squares on the left",
    core_shape,
    partial(_prior, adjoint=False),
    lambda m, n, rank: 0,
)
_register(
    73,
    "prior_adjoint_haar",
    "prior on the right, adjoint on the left",
    core_shape,
    partial(_prior, adjoint=True),
    lambda m, n, rank: 0,
)
