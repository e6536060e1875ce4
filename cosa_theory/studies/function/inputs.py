"""Second moments of the layers' inputs, gathered or read, and what they say of the updates."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.errors import InputError
from cosa_theory.laws import InputMoments, input_moments
from cosa_theory.studies.layers import Pair

if TYPE_CHECKING:
    from cosa_theory.nn.moments import Moments
    from cosa_theory.nn.readout import Readout, TextModel

__all__ = ["LayerMoments", "moments_of_inputs", "moments_of_updates"]

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class LayerMoments:
    """Second moments C of a layer's inputs, and those of its update under them.

    Parameters
    ----------
    matrix : array
        C.
    weighted : InputMoments
        Of the update.
    mapped : float
        tr(ΔW C ΔWᵀ).
    transposed : bool
        Whether the layer stores in × out, so that its inputs meet the rows of ΔW.
    """

    matrix: NDArray[Any]
    weighted: InputMoments
    mapped: float
    transposed: bool = False


def moments_of_inputs(
    model: "TextModel",
    weights: Mapping[str, str],
    readout: "Readout",
    stored: Path | None,
    save: Path | None,
) -> tuple["Moments", list[str]]:
    """Read the moments of the base model's inputs, or gather them on the texts of a readout.

    Returns
    -------
    Moments
        By the names of the model's weights, the values of `weights`.
    list of str
        What a reader should know: where the file's were gathered on other texts.
    """
    from cosa_theory.nn.moments import (
        batches_digest,
        layer_moments,
        model_fingerprint,
        read_moments,
        write_moments,
    )

    batches = [batch for _, batch in readout.batches]
    if stored is not None:
        found = read_moments(stored, model_fingerprint(model.network))
        other = "Weighted energies are of stored moments, which were gathered on other texts."
        return found, [other] if found.texts != batches_digest(batches) else []

    # All of C, whatever memory it takes: energies under it need more than its leading directions.
    found = layer_moments(model.network, batches, list(weights.values()), most_bytes=2**62)
    if save is not None:
        write_moments(found, save)
    return found, []


def moments_of_updates(
    pair: Pair, weights: Mapping[str, str], moments: "Moments", transposed: set[str]
) -> dict[str, LayerMoments]:
    """Return the moments of the updates that meet some input, by their names.

    `transposed` names the weights that are stored in × out.
    """
    found = {}
    for layer in pair:
        weight = weights.get(layer.name, "")
        gathered = moments.inputs.get(weight)
        matrix = None if gathered is None else gathered.matrix
        if matrix is None:
            continue
        inputs = layer.shape[0 if weight in transposed else 1]
        if len(matrix) != inputs:
            raise InputError(
                f"the moments of {weight} are {len(matrix)} × {len(matrix)}, its layer has "
                f"{inputs} inputs: gather them with this model"
            )
        one = _of_update(layer, matrix, weight in transposed)
        if one is not None:
            found[layer.name] = one
    return found


def _of_update(layer: LayerDelta, matrix: NDArray[Any], transposed: bool) -> LayerMoments | None:
    delta = layer.delta.astype(np.float64)
    if transposed:
        delta = delta.T
    mapped = float(np.vdot(delta @ matrix, delta))
    if not (mapped > 0 and math.isfinite(mapped)):
        return None
    return LayerMoments(matrix, input_moments(delta, matrix), mapped, transposed)
