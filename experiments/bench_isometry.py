"""Time of the isometry constants: bounds of candidates per second, and what a bracket costs.

The yardstick of the search is a plain Python loop over `numpy.linalg.eigvalsh(A_SᵀA_S)`. Both
work for the same time on the same matrices in one run, in turn, so that a busy machine slows
both alike. A candidate counts when its bound is evaluated; the loop bounds both eigenvalues of a
support and the search one at a time, so that two of its candidates count as one. Beside it:
enumeration, the upper bounds by size, and what the factors of a layer of a language model tell of
its dictionary.

    OMP_NUM_THREADS=1 python -m experiments.bench_isometry
    OMP_NUM_THREADS=2 python -m experiments.bench_isometry --sdp_columns 0
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory import CosaBasis
from cosa_theory.ground.checks import whole
from cosa_theory.ground.program import program
from cosa_theory.isometry import (
    core_isometry,
    kronecker_rip_bounds,
    mutual_coherence,
    rip_exact,
    rip_lower,
    rip_upper,
)
from cosa_theory.isometry.search import random_supports
from cosa_theory.linear.gram import DenseGram
from cosa_theory.projections import make_projection, stream
from experiments.command import chosen_config, command_parser


@dataclass(frozen=True)
class Config:
    """Sizes of the matrices, order, repetitions and seed; m, n, a, b are those of a layer."""

    rows: int = 100
    columns: int = 200
    order: int = 4
    rounds: int = 5
    drawn: int = 200_000
    matrices: int = 50
    sdp_columns: int = 150
    m: int = 4096
    n: int = 4096
    a: int = 1024
    b: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        whole("rounds", self.rounds)


def plain_loop(A: np.ndarray, s: int, seconds: float, seed: int) -> tuple[float, int]:
    """Return δ as random supports and numpy's eigenvalues find it in a given time, and how many."""
    supports = random_supports(stream(seed, "bench", "loop"), 200_000, s, A.shape[1])
    constant, count, begun = 0.0, 0, time.perf_counter()
    for support in supports:
        chosen = A[:, support]
        values = np.linalg.eigvalsh(chosen.T @ chosen)
        constant = max(constant, values[-1] - 1.0, 1.0 - values[0])
        count += 1
        if time.perf_counter() - begun > seconds:
            break
    return float(constant), count


def search_rows(config: Config) -> list[dict[str, Any]]:
    """Compare the search with the plain loop, which gets as long as the whole search takes."""
    s, records = config.order, []
    for number in range(config.rounds):
        seed = config.seed + number
        A = make_projection("gaussian", config.rows, config.columns, seed=seed)
        drawn = rip_lower(A, s, seed=seed, supports=config.drawn, starts=0)
        found = rip_lower(A, s, seed=seed)
        spent = max(drawn.seconds, found.seconds)
        constant, count = plain_loop(A, s, spent, seed)
        records.append(
            {
                "loop": count / spent,
                "drawn": drawn.evaluations / 2 / drawn.seconds,
                "search": found.evaluations / 2 / found.seconds,
                "loop δ": constant,
                "drawn δ": drawn.value,
                "search δ": found.value,
            }
        )
    table = pd.DataFrame(records)
    names = {
        "loop": "plain loop over eigvalsh",
        "drawn": "random supports",
        "search": "search with swaps",
    }
    return [
        {
            "quantity": f"{name}, order {s} of {config.columns} columns",
            "value": table[key].median() / 1e6,
            "unit": "million/s",
            "ratio": (table[key] / table["loop"]).median(),
            "least_ratio": (table[key] / table["loop"]).min(),
            "constant": table[f"{key} δ"].mean(),
        }
        for key, name in names.items()
    ]


def timed(quantity: str, call: Callable[[], Any]) -> dict[str, Any]:
    """Return a row with the time of one call, and the constant it gives if it gives one."""
    begun = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - begun
    return {
        "quantity": quantity,
        "value": seconds,
        "unit": "s",
        "constant": getattr(result, "value", float("nan")),
    }


def quality_rows(config: Config) -> list[dict[str, Any]]:
    """Count how often the search finds both sparse eigenvalues of 20 × 30 Gaussian matrices."""
    rows = []
    for s in (2, 3, 4):
        equal = []
        for number in range(config.matrices):
            A = make_projection("gaussian", 20, 30, seed=config.seed, key=("quality", number))
            exact, found = rip_exact(A, s), rip_lower(A, s)
            gaps = (found.least - exact.least, exact.greatest - found.greatest)
            equal.append(max(gaps) < 1e-10)
        share = {"value": 100 * np.mean(equal), "unit": f"% of {config.matrices}"}
        rows.append({"quantity": f"search equals enumeration, order {s} of 30 columns", **share})
    return rows


def enumeration_rows(config: Config) -> list[dict[str, Any]]:
    """Time the enumeration of all supports, at two sizes."""
    rows = []
    for k, d, s in ((20, 30, 4), (40, 100, 4), (20, 40, 6)):
        A = make_projection("gaussian", k, d, seed=config.seed)
        bound = rip_exact(A, s)
        rows.append(
            {
                "quantity": f"enumeration, order {s} of {d} columns",
                "value": bound.evaluations / bound.seconds / 1e6,
                "unit": "million/s",
                "constant": bound.value,
            }
        )
    return rows


def upper_rows(config: Config) -> list[dict[str, Any]]:
    """Time the upper bounds, the semidefinite one up to the columns asked for."""
    rows = []
    for d in (60, 150):
        A = make_projection("gaussian", 2 * d // 3, d, seed=config.seed)
        methods = ["babel", "spectrum"] + ["sdp"] * (d <= config.sdp_columns)
        for method in ["search", *methods]:

            def call(A: Any = A, method: str = method) -> Any:
                searched = method == "search"
                return (
                    rip_lower(A, config.order) if searched else rip_upper(A, config.order, method)
                )

            rows.append(timed(f"{method}, order {config.order} of {d} columns", call))
    return rows


def layer_rows(config: Config) -> list[dict[str, Any]]:
    """Time what the factors tell of the dictionary of one layer, each step from what is before."""
    name = f"of the {config.m}·{config.n} × {config.a}·{config.b} dictionary"
    sizes = (config.m, config.n, config.a, config.b)
    basis = CosaBasis.sample(*sizes, seed=config.seed)
    factors = basis.dictionary().factors
    left, right = map(DenseGram, factors)
    steps: dict[str, Callable[[], Any]] = {
        "Gram matrices of the factors": lambda: (left.full, right.full),
        "singular value range": lambda: core_isometry(basis),
        "mutual coherence": lambda: max(map(mutual_coherence, factors)),
        "factor bracket, order 4": lambda: kronecker_rip_bounds(left, right, 4, search=False),
    }
    rows = [timed(f"{step} {name}", call) for step, call in steps.items()]
    total = sum(row["value"] for row in rows)
    rows.append({"quantity": f"all of it {name}", "value": total, "unit": "s"})
    search = timed(f"search, order 4, {name}", lambda: rip_lower(basis.dictionary(), 4))
    return [*rows, search]


def run(config: Config) -> pd.DataFrame:
    """Measure; one row per quantity.

    Returns
    -------
    pandas.DataFrame
        Columns `quantity`, `value`, `unit`, and where they apply `ratio` (median over the rounds of
        candidates per second over those of the plain loop), `least_ratio` (of one round) and
        `constant` (the bound of δ; for the first three rows the mean over the rounds).
    """
    rip_lower(make_projection("gaussian", 10, 20), config.order)  # load what is loaded at first use
    rows = [
        row
        for measure in (search_rows, quality_rows, enumeration_rows, upper_rows, layer_rows)
        for row in measure(config)
    ]
    return pd.DataFrame(rows)


@program
def main() -> None:
    """Measure the sizes given on the command line and print a table."""
    parser = command_parser("experiments.bench_isometry", __doc__, config=Config())
    config = chosen_config(Config(), parser.parse_args())
    table = run(config)
    _, drawn, search = table["ratio"][:3]
    print(
        f"Against a plain loop over eigvalsh, random supports are bounded {drawn:.0f} times and "
        f"swaps {search:.0f} times as fast."
    )
    settings = ", ".join(f"{name} {value}" for name, value in asdict(config).items())
    print(f"{settings}; BLAS threads: {os.environ.get('OMP_NUM_THREADS', 'all')}")
    print(table.to_string(index=False, float_format="{:.3f}".format, na_rep=""))


if __name__ == "__main__":
    sys.exit(main())
