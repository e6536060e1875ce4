"""Families of updates as approximations: their fits, of numbers that come back from storage."""

from typing import Any

import numpy as np

from cosa_theory.projections import SecondMoments
from cosa_theory.spectrum.approximations.base import Given, Matrix, Stored, budget, rounded
from cosa_theory.spectrum.families import FAMILIES
from cosa_theory.spectrum.families.base import Draws, Fit, Update

__all__ = ["from_storage", "made", "stored"]


def made(
    given: Given, family: str, parameters: int | None = None, slope: Matrix | None = None
) -> Matrix:
    """Return a family's fit of so many parameters, by default the budget's; zero where it has none.

    Parameters
    ----------
    given : Given
        The update.
    family : str
        A key of `FAMILIES`.
    parameters : int, optional
        At most so many.
    slope : array, shape (m, n), optional
        The gradient of a loss by the weight, for families that are chosen by it.
    """
    inputs: Any = given.moments
    if inputs is not None:
        inputs = SecondMoments.of(inputs, given.shape[0 if given.transposed else 1])
    sigma = np.empty(0)  # no fit takes them
    update = Update(
        given.delta, given.base, sigma, inputs, transposed=given.transposed, slope=slope
    )
    one = FAMILIES[family].of(update)
    if one is None:
        return np.zeros_like(given.delta)
    m, n = given.shape
    most = budget(m, n, given.rank) if parameters is None else parameters
    size = one.size(*((n, m) if one.sided and given.transposed else (m, n)), max(1, most))
    if not size.parameters:
        return np.zeros_like(given.delta)
    return from_storage(one.fit(update, size, Draws(seed=given.seed, key=given.key)), given)


def from_storage(fit: Fit, given: Given) -> Matrix:
    """Return the update of a fit, in the type of ΔW."""
    return fit.update(rounded).astype(given.delta.dtype, copy=False)


def stored(m: int, n: int, rank: int, family: str) -> Stored:
    """Return what a family stores at the budget of a rank."""
    one = FAMILIES[family]
    size = one.size(m, n, budget(m, n, rank))
    return Stored(size.parameters, one.cost(m, n, size).bits)
