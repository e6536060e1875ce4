"""The arms: sixteen ways to spend one budget of trainable parameters."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ARMS", "Arm"]


@dataclass(frozen=True)
class Arm:
    """One way to spend the budget.

    Parameters
    ----------
    label : str
        In words.
    subspace : {"random", "activations", "gradients", "from W", "all"}
        What the subspace is made from that training begins in.
    wide : bool
        Whether an update's rank may be large (78 and more of 384), or is at most 16.
    centres : tuple of int
        Where the grids of rates begin on the encoder and on the language model, in quarter decades:
        10^(centre/4).
    settings : dict
        Fields of `experiments.finetune.config.Config`.
    """

    label: str
    subspace: str
    wide: bool
    centres: tuple[int, int]
    settings: dict[str, Any] = field(default_factory=dict)


def _cosa(label: str, subspace: str, centres: tuple[int, int] = (-9, -9), **settings: Any) -> Arm:
    return Arm(label, subspace, True, centres, {"method": "cosa", **settings})


def _peft(
    method: str, label: str, subspace: str, centres: tuple[int, int], *, wide: bool = False
) -> Arm:
    return Arm(label, subspace, wide, centres, {"method": method})


ARMS: dict[str, Arm] = {
    "lora": _peft("lora", "LoRA", "random", (-9, -10)),
    "cosa_gaussian": _cosa("CoSA, Gaussian", "random", kind="gaussian"),
    "cosa_activation": _cosa("CoSA, activations", "activations", (-10, -10), kind="activation"),
    "cosa_haar": _cosa("CoSA, Haar", "random", kind="haar"),
    "cosa_released": _cosa(
        "CoSA, released", "random", (-12, -12), shape="released", scale="analysis"
    ),
    "cosa_whitened": _cosa("CoSA, whitened", "activations", kind="activation", whiten=True),
    "cosa_gradient": _cosa("CoSA, gradients", "gradients", (-10, -10), kind="gradient"),
    "lora_fa": _peft("lora_fa", "LoRA-FA", "random", (-10, -10)),
    "lora_eva": _peft("lora_eva", "LoRA, EVA", "activations", (-10, -10)),
    "lora_corda": _peft("lora_corda", "LoRA, CorDA", "activations", (-12, -12)),
    "lora_ga": _peft("lora_ga", "LoRA-GA", "gradients", (-11, -12)),
    "pissa": _peft("pissa", "PiSSA", "from W", (-12, -12)),
    "lora_xs": _peft("lora_xs", "LoRA-XS", "from W", (-10, -10), wide=True),
    "shira": _peft("shira", "random mask", "random", (-10, -10), wide=True),
    # The first guess was 10^-2: it and its neighbours diverge within ten steps.
    "randlora": _peft("randlora", "RandLoRA", "random", (-14, -14), wide=True),
    "full": _peft("full", "full fine-tuning", "all", (-15, -16), wide=True),
}
"""The arms by name, in the order in which they are trained."""
