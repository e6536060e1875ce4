"""Projections made from data: R in the leading directions of a layer's inputs.

Whatever the data, the rows of an update of gradient descent lie in the span of the layer's inputs,
and its columns in that of the gradients of its outputs. See docs/theory.md, 7.1. No seed brings
such projections back, so an adapter stores them.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.checks import refuse
from cosa_theory.ground.errors import InputError, Problems
from cosa_theory.nn.moments import Moments, model_fingerprint, read_moments
from cosa_theory.nn.projection import ProjectionSpec
from cosa_theory.nn.settings import LayerSpec
from cosa_theory.projections import ENSEMBLES, INFORMED, SecondMoments, make_projection

__all__ = ["informed_projections", "moments_of", "needed_sides"]


def moments_of(
    moments: Moments | str | os.PathLike[str] | None, model: nn.Module, kind: str
) -> Moments | None:
    """Return moments given as such or as a file, after comparing the model that they are of.

    Parameters
    ----------
    moments : Moments or path, optional
        A file is one of `cosa_theory.nn.moments.write_moments`.
    model : nn.Module
        The base model. Moments that do not say what model they are of are not compared.
    kind : str
        The ensemble that they are for.

    Raises
    ------
    InputError
        If they are of another model, or the ensemble takes none.
    """
    if moments is None:
        return None
    if kind not in INFORMED:
        raise InputError(
            f"moments are given, but kind {kind!r} is drawn from its seed alone: leave them out, "
            f"or take one of the kinds {', '.join(INFORMED)}",
            argument="moments",
        )
    if isinstance(moments, (str, os.PathLike)):
        return read_moments(moments, model_fingerprint(model))
    if not isinstance(moments, Moments):
        raise refuse("moments", type(moments).__name__, "Moments, or the path of a file of them")
    if moments.model and moments.model != model_fingerprint(model):
        raise InputError(
            "the moments are of another model, whose weights differ from those of this one: gather "
            "them with this one",
            argument="moments",
        )
    return moments


def needed_sides(specs: Mapping[str, LayerSpec]) -> dict[tuple[str, str], ProjectionSpec]:
    """Return the projections that are made from data, by layer and role, "L" or "R"."""
    return {
        (name, role): one
        for name, spec in specs.items()
        for role, one in (("L", spec.left), ("R", spec.right))
        if ENSEMBLES[one.kind].data_dependent
    }


def informed_projections(
    specs: Mapping[str, LayerSpec], moments: Moments | None, dtype: str = "float32"
) -> dict[ProjectionSpec, Tensor]:
    """Make the projections that are drawn from moments.

    Parameters
    ----------
    specs : mapping of str to LayerSpec
        Layers by their names in the base model.
    moments : Moments, optional
        By the names of the layers' weights. None makes nothing.
    dtype : {"float32", "bfloat16"}
        To which the values are rounded.

    Returns
    -------
    dict of ProjectionSpec to Tensor
        R (b × n), from moments of the inputs; for kind "gradient" also the transpose of L (a × m),
        from those of the output gradients. Layers of one input and one shape have one tensor, but
        where `power` draws for each.

    Raises
    ------
    InputError
        Naming the layers that the moments lack, or that have too few directions.
    """
    if moments is None:
        return {}
    wanted = needed_sides(specs)
    sides = {"R": moments.inputs, "L": moments.gradients}
    _refuse_missing(wanted, sides)
    made: dict[ProjectionSpec, Tensor] = {}
    known: dict[tuple[int, ProjectionSpec], Tensor] = {}
    problems = Problems()
    for (name, role), spec in wanted.items():
        own = sides[role][f"{name}.weight"]
        drawn = "power" in dict(spec.options)
        alike = id(own), spec if drawn else replace(spec, key=(), seed=0)
        with problems:
            if alike not in known:
                known[alike] = _made(spec, own, f"{role} of {name}", dtype)
            made[spec] = known[alike]
    problems.report()
    return made


def _made(spec: ProjectionSpec, moments: SecondMoments, what: str, dtype: str) -> Tensor:
    settings: dict[str, Any] = {"seed": spec.seed, "scale": spec.scale, "key": spec.key}
    options = dict(spec.options) | {"moments": moments, "dtype": "float32"}
    try:
        values = make_projection(spec.kind, spec.k, spec.d, **settings, **options)
    except InputError as error:
        raise InputError(f"{what} cannot be made: {error}") from error
    return torch.from_numpy(values).to(getattr(torch, dtype))


def _refuse_missing(
    wanted: Mapping[tuple[str, str], ProjectionSpec],
    sides: Mapping[str, Mapping[str, SecondMoments]],
) -> None:
    for role, what, remedy in (
        ("R", "inputs", "gather them with these layers among the names, or exclude the layers"),
        ("L", "output gradients", "gather them too, or give left='identity'"),
    ):
        names = [
            name for name, side in wanted if side == role and f"{name}.weight" not in sides[role]
        ]
        if names:
            raise InputError(
                f"the moments lack the {what} of {len(names)} layers ({first_few(names, 3)}): "
                f"{remedy}",
                argument="moments",
            )
