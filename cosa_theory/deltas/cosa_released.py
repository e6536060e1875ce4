"""Settings of adapters of the code released with arXiv 2602.05148, in this library's names.

That code is a fork of PEFT 0.14 with peft_type "COSA" too. It stores the core as
`lora_Y.weight` (a × b), Lᵀ as `lora_L` (a × m) and Rᵀ as `lora_R` (n × b).
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from cosa_theory.deltas.wrapped_names import unwrapped_name
from cosa_theory.ground.checks import MOST_SIZE, choice, factor, real, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.expressions import by_pattern, name_end
from cosa_theory.ground.fields import Field, flag, optional, read_fields, table_of
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "PEFT_TYPES",
    "TENSOR",
    "WRAPPER",
    "base_name",
    "is_released",
    "translated_settings",
]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PEFT_TYPES = ("COSA", "COSA_THEORY")
"""Names of the method in a configuration; the second where PEFT has another method of that name."""

WRAPPER = "base_model.model."
"""What PEFT puts before a module's name in the base model."""

TENSOR = re.compile(r"(?:(?P<module>.+)\.)?(?P<code>cosa|lora)_(?P<role>[YLR])(?:\.weight)?")
"""A tensor of a CoSA layer without the wrapper: here cosa_Y, in that code lora_Y.weight."""


def base_name(tensor: str) -> str:
    """Return the name that a tensor of the file has in the base model, without wrappers."""
    name = unwrapped_name(tensor)
    name = name.removeprefix("module.") if name.startswith(f"module.{WRAPPER}") else name
    return name.removeprefix(WRAPPER)


_RELEASED = ("lora_alpha", "compression_a", "use_compression")
_divisor = partial(real, above=0, most=MOST_SIZE)
_FIELDS = {
    "r": Field(_divisor, 8),
    "lora_alpha": Field(factor, 8),
    "rank_pattern": Field(optional(table_of(_divisor, name_end))),
    "alpha_pattern": Field(optional(table_of(factor, name_end))),
    "use_rslora": Field(optional(flag)),
    "compression_seed": Field(optional(partial(whole, least=0))),
    "lora_dropout": Field(optional(partial(real, least=0, below=1))),
    "bias": Field(optional(partial(choice, allowed=("none", "all", "lora_only")))),
}
_CARRIED = (  # settings that mean the same in the released code
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "target_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
    "fan_in_fan_out",
)


def is_released(settings: Mapping[str, Any]) -> bool:
    """Tell whether a configuration is one of the released code, by the names of its settings."""
    if settings.get("peft_type") != "COSA" or "a" in settings:
        return False
    return any(name in settings for name in _RELEASED)


def translated_settings(
    settings: Mapping[str, Any], infos: Mapping[str, TensorInfo], label: str
) -> dict[str, Any]:
    """Return a configuration in this library's names; one that is so already is only copied.

    The released code scales L Y R by lora_alpha / r, or lora_alpha / √r with use_rslora, where r is
    a divisor and nothing else; that is alpha here. Its L and R are at analysis scale. The shapes of
    the cores are those of the file, whatever rule chose them. Raises InputError if r or alpha is
    not a number that can be divided by, or there is no core in the file.
    """
    if not is_released(settings):
        return dict(settings)
    shapes = {}
    for tensor, info in infos.items():
        match = TENSOR.fullmatch(base_name(tensor))
        if match and match["role"] == "Y" and len(info.shape) == 2:
            shapes[match["module"] or ""] = info.shape
    if not shapes:
        raise InputError(
            f"{label}: holds no core (a tensor that ends in lora_Y.weight): it was trained without "
            "compression, as plain LoRA; set its peft_type to 'LORA'."
        )
    where = f"{label}/{ADAPTER_CONFIG}"
    read = read_fields(settings, _FIELDS, where)
    alphas = {name: _released_alpha(read, name, where) for name in shapes}
    shape = Counter(shapes.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    result = {name: settings[name] for name in _CARRIED if name in settings}
    return result | {
        "peft_type": "COSA",
        "a": shape[0],
        "b": shape[1],
        "alpha": alpha,
        "seed": read["compression_seed"] or 0,
        "kind": "gaussian",
        "options": {},
        "scale": "analysis",
        "dropout": read["lora_dropout"] or 0.0,
        "bias": (read["bias"] or "none").replace("lora", "cosa"),
        "save_projections": True,
        "shape_pattern": {
            "^" + re.escape(name): list(one) for name, one in shapes.items() if one != shape
        },
        "alpha_pattern": {
            "^" + re.escape(name): one for name, one in alphas.items() if one != alpha
        },
    }


def _released_alpha(read: Mapping[str, Any], name: str, where: str) -> float:
    """Return lora_alpha / r, or lora_alpha / √r, of one layer of the released code."""
    r = by_pattern(read["rank_pattern"], name, read["r"], f"{where}: rank_pattern")
    alpha = by_pattern(read["alpha_pattern"], name, read["lora_alpha"], f"{where}: alpha_pattern")
    return float(alpha / (math.sqrt(r) if read["use_rslora"] else r))
