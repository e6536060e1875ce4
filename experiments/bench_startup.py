"""CPU time of the command on small inputs, and what of it is imports.

The pair has three matrices of 64 columns, so that what is measured is overhead: the interpreter,
imports, small draws, tables, drawing. With --against another checkout, both are measured in turn,
so that a busy machine slows both alike.

    python -m experiments.bench_startup
    python -m experiments.bench_startup --against ../before --rounds 5
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from safetensors.numpy import save_file

from cosa_theory.ground.checks import whole
from cosa_theory.ground.program import program
from cosa_theory.projections import stream

__all__ = ["Config", "import_times", "run", "small_pair"]

SHAPES = ((64, 64), (128, 64), (96, 64))
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Config:
    """How often each command is run, and another checkout to compare with."""

    rounds: int = 3
    against: str | None = None

    def __post_init__(self) -> None:
        whole("rounds", self.rounds)


def small_pair(folder: Path) -> tuple[Path, Path]:
    """Write a base and a tuned checkpoint of three small matrices; return their paths."""
    base, tuned = {}, {}
    for place, shape in enumerate(SHAPES):
        draw = stream(0, "bench_startup", place)
        name = f"layers.{place}.q_proj.weight"
        base[name] = draw.standard_normal(shape).astype("float32")
        tuned[name] = base[name] + 0.01 * draw.standard_normal(shape).astype("float32")
    paths = folder / "base.safetensors", folder / "tuned.safetensors"
    for path, tensors in zip(paths, (base, tuned), strict=True):
        save_file(tensors, path)
    return paths


def run(config: Config) -> pd.DataFrame:
    """Run every command in turn, in this checkout and in the other one if there is one.

    Returns
    -------
    pandas.DataFrame
        One row per command: `command`, `seconds` (median of user and system time of the process),
        and with another checkout `before` (its median) and `ratio` (of the medians).
    """
    checkouts = {"seconds": Path.cwd()}
    if config.against is not None:
        checkouts["before"] = Path(config.against).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        pair = [str(path) for path in small_pair(Path(scratch))]
        spent: dict[tuple[str, str], list[float]] = {}
        for turn in range(config.rounds):
            for column, checkout in checkouts.items():
                out = str(Path(scratch) / f"{column}-{turn}")
                for name, words in _commands(pair, out).items():
                    spent.setdefault((name, column), []).append(_cpu_seconds(words, checkout))
    medians = pd.Series({key: pd.Series(times).median() for key, times in spent.items()})
    table = medians.unstack().reindex(columns=list(checkouts)).reindex(list(_commands(pair, "")))
    if "before" in table:
        table["ratio"] = table["seconds"] / table["before"]
    return table.rename_axis("command").reset_index()


def import_times(words: list[str], checkout: Path) -> pd.DataFrame:
    """Return how long the imports of a command take by package, as the interpreter tells.

    Returns
    -------
    pandas.DataFrame
        `package`, `share` of the wall time of the whole run that its own modules take, the
        largest first.
    """
    started = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cosa_theory", *words],
        cwd=checkout,
        env=_environment(checkout),
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    own: Counter[str] = Counter()
    for line in told.splitlines():
        if line.startswith("import time:") and "|" in line and "[us]" not in line:
            microseconds, _, module = line.removeprefix("import time:").split("|")
            # Where imports nest in an odd way the interpreter tells negative times of some.
            own[module.strip().split(".")[0]] += max(0, int(microseconds))
    whole = 1e6 * (time.perf_counter() - started)
    rows = [(package, spent / whole) for package, spent in own.most_common()]
    return pd.DataFrame(rows, columns=["package", "share"])


def _commands(pair: list[str], out: str) -> dict[str, list[str]]:
    return {
        "cosa-theory --help": ["--help"],
        "cosa-theory spectrum": ["spectrum", *pair],
        "cosa-theory spectrum --out": ["spectrum", *pair, "--out", out],
    }


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": str(checkout)}


def _cpu_seconds(words: list[str], checkout: Path) -> float:
    """Return user and system time of one run of the command, which must succeed."""
    command = [sys.executable, "-m", "cosa_theory", *words]
    process = subprocess.Popen(
        command,
        cwd=checkout,
        env=_environment(checkout),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


@program
def main() -> None:
    """Measure, and print a table with the imports of the second command below it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=Config.rounds)
    parser.add_argument("--against", metavar="CHECKOUT", help="another checkout to compare with")
    config = Config(**vars(parser.parse_args()))
    table = run(config)
    small = table.set_index("command").loc["cosa-theory spectrum"]
    verdict = (
        f"`cosa-theory spectrum` on three small matrices takes {small['seconds']:.1f} s of CPU"
    )
    print(verdict + (f", {small['ratio']:.2f} of before." if "ratio" in table else "."))
    print(table.to_string(index=False, float_format="{:.2f}".format))
    with tempfile.TemporaryDirectory() as scratch:
        words = ["spectrum", *map(str, small_pair(Path(scratch)))]
        imports = import_times(words, Path.cwd())
    print(f"\nImports take {imports['share'].sum():.0%} of it; by package:")
    print(imports.head(12).to_string(index=False, float_format="{:.1%}".format))


if __name__ == "__main__":
    sys.exit(main())
