"""Run a training from a file, or show those that are done.

    python -m experiments.finetune experiments/finetune/configs/r8.toml --set method=lora
    python -m experiments.finetune --runs results/finetune

A training that was stopped goes on from its last checkpoint, to the same numbers. With several
devices, `accelerate launch -m experiments.finetune FILE` takes the same arguments.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cosa_theory.ground.errors import InputError, quoted
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.ground.progress import progress_bar
from cosa_theory.ground.reading import read_json
from cosa_theory.page.text import render_view
from experiments.command import command_parser, run_command
from experiments.finetune.config import Config, read, to_toml
from experiments.finetune.record import (
    RECORD,
    divergence,
    read_runs,
    record_of,
    runs_view,
    write_record,
)

__all__ = ["main", "run"]

SETTINGS, DIGESTS = "config.toml", "data.json"
OUT = Path("results/finetune")


def run(config: Config, out: Path, *, plan_only: bool = False) -> dict[str, Any] | None:
    """Plan, train, score and keep a training, unless it is done.

    Parameters
    ----------
    config : Config
        The training.
    out : path
        Its folder: config.toml, data.json with digests of its files here, checkpoints while it
        runs, then run.json with `adapter` or, of a full fine-tuning, `model`, and with `merge` the
        merged model as `merged`; of one that diverged neither this nor grades. The unpacked
        embedded model lies beside it.
    plan_only : bool
        Say what it would take, and do no more.

    Returns
    -------
    dict or None
        The record, see `experiments.finetune.record.record_of`.

    Raises
    ------
    InputError
        If the folder is of a training with other settings or files, there is too little memory, or
        as `experiments.finetune.tasks.load_task`.
    """
    if not plan_only:
        refuse_other_settings(out, config)
        if (out / RECORD).is_file():
            return read_json(out / RECORD)
    from experiments.finetune.planning import measured_speed, plan_training

    plan = plan_training(config)
    if not plan_only:
        plan.refuse()
    from experiments.finetune.grades import questions
    from experiments.finetune.tasks import load_task
    from experiments.finetune.training import refuse_lacking_service, total_steps

    devices = int(os.environ.get("WORLD_SIZE", "1"))
    if plan_only and (config.steps or config.rows):  # the data says no more
        print(plan.text(total_steps(config, config.rows, devices), measured_speed(config.dtype)))
        return None
    digests = _digests(config)
    task = load_task(config, out.parent / "base")
    steps = total_steps(config, len(task.train), devices)
    if _first_process():
        print(plan.text(steps, measured_speed(config.dtype)))
    if plan_only:
        return None
    refuse_lacking_service(config)
    asked = questions(config)
    if _first_process():
        for name, text in {SETTINGS: to_toml(config), DIGESTS: json.dumps(digests)}.items():
            with atomic_path(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return _trained(config, task, asked, out)


def _first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def refuse_other_settings(out: Path, config: Config) -> None:
    """Raise InputError for what differs from the folder's training: a setting, or a file of data.

    One that has neither ended nor left a checkpoint counts for nothing: its settings may be mended.
    """
    begun = (out / RECORD).is_file() or any(out.glob("checkpoints/checkpoint-*"))
    if not begun:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    if not begun or not (out / SETTINGS).is_file():
        return
    before = read(out / SETTINGS)
    for field in dataclasses.fields(Config):
        old, new = getattr(before, field.name), getattr(config, field.name)
        if old != new and field.name != "report_to":
            raise InputError(
                f"{out} holds a training with {field.name} = {quoted(old)}, and {quoted(new)} is "
                "asked for: take that, or another folder with --out",
                argument=field.name,
            )
    known = read_json(out / DIGESTS) if (out / DIGESTS).is_file() else {}
    for file, digest in _digests(config).items():
        if known.get(file, digest) != digest:
            raise InputError(
                f"{out} holds a training on {file}, which was edited since: train on it as it is "
                "to another folder with --out, or take back the edits"
            )


def _digests(config: Config) -> dict[str, str]:
    """Return the SHA-256 of each file of data or of the model here; what is gone has none."""
    from experiments.finetune.data import data_files

    weights = [str(file) for file in Path(config.model).glob("*.safetensors")]
    return {
        **{name: _digest(name) for name in filter(os.path.isfile, data_files(config))},
        **{name: _digest(name, ends=2**20) for name in weights},  # they may be large
    }


def _digest(name: str, ends: int = 0) -> str:
    """Return the SHA-256 of a file, or of its size and so many bytes at both ends."""
    with open(name, "rb") as file:
        if not ends:
            return hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
        head = file.read(ends)
        file.seek(max(0, size - ends))
        return hashlib.sha256(b"%d " % size + head + file.read()).hexdigest()


def _trained(config: Config, task: Any, asked: dict[str, Any], out: Path) -> dict[str, Any]:
    from cosa_theory.deltas.language_models import quiet_transformers
    from experiments.finetune.grades import grade
    from experiments.finetune.scoring import score
    from experiments.finetune.training import fit, isolated, store, store_merged

    begun = time.perf_counter()
    checkpoints = out / "checkpoints"
    with (
        isolated(config.seed, config.threads),
        quiet_transformers(),
        progress_bar(f"steps of {out.name}", _first_process(), notes=True) as advance,
    ):
        fitted = fit(task, config, checkpoints, advance)
        found = score(task, fitted.model, task.test, config.seed)
        kept = out / ("model" if config.method == "full" else "adapter")
        file_size = store(fitted, kept)
        grades: dict[str, float] = {}
        diverged = divergence(fitted.history, found.measures["loss"])
        for name, its in {} if diverged else asked.items():
            grades |= grade(name, its, fitted.model, task.base, config)
        adapter = getattr(fitted.model, "peft_config", {}).get("default")
        total = sum(part.numel() for part in fitted.model.parameters())
        if config.merge and adapter is not None and not diverged and _first_process():
            store_merged(fitted, out / "merged")
    record = record_of(
        config,
        out.name,
        base=task.base,
        history=fitted.history,
        scores={
            "metric": task.metric,
            **{name: getattr(found, name) for name in ("value", "low", "high", "scored")},
            "measures": found.measures,
            "grades": grades,
        },
        parameters={
            "trained": fitted.size.trainable,
            "head": fitted.size.head,
            "total": total,
        },
        seconds={"total": time.perf_counter() - begun, "step": fitted.seconds()},
        file_size=file_size,
        adapter=adapter.to_dict() if adapter is not None else None,
        device=fitted.device,
    )
    if _first_process():
        write_record(record, out)
        shutil.rmtree(checkpoints, ignore_errors=True)
    return record


def _opening(record: dict[str, Any], out: Path) -> str:
    """Say how what was learnt is looked at."""
    settings = record["run_info"]["train_config"]
    if settings["method"] == "full":
        kept = "model"
    elif settings["merge"]:
        kept = "merged"
    elif settings["method"] in _MERGED_ALONE:
        return (
            f"an update of {settings['method']} opens merged alone: train with merge = true, to "
            "another --out"
        )
    else:
        kept = "adapter"
    return f"the update opens with: cosa-theory spectrum {record['base']} {out / kept}"


_MERGED_ALONE = ("dora", "adalora", "vera", "shira", "randlora", "fourierft", "c3a")
"""Methods whose adapters are no products of stored factors."""


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    assert __doc__
    parser = command_parser("experiments.finetune", __doc__)
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG.toml", help="the training")
    add = parser.add_argument
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="over the file's")
    add("--out", type=Path, help="default: results/finetune/CONFIG-METHOD-SEED")
    add("--plan", action="store_true", help="say what it would take, and do no more")
    add("--runs", type=Path, metavar="FOLDER", help="show the trainings that are done below it")
    chosen = parser.parse_args(arguments)

    def body() -> None:
        if chosen.runs is not None:
            table = read_runs(chosen.runs)
            with atomic_path(chosen.runs / "runs.csv") as temporary:
                table.to_csv(temporary, index=False)
            print(render_view(runs_view(table)))
            return
        config = read(chosen.config, chosen.set)
        stem = "default" if chosen.config is None else chosen.config.stem
        out = chosen.out or OUT / f"{stem}-{config.method}-{config.seed}"
        record = run(config, out, plan_only=chosen.plan)
        if record is not None and _first_process():
            scores = record["scores"]
            print(
                f"{scores['metric']} {scores['value']:.4g} (95 % interval over items "
                f"{scores['low']:.4g} to {scores['high']:.4g}) with "
                f"{record['train_info']['num_trainable_params']:,} trained parameters"
            )
            print(f"what was measured is in {printable(str(out / RECORD))}")
            diverged = divergence(record["history"], scores["measures"]["loss"])
            if diverged:
                raise RuntimeError(
                    f"the training diverged, {diverged}: lower learning_rate, which is "
                    f"{config.learning_rate:g}, and train to another folder with --out"
                )
            print(printable(_opening(record, out)))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
