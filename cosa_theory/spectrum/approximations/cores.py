"""Cores: the best core of fixed projections, the same core decoded by its adjoint, LoRA-XS."""

import warnings
from functools import partial

from cosa_theory import laws
from cosa_theory.linear.basis import CosaBasis, RankDeficientWarning
from cosa_theory.projections import ENSEMBLES, KINDS, Ensemble
from cosa_theory.spectrum.approximations.base import (
    Given,
    Matrix,
    Stored,
    budget,
    core_shape,
    register,
    rounded,
)
from cosa_theory.spectrum.budget import lora_xs_rank

__all__ = ["adjoint_law"]


def _basis(given: Given, ensemble: Ensemble) -> CosaBasis:
    m, n = given.shape
    size = core_shape(m, n, given.rank)
    return CosaBasis.sample(
        m,
        n,
        size.a,
        size.b,
        kind=ensemble.name,
        seed=given.seed,
        scale="analysis",
        key=given.key,
        dtype=given.delta.dtype,
    )


def _stored(m: int, n: int, rank: int) -> Stored:
    return Stored.of(core_shape(m, n, rank).parameters)


def core_moments(
    ensemble: Ensemble, m: int, n: int, rank: int
) -> tuple[laws.GramMoments, laws.GramMoments]:
    """Return the moments of the two projections of a core at a budget."""
    size = core_shape(m, n, rank)
    return (
        laws.GramMoments(*ensemble.moments(size.a, m)),
        laws.GramMoments(*ensemble.moments(size.b, n)),
    )


def adjoint_law(
    ensemble: Ensemble, m: int, n: int, rank: int, inputs: laws.InputMoments, gain: float = 1.0
) -> float:
    """Return the expected error of q times the adjoint of a core at a budget."""
    left, right = core_moments(ensemble, m, n, rank)
    return float(laws.decoder_error(left, m, right, inputs, gain))


def _best_core_law(m: int, n: int, rank: int, inputs: laws.InputMoments) -> float:
    """Return that of least squares on invariant ranges, which is the Haar adjoint times ab/(mn)."""
    size = core_shape(m, n, rank)
    law = float(laws.energy_law(m, n, size.a, size.b))
    return adjoint_law(ENSEMBLES["haar"], m, n, rank, inputs, law)


def _register(ensemble: Ensemble) -> None:
    """Add the two decoders of a core under one ensemble; see docs/theory.md, 6.3."""

    def best(given: Given) -> Matrix:
        basis = _basis(given, ensemble)
        with warnings.catch_warnings():  # of many best cores any one will do
            warnings.simplefilter("ignore", RankDeficientWarning)
            core = basis.best_core(given.delta)
        projected: Matrix = basis.synthesize(rounded(core))
        return projected

    def adjoint(given: Given) -> Matrix:
        basis = _basis(given, ensemble)
        back: Matrix = basis.synthesize(rounded(basis.encode(given.delta)))
        return back

    add = partial(register, group="CoSA core", stored=_stored)
    add(
        10 + 2 * ensemble.order,
        name=f"best_core_{ensemble.name}",
        label=f"best core, {ensemble.label}",
        make=best,
        law=_best_core_law,
    )
    add(
        11 + 2 * ensemble.order,
        name=f"adjoint_{ensemble.name}",
        label=f"adjoint, {ensemble.label}",
        make=adjoint,
        unbiased=True,
        law=partial(adjoint_law, ensemble),
    )


def _lora_xs(given: Given) -> Matrix:
    """Return U_r U_rᵀ ΔW V_r V_rᵀ with the top singular vectors of W."""
    assert given.base is not None
    m, n = given.shape
    rank = lora_xs_rank(m, n, budget(m, n, given.rank))
    left, _, right = given.decompose("base", given.base)
    dtype = given.delta.dtype
    left, right = left[:, :rank].astype(dtype), right[:rank].astype(dtype)
    return left @ rounded(left.T @ given.delta @ right.T) @ right


for _kind in KINDS:
    _register(ENSEMBLES[_kind])
register(
    3,
    name="lora_xs",
    label="LoRA-XS (singular basis of W)",
    group="low rank",
    make=_lora_xs,
    stored=lambda m, n, rank: Stored.of(lora_xs_rank(m, n, budget(m, n, rank)) ** 2),
)
