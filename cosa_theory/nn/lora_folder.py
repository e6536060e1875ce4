"""What the folder of a LoRA adapter holds, in PEFT's format: its settings and its tensors."""

import re
from collections.abc import Mapping
from typing import Any

from cosa_theory.deltas.cosa_adapters import WRAPPER, CosaFolder

__all__ = ["Layout", "lora_settings", "tensor_layout"]

Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Type and shape of every tensor, by its name in the file."""


def tensor_layout(adapter: CosaFolder, ranks: Mapping[str, int], dtype: str) -> Layout:
    """Return type and shape of every tensor: the factors, and what is only copied."""
    layout: Layout = {}
    for name, rank in ranks.items():
        record = adapter.layers[name]
        layout[f"{WRAPPER}{name}.lora_A.weight"] = dtype, (rank, record.n)
        layout[f"{WRAPPER}{name}.lora_B.weight"] = dtype, (record.m, rank)
    infos = adapter.stored.infos
    return layout | {
        tensor: (infos[tensor].dtype, infos[tensor].shape) for tensor in adapter.whole.values()
    }


def lora_settings(adapter: CosaFolder, ranks: Mapping[str, int]) -> dict[str, Any]:
    """Return adapter_config.json: what PEFT needs, and nothing that other software stumbles on."""
    settings, largest = adapter.settings, max(ranks.values())
    patterns = _rank_pattern(ranks, largest)
    bias = settings.get("bias") or "none"
    kept = ("auto_mapping", "base_model_name_or_path", "revision", "task_type", "modules_to_save")
    return {
        "peft_type": "LORA",
        **{name: settings.get(name) for name in kept},
        "inference_mode": True,
        "r": largest,
        "lora_alpha": largest,
        "lora_dropout": 0.0,
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "target_modules": sorted(ranks),
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "bias": "lora_only" if bias == "cosa_only" else bias,
        "fan_in_fan_out": bool(settings.get("fan_in_fan_out")),
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _rank_pattern(ranks: Mapping[str, int], default: int) -> dict[str, int]:
    """Return the layers of another rank than the default.

    A pattern also matches names that end with it after a dot, so a name that is the end of
    another is tied to the beginning; the plain form of the others suits older versions too.
    """

    def exactly(name: str) -> str:
        ambiguous = any(other.endswith(f".{name}") for other in ranks)
        return "^" + re.escape(name) if ambiguous else name

    return {exactly(name): rank for name, rank in ranks.items() if rank != default}
