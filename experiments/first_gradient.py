"""The gradient of the first step of the fine-tuning in `experiments.finetune_delta`.

The same weights, head, texts and loss, with dropout off. It is saved under the names of
base.safetensors, so that it can be audited beside the update:

    python -m experiments.first_gradient --out results/finetune_delta/gradient.safetensors
    cosa-theory audit results/finetune_delta/base.safetensors \
        results/finetune_delta/tuned.safetensors \
        --gradients results/finetune_delta/gradient.safetensors
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from safetensors.numpy import save
from torch import Tensor
from torch.nn.functional import cross_entropy

from cosa_theory.deltas.gradients import first_step_gradients
from cosa_theory.ground.manifest import check_folder, own_files
from cosa_theory.ground.program import program
from experiments.command import command_parser, read_config, run_command
from experiments.finetune_delta import Config, Task, batches, torch_settings

__all__ = ["run"]

DEFAULT_OUT = Path("results/finetune_delta/gradient.safetensors")
PART = "first_gradient"


def run(config: Config, out: str | Path = DEFAULT_OUT) -> dict[str, Any]:
    """Compute the gradient of the first batch's loss, and store that of the encoder's matrices.

    Parameters
    ----------
    config : Config
        The settings of the fine-tuning.
    out : path
        The safetensors file; its metadata hold the settings.

    Returns
    -------
    dict
        Name to gradient ∂loss/∂W, as numpy arrays in float32.
    """
    out = Path(out)
    check(out)
    with torch_settings(config):
        task = Task.load(config)
        first = next(batches(len(task.train), config))
        inputs, labels = task.batch([task.train[index] for index in first])

        def loss(network: Any, batch: dict[str, Tensor]) -> Tensor:
            return cross_entropy(network(**batch), labels)

        found = {
            layer.name.removeprefix("encoder."): layer.delta
            for layer in first_step_gradients(task.model, inputs, loss=loss)
            if layer.name.startswith("encoder.")
        }
    settings = json.dumps(dataclasses.asdict(config))
    with own_files(out.parent, f"{PART} {out.name}") as new:
        (new / out.name).write_bytes(save(found, metadata={"config": settings}))
    return found


def check(out: Path) -> None:
    """Find out before a run whether its file can be written: `InputError` says why not."""
    check_folder(out.parent, f"{PART} {out.name}", (out.name,))


@program
def main(arguments: list[str] | None = None) -> int:
    """Run the experiment from the command line; the result is the exit code."""
    parser = command_parser(
        "experiments.first_gradient",
        "Save the gradient of the first step of experiments.finetune_delta.",
        out=DEFAULT_OUT,
        example="--out gradient.safetensors",
    )
    parser.add_argument("--config", type=Path, help="TOML file with fields of the fine-tuning")
    parser.add_argument("--seed", type=int, help="default: 0")
    chosen = parser.parse_args(arguments)

    def body() -> None:
        found = run(read_config(Config(), chosen.config, seed=chosen.seed), chosen.out)
        print(f"The gradients of {len(found)} matrices are in {chosen.out}")

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
