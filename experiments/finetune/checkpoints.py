"""Checkpoints that hold what is trained and nothing else, and restore every method exactly.

PEFT's own folders are for what is finished: of AdaLoRA they hold the pruned factors without what
decides on pruning, so a training cannot go on from them.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

__all__ = ["Pruning", "SlimTrainer", "last_checkpoint"]

_STATE = "trainer_state.json"
_WEIGHTS = "model.safetensors"
_MOMENTS = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of AdaLoRA's allocator, by parameter
_KEPT = "kept"


class SlimTrainer(Trainer):
    """A Trainer whose checkpoints hold the trained parameters by name.

    Where FSDP or DeepSpeed shard the model, its own checkpoints stay.
    """

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if state_dict is not None:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(_trained(self.accelerator.unwrap_model(self.model)), folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            unwrapped = self.accelerator.unwrap_model(model or self.model)
            _restore(unwrapped, load_file(Path(resume_from_checkpoint) / _WEIGHTS))

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))


class Pruning(TrainerCallback):
    """Lets AdaLoRA weigh its ranks after every step, while the gradients are there."""

    def on_optimizer_step(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
        """Prune as the step that is being taken asks for."""
        model.base_model.update_and_allocate(state.global_step + 1)


def _allocator(model: nn.Module) -> Any:
    return getattr(getattr(model, "base_model", None), "rankallocator", None)


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained parameters by name, and what AdaLoRA decides from."""
    found = {
        name: parameter.detach().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    allocator = _allocator(model)
    if allocator is not None:
        for kind in _MOMENTS:
            found |= {f"{kind}:{name}": value for name, value in getattr(allocator, kind).items()}
        pattern = allocator.peft_config.rank_pattern or {}
        found |= {f"{_KEPT}:{name}": torch.tensor(mask) for name, mask in pattern.items()}
    return found


def _restore(model: nn.Module, stored: dict[str, Tensor]) -> None:
    allocator = _allocator(model)
    parameters = dict(model.named_parameters())
    device = next(iter(parameters.values())).device
    pattern: dict[str, list[bool]] = {}
    with torch.no_grad():
        for name, value in stored.items():
            kind, _, rest = name.partition(":")
            if kind == _KEPT:
                pattern[rest] = value.tolist()
            elif kind in _MOMENTS:
                getattr(allocator, kind)[rest] = value.to(device)
            else:
                parameters[name].copy_(value)
    if pattern:
        allocator.peft_config.rank_pattern = pattern


def last_checkpoint(run: Path) -> str | None:
    """Return the newest whole checkpoint; what a kill left unfinished is deleted."""
    whole = []
    for path in run.glob("checkpoint-*"):
        # The trainer writes its state last.
        try:
            whole.append((int(json.loads((path / _STATE).read_text())["global_step"]), path))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            shutil.rmtree(path, ignore_errors=True)
    return str(max(whole)[1]) if whole else None
