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
from cosa_theory.projections import SecondMoments
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
    inputs : SecondMoments
        C, all of it.
    weighted : InputMoments
        Of the update.
    mapped : float
        tr(ΔW C ΔWᵀ).
    outputs : int
        Of the layer.
    transposed : bool
        Whether the layer stores in × out, so that its inputs meet the rows of ΔW.
    """

    inputs: SecondMoments
    weighted: InputMoments
    mapped: float
    outputs: int
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        return self.outputs, self.inputs.n

    @property
    def matrix(self) -> NDArray[Any]:
        """C."""
        assert self.inputs.matrix is not None
        return self.inputs.matrix


def moments_of_inputs(
    model: "TextModel",
    weights: Mapping[str, str],
    readout: "Readout",
    stored: Path | None,
    save: Path | None,
) -> tuple["Moments", bool]:
    """Read the moments of the base model's inputs, or gather them on the texts of a readout.

    Returns
    -------
    Moments
        By the names of the model's weights, the values of `weights`.
    bool
        Whether they were gathered on those texts.
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
        return found, found.texts == batches_digest(batches)

    # All of C, whatever memory it takes: energies under it need more than its leading directions.
    found = layer_moments(model.network, batches, list(weights.values()), most_bytes=2**62)
    if save is not None:
        write_moments(found, save)
    return found, True


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
        if gathered is None or gathered.matrix is None:
            continue
        inputs = layer.shape[0 if weight in transposed else 1]
        if gathered.n != inputs:
            raise InputError(
                f"the moments of {weight} are {gathered.n} × {gathered.n}, its layer has "
                f"{inputs} inputs: gather them with this model"
            )
        one = _of_update(layer, gathered, weight in transposed)
        if one is not None:
            found[layer.name] = one
    return found


def _of_update(layer: LayerDelta, inputs: SecondMoments, transposed: bool) -> LayerMoments | None:
    matrix = inputs.matrix
    assert matrix is not None
    delta = layer.delta.astype(np.float64)
    if transposed:
        delta = delta.T
    mapped = float(np.vdot(delta @ matrix, delta))
    if not (mapped > 0 and math.isfinite(mapped)):
        return None
    return LayerMoments(inputs, input_moments(delta, matrix), mapped, len(delta), transposed)
