"""Names as the base model has them, without what wrappers put into them."""

import re
from collections.abc import Collection

__all__ = ["known_name", "unwrapped_name"]

_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module"
    r"|_original_module)(?:\.|$)"
)
"""What `torch.compile`, FSDP, activation checkpointing and Lightning name the module they wrap."""


def unwrapped_name(name: str) -> str:
    """Return the name of a module or tensor without the parts that certainly are a wrapper's.

    The `module.` of data parallel training is none of them: other modules have a part so named.
    """
    return _WRAPPERS.sub("", name).removesuffix(".")


def known_name(name: str, known: Collection[str]) -> str:
    """Return the known name that a name stands for, which may have `module.` in it, or the name.

    So data parallel training wrote the names of adapters, before they were plain.
    """
    short = re.sub(r"(^|(?<=\.))module(\.|$)", "", name).removesuffix(".")
    return name if name in known or short not in known else short
