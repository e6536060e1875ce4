"""Time and memory of the best core of one layer, beside the matrix products it cannot avoid.

The products are LᵀL, RRᵀ and Lᵀ ΔW Rᵀ in the cheaper order, each once. Everything is timed in
one run, in turn, so that a busy machine slows all of it alike; ratios are of medians, the
smallest ratio within one round beside them.

    python -m experiments.bench_basis
    OMP_NUM_THREADS=1 python -m experiments.bench_basis --m 2048 --n 512 --a 512 --b 128
"""

import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from cosa_theory import CosaBasis
from cosa_theory.ground.checks import whole
from cosa_theory.ground.program import program
from cosa_theory.projections import stream
from experiments.command import chosen_config, command_parser

MIB = 2**20


@dataclass(frozen=True)
class Config:
    """Sizes of the layer and of the core, type of all arrays, rounds and seed."""

    m: int = 4096
    n: int = 4096
    a: int = 1024
    b: int = 256
    dtype: str = "float32"
    rounds: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        whole("rounds", self.rounds)


def products(L: np.ndarray, R: np.ndarray, dW: np.ndarray) -> list[np.ndarray]:
    """Return LᵀL, RRᵀ and Lᵀ ΔW Rᵀ in the cheaper order: the work no method can avoid."""
    (m, a), (b, n) = L.shape, R.shape
    left_first = a * m * n + a * n * b < m * n * b + a * m * b
    core = (L.T @ dW) @ R.T if left_first else L.T @ (dW @ R.T)
    return [L.T @ L, R @ R.T, core]


def seconds(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_of_arrays(call: Callable[[], object]) -> int:
    """Return the most memory that arrays made by one call (its result too) take at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def draw(config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw Gaussian factors at synthesis scale and an update with independent entries."""
    basis = CosaBasis.sample(
        config.m, config.n, config.a, config.b, seed=config.seed, dtype=config.dtype
    )
    noise = stream(config.seed, "bench_basis", "update").standard_normal((config.m, config.n))
    return basis.L, basis.R, noise.astype(config.dtype)


def run(config: Config) -> pd.DataFrame:
    """Measure; one row per quantity, each with its ratio to the products or to the allowance.

    Returns
    -------
    pandas.DataFrame
        Columns `quantity`, `value`, `unit`, `ratio` (median over median; for memory, the share
        of what the core and two work arrays of the size of L and R take) and `best_ratio` (the
        smallest ratio within one round; NaN for memory).
    """
    L, R, dW = draw(config)
    warm = CosaBasis(L, R)
    calls: dict[str, Callable[[], object]] = {
        "unavoidable products": lambda: products(L, R, dW),
        "best core, cold": lambda: CosaBasis(L, R).best_core(dW),
        "best core, factors kept": lambda: warm.best_core(dW),
        "captured energy, cold": lambda: CosaBasis(L, R).captured_energy(dW),
    }
    for call in calls.values():
        call()
    times = pd.DataFrame(
        [{name: seconds(call) for name, call in calls.items()} for _ in range(config.rounds)]
    )
    ratios = times.div(times["unavoidable products"], axis=0)
    rows = [
        {
            "quantity": name,
            "value": times[name].median(),
            "unit": "s",
            "ratio": times[name].median() / times["unavoidable products"].median(),
            "best_ratio": ratios[name].min(),
        }
        for name in calls
    ]
    core = config.a * config.b * dW.itemsize
    allowance = core + L.nbytes + R.nbytes
    for name in ("best core, cold", "captured energy, cold"):
        peak = peak_of_arrays(calls[name])
        row = {"quantity": f"{name}: peak beyond ΔW, L, R", "value": peak / MIB, "unit": "MiB"}
        rows.append({**row, "ratio": peak / allowance, "best_ratio": float("nan")})
    return pd.DataFrame(rows)


@program
def main() -> None:
    """Measure the sizes given on the command line and print a table."""
    parser = command_parser("experiments.bench_basis", __doc__, config=Config())
    config = chosen_config(Config(), parser.parse_args())
    table = run(config)
    cold = float(table.loc[table["quantity"] == "best core, cold", "ratio"].iloc[0])
    print(f"The best core takes {cold:.2f} times as long as the products it cannot avoid.")
    settings = ", ".join(f"{name} {value}" for name, value in asdict(config).items())
    print(f"{settings}; BLAS threads: {os.environ.get('OMP_NUM_THREADS', 'all')}")
    print(table.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    sys.exit(main())
