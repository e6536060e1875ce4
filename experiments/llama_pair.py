"""Write a bfloat16 pair of checkpoints with the shapes of Llama-3.2-1B, for timing.

The base is random; each update is a decaying low-rank part plus independent noise. 16 blocks of
seven matrices make 112, sharded one block a file, 1.9 GB a side. Written block by block, so memory
stays that of one block.

    python -m experiments.llama_pair --out results/llama_pair
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file

from cosa_theory.ground.files import atomic_folder
from cosa_theory.projections import stream


@dataclass(frozen=True)
class Config:
    """Sizes of the model, and the strengths of weight and update (standard deviation an entry).

    The rounding noise of bfloat16 at weights of 0.02 is about 3e-5 an entry; both parts of the
    update are well above it.
    """

    blocks: int = 16
    hidden: int = 2048
    feed_forward: int = 8192
    key_value: int = 512
    rank: int = 32
    weight_sd: float = 2e-2
    low_rank_sd: float = 4e-4
    noise_sd: float = 1e-4
    seed: int = 0

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Return the seven matrices of a block, out × in features."""
        hidden, wide, narrow = self.hidden, self.feed_forward, self.key_value
        return {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (narrow, hidden),
            "self_attn.v_proj": (narrow, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (wide, hidden),
            "mlp.up_proj": (wide, hidden),
            "mlp.down_proj": (hidden, wide),
        }


def matrix_pair(name: str, shape: tuple[int, int], config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Draw one base matrix and its tuned version, float32, keyed by the name."""
    m, n = shape
    rank = min(config.rank, m, n)
    draw = stream(config.seed, "llama_pair", name)
    base = draw.standard_normal(shape, dtype=np.float32)
    base *= config.weight_sd
    # Singular values of the low-rank part fall like 1/k, scaled to the wanted root mean square.
    decay = 1.0 / np.arange(1.0, rank + 1.0)
    decay *= config.low_rank_sd / np.linalg.norm(decay)
    left = draw.standard_normal((m, rank), dtype=np.float32) * decay.astype(np.float32)
    tuned = draw.standard_normal(shape, dtype=np.float32)
    tuned *= config.noise_sd
    tuned += left @ draw.standard_normal((rank, n), dtype=np.float32)
    tuned += base
    return base, tuned


def blocks(config: Config) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Yield the tensors of one block after another, base and tuned, in bfloat16."""
    for block in range(config.blocks):
        base, tuned = {}, {}
        for module, shape in config.shapes().items():
            name = f"model.layers.{block}.{module}.weight"
            pair = matrix_pair(name, shape, config)
            base[name], tuned[name] = (torch.from_numpy(x).bfloat16() for x in pair)
        yield base, tuned


def write_pair(config: Config, out: Path, progress: bool = False) -> tuple[Path, Path]:
    """Write the two checkpoints under `out`, each whole or not at all; return their folders."""
    targets = (out / "base", out / "tuned")
    indices: tuple[dict[str, str], dict[str, str]] = ({}, {})
    with atomic_folder(targets[0]) as first, atomic_folder(targets[1]) as second:
        steps = track(
            blocks(config),
            "writing blocks",
            total=config.blocks,
            console=Console(stderr=True),
            disable=not progress,
        )
        for number, sides in enumerate(steps, start=1):
            shard = f"model-{number:05d}-of-{config.blocks:05d}.safetensors"
            for folder, index, tensors in zip((first, second), indices, sides, strict=True):
                save_file(tensors, folder / shard, metadata={"format": "pt"})
                index.update(dict.fromkeys(tensors, shard))
        # Bytes of the tensors, two an entry.
        size = 2 * config.blocks * sum(m * n for m, n in config.shapes().values())
        for folder, index in zip((first, second), indices, strict=True):
            content = {"metadata": {"total_size": size}, "weight_map": index}
            (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=1))
    return targets


def run(config: Config) -> pd.DataFrame:
    """List the matrices of the pair: name, m, n."""
    rows = [
        (f"model.layers.{block}.{module}.weight", m, n)
        for block in range(config.blocks)
        for module, (m, n) in config.shapes().items()
    ]
    return pd.DataFrame(rows, columns=["name", "m", "n"])


def main() -> None:
    """Write the pair and print where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/llama_pair"))
    for field in fields(Config):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=type(field.default), default=field.default)
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    config = Config(**arguments)
    base, tuned = write_pair(config, out, progress=True)
    print(f"{len(run(config))} matrices a side: {base} and {tuned}")


if __name__ == "__main__":
    main()
