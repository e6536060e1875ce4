"""Time, accuracy and memory of whole spectra, beside the routines of numpy, scipy and torch.

First a pair of checkpoints with the shapes of Llama-3.2-1B, if one is given: the spectra of base,
tuned and ΔW of every matrix, beside the Gram and eigenvalue calls they cannot avoid, timed in the
same run. Then single float32 matrices, low rank plus noise: every method in turn, best of a few
rounds, against a float64 SVD.

    python -m experiments.llama_pair --out results/llama_pair
    python -m experiments.bench_spectrum --pair results/llama_pair
    OMP_NUM_THREADS=1 python -m experiments.bench_spectrum --sizes 2048
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.linalg
import torch

from cosa_theory.deltas import LayerDelta, open_pair
from cosa_theory.ground.checks import whole
from cosa_theory.ground.program import program
from cosa_theory.projections import stream
from cosa_theory.spectrum import resolution, singular_values
from experiments.bench_basis import seconds
from experiments.command import chosen_config, command_parser

Array = np.ndarray


@dataclass(frozen=True)
class Config:
    """Sizes of the square matrices, rounds of the fast methods, folder of the pair, seed.

    `reference_every`: the unavoidable calls of a shape are timed at its first matrix and at every
    so many after it, and their mean stands for the others.
    """

    sizes: tuple[int, ...] = (2048, 4096)
    rounds: int = 3
    pair: Path | None = None
    reference_every: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        whole("rounds", self.rounds)


def low_rank_plus_noise(size: int, seed: int) -> Array:
    """Draw a float32 update like a real one: 16 strong directions above a noise floor."""
    draw = stream(seed, "bench_spectrum", size)
    left, right = draw.standard_normal((2, size, 16))
    noise = 2e-3 * draw.standard_normal((size, size))
    return (1e-3 * (left @ right.T / np.sqrt(size) + noise)).astype(np.float32)


def methods(X: Array) -> dict[str, tuple[Callable[[], Array], bool]]:
    """Return the ways to a spectrum, and whether each is slow enough to be timed once."""
    tensor = torch.from_numpy(X)
    return {
        "numpy svd": (lambda: np.linalg.svd(X.astype(np.float64), compute_uv=False), True),
        "this, gram": (lambda: singular_values(X), False),
        "this, svd": (lambda: singular_values(X, "svd"), True),
        "this, randomized k=64": (lambda: singular_values(X, "randomized", k=64), False),
        "scipy svdvals": (lambda: scipy.linalg.svdvals(X.astype(np.float64)), True),
        "torch svdvals": (lambda: torch.linalg.svdvals(tensor.double()).numpy(), True),
        "torch svdvals, float32": (lambda: torch.linalg.svdvals(tensor).numpy(), True),
    }


def time_methods(size: int, config: Config) -> pd.DataFrame:
    """Time and check every method on one square matrix.

    Returns
    -------
    pandas.DataFrame
        Columns `size`, `method`, `seconds`, `speedup` over numpy's SVD, `median_error` and
        `max_error` (relative, over the values above the resolution of the Gram route).
    """
    X = low_rank_plus_noise(size, config.seed)
    rows: list[dict[str, object]] = []
    reference, baseline = np.empty(0), 0.0
    for name, (call, slow) in methods(X).items():
        found = call()
        times = [seconds(call) for _ in range(1 if slow else config.rounds)]
        if not rows:
            reference, baseline = found, min(times)
        kept = reference[: found.size] > resolution(reference)
        error = np.abs(found[kept] / reference[: found.size][kept] - 1.0)
        row = {"size": size, "method": name, "seconds": min(times)}
        errors = {"median_error": np.median(error), "max_error": error.max()}
        rows.append(row | {"speedup": baseline / min(times)} | errors)
    return pd.DataFrame(rows)


def unavoidable(X: Array) -> float:
    """Time the float64 Gram matrix of the short side and its eigenvalues, as numpy does them."""
    tall = (X if X.shape[0] >= X.shape[1] else X.T).astype(np.float64)
    start = time.perf_counter()
    np.linalg.eigvalsh(tall.T @ tall)
    return time.perf_counter() - start


def spectrum_of(layer: LayerDelta, name: str) -> Array:
    """Return the singular values of "base", "tuned" (formed here) or "delta"."""
    return singular_values(getattr(layer, name))


def pair_spectra(config: Config) -> Iterator[dict[str, object]]:
    """Yield one row per matrix: reading, spectra, and (on some) the unavoidable calls."""
    assert config.pair is not None
    pair = open_pair(config.pair / "base", config.pair / "tuned")
    seen: dict[tuple[int, int], int] = {}
    stop = time.perf_counter()
    for layer in pair:
        row: dict[str, object] = {"m": layer.shape[0], "n": layer.shape[1]}
        row["read"] = time.perf_counter() - stop
        for name in ("base", "tuned", "delta"):
            row[name] = seconds(partial(spectrum_of, layer, name))
        if seen.setdefault(layer.shape, 0) % config.reference_every == 0:
            row["unavoidable"] = unavoidable(layer.delta)
        seen[layer.shape] += 1
        yield row
        stop = time.perf_counter()


def time_pair(config: Config) -> pd.DataFrame:
    """Time the spectra of a pair.

    Returns
    -------
    pandas.DataFrame
        One row per quantity: `seconds`, and `ratio` to the unavoidable calls of as many matrices.
    """
    table = pd.DataFrame(pair_spectra(config))
    per_shape = table.groupby(["m", "n"])["unavoidable"].transform("mean")
    floor, delta = per_shape.sum(), table["delta"].sum()
    spectra = table[["base", "tuned", "delta"]].to_numpy().sum()
    read = table["read"].sum()
    rows = [
        (f"unavoidable, {len(table)} matrices", floor, 1.0),
        ("spectra of ΔW", delta, delta / floor),
        ("spectra of base, tuned and ΔW", spectra, spectra / (3 * floor)),
        ("reading the pair", read, read / floor),
        ("reading, and spectra of ΔW", read + delta, (read + delta) / floor),
        ("reading, and all spectra", read + spectra, (read + spectra) / (3 * floor)),
    ]
    return pd.DataFrame(rows, columns=["quantity", "seconds", "ratio"])


def peak_memory() -> float:
    """Return the most resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(config: Config) -> pd.DataFrame:
    """Time every method at every size."""
    return pd.concat([time_methods(size, config) for size in config.sizes], ignore_index=True)


@program
def main() -> None:
    """Print both tables."""
    options = ("sizes", "rounds", "seed")
    parser = command_parser("experiments.bench_spectrum", __doc__, config=Config(), fields=options)
    parser.add_argument("--pair", type=Path, help="folder written by experiments.llama_pair")
    config = chosen_config(Config(), parser.parse_args())
    print(f"{os.environ.get('OMP_NUM_THREADS') or os.cpu_count()} threads")
    # The pair first: the peak of a process never falls again.
    if config.pair is not None:
        table = time_pair(config)
        print(table.to_string(index=False, float_format="{:.2f}".format))
        print(f"peak memory {peak_memory():.2f} GiB")
    if config.sizes:
        formats = {"seconds": "{:.2f}".format, "speedup": "{:.2f}".format}
        formats |= dict.fromkeys(("median_error", "max_error"), "{:.1e}".format)
        print(run(config).to_string(index=False, formatters=formats))


if __name__ == "__main__":
    sys.exit(main())
