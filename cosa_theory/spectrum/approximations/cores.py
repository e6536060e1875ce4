"""Cores: the best core of fixed projections, the same core decoded by its adjoint, LoRA-XS."""

from functools import partial

from cosa_theory import laws
from cosa_theory.projections import ENSEMBLES, KINDS, Ensemble
from cosa_theory.spectrum.approximations.base import core_shape, register
from cosa_theory.spectrum.approximations.of_family import made, stored

__all__ = ["adjoint_law"]


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
    core, adjoint = f"cosa_{ensemble.name}", f"adjoint_{ensemble.name}"
    add = partial(register, group="CoSA core")
    add(
        10 + 2 * ensemble.order,
        name=f"best_core_{ensemble.name}",
        label=f"best core, {ensemble.label}",
        make=partial(made, family=core),
        stored=partial(stored, family=core),
        law=_best_core_law,
    )
    add(
        11 + 2 * ensemble.order,
        name=adjoint,
        label=f"adjoint, {ensemble.label}",
        make=partial(made, family=adjoint),
        stored=partial(stored, family=adjoint),
        unbiased=True,
        law=partial(adjoint_law, ensemble),
    )


for _kind in KINDS:
    _register(ENSEMBLES[_kind])
register(
    3,
    name="lora_xs",
    label="LoRA-XS (singular basis of W)",
    group="low rank",
    make=partial(made, family="lora_xs"),
    stored=partial(stored, family="lora_xs"),
)
