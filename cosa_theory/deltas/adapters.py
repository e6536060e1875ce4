"""LoRA adapters in PEFT's folder format, read as the updates they stand for.

A LoRA layer stores A (r × in) and B (out × r) and stands for ΔW = s · B A with s = alpha / r, or
alpha / √r with rank-stabilised scaling (rsLoRA); rank and alpha may differ from module to module.
Layers that store their weight as in × out (`fan_in_fan_out`, Conv1D) and embeddings get the
transpose, because that is the orientation of the weight it is added to.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cosa_theory.deltas.checkpoint import Checkpoint
from cosa_theory.deltas.cosa_adapters import read_cosa_folder
from cosa_theory.deltas.cosa_products import CosaCheckpoint
from cosa_theory.deltas.cosa_released import ADAPTER_CONFIG, PEFT_TYPES, WRAPPER
from cosa_theory.deltas.layers import FLOAT_DTYPES, Matrix
from cosa_theory.deltas.opening import open_checkpoint
from cosa_theory.deltas.products import AdapterCheckpoint
from cosa_theory.ground.checks import MOST_SIZE, factor, whole
from cosa_theory.ground.errors import InputError, quoted
from cosa_theory.ground.expressions import by_pattern, name_end
from cosa_theory.ground.fields import Field, either, flag, optional, read_fields, table_of, text
from cosa_theory.ground.reading import read_json
from cosa_theory.ground.swap import reading

__all__ = ["LoraCheckpoint", "open_adapter"]

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?")
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")

_rank = partial(whole, most=MOST_SIZE)
_FIELDS = {
    "r": Field(_rank, 8),
    "lora_alpha": Field(factor, 8),
    "rank_pattern": Field(optional(table_of(_rank, name_end))),
    "alpha_pattern": Field(optional(table_of(factor, name_end))),
    "use_rslora": Field(optional(flag)),
    "fan_in_fan_out": Field(optional(flag)),
    "init_lora_weights": Field(optional(either(flag, text, must="true, false or a method"))),
}

# Settings under which the update is not s · B A of the stored factors, with the plain reason.
_NOT_A_PRODUCT = {
    "use_dora": "DoRA also rescales the weight's columns",
    "use_qalora": "QA-LoRA pools the inputs",
    "use_bdlora": "BD-LoRA's factors are block diagonal",
    "alora_invocation_tokens": "activated LoRA applies to some tokens only",
    "arrow_config": "Arrow mixes several adapters by the input",
    "kasa_config": "KaSA also truncates the base weight",
    "monteclora_config": "MonteCLoRA samples its factors",
    "layer_replication": "layer replication changes which layers there are",
    "target_parameters": "parameters other than a layer's weight are adapted",
    "trainable_token_indices": "single token rows are replaced",
}


@dataclass(frozen=True)
class _LowRank:
    """One LoRA layer: the keys of its factors, its scaling."""

    left: str
    right: str
    scaling: float


class LoraCheckpoint(AdapterCheckpoint):
    """The update of a PEFT LoRA adapter, as if it were a sparse tuned model.

    `settings` are the content of adapter_config.json; every setting or tensor that is not
    understood is named in an InputError.
    """

    def __init__(self, label: str, stored: Checkpoint, settings: dict[str, Any]) -> None:
        problems = _setting_problems(label, settings)
        if problems:
            raise InputError(*problems)
        read = read_fields(settings, _FIELDS, f"{label}/{ADAPTER_CONFIG}")
        super().__init__(label, stored, bool(read["fan_in_fan_out"]))
        self._settings = read
        self._low_rank: dict[str, _LowRank] = {}
        factors: dict[str, dict[str, str]] = {}
        embeddings: set[str] = set()
        for key in stored.infos:
            name = key.removeprefix(WRAPPER)
            match = _FACTOR.fullmatch(name)
            if match:
                other = factors.setdefault(match["module"], {}).setdefault(match["side"], key)
                if other != key:
                    problems.append(f"{label}: the tensors {other} and {key} are the same factor.")
                if match["embedding"]:
                    embeddings.add(match["module"])
            elif "lora_" in name or "trainable_tokens" in name:
                if not name.endswith(".lora_B.bias"):
                    problems.append(f"{label}: the tensor {key} is not understood.")
            elif ".base_layer." not in name:
                self._add_whole(name.replace(".modules_to_save.", "."), key)
        for module, keys in factors.items():
            problems += self._add_low_rank(module, keys, module in embeddings)
        if not self.infos and not problems:
            problems.append(f"{label}: the adapter holds no tensors.")
        if problems:
            raise InputError(*problems)

    def _add_low_rank(self, module: str, keys: Mapping[str, str], embedding: bool) -> list[str]:
        """Take in one pair of factors; return what is wrong with it."""
        where = f"{self.label}: {module}"
        if keys.keys() != {"A", "B"}:
            return [f"{where} has only one of the two LoRA factors ({next(iter(keys.values()))})."]
        left, right = self._stored.infos[keys["B"]], self._stored.infos[keys["A"]]
        rank, scaling = self._scaling(module)
        plain = all(size == 1 for size in left.shape[2:])  # a convolution's B is 1 × 1
        shapes = f"B {left.shape}, A {right.shape}"
        if len(left.shape) < 2 or len(right.shape) < 2 or not plain:
            return [f"{where} has factors of unexpected shapes ({shapes})."]
        if left.shape[1] != rank or right.shape[0] != rank:
            return [
                f"{where} should have rank {rank} by {ADAPTER_CONFIG}, but its factors are "
                f"{shapes}."
            ]
        if not {left.dtype, right.dtype} <= set(FLOAT_DTYPES):
            return [f"{where} has quantised factors ({left.dtype}, {right.dtype})."]
        matrix = len(right.shape) == 2
        name = f"{module}.weight"
        self._low_rank[name] = _LowRank(keys["B"], keys["A"], scaling)
        if embedding:
            self._fixed.add(name)
        shape = (left.shape[0], *right.shape[1:])
        self._add_product(name, left.dtype, shape, embedding or (matrix and self._flag))
        return []

    def _scaling(self, module: str) -> tuple[int, float]:
        """Return rank and scaling of a module, by PEFT's rule for patterns."""
        settings, where = self._settings, f"{self.label}/{ADAPTER_CONFIG}"
        rank, alpha = (
            by_pattern(settings[patterns], module, settings[default], f"{where}: {patterns}")
            for patterns, default in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
        )
        return rank, alpha / (math.sqrt(rank) if settings["use_rslora"] else rank)

    def _factors(self, name: str) -> tuple[Matrix, Matrix]:
        """Return (s · B, A)."""
        layer = self._low_rank[name]
        left, right = self._stored.load(layer.left), self._stored.load(layer.right)
        dtype = np.promote_types(left.dtype, right.dtype)
        left = left.reshape(left.shape[0], -1).astype(dtype, copy=False)
        right = right.reshape(right.shape[0], -1).astype(dtype, copy=False)
        return left * dtype.type(layer.scaling), right


def open_adapter(source: Any, role: str, allow_pickle: bool) -> AdapterCheckpoint | None:
    """Open a PEFT adapter folder, or return None if the source is something else.

    Raises InputError for an adapter as base, or one whose update is not a product of two factors
    that are stored or can be drawn again.
    """
    if not isinstance(source, Path):
        return None
    folder = source.parent if source.name in _WEIGHTS else source
    with reading(folder):  # finishes what an interrupted export left
        if not (folder / ADAPTER_CONFIG).is_file():
            return None
        return _opened(folder, role, allow_pickle)


def _opened(folder: Path, role: str, allow_pickle: bool) -> AdapterCheckpoint:
    """Open an adapter's folder."""
    if role == "base":
        raise InputError(f"base: {folder} is an adapter; give the model it was trained on.")
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    settings = read_json(folder / ADAPTER_CONFIG)
    if settings.get("peft_type") in PEFT_TYPES:
        return CosaCheckpoint(read_cosa_folder(folder))
    problems = _setting_problems(str(folder), settings)
    if weights is None:
        problems.append(f"{folder}: no {_WEIGHTS[0]} beside {ADAPTER_CONFIG}.")
    if problems:
        raise InputError(*problems)
    assert weights is not None
    return LoraCheckpoint(str(folder), open_checkpoint(weights, role, allow_pickle), settings)


def _setting_problems(label: str, settings: Mapping[str, Any]) -> list[str]:
    """Say why an adapter's update is not s · B A of its stored factors."""
    kind = settings.get("peft_type")
    if kind != "LORA":
        return [
            f"{label}: a {kind if isinstance(kind, str) else quoted(kind)} adapter; only LoRA and "
            "CoSA adapters are read: merge it into its model."
        ]
    problems = [
        f"{label}: {key} is set, and {reason}: merge it into its model and pass that."
        for key, reason in _NOT_A_PRODUCT.items()
        if settings.get(key)
    ]
    init = str(settings.get("init_lora_weights", True)).lower()
    if init.startswith(_CHANGES_BASE):
        problems.append(
            f"{label}: init_lora_weights is {init!r}, which changed the base weights, so the "
            "factors are not the update of the original ones: save the adapter with "
            "path_initial_model_for_weight_conversion, or merge it and pass the model."
        )
    return problems
