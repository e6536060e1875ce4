"""A full fine-tuning whose only purpose is the pair of models: before, and after.

Every weight is trained, through the same resumable training as the end-to-end check; its score on
held-out items says whether it learned anything. `experiments.pairs` lists those that are made so.
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from cosa_theory.deltas.language_models import quiet_transformers
from cosa_theory.ground.cells import cell_name
from cosa_theory.ground.checks import choice, real, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.progress import progress_bar
from cosa_theory.ground.provenance import provenance
from cosa_theory.ground.reading import read_json
from experiments.finetune_check import inputs_of

__all__ = ["Config", "run"]

CORPORA = {
    "r8": "encoder",
    "r52": "encoder_r52",
    "20newsgroups": "encoder_20newsgroups",
    "functions": "decoder",
}
"""From what is learnt to the task of `experiments.finetune.tasks`."""


@dataclass(frozen=True)
class Config:
    """One training.

    Attributes
    ----------
    corpus : {"r8", "r52", "20newsgroups", "functions"}
        What the sentence encoder learns to tell apart, or "functions" for the language model.
    steps, batch : int
        Optimiser steps, and items in each.
    tokens : int
        Texts are cut to so many, longer functions left out.
    learning_rate : float
        Peak rate of AdamW, without weight decay: it rises over a tenth of the steps, then falls
        linearly to zero. Gradients are cut to norm 1.
    items : int
        Held-out items that are scored.
    seed, threads : int
        Of the order of the items, dropout and a new head; torch threads.
    """

    corpus: str
    steps: int
    batch: int = 8
    tokens: int = 32
    learning_rate: float = 5e-5
    items: int = 400
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        choice("corpus", self.corpus, tuple(CORPORA))
        for field in ("steps", "batch", "tokens", "items", "threads"):
            whole(field, getattr(self, field))
        whole("seed", self.seed, least=0)
        real("learning_rate", self.learning_rate, above=0)


def run(config: Config, out: Path) -> tuple[Path, Path]:
    """Train, unless that was done with equal settings; go on from a checkpoint if there is one.

    Parameters
    ----------
    config : Config
        The settings.
    out : path
        Folder for the trained model (`tuned`) and what was measured (`summary.json`): metric,
        value with its 95 % interval, before, train_loss, seconds_per_step, provenance.

    Returns
    -------
    (path, path)
        Folders of the model before and after.
    """
    from experiments.finetune.config import Config as Training
    from experiments.finetune.tasks import TASKS
    from experiments.finetune.training import start, train

    name = CORPORA[config.corpus]
    described = dataclasses.asdict(config) | {"inputs": inputs_of(name)}
    task = TASKS[name](out.parent / "base", config.tokens, config.items)
    tuned, summary = out / "tuned", out / "summary.json"
    identity = cell_name(described)
    if _made_by(summary) == identity and tuned.is_dir():
        return Path(task.base), tuned
    names = ("learning_rate", "seed", "steps", "batch", "threads")
    settings = {field: getattr(config, field) for field in names}
    training = Training(method="full", checkpoint=250, **settings)
    with quiet_transformers(), progress_bar(f"training of {out.name}", notes=True) as advance:
        before = start(task, training)["value"]
        result = train(task, training, "test", out / "runs" / identity, tuned, advance)
    kept = ("value", "low", "high", "scored", "train_loss", "seconds_per_step")
    record = {
        "identity": identity,
        "metric": task.metric,
        "before": before,
        **{key: result[key] for key in kept},
        "provenance": provenance(described, seed=config.seed),
    }
    with atomic_path(summary) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(out / "runs", ignore_errors=True)
    return Path(task.base), tuned


def _made_by(summary: Path) -> str | None:
    """Return the identity of the settings that made the model, None for one still to be made."""
    try:
        return str(read_json(summary)["identity"]) if summary.is_file() else None
    except (InputError, KeyError, TypeError):
        return None
