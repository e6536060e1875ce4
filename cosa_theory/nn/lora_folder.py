"""What the folder of a LoRA adapter holds, in PEFT's format: its settings and its tensors."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cosa_theory.deltas.cosa_adapters import WRAPPER, CosaFolder
from cosa_theory.deltas.wrapped_names import unwrapped_name
from cosa_theory.ground.reading import read_json

__all__ = [
    "EXPERT_TYPES",
    "MAMBA_TYPES",
    "Layout",
    "lora_settings",
    "mistaken_by_peft",
    "model_type",
    "refused_by_peft",
    "server_rank",
    "tensor_layout",
]

_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

# As in PEFT 0.21 and transformers 5; importing them to ask would take seconds.
MAMBA_TYPES = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
_GATED = ("gate", "gate_proj", "up_proj", "down_proj")
_NUMBERED = ("gate", "w1", "w2", "w3")
EXPERT_TYPES: dict[str, tuple[str, ...]] = {
    "afmoe": _GATED,
    "beam": _GATED,
    "cohere2_moe": _GATED,
    "deepseek_v2": _GATED,
    "deepseek_v3": _GATED,
    "deepseek_v32": _GATED,
    "dots1": _GATED,
    "ernie4_5_moe": _GATED,
    "exaone_moe": _GATED,
    "flex_olmo": _GATED,
    "glm4_moe": _GATED,
    "glm4_moe_lite": _GATED,
    "glm4v_moe": _GATED,
    "glm_moe_dsa": _GATED,
    "hunyuan_v1_moe": _GATED,
    "longcat_flash": _GATED,
    "mellum": _GATED,
    "olmoe": _GATED,
    "qwen3_moe": _GATED,
    "qwen3_next": _GATED,
    "qwen3_omni_moe": _GATED,
    "qwen3_omni_moe_text": _GATED,
    "qwen3_omni_moe_thinker": _GATED,
    "solar_open": _GATED,
    "minimax": _NUMBERED,
    "minimax_m2": _NUMBERED,
    "mixtral": _NUMBERED,
}
"""By the type of a model, the ends of names that PEFT takes for parts of its experts."""

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
        tensor: (infos[tensor].dtype, infos[tensor].shape) for tensor in adapter.others.values()
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
        "target_modules": _targets(settings, list(ranks)),
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "bias": "lora_only" if bias == "cosa_only" else bias,
        "fan_in_fan_out": bool(settings.get("fan_in_fan_out")),
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _targets(settings: Mapping[str, Any], names: Sequence[str]) -> list[str] | str:
    """Return `target_modules` that match these layers and nothing else of the base model.

    The list of the CoSA adapter is exact if nothing narrowed it: whatever it matched was adapted.
    Of other modules nothing is known here, and a list of whole names matches those that end so.
    """
    listed = settings.get("target_modules")
    narrowed = ("exclude_modules", "layers_to_transform", "layers_pattern")
    if isinstance(listed, list) and not any(settings.get(name) for name in narrowed):
        ends = [unwrapped_name(str(one)) for one in listed]
        if all(any(f".{name}".endswith(f".{end}") for end in ends) for name in names):
            return sorted(ends)
    parents: dict[str, list[str]] = {}
    for name in names:
        parent, _, last = name.rpartition(".")
        parents.setdefault(parent, []).append(re.escape(last))
    alike: dict[tuple[str, ...], list[str]] = {}
    for parent, ends in parents.items():
        alike.setdefault(tuple(sorted(ends)), []).append(re.escape(f"{parent}.") if parent else "")
    return "|".join(f"(?:{'|'.join(starts)})(?:{'|'.join(ends)})" for ends, starts in alike.items())


def model_type(settings: Mapping[str, Any]) -> str | None:
    """Return the type of the base model in transformers, as far as an adapter tells it."""
    if settings.get("model_type"):
        return str(settings["model_type"])
    config = Path(str(settings.get("base_model_name_or_path") or ""), "config.json")
    if config.is_file():
        return str(read_json(config).get("model_type"))
    name = str((settings.get("auto_mapping") or {}).get("base_model_class", ""))
    short = re.sub("(For[A-Z].*|Model)$", "", name).lower()
    known = {one.replace("_", ""): one for one in {*MAMBA_TYPES, *EXPERT_TYPES}}
    return known.get(short)


def refused_by_peft(settings: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the layers on which PEFT takes no LoRA, because fused kernels read their weight."""
    if model_type(settings) not in MAMBA_TYPES:
        return []
    return [name for name in names if name.rpartition(".")[2] in ("out_proj", "conv1d")]


def mistaken_by_peft(settings: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the layers that PEFT takes for parts of the experts, by the last part of their name.

    In these models it turns such targets, also of dense and shared parts, into the parameters that
    hold all experts since transformers 5.
    """
    ends = EXPERT_TYPES.get(model_type(settings) or "", ())
    return [name for name in names if name.rpartition(".")[2] in ends]


def server_rank(rank: int) -> int | None:
    """Return the smallest ``--max-lora-rank`` of vLLM that takes a rank; None if there is none."""
    return next((one for one in _VLLM_RANKS if one >= rank), None)


def _rank_pattern(ranks: Mapping[str, int], default: int) -> dict[str, int]:
    """Return the layers of another rank than the default.

    A pattern also matches names that end with it after a dot, so a name that is the end of
    another is tied to the beginning; the plain form of the others suits older versions too.
    """

    def exactly(name: str) -> str:
        ambiguous = any(other.endswith(f".{name}") for other in ranks)
        return "^" + re.escape(name) if ambiguous else name

    return {exactly(name): rank for name, rank in ranks.items() if rank != default}
