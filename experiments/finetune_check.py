r"""An end-to-end check on real models: CoSA, LoRA of equal size and full fine-tuning.

A sentence encoder on Reuters R8 (test accuracy) and a language model on documented functions of
the standard library (loss of the body's tokens on modules it was not trained on), trained through
transformers' Trainer. Each method has the learning rate that is best on a validation part. Every
finished training is kept, with its adapter; one that was stopped goes on from its checkpoint.

    python -m experiments.finetune_check --out results/finetune_check
    cosa-theory spectrum results/finetune_check/base/decoder \
        results/finetune_check/adapters/decoder-cosa-0
"""

import dataclasses
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import cpu_count

from cosa_theory.assets import ASSETS
from cosa_theory.ground.cells import cell_name
from cosa_theory.ground.checks import choice, refuse, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.program import note, program
from cosa_theory.ground.sweep import run_cells
from cosa_theory.page.document import read_table
from experiments.command import (
    check_table,
    read_config,
    run_command,
    sweep_parser,
    sweep_settings,
    write_table,
)
from experiments.finetune_check_results import METHODS, best_rates, read_rates, verdict

__all__ = ["DEFAULT_OUT", "PRESETS", "Cell", "Config", "inputs_of", "run", "stored_or_short"]

NAME, VERSION = "finetune_check", 2
DEFAULT_OUT = Path("results") / NAME

MODELS = ("encoder", "decoder")
GRID: dict[tuple[str, str], tuple[float, ...]] = {
    ("encoder", "full"): (1e-5, 3e-5, 1e-4, 3e-4),
    ("encoder", "lora"): (3e-4, 1e-3, 3e-3, 1e-2),
    ("encoder", "cosa"): (3e-4, 1e-3, 3e-3, 1e-2),
    ("encoder", "cosa_haar"): (3e-4, 1e-3, 3e-3, 1e-2),
    ("encoder", "cosa_released"): (1e-4, 3e-4, 1e-3, 3e-3),
    ("decoder", "full"): (3e-5, 1e-4, 3e-4, 1e-3),
    ("decoder", "lora"): (1e-3, 3e-3, 1e-2, 3e-2),
    ("decoder", "cosa"): (1e-3, 3e-3, 1e-2, 3e-2),
    ("decoder", "cosa_haar"): (1e-3, 3e-3, 1e-2, 3e-2),
    ("decoder", "cosa_released"): (1e-4, 3e-4, 1e-3, 3e-3),
}
"""The learning rates tried. Adam moves every entry of a factor by about the rate in each step: a
CoSA core then moves ΔW by rate · √(ab) at unit-norm scale, and √(mn/ab) times as far at the
released scale."""

ADAPTERS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora"},
    "cosa": {"method": "cosa"},
    "cosa_haar": {"method": "cosa", "kind": "haar"},
    "cosa_released": {"method": "cosa", "scale": "analysis", "shape": "released"},
}
"""Fields of `experiments.finetune.config.Config`, by method."""


@dataclass(frozen=True)
class Config:
    """What is compared.

    Attributes
    ----------
    models : tuple of str
        "encoder" and "decoder".
    methods : tuple of str
        Keys of `experiments.finetune_check_results.METHODS`.
    rank : int
        The budget of every adapted layer, as a rank of LoRA.
    tune : bool
        Whether the learning rates are chosen by running the grid with the first seed. If not, they
        are those of the stored grid, which was run beforehand with the quick settings.
    encoder_steps, encoder_batch, encoder_tokens, encoder_blocks, encoder_items : int
        Optimiser steps; texts in each; tokens at which texts are cut; how many of the last blocks
        are adapted, 0 for all; held-out texts that are scored.
    decoder_steps, decoder_batch, decoder_tokens, decoder_blocks, decoder_items : int
        The same for the language model; longer functions are left out instead of cut.
    seeds : int
        How many trainings of each repeated method.
    repeated : tuple of str
        The methods that are trained with every seed; the others are with the first alone.
    seed : int
        The first seed.
    checkpoint : int
        Steps between checkpoints.
    threads : int
        Torch threads of a training. Two trainings of one thread each are faster than one of two
        threads, and far faster where other programs run too.
    """

    models: tuple[str, ...] = ("encoder", "decoder")
    methods: tuple[str, ...] = ("full", "lora", "cosa", "cosa_released")
    rank: int = 8
    tune: bool = False
    encoder_steps: int = 40
    encoder_batch: int = 8
    encoder_tokens: int = 32
    encoder_blocks: int = 0
    encoder_items: int = 400
    decoder_steps: int = 12
    decoder_batch: int = 4
    decoder_tokens: int = 80
    decoder_blocks: int = 10
    decoder_items: int = 40
    seeds: int = 3
    repeated: tuple[str, ...] = ("lora", "cosa")
    seed: int = 0
    checkpoint: int = 100
    threads: int = 1

    def __post_init__(self) -> None:
        for what, known in (("models", MODELS), ("methods", tuple(METHODS))):
            chosen = getattr(self, what)
            for name in chosen:
                choice(what, name, known)
            if not chosen or len(set(chosen)) < len(chosen):
                raise refuse(what, chosen, "at least one name, and each once")
        for name in self.repeated:
            choice("repeated", name, self.methods)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "seed" or field.name.endswith("_blocks") else 1
            if type(value) is int:
                whole(field.name, value, least)


PRESETS = {
    # What the report and the paper check run where nothing is stored: cells of the quick preset.
    "short": Config(models=("encoder",), methods=("lora", "cosa")),
    "quick": Config(),
    "full": Config(
        methods=tuple(METHODS),
        tune=True,
        repeated=tuple(METHODS),
        encoder_steps=1000,
        encoder_batch=16,
        encoder_tokens=128,
        encoder_items=2189,
        decoder_steps=400,
        decoder_batch=8,
        decoder_tokens=192,
        decoder_blocks=0,
        decoder_items=400,
    ),
}


@dataclass(frozen=True)
class Cell:
    """One training and its score, or ("start") the score before.

    Attributes
    ----------
    model, method, rank, threads
        As in `Config`.
    part : {"validation", "test"}
        What is scored.
    learning_rate : float
        Peak rate.
    seed : int
        Of the training.
    steps, batch, tokens, blocks, items : int
        As in `Config`, of this model.
    inputs : str
        Versions of what the numbers depend on besides.
    """

    model: str
    method: str
    part: str
    learning_rate: float
    seed: int
    rank: int
    steps: int
    batch: int
    tokens: int
    blocks: int
    items: int
    threads: int
    inputs: str


def cell(config: Config, model: str, method: str, part: str, rate: float, seed: int) -> Cell:
    """Return the cell of one training of a configuration."""
    names = ("steps", "batch", "tokens", "blocks", "items")
    settings: dict[str, Any] = {name: getattr(config, f"{model}_{name}") for name in names}
    settings |= {"rank": config.rank, "threads": config.threads, "inputs": inputs_of(model)}
    return Cell(model, method, part, rate, seed, **settings)


def inputs_of(task: str) -> str:
    """Name what the result of a training depends on besides its settings."""
    packages = [f"{name} {version(name)}" for name in ("torch", "transformers", "peft")]
    used = ("smollm2",) if task == "decoder" else ("encoder", "texts")
    assets = [f"{name} {ASSETS[name].sha256[:12]}" for name in used]
    return ", ".join([f"python {platform.python_version()}", *packages, *assets])


def compute(cell: Cell, folder: Path, checkpoint: int) -> dict[str, Any]:
    """Train and score; models, checkpoints and adapters are kept under `folder`."""
    # Here and not above: a check of the stored table needs none of it.
    from experiments.finetune.config import Config as Training
    from experiments.finetune.tasks import TASKS
    from experiments.finetune.training import start, train

    task = TASKS[cell.model](folder / "base", cell.tokens, cell.items)
    described = {"metric": task.metric, "base": task.base}
    if cell.method == "start":
        return described | start(task, Training(seed=cell.seed, threads=cell.threads), cell.part)
    names = ("learning_rate", "seed", "rank", "blocks", "steps", "batch", "threads")
    settings = {name: getattr(cell, name) for name in names} | ADAPTERS[cell.method]
    training = Training(**settings, checkpoint=checkpoint)
    run = folder / "runs" / cell_name(dataclasses.asdict(cell) | {"code": VERSION})
    name = f"adapters/{cell.model}-{cell.method}-{cell.seed}" if cell.part == "test" else None
    adapter = folder / name if name and cell.method != "full" else None
    result = train(task, training, cell.part, run, adapter)
    return described | result | {"adapter": name if adapter else None}


def run(
    config: Config,
    out: Path,
    *,
    jobs: int | None = None,
    dask: str | None = None,
    timeout: float | None = None,
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose the learning rates, train every method with every seed, and score.

    Parameters
    ----------
    config : Config
        What is compared.
    out : path
        Folder of finished cells, unpacked models ("base"), checkpoints ("runs") and trained
        adapters ("adapters").
    jobs : int, optional
        Trainings at once, by default two where there are the cores; each of the language model
        takes about 3 GB.
    dask, timeout, progress
        As for `cosa_theory.ground.sweep.run_cells`; the workers of a cluster need the same folder.

    Returns
    -------
    (pandas.DataFrame, pandas.DataFrame)
        The results on the test parts, one row for each model, method and seed: the settings of
        `Cell`; metric ("accuracy", or "loss" in nats a token), value with its interval low to
        high (over items of one training), before (the value of the untrained model), and what
        `experiments.finetune.training.train` measures; adapter (folder under `out`), base
        (the model it belongs to). The method "start" is the untrained model. And the grid on the
        validation parts, with the same columns.

    Raises
    ------
    InputError
        If a method has no learning rate in the stored grid, or no training was finished within
        the time limit; otherwise as `cosa_theory.ground.sweep.run_cells`.
    """
    settings: dict[str, Any] = {
        "name": NAME,
        "version": VERSION,
        "folder": out / "cells",
        "jobs": jobs or min(2, max(1, cpu_count() // config.threads)),
        "dask": dask,
        "timeout": timeout,
        "progress": progress,
    }
    measure = partial(compute, folder=out, checkpoint=config.checkpoint)
    grid = run_cells(measure, grid_cells(config), **settings) if config.tune else read_rates()
    table = run_cells(measure, test_cells(config, grid), **settings)
    if not ((table["status"] == "done") & (table["method"] != "start")).any():
        raise InputError(f"no training was finished within {timeout:g} s: raise --timeout")
    start = table[table["method"] == "start"].set_index("model")["value"]
    columns = list(table.columns)
    columns.insert(columns.index("value"), "before")
    table = table.assign(before=table["model"].map(start))[columns]
    order = table["model"].map(config.models.index)
    return table.iloc[order.argsort(kind="stable")].reset_index(drop=True), grid


def grid_cells(config: Config) -> list[Cell]:
    """Return the trainings among which the learning rates are chosen."""
    return [
        cell(config, model, method, "validation", rate, config.seed)
        for model in config.models
        for method in config.methods
        for rate in GRID[model, method]
    ]


def test_cells(config: Config, grid: pd.DataFrame) -> list[Cell]:
    """Return the untrained models, and every method at its best rate with every seed."""
    best = best_rates(grid).set_index(["model", "method"])["learning_rate"]
    lacking = [pair for pair in product(config.models, config.methods) if pair not in best]
    if lacking:
        raise InputError(
            f"no learning rate is known for {lacking[0][1]} on the {lacking[0][0]}: set tune = true"
        )
    # The language model's first: while it is unpacked there, the other trainings go on.
    untrained = [
        dataclasses.replace(cell(config, model, "start", "test", 0.0, config.seed), steps=0, rank=0)
        for model in sorted(config.models)
    ]
    return untrained + [
        cell(config, model, method, "test", float(best[model, method]), config.seed + draw)
        for model in config.models
        for method in config.methods
        for draw in range(config.seeds if method in config.repeated else 1)
    ]


def stored_or_short(
    out: Path = DEFAULT_OUT, seed: int = 0, jobs: int | None = None
) -> pd.DataFrame:
    """Return the stored results, whatever their settings; without any, run the short preset.

    That takes less than a minute on two idle cores and is announced on standard error; its
    trainings are among those of the quick preset.

    Parameters
    ----------
    out : path
        Folder of the results.
    seed : int
        The first seed of a run that has to be made.
    jobs : int, optional
        As for `run`.

    Raises
    ------
    InputError
        If the stored results cannot be read, or are from before the outcomes of single items were
        kept.
    """
    if (out / f"{NAME}.json").is_file():
        table = read_table(path := out / f"{NAME}.parquet")
        if not {"item_sums", "item_weights"} <= set(table):
            raise InputError(
                f"{path} is of an older version, without the outcomes of single items: delete it "
                f"with {NAME}.json, or run `python -m experiments.{NAME}` again"
            )
        return table
    note(f"no comparison of trainings in {out}: making a short one")
    config = dataclasses.replace(PRESETS["short"], seed=seed)
    table, grid = run(config, out, jobs=jobs)
    store(table, grid, config, out)
    return table


def store(table: pd.DataFrame, grid: pd.DataFrame, config: Config, out: Path) -> str:
    """Write the tables of the results and of the grid; return the verdict on them."""
    text = verdict(table)
    settings = dataclasses.asdict(config)
    beside = {f"{NAME}_grid": grid}
    write_table(table, out, NAME, arguments=settings, verdict=text, seed=config.seed, beside=beside)
    return text


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check from the command line; the result is the exit code."""
    description = "Fine-tune two real models with CoSA, LoRA of equal size, and in full."
    chosen = sweep_parser(NAME, description, PRESETS, preset="quick").parse_args(arguments)

    def body() -> None:
        config = read_config(PRESETS[chosen.preset], chosen.config, seed=chosen.seed)
        settings = sweep_settings(chosen)
        check_table(chosen.out, NAME, beside=(f"{NAME}_grid",))
        del settings["folder"]  # the cells lie beside what else a training leaves
        table, grid = run(config, chosen.out, **settings)
        print(store(table, grid, config, chosen.out))
        print(f"{len(table)} rows are in {chosen.out / NAME}.parquet")

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
