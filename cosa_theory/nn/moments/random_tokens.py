"""Seeded random tokens, through which a model shows its inputs' directions without any text."""

from typing import Any

import numpy as np
import torch
from torch import nn

from cosa_theory.ground.checks import whole
from cosa_theory.ground.errors import InputError
from cosa_theory.projections import stream
from cosa_theory.projections.streams import raw_words, uniform_below

__all__ = ["most_tokens", "random_batches"]

_SPECIAL = ("pad", "bos", "eos", "cls", "sep", "mask", "unk", "decoder_start")


def random_batches(
    network: nn.Module, count: int, length: int, seed: int = 0, size: int = 16
) -> list[dict[str, torch.Tensor]]:
    """Return texts of random tokens, in batches as a model of transformers takes them.

    Tokens are uniform over the vocabulary, but for those that the configuration names as special;
    none of these is put around a text. Text i depends on the seed and on i alone, so that more
    texts, or other batches of them, begin alike in every process.

    Parameters
    ----------
    network : nn.Module
        A model of transformers.
    count, length : int
        Number of texts, and of the tokens of each.
    seed : int
        Of the draw.
    size : int
        Texts in a batch.

    Returns
    -------
    list of dict
        `input_ids` and `attention_mask`, all ones, of shape (texts, length).

    Raises
    ------
    InputError
        If the model has no vocabulary or special tokens alone, or takes no text of this length.
    """
    count, size = whole("count", count), whole("size", size)
    words = _ordinary_tokens(network, _config(network))
    length = whole("length", length, 1, most_tokens(network))
    texts = np.empty((count, length), np.int64)
    for place in range(count):
        draw = raw_words(stream(seed, "random tokens", place), length)
        texts[place] = words[uniform_below(draw, len(words)).astype(np.int64)]
    return [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for ids in torch.from_numpy(texts).split(size)
    ]


def most_tokens(network: nn.Module) -> int | None:
    """Return the length of the longest text that a model takes, where its configuration says."""
    most = getattr(_config(network), "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def _config(network: Any) -> Any:
    config: Any = getattr(network, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _ordinary_tokens(network: Any, config: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    embeddings = (
        network.get_input_embeddings() if hasattr(network, "get_input_embeddings") else None
    )
    sizes = (getattr(embeddings, "num_embeddings", None), getattr(config, "vocab_size", None))
    known = [one for one in sizes if isinstance(one, int)]
    if not known:
        raise InputError(
            f"{type(network).__name__} has no vocabulary to draw random tokens from: gather "
            "moments on batches of your own",
            argument="network",
        )
    special: set[int] = set()
    for name in _SPECIAL:
        named = getattr(config, f"{name}_token_id", None)
        every = named if isinstance(named, (list, tuple)) else [named]
        special.update(one for one in every if isinstance(one, int))
    words = np.setdiff1d(np.arange(min(known)), list(special))
    if not len(words):
        raise InputError(
            f"all {min(known)} tokens of {type(network).__name__} are special, and none is left to "
            "draw: gather moments on batches of your own",
            argument="network",
        )
    return words
