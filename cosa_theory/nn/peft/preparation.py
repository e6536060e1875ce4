"""Projections made from data, before an adapter is put into a model."""

import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from peft import PeftModel
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.informed import informed_projections, moments_of, needed_sides
from cosa_theory.nn.moments import Moments, random_batches
from cosa_theory.nn.peft.config import CosaConfig
from cosa_theory.nn.peft.injection import layer_sizes
from cosa_theory.nn.peft.targeting import adapters_off, base_of, target_layers
from cosa_theory.nn.restoring import gathered_moments, recipe_for
from cosa_theory.projections import INFORMED

__all__ = ["prepare_cosa"]


def prepare_cosa(
    model: nn.Module,
    config: CosaConfig,
    dataloader: Iterable[Mapping[str, Any]] | None = None,
    *,
    moments: Moments | str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> CosaConfig:
    """Make the projections of an informed adapter, and keep them with its configuration.

    The model runs once over some texts, without adapters and without training; the second moments
    C = E[x xᵀ] of the inputs of the layers that `config` targets are gathered, and for kind
    "gradient" those of the gradients of their outputs, where L is not the identity. R lies in the
    leading directions of C. Then `get_peft_model(model, config)` and `PeftModel.add_adapter` use
    what was made, and saving stores it.

    Parameters
    ----------
    model : nn.Module
        The base model, or a PeftModel to which the adapter will be added.
    config : CosaConfig
        Of kind "activation" or "gradient". Settings that are changed afterwards and would make
        other projections are refused when the adapter is put into a model.
    dataloader : iterable of mappings, optional
        Batches as the model takes them, unlabelled unless the gradients of labels are asked for.
        Some 4 b tokens of the layers' inputs are enough for b directions, and more are better.
        None for a configuration with tokens="random".
    moments : Moments or path, optional
        Instead of batches: by `cosa_theory.nn.moments.layer_moments` with this model, or a file of
        `write_moments`.
    progress : bool, default False
        Whether to show on standard error how many batches are done.

    Returns
    -------
    CosaConfig
        The configuration itself.

    Raises
    ------
    InputError
        If the kind is drawn from a seed, no batches, moments or random tokens are given or several
        of them, a layer has too few independent inputs or some that are no numbers, or the moments
        lack a layer or are of another model: the layer is named.

    Examples
    --------
    >>> config = CosaConfig(a=256, b=64, kind="activation", target_modules="all-linear")
    >>> config = prepare_cosa(base, config, dataloader)
    >>> model = get_peft_model(base, config)
    """
    config.check()
    if config.kind not in INFORMED:
        raise InputError(
            f"kind is {config.kind!r}, which is drawn from its seed and needs no data: leave "
            f"prepare_cosa out, or take one of the kinds {', '.join(INFORMED)}",
            argument="kind",
        )
    given = sum((dataloader is not None, moments is not None, config.tokens == "random"))
    if given != 1:
        raise InputError(
            f"{'none' if not given else 'several'} of dataloader, moments and tokens='random' are "
            "given: give batches of texts, moments gathered with this model, or ask for random "
            "tokens",
            argument="dataloader",
        )
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    bases = {name: base_of(one) for name, one in target_layers(inner, config).items()}
    with warnings.catch_warnings():  # of reduced cores, which the injection will give
        warnings.simplefilter("ignore", UserWarning)
        specs = config.settings().layers(layer_sizes(bases))
    recipe = None
    if config.tokens == "random":
        recipe = recipe_for(inner, specs, config.seed)
        dataloader = random_batches(inner, **recipe)
    if dataloader is None:
        found = moments_of(moments, inner, config.kind)
    else:
        with adapters_off(inner):
            found = gathered_moments(
                inner,
                bases,
                specs,
                dataloader,
                gradients=config.gradients,
                seed=config.seed,
                progress=progress,
            )
    config._made = informed_projections(specs, found, config.projection_dtype)
    of_inputs = all(role == "R" for _, role in needed_sides(specs))
    config.recipe = recipe if of_inputs and "power" in config.options else None
    return config
