"""Models that transformers loads: their tokenizer, what of them is new, whether all is there."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from cosa_theory.deltas.language_models import quiet_transformers, refuse_drawn
from cosa_theory.ground.errors import InputError, reason
from experiments.finetune.methods import in_head

__all__ = [
    "beginning_of",
    "form_of",
    "loaded",
    "padding_of",
    "refuse_lacking",
    "sees_ahead",
    "tokenizer_of",
]


def tokenizer_of(base: str) -> Any:
    """Return the tokenizer that lies beside a model."""
    return _from(base, transformers.AutoTokenizer.from_pretrained)


def padding_of(tokenizer: Any) -> int:
    """Return what fills short items up: many decoders have no token of its own for that."""
    pad: int | None = tokenizer.pad_token_id
    return tokenizer.eos_token_id if pad is None else pad


def beginning_of(tokenizer: Any) -> list[int]:
    """Return the tokens that begin every text of a model, such as Llama's; most models have none.

    A chat has them in its template.
    """
    bare = tokenizer("a", add_special_tokens=False).input_ids
    whole: list[int] = tokenizer("a").input_ids
    places = range(len(whole) - len(bare) + 1)
    return whole[: next((place for place in places if whole[place:][: len(bare)] == bare), 0)]


def form_of(base: str) -> tuple[tuple[str, ...], int | None]:
    """Return the modules of a classifier's new head, and how many tokens its positions are for.

    The head is all that the model has around its base (DistilBERT's classifier stands on a layer
    that is as new), and a pooler that the checkpoint lacks: BERT's has none if it was saved as a
    model of masked tokens. The second is None where positions are no table.
    """
    model, missing = _outline(base, transformers.AutoModelForSequenceClassification)
    body = model.base_model_prefix
    head = [
        name for name, part in model.named_children() if name != body and list(part.parameters())
    ]
    if any(key.startswith(f"{body}.pooler.") for key in missing):
        head.append(f"{body}.pooler")
    refuse_drawn(base, (key for key in missing if not in_head(key, head)))
    tables = [
        # RoBERTa counts on from the padding token.
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
    ]
    return tuple(head), min(tables, default=None)


def _outline(base: str, loader: Any) -> tuple[Any, list[str]]:
    """Return a model without memory for its weights, and the names of those that it lacks."""
    with quiet_transformers():
        settings = {"device_map": "meta", "output_loading_info": True}
        model, found = _from(base, loader.from_pretrained, **settings)
    return model, list(found["missing_keys"])


def refuse_lacking(base: str, loader: Any) -> None:
    """Raise InputError if a model's files lack some of its weights."""
    refuse_drawn(base, _outline(base, loader)[1])


def sees_ahead(base: str) -> bool:
    """Return whether a model is an encoder, which transformers may take for a language model.

    Those of masked tokens are, unless their class or settings make decoders of them.
    """
    settings = _from(base, transformers.AutoConfig.from_pretrained)
    if type(settings) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        return False
    if type(settings) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return True
    with quiet_transformers(), torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(settings).config
    return not (getattr(made, "is_decoder", False) or getattr(made, "causal", False))


def loaded(base: str, dtype: str, loader: Any, **settings: Any) -> Any:
    """Return a model as one of transformers' loaders makes it."""
    with quiet_transformers():
        return _from(base, loader.from_pretrained, dtype=getattr(torch, dtype), **settings)


def _from(base: str, load: Callable[..., Any], **settings: Any) -> Any:
    try:
        return load(base, **settings)
    except Exception as error:  # absent, unknown, damaged: each library raises its own
        raise InputError(
            f"model {base}: transformers cannot load it or its tokenizer ({reason(error)[:100]}): "
            "name a folder with both, or check the name on the hub and the network",
            argument="model",
        ) from error
