"""Real vectors to project: rows of weight updates and of gradients, and activations.

All have length 384, the width of the encoder: rows of ΔW of a full fine-tuning
(`experiments.finetune_delta`, made if it is not there), rows of the gradient of its first step,
and inputs of the encoder's linear layers on texts of Reuters R8.

Example: `python -m experiments.real_vectors --out results/real_vectors`
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save
from torch import nn
from transformers import AutoModel, AutoTokenizer

from cosa_theory.assets import asset_folder, read_reuters
from cosa_theory.deltas import open_pair
from cosa_theory.deltas.language_models import quiet_transformers
from cosa_theory.ground.checks import whole
from cosa_theory.ground.manifest import check_folder, is_damaged, own_files
from cosa_theory.ground.program import program
from cosa_theory.isometry.vectors import sample_rows
from cosa_theory.laws.norms import fourth_power
from cosa_theory.projections import stream
from experiments import finetune_delta, first_gradient
from experiments.command import chosen_config, command_parser, run_command

__all__ = ["NAMES", "Config", "read", "run"]

DEFAULT_OUT = Path("results/real_vectors")
PART = "real_vectors"
FILE = "vectors.safetensors"
WIDTH = 384
NAMES = {"delta": "rows of ΔW", "gradient": "rows of gradients", "activation": "activations"}
LAYERS = ["encoder.layer"]  # linear layers of the encoder: embeddings are looked up, not applied


@dataclass(frozen=True)
class Config:
    """Settings of the sample.

    Attributes
    ----------
    count : int
        Vectors of each sort.
    texts, max_tokens : int
        Test texts from which activations are taken, and where they are cut.
    seed : int
        Of the choice of texts and rows.
    """

    count: int = 256
    texts: int = 64
    max_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("texts", 1), ("max_tokens", 3), ("seed", 0)):
            whole(name, getattr(self, name), least)


def run(
    config: Config, out: str | Path = DEFAULT_OUT, pair: str | Path = finetune_delta.DEFAULT_OUT
) -> pd.DataFrame:
    """Collect the vectors and store them; what is there from equal settings is kept.

    Parameters
    ----------
    config : Config
        The settings.
    out : path
        Folder for vectors.safetensors: tensors delta, gradient and activation, each count × 384
        in float32, and the settings as metadata.
    pair : path
        Folder of the two checkpoints; the fine-tuning is run if they are not there.

    Returns
    -------
    pandas.DataFrame
        One row per sort: `vectors_of`, `count`, `norm` (median ‖x‖) and `fourth_power` (median
        ‖x‖₄⁴/‖x‖⁴, between 1/384 and 1: what the variance of most ensembles reads).
    """
    file, pair = Path(out) / FILE, Path(pair)
    if not all((pair / f"{side}.safetensors").is_file() for side in ("base", "tuned")):
        finetune_delta.run(finetune_delta.Config(), pair)
    settings = json.dumps(dataclasses.asdict(config) | {"pair": _digest(pair)}, sort_keys=True)
    if _settings_of(file) != settings:
        check_folder(out, PART, (FILE,))
        gradients = first_gradient.run(finetune_delta.Config(), pair / "gradient.safetensors")
        sources: dict[str, Iterator[NDArray[np.floating]]] = {
            "delta": (layer.delta for layer in _layers(pair)),
            "gradient": (G for name, G in sorted(gradients.items()) if LAYERS[0] in name),
            "activation": _activations(config),
        }
        sampled = {
            name: sample_rows(matrices, config.count, width=WIDTH, seed=config.seed)
            for name, matrices in sources.items()
        }
        content = {name: np.ascontiguousarray(rows, np.float32) for name, rows in sampled.items()}
        with own_files(out, PART) as new:
            (new / FILE).write_bytes(save(content, metadata={"settings": settings}))
    rows = [
        {
            "vectors_of": NAMES[name],
            "count": len(vectors),
            "norm": float(np.median(np.linalg.norm(vectors, axis=1))),
            "fourth_power": float(np.median(fourth_power(vectors))),
        }
        for name, vectors in read(file).items()
    ]
    return pd.DataFrame(rows)


def read(file: str | Path) -> dict[str, NDArray[np.float32]]:
    """Return the stored vectors by sort, in the order of `NAMES`."""
    stored = load_file(file)
    return {name: stored[name] for name in NAMES}


def _settings_of(file: Path) -> str | None:
    if is_damaged(file.parent, (file.name,)):
        return None
    try:
        with safe_open(file, framework="numpy") as stored:
            return (stored.metadata() or {}).get("settings")
    except SafetensorError:  # damaged, without a list to tell
        return None


def _digest(pair: Path) -> str:
    """Hash the tuned checkpoint, which decides the update and follows from the settings."""
    return hashlib.sha256((pair / "tuned.safetensors").read_bytes()).hexdigest()


def _layers(pair: Path) -> Iterator:
    return iter(
        open_pair(pair / "base.safetensors", pair / "tuned.safetensors", include=list(LAYERS))
    )


def _activations(config: Config) -> Iterator[NDArray[np.floating]]:
    """Yield the inputs of every linear layer of the encoder, tokens × features, padding left out.

    Layers that read the same tensor (query, key, value) give it once.
    """
    folder = asset_folder("encoder")
    texts = read_reuters("test")
    order = stream(config.seed, "real_vectors", "texts").permutation(len(texts))[: config.texts]
    tokens = AutoTokenizer.from_pretrained(folder)(
        [texts[index].text for index in order],
        padding=True,
        truncation=True,
        max_length=config.max_tokens,
        return_tensors="pt",
    )
    with quiet_transformers():
        encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    present = tokens["attention_mask"].bool()
    inputs: dict[int, torch.Tensor] = {}

    def keep(_module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        inputs[id(arguments[0])] = arguments[0]  # held, so that no other tensor takes its address

    hooks = [
        module.register_forward_pre_hook(keep)
        for module in encoder.encoder.modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.inference_mode():
        encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    for hook in hooks:
        hook.remove()
    for tensor in inputs.values():
        yield tensor[present].numpy()


@program
def main(arguments: list[str] | None = None) -> int:
    """Run the experiment from the command line; the result is the exit code."""
    chosen = command_parser(
        "experiments.real_vectors",
        "Sample rows of real updates and gradients, and activations.",
        out=DEFAULT_OUT,
        config=Config(),
        fields=("seed",),
        example="--out results/real_vectors",
    ).parse_args(arguments)

    def body() -> None:
        table = run(chosen_config(Config(), chosen), chosen.out)
        print(f"{len(table)} sorts of real vectors are in {chosen.out / FILE}")
        print(table.to_string(index=False, float_format="{:.3g}".format))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
