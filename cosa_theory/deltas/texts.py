"""The first-step gradient of a language model on a few texts, with the loss it was trained on."""

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cosa_theory.deltas.gradients import first_step_gradients
from cosa_theory.deltas.language_models import load_language_model
from cosa_theory.deltas.layers import LayerDelta
from cosa_theory.ground.checks import whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.texts import read_texts
from cosa_theory.projections import stream

if TYPE_CHECKING:
    import torch

__all__ = ["text_gradients"]

_MASKED = 0.15  # the share of tokens that BERT was trained to restore


def text_gradients(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    batch: int = 8,
    max_tokens: int = 128,
    seed: int = 0,
) -> list[LayerDelta]:
    """Return the gradient of a language model's own loss on the first texts of a file.

    A causal model predicts each next token, a masked one the 15 % of tokens that are replaced by
    its mask (drawn from `seed`). The loss is the mean cross-entropy per predicted token, in nats;
    the model computes in float32, dropout is off.

    Parameters
    ----------
    model : path or hub id
        A folder of transformers with weights and tokenizer: the pair's base.
    data : path
        Read as `cosa_theory.ground.texts.read_texts` does.
    batch : int
        How many texts, from the first on.
    max_tokens : int
        Texts are cut to this many tokens.
    seed : int
        Of the choice of masked tokens.

    Returns
    -------
    list of LayerDelta
        As `first_step_gradients` yields them.

    Raises
    ------
    InputError
        If the data hold no text, the model or its tokenizer cannot be read, the model is neither
        causal nor masked, transformers is not installed, `batch` is below 1 or `max_tokens`
        below 2.
    """
    whole("batch", batch)
    whole("max_tokens", max_tokens, least=2)  # one to predict another
    texts = read_texts(data, batch, argument="data")
    name = os.fspath(model)
    network, tokenizer = load_language_model(model, partial(_head, name))
    masked = type(network).__name__.endswith("ForMaskedLM")
    if masked and tokenizer.mask_token_id is None:
        raise InputError(f"{name}: predicts masked tokens, and its tokenizer has no mask.")
    inputs = tokenizer(
        texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    tokens = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    label = _mask_some if masked else _label_all
    return list(first_step_gradients(network, label(tokens, tokenizer, seed)))


def _head(model: str, architectures: Sequence[str]) -> str:
    """Return the class of transformers that has the loss of an architecture."""
    for name in architectures:
        if name.endswith("ForMaskedLM"):
            return "AutoModelForMaskedLM"
        if name.endswith(("ForCausalLM", "LMHeadModel")):
            return "AutoModelForCausalLM"
    named = ", ".join(architectures) or "no architecture"
    raise InputError(
        f"{model}: its config names {named}, which has no loss on plain text: save the gradient "
        "of your own training's first step, and pass that file as gradients."
    )


def _label_all(
    tokens: dict[str, "torch.Tensor"], tokenizer: Any, seed: int
) -> dict[str, "torch.Tensor"]:
    """Ask a causal model for every token but the padding."""
    labels = tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, -100)
    return {**tokens, "labels": labels}


def _mask_some(
    tokens: dict[str, "torch.Tensor"], tokenizer: Any, seed: int
) -> dict[str, "torch.Tensor"]:
    """Ask a masked model for 15 % of the words, at least one of each text."""
    import torch

    generator = stream(seed, "text_gradients", "masked tokens")
    inputs = tokens["input_ids"].clone()
    labels = torch.full_like(inputs, -100)
    for row, ids in enumerate(tokens["input_ids"].tolist()):
        special = tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
        words = [place for place, flag in enumerate(special) if not flag]
        count = min(len(words), max(1, round(_MASKED * len(words))))
        for index in generator.permutation(len(words))[:count]:
            place = words[index]
            labels[row, place] = inputs[row, place]
            inputs[row, place] = tokenizer.mask_token_id
    return {**tokens, "input_ids": inputs, "labels": labels}
