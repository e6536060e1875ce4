"""Second moments of a model's layers, as one object and as a file."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path, check_file
from cosa_theory.ground.tensor_files import read_header, read_metadata, read_tensor
from cosa_theory.projections import SecondMoments

__all__ = ["Moments", "check_moments", "check_target", "read_moments", "write_moments"]

_FORMAT = "cosa_theory moments 4"
_OLDER = "cosa_theory moments "  # whose first and last tokens of every batch stand for too many
_PARTS = ("matrix", "vectors", "values", "mean")
_REMEDY = "make it with cosa-theory moments"


@dataclass(frozen=True)
class Moments:
    """Second moments of the inputs of some layers, and of the gradients of their outputs.

    Parameters
    ----------
    inputs, gradients : mapping of str to SecondMoments
        From the name of a weight (m × n) to C = E[x xᵀ], n × n, float32, not centred, and
        to the same of the gradients δ of a loss by the layer's outputs, m × m.
    model, texts : str
        Digests of the model's weights (`model_fingerprint`) and of the tokens it was run on.
    transposed : frozenset of str
        Names of weights that are stored as inputs × outputs, as by Conv1D.
    """

    inputs: Mapping[str, SecondMoments]
    gradients: Mapping[str, SecondMoments] = field(default_factory=dict)
    model: str = ""
    texts: str = ""
    transposed: frozenset[str] = frozenset()


def write_moments(moments: Moments, path: str | os.PathLike[str]) -> None:
    """Write moments as safetensors: the tensors of each distinct one, and its layers.

    `InputError` if there is a folder, or the file cannot be written.
    """
    check_file("path", path)
    tensors: dict[str, torch.Tensor] = {}
    described: dict[str, dict[str, Any]] = {}
    for side, by_layer in (("inputs", moments.inputs), ("gradients", moments.gradients)):
        known: dict[int, str] = {}
        for name, one in by_layer.items():
            owner = known.setdefault(id(one), name)
            described[f"{side} {name}"] = {"owner": owner, "count": one.count, "trace": one.trace}
            parts = {part: getattr(one, part) for part in _PARTS if owner == name}
            for part, values in parts.items():
                if values is not None:
                    tensors[f"{side}.{name}.{part}"] = torch.from_numpy(
                        np.ascontiguousarray(values)
                    )
    metadata = {
        "format": _FORMAT,
        "layers": json.dumps(described),
        "model": moments.model,
        "texts": moments.texts,
        "transposed": json.dumps(sorted(moments.transposed)),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def check_target(path: str | os.PathLike[str], argument: str) -> None:
    """Find out before a pass whether its moments can be written there, over nothing but moments.

    Raises
    ------
    InputError
        Which names the argument, if they cannot.
    """
    check_file(argument, path)
    if os.path.exists(path):
        try:
            check_moments(path)
        except (InputError, OSError) as error:
            text = f"{argument} is {os.fspath(path)}, which is there and holds no moments: name "
            raise InputError(f"{text}another file", argument=argument) from error


def check_moments(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return what a file of moments says of itself, from its header; `InputError` for another."""
    metadata = read_metadata(os.fspath(path))
    found = metadata.get("format", "")
    if found != _FORMAT and found.startswith(_OLDER):
        raise InputError(f"{os.fspath(path)} holds moments of another version: {_REMEDY} anew")
    if found != _FORMAT:
        raise InputError(f"{os.fspath(path)} holds no moments of layers' inputs: {_REMEDY}")
    return metadata


def read_moments(path: str | os.PathLike[str], model: str | None = None) -> Moments:
    """Read what `write_moments` wrote.

    Parameters
    ----------
    path : path
        The file.
    model : str, optional
        What `model_fingerprint` gives of the model that they must be of.

    Raises
    ------
    InputError
        If the file is damaged, is not one of moments, or its moments are of another model.
    """
    path = Path(path)
    infos, metadata = read_header(path), check_moments(path)
    sides: dict[str, dict[str, SecondMoments]] = {"inputs": {}, "gradients": {}}
    try:
        texts, found = metadata["texts"], metadata["model"]
        transposed = frozenset(json.loads(metadata.get("transposed", "[]")))
        for key, about in json.loads(metadata["layers"]).items():
            side, name = key.split(" ", 1)
            owner = about["owner"]
            if owner != name:
                sides[side][name] = sides[side][owner]
                continue
            stored = {part: f"{side}.{name}.{part}" for part in _PARTS}
            parts = {part: read_tensor(infos[at]) for part, at in stored.items() if at in infos}
            count, trace = int(about["count"]), float(about["trace"])
            sides[side][name] = SecondMoments(**parts, trace=trace, count=count, where=name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no moments of layers' inputs: {_REMEDY}") from error
    if model is not None and found != model:
        raise InputError(f"{path}: its moments are not of this base model: {_REMEDY} on this one")
    return Moments(**sides, model=found, texts=texts, transposed=transposed)
