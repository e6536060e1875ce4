"""Adapters that begin with what a method takes of W, or of texts: from PEFT, and LoRA-XS."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    initialize_lora_eva_weights,
)
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from torch import Tensor, nn

from cosa_theory.nn.moments import Moments, layer_moments
from cosa_theory.nn.peft import CosaConfig, prepare_cosa
from cosa_theory.projections import INFORMED, SecondMoments

__all__ = ["OF_GRADIENTS", "REWRITTEN", "adapter_put"]

OF_GRADIENTS = ("lora_ga",)
"""The methods, beside CoSA of kind "gradient", that start from gradients and need labels."""

REWRITTEN = ("pissa", "lora_corda", "lora_ga")
"""The methods that take their first product out of the base's weights."""

Batch = Mapping[str, Any]


def adapter_put(
    model: nn.Module, made: PeftConfig, method: str, batches: Iterable[Batch]
) -> PeftModel:
    """Put an adapter into a model.

    Parameters
    ----------
    model : nn.Module
        Without adapters.
    made : PeftConfig
        Its `target_modules` a list of the layers' whole names.
    method : str
        One of `experiments.finetune.budgets.METHODS`.
    batches : iterable of mapping
        As the model takes them, with labels where gradients are taken; read only by methods that
        start from data.

    Returns
    -------
    PeftModel
    """
    if method == "lora_xs":
        prepare_cosa(model, made, moments=_singular_moments(model, made))
    elif isinstance(made, CosaConfig) and made.kind == "gradient" and hasattr(model, "encoder"):
        prepare_cosa(model, made, moments=_sampled_moments(model, made, batches))
    elif isinstance(made, CosaConfig) and made.kind in INFORMED:
        prepare_cosa(model, made, batches)
    elif method == "lora_corda":
        preprocess_corda(model, made, run_model=lambda: _run_singly(model, batches))
    elif method == "lora_ga":
        preprocess_loraga(model, made, lambda: _go_back(model, batches))
    adapted = get_peft_model(model, made)
    if method == "lora_eva":
        # It goes through them until what it finds stays as it is.
        initialize_lora_eva_weights(adapted, list(batches), show_progress_bar=False)
    return adapted


def _singular_moments(model: nn.Module, made: CosaConfig) -> Moments:
    """Return moments whose leading directions are the singular vectors of each layer's weight.

    CoSA of kind "gradient" then is LoRA-XS without the singular values in its first factor.
    """
    inputs, outputs = {}, {}
    names: Sequence[str] = list(made.target_modules or ())
    for name in names:
        module: Any = model.get_submodule(name)
        left, values, right = torch.linalg.svd(module.weight.detach(), full_matrices=False)
        energies = values.square().numpy()
        known = {"values": energies, "where": name}
        inputs[f"{name}.weight"] = SecondMoments(vectors=right.T.numpy(), **known)
        outputs[f"{name}.weight"] = SecondMoments(vectors=left.numpy(), **known)
    return Moments(inputs, outputs)


def _sampled_moments(model: Any, made: CosaConfig, batches: Iterable[Batch]) -> Moments:
    """Return moments of a classifier's encoder, with gradients of samples around its embeddings.

    Those of labels would come through a head that is still random, and whose few classes span too
    few directions in the last block.
    """
    prefix = "encoder."
    plain = [{name: one for name, one in batch.items() if name != "labels"} for batch in batches]
    names = [f"{name.removeprefix(prefix)}.weight" for name in made.target_modules or ()]
    found = layer_moments(model.encoder, plain, names, gradients="samples")
    inputs, outputs = (
        {f"{prefix}{name}": one for name, one in side.items()}
        for side in (found.inputs, found.gradients)
    )
    return Moments(inputs, outputs)


def _run_singly(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Run a model on each item by itself, without padding, as CorDA's hooks ask for."""
    for batch in batches:
        for row, mask in enumerate(batch["attention_mask"]):
            length = int(mask.sum())
            one: dict[str, Tensor] = {
                name: batch[name][row : row + 1, :length]
                for name in ("input_ids", "attention_mask")
            }
            model(**one)


def _go_back(model: nn.Module, batches: Iterable[Batch]) -> None:
    for batch in batches:
        model(**batch).loss.backward()
