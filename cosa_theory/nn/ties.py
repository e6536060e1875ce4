"""Parameters that several modules share: what is trained and saved whole gets its own."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from cosa_theory.nn.wrappers import named_tensors, plain_names

__all__ = ["separate", "tied_names"]


def tied_names(model: nn.Module, modules: Sequence[str]) -> dict[str, list[str]]:
    """Return, by module, the parameters outside of it that are one with some inside, by name."""
    owners: dict[int, list[str]] = {}
    for name, tensor in named_tensors(model).items():
        owners.setdefault(id(tensor), []).append(name)
    tied = {}
    for module in modules:
        inside = f"{module}."
        outside = [
            name
            for names in owners.values()
            if any(one.startswith(inside) for one in names)
            for name in names
            if not name.startswith(inside)
        ]
        if outside:
            tied[module] = outside
    return tied


def separate(model: nn.Module, modules: Sequence[str]) -> dict[str, list[str]]:
    """Give modules parameters of their own, as PEFT does with those that are trained whole.

    Of a tied embedding and head, each that is named becomes a copy; what is not named stays as it
    is. Returned is what was tied, as `tied_names` tells it. transformers is told that the model
    has two tensors now, so that it saves both.
    """
    tied = tied_names(model, modules)
    places = {plain: name for name, plain in plain_names(model).items()}
    for module in tied:
        place = places[module]  # of several places with this name, the innermost
        parent, _, last = place.rpartition(".")
        setattr(model.get_submodule(parent), last, copy.deepcopy(model.get_submodule(place)))
    config: Any = getattr(model, "config", None)
    if tied and getattr(config, "tie_word_embeddings", False):
        config.tie_word_embeddings = False
    return tied
