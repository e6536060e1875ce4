"""Controls: what must return everything, and what must return nothing."""

import math
from functools import partial

import numpy as np

from cosa_theory import laws
from cosa_theory.projections import ENSEMBLES
from cosa_theory.spectrum.approximations.base import Given, Matrix, Stored, register
from cosa_theory.spectrum.approximations.cores import adjoint_law
from cosa_theory.spectrum.approximations.low_rank import remainder

__all__: list[str] = []


def _noise(given: Given, energy: float) -> Matrix:
    """Return independent normal entries with the energy of ΔW times `energy`."""
    entries = given.stream("noise").standard_normal(given.shape).astype(given.delta.dtype)
    return entries * given.delta.dtype.type(
        math.sqrt(energy) * np.linalg.norm(given.delta) / np.linalg.norm(entries)
    )


def _adjoint_error(m: int, n: int, rank: int) -> float:
    return adjoint_law(ENSEMBLES["haar"], m, n, rank, laws.InputMoments(n, 1.0))


def _noisy(given: Given) -> Matrix:
    """Return ΔW and noise with the error that the adjoint of a Haar core has."""
    return given.delta + _noise(given, _adjoint_error(*given.shape, given.rank))


def _shuffled(given: Given) -> Matrix:
    """Return the entries of ΔW in another order: its histogram without its structure."""
    return given.stream("shuffle").permutation(given.delta.ravel()).reshape(given.shape)


_register = partial(register, group="control", stored=lambda m, n, rank: Stored.of(m * n))
_once = partial(_register, budgeted=False)

_register(90, name="remainder", label="all but the top r", make=remainder)
_once(91, name="exact", label="ΔW itself", make=lambda given: given.delta)
_register(
    92,
    name="noisy",
    label="ΔW + noise of the adjoint's error",
    make=_noisy,
    # Noise meets every input alike.
    law=lambda m, n, rank, inputs: _adjoint_error(m, n, rank) * inputs.spread / n,
)
_once(
    93,
    name="noise",
    label="noise of ΔW's energy",
    make=lambda given: _noise(given, 1.0),
    law=lambda m, n, rank, inputs: 1 + inputs.spread / n,
)
_once(94, name="shuffled", label="ΔW shuffled", make=_shuffled)
