"""The models the paper names, as shapes, and the settings of its released code."""

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "LORA_RANK",
    "RELEASED_CORE",
    "Model",
    "adaptive_core",
    "clipped",
    "load_models",
    "released_core",
]

LORA_RANK = 128  # of LoRA and PiSSA in the release's comparisons
RELEASED_CORE = (1024, 256)  # its default (a, b), whatever the layer


@dataclass(frozen=True)
class Model:
    """The linear maps that adapters are put on.

    Attributes
    ----------
    name : str
        The model's usual name.
    blocks : int
        Number of equal transformer blocks.
    matrices : dict
        Name within a block to shape (m, n), out × in features.
    parameters : int
        Published number of parameters of the whole model.
    config : dict
        Fields from which the transformers library builds it.
    """

    name: str
    blocks: int
    matrices: dict[str, tuple[int, int]]
    parameters: int
    config: dict[str, Any]

    def count(self, trained: Callable[[int, int], int]) -> int:
        """Sum `trained(m, n)`, the trainable parameters on one matrix, over the whole model."""
        return self.blocks * sum(trained(m, n) for m, n in self.matrices.values())


def load_models() -> dict[str, Model]:
    """Read models.toml: Llama-3.2-1B, Llama-3.1-8B, Llama-2-7B, Qwen2-7B, RoBERTa-base, -large."""
    path = Path(__file__).with_name("models.toml")
    with path.open("rb") as file:
        tables = tomllib.load(file)
    return dict(_models(tables))


def _models(tables: dict[str, Any]) -> Iterator[tuple[str, Model]]:
    for name, table in tables.items():
        matrices = {key: (int(m), int(n)) for key, (m, n) in table["matrices"].items()}
        yield (
            name,
            Model(name, table["blocks"], matrices, table["parameters"], table["config"]),
        )


def released_core(m: int, n: int) -> tuple[int, int]:
    """Return the release's default core shape, which ignores the layer's."""
    return RELEASED_CORE


def adaptive_core(m: int, n: int) -> tuple[int, int]:
    """Return the core shape of the release's adaptive mode, clipped to the layer.

    Above 2048² entries (2048, 128), above 1024² (1024, 128), above 512² (1024, 256), else
    (512, 256).
    """
    for side, core in ((2048, (2048, 128)), (1024, (1024, 128)), (512, (1024, 256))):
        if m * n > side**2:
            return clipped(core, m, n)
    return clipped((512, 256), m, n)


def clipped(core: tuple[int, int], m: int, n: int) -> tuple[int, int]:
    """Return (min(a, m), min(b, n))."""
    return min(core[0], m), min(core[1], n)
