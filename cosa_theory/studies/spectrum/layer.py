"""The survey of one matrix, as plain JSON values."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory import __version__
from cosa_theory.deltas import LayerDelta
from cosa_theory.spectrum import (
    resolution,
    singular_values,
    singular_values_of_product,
    summarize,
)
from cosa_theory.spectrum.families.compare import compare_families, crossover

__all__ = ["Settings", "delta_spectrum", "identity", "plain_records", "survey_layer"]

# Raised when the content of a stored cell changes meaning, so that older ones are computed anew.
_CELL_FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """What the result for one layer depends on, besides the layer.

    Parameters
    ----------
    ranks : tuple of int or None
        Budgets; None for those of the layer's shape.
    families : tuple of str
        Names from `FAMILIES`.
    draws, seed : int
        Of the random families.
    matrices : tuple of str
        The matrices whose singular values are listed.
    device : str or None
        The torch device that computes singular values; None for numpy.
    """

    ranks: tuple[int, ...] | None
    families: tuple[str, ...]
    draws: int
    seed: int
    matrices: tuple[str, ...]
    device: str | None = None


def identity(layer: LayerDelta, settings: Settings) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return what decides a layer's result, as `cosa_theory.ground.cells.cell_name` takes it."""
    described = {
        "format": _CELL_FORMAT,
        "version": __version__,
        "settings": dataclasses.asdict(settings),
        "name": layer.name,
        "types": [layer.base_dtype, layer.tuned_dtype],
        "rounding_rms": layer.rounding_rms,
    }
    return described, [layer.delta, layer.base, *(layer.factors or ())]


def survey_layer(layer: LayerDelta, settings: Settings) -> dict[str, Any]:
    """Compute everything about one layer, as plain JSON values.

    Parameters
    ----------
    layer : LayerDelta
        The layer.
    settings : Settings
        What to compute.

    Returns
    -------
    dict
        `layer` (one row of the table of layers), `spectra` (matrix to its singular values and how
        many are resolved), `families` and `crossover` (rows).
    """
    m, n = layer.shape
    sigma, method = delta_spectrum(layer, settings.device)
    summary = summarize(sigma, shape=(m, n), method=method)
    spectra = {"delta": _listed(sigma, method, (m, n))}
    for name in ("base", "tuned"):
        if name in settings.matrices:
            sigma_of = _spectrum(getattr(layer, name), settings.device)
            spectra[name] = _listed(sigma_of, "gram", (m, n))
    norm = float(np.linalg.norm(layer.base.astype(np.float64, copy=False)))
    families = compare_families(
        layer.delta,
        layer.base,
        ranks=settings.ranks,
        families=settings.families,
        draws=settings.draws,
        seed=settings.seed,
        key=layer.name,
        sigma=sigma,
    )
    return {
        "layer": {
            "layer": layer.name,
            "m": m,
            "n": n,
            "base_dtype": layer.base_dtype,
            "tuned_dtype": layer.tuned_dtype,
            "delta_norm": summary.frobenius,
            "relative_norm": summary.frobenius / norm if norm > 0 else None,
            **summary.as_dict(),
            "rounding_rms": layer.rounding_rms,
            "rounding_edge": layer.rounding_rms * (math.sqrt(m) + math.sqrt(n)),
        },
        "spectra": {name: spectra[name] for name in settings.matrices},
        "families": plain_records(families),
        "crossover": plain_records(crossover(sigma, m, n, settings.ranks)),
    }


def _spectrum(matrix: NDArray, device: str | None) -> NDArray[np.float64]:
    """Return the singular values of a matrix, computed by numpy or on a torch device."""
    if device is None:
        values: NDArray[np.float64] = singular_values(matrix)
        return values
    import torch

    on_device: torch.Tensor = singular_values(torch.as_tensor(matrix, device=device))
    return on_device.cpu().numpy()


def delta_spectrum(layer: LayerDelta, device: str | None = None) -> tuple[NDArray[np.float64], str]:
    """Return all min(m, n) singular values of ΔW, and how they were obtained.

    Parameters
    ----------
    layer : LayerDelta
        The layer; the factors of an adapter are used where it has them.
    device : str, optional
        A torch device to compute them on; by default numpy does.

    Returns
    -------
    sigma : ndarray of shape (min(m, n),)
        Descending.
    method : {"gram", "product"}
        For `cosa_theory.spectrum.resolution`.
    """
    if layer.factors is None:
        return _spectrum(layer.delta, device), "gram"
    sigma = np.zeros(min(layer.shape))
    thin = singular_values_of_product(*layer.factors)
    sigma[: len(thin)] = thin
    return sigma, "product"


def _listed(sigma: NDArray[np.float64], method: str, shape: tuple[int, int]) -> dict[str, Any]:
    level = resolution(sigma, method, shape)
    return {"sigma": sigma.tolist(), "resolved": int(np.count_nonzero(sigma > level))}


def plain_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON values: Python numbers, and None for a null."""
    plain = frame.astype(object).where(frame.notna(), None)
    return plain.to_dict("records")  # type: ignore[return-value]
