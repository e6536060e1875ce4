"""What is kept of a training: one JSON with the fields of PEFT's method comparison, and a table."""

import dataclasses
import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.provenance import provenance
from cosa_theory.ground.reading import read_json
from cosa_theory.page.views import Column, View, count, number
from experiments.finetune.config import Config

__all__ = ["RECORD", "divergence", "read_runs", "record_of", "runs_view", "write_record"]

RECORD = "run.json"


def record_of(
    config: Config,
    name: str,
    *,
    base: str,
    history: list[dict[str, Any]],
    scores: Mapping[str, Any],
    parameters: Mapping[str, int],
    seconds: Mapping[str, float],
    file_size: int,
    adapter: Mapping[str, Any] | None,
    device: str,
) -> dict[str, Any]:
    """Return the record of a training that has ended.

    Parameters
    ----------
    config : Config
        What was trained.
    name : str
        Of the run.
    base : str
        Folder or name of the model before training.
    history : list of dict
        As of `experiments.finetune.training.Fitted`.
    scores : mapping
        Of the test part: value, low, high, scored, metric, and all measures.
    parameters : mapping of str to int
        ``trained`` with the head, ``head`` and ``total``.
    seconds : mapping of str to float
        ``total``, and ``step`` (median).
    file_size : int
        Bytes of what is kept of the weights.
    adapter : mapping, optional
        PEFT's configuration of the adapter.
    device : str
        On which it was trained.

    Returns
    -------
    dict
        JSON-ready: run_info, train_info and meta_info with the fields of PEFT's method comparison
        (what there is not is null); ``base``, ``scores``, ``history`` and ``provenance`` besides.
    """
    steps = [row for row in history if "seconds" in row]
    memory = [row["memory"] for row in steps] or [0]
    settings = dataclasses.asdict(config)
    origin = provenance(settings, seed=config.seed)
    diverged = divergence(history, scores["measures"]["loss"])
    rate = sum(row["tokens"] for row in steps) / max(sum(row["seconds"] for row in steps), 1e-9)
    return {
        "run_info": {
            "created_at": origin["time"],
            "total_time": seconds["total"],
            "experiment_name": f"{config.method}/{name}",
            "peft_branch": None,
            "train_config": settings,
            "peft_config": adapter,
            "error_msg": diverged,
        },
        "train_info": {
            "accelerator_memory_reserved_avg": int(np.mean(memory)),
            "accelerator_memory_max": max(memory),
            "accelerator_memory_reserved_99th": int(np.percentile(memory, 99)),
            "train_time": sum(row["seconds"] for row in steps),
            "file_size": file_size,
            "num_trainable_params": parameters["trained"],
            "num_head_params": parameters["head"],
            "num_total_params": parameters["total"],
            "seconds_per_step": seconds["step"],
            "tokens_per_second": rate,
            "status": "failed" if diverged else "success",
            "metrics": _metrics(config, history, scores),
        },
        "meta_info": {
            "model_info": {"sha": None, "created_at": None},
            "dataset_info": {config.data: {"sha": None, "created_at": None}},
            "package_info": {
                f"{package}-version": _version(package)
                for package in ("transformers", "peft", "datasets", "bitsandbytes", "torch")
            },
            "system_info": {
                **{name: getattr(platform, name)() for name in _SYSTEM},
                "accelerator": device,
            },
            "pytorch_info": _torch_info(),
        },
        "base": base,
        "scores": dict(scores),
        "history": history,
        "provenance": origin,
    }


def divergence(history: list[dict[str, Any]], tested: float) -> str:
    """Say where the loss of a training became no finite number; "" where it stayed one."""
    last = 0
    for row in history:
        last = row["step"]
        if "loss" in row and not math.isfinite(row["loss"]):
            return f"the loss is {row['loss']} at step {last:,}"
    return "" if math.isfinite(tested) else f"the test loss is {tested} after step {last:,}"


_SYSTEM = ("system", "release", "version", "machine", "processor")


def _metrics(
    config: Config, history: list[dict[str, Any]], scores: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a row for each evaluation, and one for the test part."""
    rows, loss, tokens = [], None, 0
    per_step = config.batch * config.accumulation
    for row in history:
        loss, tokens = row.get("loss", loss), tokens + row.get("tokens", 0)
        found = {
            f"valid {name.removeprefix('eval_')}": value
            for name, value in row.items()
            if name.startswith("eval_")
        }
        if found:
            done = {"train loss": loss, "train samples": row["step"] * per_step}
            rows.append({"step": row["step"], **found, **done, "train total tokens": tokens})
    last = max((row["step"] for row in history), default=0)
    tested = {f"test {name}": value for name, value in scores["measures"].items()}
    return [*rows, {"step": last, **tested, "train loss": loss, "train total tokens": tokens}]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch_info() -> str:
    import torch

    return str(torch.__config__.show())


def write_record(record: Mapping[str, Any], folder: Path) -> None:
    """Write the record of a training as a whole."""
    with atomic_path(folder / RECORD) as temporary:
        text = json.dumps(record, indent=1, default=_plain) + "\n"
        temporary.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def read_runs(folder: Path) -> pd.DataFrame:
    """Return one row for each finished training below a folder.

    Returns
    -------
    pandas.DataFrame
        run (its folder), model, data, method, seed, learning_rate, ended ("done" or "diverged"),
        trained (without the head), metric, value, low, high, seconds_per_step, tokens_per_second,
        memory (the most bytes), file_size; then all settings, and measures and grades of the test
        part under their names.

    Raises
    ------
    InputError
        If there is none, or a record cannot be read.
    """
    rows = []
    for path in sorted(folder.rglob(RECORD)):
        record = read_json(path)
        try:
            info, train, scores = (record[name] for name in ("run_info", "train_info", "scores"))
            settings = info["train_config"]
            diverged = divergence(record["history"], scores["measures"]["loss"])
            head = ("model", "data", "method", "seed", "learning_rate")
            rows.append(
                {
                    "run": str(path.parent.relative_to(folder)),
                    **{name: settings[name] for name in head},
                    "ended": "diverged" if diverged else "done",
                    "trained": train["num_trainable_params"] - train["num_head_params"],
                    **{name: scores[name] for name in ("metric", "value", "low", "high")},
                    **{name: train[name] for name in ("seconds_per_step", "tokens_per_second")},
                    "memory": train["accelerator_memory_max"],
                    "file_size": train["file_size"],
                    **{name: one for name, one in settings.items() if name not in head + _TWICE},
                    **scores["measures"],
                    **scores.get("grades", {}),
                }
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: no record of a training ({error}): delete it") from error
    if not rows:
        raise InputError(f"{folder} holds no finished training: make one without --runs")
    return pd.DataFrame(rows)


_TWICE = ("metric",)

_COLUMNS = (
    Column("run", "run", text=True),
    Column("method", "method", text=True),
    Column("ended", "ended", "diverged: the loss became no finite number", text=True),
    Column("trained", "trained", "parameters, a new head aside", count),
    Column("metric", "metric", text=True),
    Column("value", "value", "of the test part", number),
    Column("low", "low", "95 % interval over items", number),
    Column("high", "high", "", number),
    Column("seconds_per_step", "s/step", "median", number),
    Column("tokens_per_second", "tokens/s", "", number),
    Column("memory", "memory, MB", "the most", lambda size: number(float(size) / 1e6)),
    Column("file_size", "file, MB", "", lambda size: number(float(size) / 1e6)),
)


def runs_view(table: pd.DataFrame) -> View:
    """Return the table of `read_runs` as it is shown."""
    return View.of("Trainings", _COLUMNS, table)
