"""Language models of transformers with their tokenizers, loaded without noise, refused plainly."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cosa_theory.ground.errors import InputError, reason

__all__ = ["load_language_model", "quiet_transformers", "refuse_drawn"]


def load_language_model(
    source: str | os.PathLike[str], choose: Callable[[Sequence[str]], str]
) -> tuple[Any, Any]:
    """Return a model in evaluation mode, in float32, and its tokenizer, which can pad.

    Parameters
    ----------
    source : path or hub id
        A folder with weights, configuration and tokenizer.
    choose : callable
        Maps the architectures that its configuration names to the class of transformers that
        loads it, such as "AutoModelForCausalLM"; an `InputError` where none will do.

    Raises
    ------
    InputError
        Besides, if transformers is not installed, cannot load both, or finds less than all weights.
    """
    name = os.fspath(source)
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(
            f"{name}: reading a language model needs transformers: install cosa-theory[llm]."
        ) from error
    try:
        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(name)
            loader = getattr(transformers, choose(getattr(config, "architectures", None) or []))
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            settings = {"dtype": torch.float32, "output_loading_info": True}
            network, found = loader.from_pretrained(name, **settings)
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:  # a missing file, or one that does not fit
        raise InputError(
            f"{name}: transformers cannot load a model and its tokenizer from it "
            f"({reason(error)[:120]}): name a folder with both, or check the name on the hub and "
            "the network"
        ) from error
    # Outputs here are the last hidden states, or logits: a pooler changes neither.
    refuse_drawn(name, (key for key in found["missing_keys"] if "pooler." not in key))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    embedded = network.get_input_embeddings().num_embeddings
    if len(tokenizer) > embedded:
        raise InputError(
            f"{name}: its tokenizer has {len(tokenizer)} tokens, its model embeds {embedded}: they "
            "do not belong together"
        )
    return network.eval(), tokenizer


def refuse_drawn(model: str, missing: Iterable[str]) -> None:
    """Raise InputError if a checkpoint lacks weights, which transformers would draw at random.

    Parameters
    ----------
    model : str
        Its folder or name.
    missing : iterable of str
        Names of the weights that it lacks.
    """
    names = sorted(missing)
    if names:
        more = f" and {len(names) - 1:,} more" if names[1:] else ""
        raise InputError(
            f"{model}: its files lack {names[0]}{more}, which transformers would draw at random: "
            "save the whole model with save_pretrained"
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep loading reports and progress bars of transformers off the screen."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
