"""Write a bfloat16 pair of checkpoints with the shapes of Llama-3.2-1B, for timing.

The base is random; each update is a decaying low-rank part plus independent noise. 16 blocks of
seven matrices make 112, sharded one block a file, 1.9 GB a side. Written block by block, so memory
stays that of one block.

    python -m experiments.llama_pair --out results/llama_pair
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from cosa_theory.ground.checks import MOST_SIZE, real, whole
from cosa_theory.ground.program import program
from cosa_theory.ground.progress import progress_bar
from cosa_theory.ground.swap import swapped
from cosa_theory.projections import stream
from experiments.command import chosen_config, command_parser


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

    def __post_init__(self) -> None:
        for name in ("blocks", "hidden", "feed_forward", "key_value", "rank"):
            whole(name, getattr(self, name), most=MOST_SIZE)
        for name in ("weight_sd", "low_rank_sd", "noise_sd"):
            real(name, getattr(self, name), least=0, most=1e30)  # entries in bfloat16's range
        whole("seed", self.seed, least=0)

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
    """Write the two checkpoints under `out`, both whole or none; return their folders."""
    targets = (out / "base", out / "tuned")
    indices: tuple[dict[str, str], dict[str, str]] = ({}, {})
    with (
        swapped(out) as new,
        progress_bar("blocks", progress) as advance,
    ):
        first, second = new / "base", new / "tuned"
        first.mkdir()
        second.mkdir()
        for number, sides in enumerate(blocks(config), start=1):
            shard = f"model-{number:05d}-of-{config.blocks:05d}.safetensors"
            for folder, index, tensors in zip((first, second), indices, sides, strict=True):
                save_file(tensors, folder / shard, metadata={"format": "pt"})
                index.update(dict.fromkeys(tensors, shard))
            advance(number, config.blocks)
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


@program
def main() -> None:
    """Write the pair and print where it is."""
    parser = command_parser(
        "experiments.llama_pair", __doc__, out=Path("results/llama_pair"), config=Config()
    )
    chosen = parser.parse_args()
    config = chosen_config(Config(), chosen)
    base, tuned = write_pair(config, chosen.out, progress=True)
    print(f"{len(run(config))} matrices a side: {base} and {tuned}")


if __name__ == "__main__":
    sys.exit(main())
