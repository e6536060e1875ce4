"""The survey of one matrix, as plain JSON values."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory import __version__
from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.scales import frobenius_norm
from cosa_theory.page.document import records
from cosa_theory.spectrum import resolution
from cosa_theory.spectrum.families.compare import compare_families, crossover
from cosa_theory.spectrum.measures import beside_base
from cosa_theory.studies.known_layers import Known
from cosa_theory.studies.layers import delta_spectrum, spectrum_of
from cosa_theory.studies.spectrum.beside_base import is_decomposed

__all__ = ["SurveySettings", "Surveyed", "identity", "survey_layer"]

# Raised when the content of a stored cell changes meaning, so that older ones are computed anew.
_CELL_FORMAT = 5


@dataclass(frozen=True)
class SurveySettings:
    """What the result for a layer depends on besides the layer: arguments of `survey_pair`."""

    ranks: tuple[int, ...] | None
    families: tuple[str, ...]
    draws: int
    seed: int
    matrices: tuple[str, ...]
    device: str | None = None


@dataclass(frozen=True)
class Surveyed:
    """A layer, and what is known of it beforehand."""

    layer: LayerDelta
    known: Known | None = None


def identity(
    surveyed: Surveyed, settings: SurveySettings
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return what decides a layer's result, as `cosa_theory.ground.cells.cell_name` takes it."""
    layer, known = surveyed.layer, surveyed.known
    described = {
        "format": _CELL_FORMAT,
        "version": __version__,
        "settings": dataclasses.asdict(settings),
        "name": layer.name,
        "types": [layer.base_dtype, layer.tuned_dtype],
        "rounding_rms": layer.rounding_rms,
    }
    arrays = [layer.delta, layer.base, *(layer.factors or ())]
    if known is None:
        return described, arrays
    return described | known.described, arrays + known.arrays


def survey_layer(surveyed: Surveyed, settings: SurveySettings) -> dict[str, Any]:
    """Compute everything about one layer, as plain JSON values.

    Returns `name`, `spectra` (matrix to its singular values and how many are resolved), and rows of
    the tables `layers`, `families` and `crossover`.
    """
    layer, known = surveyed.layer, surveyed.known
    m, n = layer.shape
    sigma, summary = delta_spectrum(layer, settings.device)
    summary = beside_base(summary, layer.delta, layer.base, vectors=is_decomposed(m, n))
    spectra: dict[str, Any] = {"delta": {"sigma": sigma.tolist(), "resolved": summary.rank}}
    for name in ("base", "tuned"):
        if name in settings.matrices:
            sigma_of = spectrum_of(getattr(layer, name), settings.device)
            resolved = int(np.count_nonzero(sigma_of > resolution(sigma_of, "gram", (m, n))))
            spectra[name] = {"sigma": sigma_of.tolist(), "resolved": resolved}
    norm = frobenius_norm(layer.base)
    families = compare_families(
        layer.delta,
        layer.base,
        ranks=settings.ranks,
        families=settings.families,
        draws=settings.draws,
        seed=settings.seed,
        key=layer.name,
        sigma=sigma,
        **({} if known is None else known.settings),
    )
    size = {"m": m, "n": n}
    row = {
        **size,
        "base_dtype": layer.base_dtype,
        "tuned_dtype": layer.tuned_dtype,
        "delta_norm": summary.frobenius,
        "relative_norm": summary.frobenius / norm if norm > 0 else None,
        **summary.as_dict(),
        "rounding_rms": layer.rounding_rms,
        "rounding_edge": layer.rounding_rms * (math.sqrt(m) + math.sqrt(n)),
    }
    crossings = crossover(sigma, m, n, settings.ranks)
    return {
        "name": layer.name,
        "layers": [row],
        "spectra": {name: spectra[name] for name in settings.matrices},
        "families": [size | one for one in records(families)],
        "crossover": [size | one for one in records(crossings)],
    }
