"""Time to recover an update from its core, beside the solvers that people use.

Every solver works on the same problem, to the same accuracy, at the settings that suit it best
(see `experiments.rivals`), in a process of its own on one thread; ours run as `recover` runs them
without any option but λ or σ, their problem's set-up included. With `--layer` one
layer of a language model instead: 200 iterations of FISTA at 4096 × 4096 on all threads.

    python -m experiments.bench_recovery --out results/bench_recovery
    python -m experiments.bench_recovery --cases "near the transition" --solvers fista spgl1
    python -m experiments.bench_recovery --layer
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.program import note, program
from cosa_theory.projections import stream
from cosa_theory.recovery import RecoveryProblem, recover
from experiments.command import check_table, command_parser, write_table
from experiments.rivals import RIVALS, Attempt, Task, fastest

NAME = "bench_recovery"
ACCURACY = 1e-4
LIMIT = 600.0  # seconds for one solver on one problem, pilot runs included
_ENOUGH = 1.0  # seconds of repetitions


@dataclass(frozen=True)
class Problem:
    """A problem: an m × n update of s Gaussian entries at random places, and its a × b core."""

    m: int
    n: int
    a: int
    b: int
    s: int
    noise: float = 0.0  # ‖noise‖ as a share of ‖y‖
    seed: int = 0


PROBLEMS = {
    "sparse": Problem(128, 128, 64, 64, 60),
    "near the transition": Problem(128, 128, 64, 64, 600),
    "noisy": Problem(128, 128, 64, 64, 60, noise=0.05),
    "large": Problem(512, 512, 256, 256, 960),
}

_OPTIONS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "fista": lambda task: {"lam": task.lam or None},
    "basis_pursuit": lambda task: {},
    "bpdn": lambda task: {},
    "omp": lambda task: {},
}
"""Our solvers that are timed, with the options they get."""


def posed(case: Problem) -> Task:
    """Draw a problem and find what counts as its solution."""
    basis = CosaBasis.sample(
        case.m, case.n, case.a, case.b, scale="analysis", seed=case.seed, key=NAME
    )
    draw = stream(case.seed, NAME, "update")
    truth = np.zeros(case.m * case.n)
    support = draw.choice(truth.size, case.s, replace=False)
    truth[support] = draw.standard_normal(case.s)
    operator = basis.sensing()
    y = operator @ truth
    settings: dict[str, Any] = {"operator": operator, "sparsity": case.s, "accuracy": ACCURACY}
    if not case.noise:
        return Task(y=y, target=truth, lam=0.0, sigma=0.0, **settings)
    noise = draw.standard_normal(y.size)
    y = y + noise * (case.noise * np.linalg.norm(y) / np.linalg.norm(noise))
    # The universal threshold for the noise that was added.
    lam = case.noise * np.linalg.norm(y) * np.sqrt(2 * np.log(truth.size) / y.size)
    problem = RecoveryProblem(operator, y)
    solved = recover(problem, "fista", lam=float(lam), tolerance=1e-12, debiasing=False)
    if solved.certificate.relative > 1e-9:
        raise RuntimeError(f"the reference has a duality gap of {solved.certificate.relative:.1e}")
    target = solved.estimate.ravel()
    sigma = float(np.linalg.norm(operator @ target - y))
    return Task(y=y, target=target, lam=float(lam), sigma=sigma, **settings)


def _ours(method: str, task: Task) -> Iterable[Attempt]:
    shape = task.operator.range_shape
    noise = task.sigma if method == "bpdn" else 0.0
    options = _OPTIONS[method](task)

    def solve() -> Any:
        problem = RecoveryProblem(task.operator, task.y.reshape(shape), noise_level=noise)
        return recover(problem, method, debiasing=False, **options).estimate.ravel()

    given = ", ".join(f"{name} given" for name, value in options.items() if value is not None)
    yield Attempt(given or "no options", solve)


def solvers(case: Problem) -> dict[str, Callable[[Task], Iterable[Attempt]]]:
    """Return the solvers that the problem suits, ours first.

    With noise there is no greedy one, since none finds the smallest entries beneath it, and rows
    are not whitened, which would change its norm.
    """
    mine = ["fista", "bpdn" if case.noise else "basis_pursuit", "omp"]
    fits = case.m * case.n * case.a * case.b <= 1 << 27  # a matrix of 1 GiB
    formed = () if fits else ("scikit-learn OMP", "celer", "cvxpy")
    rivals = {name: run for name, run in RIVALS.items() if name not in formed}
    every: dict[str, Callable[[Task], Iterable[Attempt]]] = {
        name: partial(_ours, name) for name in mine
    }
    every |= rivals
    if not case.noise:
        return every
    unfit = ("omp", "whitened")
    return {name: run for name, run in every.items() if not any(u in name.lower() for u in unfit)}


def measure(case: Problem, solver: str) -> dict[str, Any]:
    """Time one solver on one problem, in this process."""
    task = posed(case)
    chosen = fastest(task, solvers(case)[solver](task))
    if chosen is None:
        return {"status": f"does not reach {ACCURACY:g}"}
    times: list[float] = []
    while not times or (sum(times) < _ENOUGH and len(times) < 20):
        begun = time.perf_counter()
        x = chosen.solve()
        times.append(time.perf_counter() - begun)
    return {
        "seconds": float(np.median(times)),
        "repetitions": len(times),
        "error": task.error(x),
        "settings": chosen.settings,
        "status": "reached",
    }


def _apart(arguments: Sequence[str], limit: float, threads: int = 1) -> dict[str, Any]:
    """Run this module in a process of its own and return what it prints as JSON."""
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(counts, str(threads))}
    command = [sys.executable, "-m", f"experiments.{NAME}", *arguments]
    try:
        run = subprocess.run(
            command, env=environment, timeout=limit, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return {"status": f"more than {limit:g} s, pilot runs included"}
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        return {"status": f"failed: {last}"}
    return dict(json.loads(run.stdout.splitlines()[-1]))


def run(
    cases: Mapping[str, Problem] = PROBLEMS,
    names: Sequence[str] | None = None,
    *,
    limit: float = LIMIT,
    rounds: int = 3,
) -> pd.DataFrame:
    """Time solvers on problems, each pair in a process of its own.

    Parameters
    ----------
    cases : mapping of str to Problem
        The problems, by name.
    names : sequence of str, optional
        Solvers; by default all that suit.
    limit : float
        Seconds for one process.
    rounds : int
        How often our solvers and those within ten seconds are timed anew, in turn, so that a busy
        machine slows all alike.

    Returns
    -------
    pandas.DataFrame
        One row per problem and solver: case, solver, ours, seconds (median over the rounds), error
        (relative, to the solution that counts), settings, status, and the settings of `Problem`.

    Raises
    ------
    InputError
        If none of the solvers suits any of the problems.
    """
    rows: list[dict[str, Any]] = []
    for name, case in cases.items():
        wanted = [one for one in solvers(case) if names is None or one in names]
        found: dict[str, list[dict[str, Any]]] = {one: [] for one in wanted}
        for number in range(rounds):
            for one in wanted:
                if number and found[one][0].get("seconds", 1e9) > 10:
                    continue
                arguments = ["--measure", json.dumps(asdict(case)), one]
                found[one].append(_apart(arguments, limit))
                note(f"{name}: {one}: {found[one][-1]}")
        for one, records in found.items():
            times = [record["seconds"] for record in records if "seconds" in record]
            seconds = float(np.median(times)) if times else None
            row = {**records[-1], "seconds": seconds, "ours": one in _OPTIONS}
            rows.append({"case": name, "solver": one, **asdict(case), **row})
    if not rows:
        listed = ", ".join(names or ())
        raise InputError(f"none of the solvers {listed} suits {', '.join(cases)}: name others")
    measured = ("error", "settings")  # of which a solver that reached nothing has none
    return pd.DataFrame([dict.fromkeys(measured) | row for row in rows])


def verdict(table: pd.DataFrame) -> str:
    """Return the ratios that matter, in a sentence per problem."""
    sentences = []
    for name, rows in table.groupby("case", sort=False):
        seconds = rows.set_index("solver")["seconds"].dropna()
        convex = [one for one in ("fista", "basis_pursuit", "bpdn") if one in seconds]
        parts = [
            f"{mine} {seconds[rival] / seconds[mine]:.3g} times as fast as {rival}"
            for mine in [*convex, *(["omp"] if "omp" in seconds else [])]
            for rival in seconds.index
            if rival in RIVALS and ("OMP" in rival) == (mine == "omp")
        ]
        sentences.append(f"{name}: {', '.join(parts) if parts else 'no ratios'}.")
    return " ".join(sentences)


def layer(m: int = 4096, n: int = 4096, a: int = 1024, b: int = 1024, iterations: int = 200) -> Any:
    """Time FISTA on one layer in single precision, its products, and its memory.

    Returns
    -------
    dict
        seconds, per_iteration, products (seconds of one pair Φx, Φᵀr), ratio of the two, arrays
        (peak memory beyond factors and measurements, in arrays of the size of the update).
    """
    import tracemalloc

    basis = CosaBasis.sample(m, n, a, b, scale="analysis", key=NAME, dtype="float32")
    draw = stream(0, NAME, "layer")
    update = np.zeros(m * n, np.float32)
    support = draw.choice(m * n, m * n // 250, replace=False)
    update[support] = draw.standard_normal(support.size)
    K = basis.sensing()
    Y = K.apply(update.reshape(m, n))
    dense = draw.standard_normal((m, n), dtype=np.float32)
    K.apply(dense)
    begun = time.perf_counter()
    for _ in range(5):
        K.apply(dense)
        K.apply_adjoint(Y)
    products = (time.perf_counter() - begun) / 5
    del dense
    settings: dict[str, Any] = {"max_iterations": iterations, "tolerance": 1e-30}
    result = recover(RecoveryProblem(K, Y), "fista", debiasing=False, **settings)
    tracemalloc.start()
    settings["max_iterations"] = 12
    try:
        recover(RecoveryProblem(K, Y), "fista", debiasing=False, **settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:  # all that this process still does would be many times slower
        tracemalloc.stop()
    done = int(result.iterations)
    return {
        "seconds": result.seconds,
        "iterations": done,
        "per_iteration": result.seconds / done,
        "products": products,
        "ratio": result.seconds / done / products,
        "arrays": peak / (4 * m * n),
        "error": result.relative_error(update.reshape(m, n)),
        "residual": result.residual,
    }


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison, or the part of it that the options name."""
    parser = command_parser(f"experiments.{NAME}", __doc__)
    add = parser.add_argument
    add("--cases", nargs="+", choices=list(PROBLEMS), metavar="CASE")
    add("--solvers", nargs="+", choices=[*_OPTIONS, *RIVALS], metavar="SOLVER")
    add("--limit", type=float, default=LIMIT, help="seconds for one solver on one problem")
    add("--rounds", type=int, default=3, help="repetitions, in turn")
    add("--layer", action="store_true", help="one layer of 4096 × 4096 on all threads instead")
    add("--size", type=int, nargs=4, metavar=("M", "N", "A", "B"), help="of the layer and its core")
    add("--out", type=Path, help="folder for the table")
    add("--measure", nargs=2, metavar=("CASE", "SOLVER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.measure:
        case, solver = chosen.measure
        print(json.dumps(measure(Problem(**json.loads(case)), solver)))
        return 0
    if chosen.rounds < 1 or not chosen.limit > 0:
        parser.error("--rounds must be at least 1, and --limit a positive number of seconds")
    if chosen.size and not chosen.layer:
        parser.error("--size is that of --layer: add --layer, or leave --size out")
    of_cases = [name for name in ("cases", "solvers", "out") if getattr(chosen, name)]
    if chosen.layer and of_cases:
        parser.error(f"--layer solves one problem, and takes no --{of_cases[0]}: leave it out")
    if chosen.layer:
        print(json.dumps(layer(*(chosen.size or ())), indent=1))
        return 0
    if chosen.out is not None:
        check_table(chosen.out, NAME)
    cases = {name: PROBLEMS[name] for name in chosen.cases or PROBLEMS}
    table = run(cases, chosen.solvers, limit=chosen.limit, rounds=chosen.rounds)
    text = verdict(table)
    print(text)
    shown = ["case", "solver", "seconds", "error", "settings", "status"]
    print(table[shown].to_string(index=False, float_format="{:.3g}".format, na_rep=""))
    if chosen.out is not None:
        settings = {"cases": list(cases), "rounds": chosen.rounds, "accuracy": ACCURACY}
        write_table(table, chosen.out, NAME, arguments=settings, verdict=text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
