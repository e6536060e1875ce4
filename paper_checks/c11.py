"""C11: whether other ensembles do what the Gaussian one does."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory import CosaBasis, laws
from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.estimates import (
    Estimate,
    mean_interval,
    proportion_interval,
    student_quantile,
)
from cosa_theory.isometry import core_isometry, rip_exact
from cosa_theory.isometry.jl_curves import jl_ratios
from cosa_theory.laws.norms import chi_square_failure
from cosa_theory.projections import KINDS, stream
from paper_checks.base import Case, Check, Claim, counts
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

# No side is a power of two, to which the Hadamard ensemble would owe its best numbers.
ROWS, LENGTH, NORM_DRAWS = 32, 96, 2000
EPS = 2 * math.sqrt(2 / ROWS)  # two standard deviations of a Gaussian projection's squared norm
ENERGY_SIZE, ENERGY_DRAWS = (96, 96, 48, 24), 400
DELTA_SIZE, DELTA_ORDER, DELTA_DRAWS = (72, 72, 18, 12), 2, 12
CONDITION_SIZE, CONDITION_DRAWS = (192, 192, 48, 24), 40
CONSTANTS = {"δ of the dictionary": "c11_delta", "inverse condition": "c11_condition"}
CONTROL = "control"

CLAIM = Claim(
    id="C11",
    claim="It works across Gaussian and other ensembles of random projections.",
    source="practice of compressed sensing",
    method=f"Every ensemble beside the Gaussian one: the chance over {NORM_DRAWS} draws of a "
    f"{ROWS} × {LENGTH} projection that the squared norm of a fixed vector is off by two of the "
    "Gaussian's standard deviations, for a vector spread over all coordinates and for a spike at "
    f"one; the energy of a decaying update that the best core captures ({ENERGY_DRAWS} draws); "
    f"the exact δ_{DELTA_ORDER} of the dictionary Ψ at {DELTA_SIZE[0]} × {DELTA_SIZE[1]} with core "
    f"{DELTA_SIZE[2]} × {DELTA_SIZE[3]} ({DELTA_DRAWS} draws) and its inverse condition "
    f"number ({CONDITION_DRAWS} draws). 95 % intervals throughout.",
    quantity=THRESHOLDS["c11_failure"].quantity,
    criterion=f"{THRESHOLDS['c11_failure']}; {THRESHOLDS['c11_energy']}; "
    f"{THRESHOLDS['c11_delta']}; {THRESHOLDS['c11_condition']}; for each ensemble; and as a "
    f"control {THRESHOLDS['c11_gaussian']}",
)


def measure(
    layers: Iterable[LayerDelta] = (),
    seed: int = 0,
    *,
    kinds: Sequence[str] = KINDS,
    ratios: Callable[..., NDArray] = jl_ratios,
    draw: Callable[..., CosaBasis] = CosaBasis.sample,
) -> list[Case]:
    """Return five cases for each ensemble (three for the Gaussian), and the control."""
    reference = _constants("gaussian", seed, CosaBasis.sample)
    failures = {kind: _failures(kind, seed, ratios) for kind in dict.fromkeys(("gaussian", *kinds))}
    cases: list[Case] = []
    for kind in kinds:
        cases += _norm_cases(kind, failures[kind])
        energy = mean_interval(_energies(kind, seed, draw))
        cases.append(_case("captured energy", kind, energy, "c11_energy"))
        if kind != "gaussian":  # it is what the others are compared with
            own = _constants(kind, seed, draw)
            cases += [
                _case(name, kind, quotient(own[key], reference[key]), key)
                for name, key in CONSTANTS.items()
            ]
    return [*cases, _control(failures["gaussian"])]


def _case(name: str, kind: str, estimate: Estimate, threshold: str, **details: Any) -> Case:
    return Case(f"{name}, {kind}", kind, *estimate, threshold, details=details)


def vectors(seed: int) -> dict[str, NDArray[np.float64]]:
    """Return the two fixed vectors: a direction drawn at random, and one coordinate."""
    spike = np.zeros(LENGTH)
    spike[LENGTH // 3] = 1.0
    spread = stream(seed, "C11", "vector").standard_normal(LENGTH)
    return {"norm of a spread vector": spread, "norm of a spike": spike}


def _failures(kind: str, seed: int, ratios: Callable[..., NDArray]) -> dict[str, int]:
    """Count the draws at which a norm is off by more than two standard deviations."""
    given = vectors(seed)
    found = ratios(kind, ROWS, np.stack([*given.values()]), draws=NORM_DRAWS, seed=seed)
    counted = np.count_nonzero(~(np.abs(found - 1) <= EPS), axis=0)  # NaN is off too
    return dict(zip(given, map(int, counted), strict=True))


def _norm_cases(kind: str, failures: dict[str, int]) -> list[Case]:
    law = float(chi_square_failure(ROWS, EPS))
    cases = []
    for name, count in failures.items():
        low, high = proportion_interval(count, NORM_DRAWS)
        ends = count / NORM_DRAWS / law, float(low) / law, float(high) / law
        details = {"failures": count, "draws": NORM_DRAWS, "chi_square": law}
        cases.append(_case(name, kind, Estimate(*ends), "c11_failure", **details))
    return cases


def _control(failures: dict[str, int]) -> Case:
    """Compare the Gaussian's failures with their exact law."""
    law = float(chi_square_failure(ROWS, EPS))
    error = math.sqrt(law * (1 - law) * NORM_DRAWS)
    z = max(abs(count - law * NORM_DRAWS) / error for count in failures.values())
    return Case.exact("Gaussian norms", CONTROL, z, "c11_gaussian", control=True)


def update(seed: int) -> NDArray[np.float64]:
    """Return a fixed update whose singular values halve from one to the next."""
    m, n, *_ = ENERGY_SIZE
    generator = stream(seed, "C11", "update")
    U, _ = np.linalg.qr(generator.standard_normal((m, 8)))
    V, _ = np.linalg.qr(generator.standard_normal((n, 8)))
    return (U * 2.0 ** -np.arange(8)) @ V.T


def _energies(kind: str, seed: int, draw: Callable[..., CosaBasis]) -> list[float]:
    law, target = float(laws.energy_law(*ENERGY_SIZE)), update(seed)
    bases = (draw(*ENERGY_SIZE, kind=kind, seed=seed, key=("C11", i)) for i in range(ENERGY_DRAWS))
    return [basis.captured_energy(target) / law for basis in bases]


def _constants(kind: str, seed: int, draw: Callable[..., CosaBasis]) -> dict[str, list[float]]:
    """Return exact constants of independent dictionaries, at synthesis scale."""
    deltas = [
        rip_exact(
            draw(*DELTA_SIZE, kind=kind, seed=seed, key=("C11", "delta", i)).dictionary(),
            DELTA_ORDER,
        ).value
        for i in range(DELTA_DRAWS)
    ]
    # The inverse, because factors now and then lose a rank, and then the number is infinite.
    inverses = [
        1
        / core_isometry(
            draw(*CONDITION_SIZE, kind=kind, seed=seed, key=("C11", "condition", i))
        ).condition
        for i in range(CONDITION_DRAWS)
    ]
    return {"c11_delta": deltas, "c11_condition": inverses}


def quotient(numbers: Sequence[float], others: Sequence[float]) -> Estimate:
    """Return the quotient of two means with Fieller's 95 % interval.

    Parameters
    ----------
    numbers, others : sequence of float
        Independent samples. The second is far enough from zero for the interval to be finite.

    References
    ----------
    E. C. Fieller, "Some problems in interval estimation", Journal of the Royal Statistical Society
    B 16 (1954), 175-185.
    """
    x, y = np.asarray(numbers), np.asarray(others)
    count = min(x.size, y.size)
    level = student_quantile(count)
    top, bottom = float(x.mean()), float(y.mean())
    var_x, var_y = float(x.var(ddof=1)) / x.size, float(y.var(ddof=1)) / y.size
    # The roots of (top − q·bottom)² = level² (var_x + q² var_y).
    a, b, c = bottom**2 - level**2 * var_y, top * bottom, top**2 - level**2 * var_x
    half = math.sqrt(max(b * b - a * c, 0.0))
    return Estimate(top / bottom, (b - half) / a, (b + half) / a)


def describe(cases: Sequence[Case]) -> str:
    """Return, for each ensemble that is not like the Gaussian everywhere, where and by how much."""
    kinds = list(dict.fromkeys(case.group for case in cases if not case.control))
    like = [
        kind
        for kind in kinds
        if all(case.outcome == "holds" for case in cases if case.group == kind)
    ]
    text = f"It {counts(cases)} comparisons; in all of them for {', '.join(like) or 'no ensemble'}"
    others = [case for case in cases if not case.control and case.outcome != "holds"]
    if others:
        listed = "; ".join(
            f"{case.name} {case.value:.3g} ({case.low:.3g} to {case.high:.3g}, {case.outcome})"
            for case in others
        )
        text = f"{text}. Not, as a multiple of the Gaussian's or of the law: {listed}"
    return f"{text}."


CHECK = Check(CLAIM, measure, describe, needs_pair=False)
