"""The audit of one matrix: every number, and the outcome of every assumption, as JSON values."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory import __version__, laws
from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.scales import frobenius_norm, in_safe_range
from cosa_theory.linear.transforms import DCT, Coordinate, SingularBasis, Transform
from cosa_theory.spectrum import FAMILIES
from cosa_theory.spectrum.families.base import Captured, Draws, Size, Update
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS, Measured, outcome_of, variance_factor
from cosa_theory.studies.audit.core import Conditioning, Core, choose_core, measure_conditioning
from cosa_theory.studies.audit.sparsity import BasisSparsity, measure_bases
from cosa_theory.studies.known_layers import Known
from cosa_theory.studies.layers import delta_spectrum

__all__ = ["AuditSettings", "Subjects", "audit_layer", "identity"]

# Raised when the content of a stored cell changes meaning, so that older ones are computed anew.
_CELL_FORMAT = 3


@dataclass(frozen=True)
class AuditSettings:
    """What the audit of a layer depends on besides the layer: arguments of `audit_pair`."""

    core: tuple[int, int] | None
    rank: int
    kind: str
    scale: str
    draws: int
    seed: int


@dataclass(frozen=True)
class Subjects:
    """What is audited of one matrix: its update and, where there is one, its gradient.

    `known` is what an informed kind of projections is made from.
    """

    update: LayerDelta
    gradient: LayerDelta | None = None
    known: Known | None = None

    @property
    def named(self) -> dict[str, LayerDelta]:
        """The subjects by their names in the tables."""
        both = {"update": self.update, "gradient": self.gradient}
        return {name: subject for name, subject in both.items() if subject is not None}


def identity(
    subjects: Subjects, settings: AuditSettings
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return what decides a layer's result, as `cosa_theory.ground.cells.cell_name` takes it."""
    described: dict[str, Any] = {
        "audit": _CELL_FORMAT,
        "version": __version__,
        "settings": dataclasses.asdict(settings),
        "name": subjects.update.name,
        "subjects": {
            name: [one.base_dtype, one.tuned_dtype, one.rounding_rms]
            for name, one in subjects.named.items()
        },
    }
    arrays = [subjects.update.base, *(subjects.update.factors or ())]
    arrays += [one.delta for one in subjects.named.values()]
    if subjects.known is None:
        return described, arrays
    return described | subjects.known.described, arrays + subjects.known.arrays


def audit_layer(subjects: Subjects, settings: AuditSettings) -> dict[str, Any]:
    """Measure a layer and judge every assumption about it.

    Returns its `name` and, for each subject, rows of the tables `layers`, `assumptions`, `sparsity`
    and `decay`; all plain JSON values.
    """
    update = subjects.update
    m, n = update.shape
    known = subjects.known
    core = choose_core(m, n, settings.core, settings.rank, settings.kind == "activation")
    conditioning = measure_conditioning(
        *(m, n, core),
        kind=settings.kind,
        scale=settings.scale,
        draws=settings.draws,
        seed=settings.seed,
        key=update.name,
        moments=None if known is None else known.projections,
    )
    transforms: list[Transform] = [Coordinate(), DCT(), SingularBasis(update.base)]
    tables = ("layers", "assumptions", "sparsity", "decay")
    result: dict[str, Any] = {"name": update.name, **{name: [] for name in tables}}
    for name, subject in subjects.named.items():
        about = {"subject": name}
        found = _measure(subject, core, transforms, settings, known)
        judged = found.judged
        if name == "update":  # what is about the layer alone is said once
            a, b = core.asked
            admissible = Measured.exact(max(a / m, b / n))
            near = conditioning.scale_free
            judged = judged | {"admissible": admissible, "near_isometry": near}
        result["assumptions"] += [about | row for row in _outcomes(judged, m, n, core)]
        result["layers"].append(about | _sizes(m, n, core) | _columns(conditioning) | found.row)
        for one in found.bases:
            effective = _flat("effective", one.effective)
            result["sparsity"].append(
                {**about, **one.profile, **effective, "best": one is found.best}
            )
            result["decay"] += [
                about | {"basis": one.basis, "fraction": fraction, "error": error}
                for fraction, error in one.decay
            ]
    return result


def _sizes(m: int, n: int, core: Core) -> dict[str, Any]:
    return {
        **{"m": m, "n": n, "a": core.a, "b": core.b},
        **dict(zip(("asked_a", "asked_b"), core.asked, strict=True)),
        "rank_budget": core.rank,
        "participation_needed": ASSUMPTIONS["flat_spectrum"].threshold(m, n, core.a, core.b),
    }


def _columns(conditioning: Conditioning) -> dict[str, Any]:
    values = dataclasses.asdict(conditioning)
    del values["scale_free"]
    values["conditioning_draws"] = values.pop("draws")
    return {**values, **_flat("scale_free", conditioning.scale_free)}


def _flat(name: str, measured: Measured | None) -> dict[str, Any]:
    """Return a number with its interval as three columns, null where there is none."""
    names = (name, f"{name}_low", f"{name}_high")
    values = (None,) * 3 if measured is None else dataclasses.astuple(measured)
    return dict(zip(names, values, strict=True))


def _outcomes(
    judged: Mapping[str, Measured | None], m: int, n: int, core: Core
) -> list[dict[str, Any]]:
    """Return one row of the table of assumptions for each number."""
    rows = []
    for name, assumption in ASSUMPTIONS.items():
        if name not in judged:
            continue
        measured = judged[name]
        threshold = assumption.threshold(m, n, core.a, core.b)
        ends = dict.fromkeys(("value", "low", "high"))
        rows.append(
            {
                "assumption": name,
                **(ends if measured is None else dataclasses.asdict(measured)),
                "threshold": threshold,
                "relation": assumption.relation,
                "outcome": outcome_of(assumption, measured, threshold),
                "meaning": assumption.meaning,
            }
        )
    return rows


@dataclass(frozen=True)
class _Found:
    """What was measured of one subject."""

    row: dict[str, Any]
    judged: dict[str, Measured | None]
    bases: list[BasisSparsity]
    best: BasisSparsity | None


def _measure(
    subject: LayerDelta,
    core: Core,
    transforms: list[Transform],
    settings: AuditSettings,
    known: Known | None,
) -> _Found:
    """Measure one update or gradient."""
    m, n = subject.shape
    sigma, summary = delta_spectrum(subject)
    base_norm = frobenius_norm(subject.base)
    row = {
        "base_dtype": subject.base_dtype,
        "tuned_dtype": subject.tuned_dtype,
        "norm": summary.frobenius,
        "relative_norm": summary.frobenius / base_norm if base_norm > 0 else None,
        "rounding_rms": subject.rounding_rms,
        "exact_zeros": 1.0 - np.count_nonzero(subject.delta) / subject.delta.size,
        "rank": summary.rank,
        "stable_rank": summary.stable_rank,
        "flatness": summary.flatness,
        # The law is that of projections that know nothing.
        "predicted_error": math.sqrt(1 - core.a * core.b / (m * n)) if known is None else None,
    }
    rounding = subject.rounding_rms * math.sqrt(m * n)
    if not sigma[0] > 0:
        names = [one.name for one in ASSUMPTIONS.values() if one.of_update]
        return _Found(row | _NO_MEASURES, dict.fromkeys(names), [], None)
    ratio = measured_participation(sigma, rounding)
    delta, unit = in_safe_range(subject.delta)
    bases = measure_bases(delta, transforms, unit * rounding)
    best = min(bases, key=lambda one: (one.effective.value, one.profile["numerical_sparsity"]))
    compressible = min(bases, key=lambda one: one.exponent.value)
    sides = () if known is None else (known.inputs, known.gradients)
    captured = _captured(subject.name, Update(delta, None, unit * sigma, *sides), core, settings)
    error = Measured(*(math.sqrt(1 - x) for x in (captured.mean, captured.high, captured.low)))
    row |= {
        **_flat("participation_ratio", ratio),
        "variance_factor": variance_factor(m, n, core.a, core.b, ratio.value),
        "best_basis": best.basis,
        **_flat("sparsity", best.effective),
        "numerical_sparsity": best.profile["numerical_sparsity"],
        "gini": best.profile["gini"],
        **_flat("weak_lp", compressible.exponent),
        "compressible_basis": compressible.basis,
        **_flat("error", error),
        "captured": captured.mean,
        "draws": captured.draws,
    }
    judged: dict[str, Measured | None] = {
        "flat_spectrum": ratio,
        "compressible": compressible.exponent,
        "spark_wall": best.effective,
        "measurements": best.effective,
        "decodable": error,
    }
    return _Found(row, judged, bases, best)


_NO_MEASURES: dict[str, Any] = {
    **_flat("participation_ratio", None),
    **_flat("sparsity", None),
    **_flat("weak_lp", None),
    **_flat("error", None),
    **dict.fromkeys(("variance_factor", "best_basis", "compressible_basis")),
    **dict.fromkeys(("numerical_sparsity", "gini", "captured")),
    "draws": 0,
}
"""The measures of a zero update."""


def measured_participation(sigma: NDArray[np.float64], rounding: float) -> Measured:
    """Return (Σσ²)²/Σσ⁴, and the interval in which rounding of the stored weights leaves it.

    It is (‖X‖_F/‖X‖_S4)⁴ with the norm of the fourth powers of the singular values (descending, the
    first not zero); an error E with ‖E‖_F = `rounding` moves either norm by no more than ‖E‖_F.
    """
    values, noise = sigma / sigma[0], rounding / float(sigma[0])
    two = float(np.sum(values**2)) ** 0.5
    four = float(np.sum(values**4)) ** 0.25
    low = max(1.0, (max(two - noise, 0.0) / (four + noise)) ** 4)
    high = ((two + noise) / (four - noise)) ** 4 if four > noise else math.inf
    return Measured(laws.participation_ratio(values), low, min(high, float(sigma.size)))


def _captured(name: str, update: Update, core: Core, settings: AuditSettings) -> Captured:
    """Measure the share of energy that the best core holds, over planned draws."""
    size = Size(
        parameters=core.a * core.b,
        text=f"a={core.a}, b={core.b}",
        a=core.a,
        b=core.b,
        rank=int(laws.rank_wall(core.a, core.b)),
    )
    draws = Draws(settings.draws, settings.seed, (name,))
    return FAMILIES[f"cosa_{settings.kind}"].capture(update, [size], draws)[0]
