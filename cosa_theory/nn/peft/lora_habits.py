"""Settings of LoRA that users give by habit, and what stands for them here."""

import difflib
from collections.abc import Collection, Iterable

from cosa_theory.ground.errors import InputError

__all__ = ["UnexpectedSetting"]

_INSTEAD = {
    "r": "an update has the core's shape for a rank: give a and b",
    "rank": "an update has the core's shape for a rank: give a and b",
    "rank_pattern": "give the shapes [a, b] of such layers as shape_pattern",
    "lora_alpha": "give alpha, which is not divided by a rank",
    "lora_dropout": "give dropout",
    "lora_bias": "give bias='cosa_only'",
    "init_lora_weights": "give init_weights",
    "target_parameters": "only linear layers are adapted: give target_modules",
}
_LORA = ("lora", "dora", "rslora", "pissa", "qalora", "corda", "arrow", "megatron", "loftq", "eva")


class UnexpectedSetting(InputError, TypeError):
    """Settings that a configuration does not have.

    A TypeError too, of the words by which PEFT knows the file of a later version: it leaves such
    settings out, with a warning.
    """

    def __init__(self, names: Iterable[str], known: Collection[str]) -> None:
        super().__init__(*(_sentence(name, known) for name in names))


def _sentence(name: str, known: Collection[str]) -> str:
    begin = f"CosaConfig got an unexpected keyword argument {name[:60]!r}: "
    if name in _INSTEAD:
        return begin + _INSTEAD[name]
    if any(part in name for part in _LORA):
        return f"{begin}it is a setting of LoRA, and CoSA has none like it: leave it out"
    near = difflib.get_close_matches(name, known, n=1)
    return begin + (f"the closest setting is {near[0]}" if near else "leave it out")
