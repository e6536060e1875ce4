"""One training as a file: what is learnt, by which method, and how; read from TOML and checked.

A file may begin from another (``extends = "decoder.toml"``, beside it), and has sections for
methods: what stands under ``[lora]`` holds where the method is lora.
"""

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosa_theory.ground.checks import choice, pair, real, refuse, whole
from cosa_theory.ground.errors import InputError, quoted
from cosa_theory.projections import INFORMED, KINDS
from experiments.command import read_toml, with_fields
from experiments.finetune.budgets import METHODS, SHAPES
from experiments.finetune.templates import TEMPLATES

__all__ = ["FILES", "HARNESS", "Config", "read", "to_toml"]

DTYPES = ("float32", "bfloat16")
GRADES = ("gsm8k", "math", "humaneval", "mbpp")
FILES = "files"
HARNESS = "lm_eval:"
SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class Config:
    """One training.

    Attributes
    ----------
    model : str
        "minilm" and "smollm2" are embedded; else a folder or the name of a model on the hub.
    data : str
        A name of `experiments.finetune.data.DATA`, "files", or a data set of the hub or a folder,
        as ORGANISATION/NAME, with a subset as ORGANISATION/NAME:SUBSET.
    copies : str
        A folder with copies of the hub's data sets, as ORGANISATION/NAME; "" for the hub.
    train, validation, test : str
        With data = "files": JSON Lines or CSV. Without a validation file, part of the training
        rows is held back, at most 600 and a fifth. Of the hub, test is the split that is scored;
        without one, it is held back, too.
    inputs, output : tuple of str, str
        Columns, where no name of `DATA` says them: one or two texts, and what is learnt of them.
        A chat may be one column of messages, a role and a content each, and no output.
    learns : {"labels", "numbers", "answers"}
        Their kind: categories, numbers, or text that is continued.
    template : str
        Of answers, one of `experiments.finetune.templates.TEMPLATES`: how prompts are put; then
        TRL's `SFTTrainer` trains. With "" instructions of the hub have "alpaca".
    rows : int
        Take the first so many rows for training; 0 for all.
    items : int
        Held-out items that are scored in each part; 0 for all.
    tokens : int
        Texts are cut to so many; items to be continued that are longer are left out.
    metric : str
        What is followed and scored with an interval, "accuracy" or "loss"; "" for the usual one.
    grades : tuple of str
        Names of `experiments.finetune.grades.GRADES`, by which generated answers are marked after
        training, and "lm_eval:TASK" for what lm-evaluation-harness measures.
    answer_tokens : int
        Length of these answers at most.
    method : str
        One of `experiments.finetune.budgets.METHODS`.
    rank, budget, core
        How large it is, of which the last that is given counts; see
        `experiments.finetune.budgets.size_of`. A full fine-tuning has no size.
    final_rank : int
        Of AdaLoRA after pruning, on average; 0 for two thirds of its rank.
    alpha : float
        Factor of the update; LoRA's own alpha over its rank.
    dropout : float
        Of the inputs to the update, for methods that have it.
    kind, left, scale : str
        Of CoSA: an ensemble, for L another one or "identity", and "synthesis" or "analysis"; see
        `cosa_theory.nn.peft.CosaConfig`.
    whiten : bool
        Of the informed kinds ("activation", "gradient"): whether R x is uncorrelated, of one size.
    moment_items : int
        Training items that informed kinds, EVA, CorDA and LoRA-GA start from.
    shape : str
        Of CoSA: one of `experiments.finetune.budgets.SHAPES`.
    targets : tuple of str
        Ends of the names of the linear layers that are adapted; none for all in the blocks.
    blocks : int
        How many of the last blocks are adapted; 0 for all.
    steps, epochs : int, float
        How long: optimiser steps, or with 0 passes through the data.
    batch, accumulation : int
        Items on each device, and how many such batches make a step.
    learning_rate, head_rate : float
        Peak rates of AdamW, of everything and of a new head.
    schedule, warm_up : str, float
        How the rate falls, after it rose linearly over a share of the steps, or from 1 on over so
        many.
    weight_decay, beta2, clip : float
        Of AdamW, and the norm that gradients are cut to; 0 for no cut.
    dtype : {"float32", "bfloat16"}
        Of the model's weights; what is trained of an adapter is in float32.
    recompute : bool
        Keep the inputs of blocks alone for backward (gradient checkpointing).
    seed, threads : int
        Of a new head, the order of the items, dropout and the method; torch threads, 0 for torch's
        own number.
    draw : int
        Seed of the method's random projections and starts, where it is not `seed`; else -1.
    checkpoint : int
        Steps between checkpoints; where patience ends the training, one at every evaluation.
    evaluate, patience : int
        Steps between scores on the validation part, 0 for none; how many of them in a row may be
        no better before the training ends, 0 for no such end. The best is kept.
    watch : int
        How many layers' updates are decomposed at each evaluation.
    merge : bool
        Keep the whole model with the update in its weights, too.
    report_to : str
        A service that Trainer logs to: "trackio", "wandb"; "" for none.

    Raises
    ------
    InputError
        For a value outside these.
    """

    model: str = "minilm"
    data: str = "r8"
    copies: str = ""
    train: str = ""
    validation: str = ""
    test: str = ""
    inputs: tuple[str, ...] = ()
    output: str = ""
    learns: str = "labels"
    template: str = ""
    rows: int = 0
    items: int = 400
    tokens: int = 64
    metric: str = ""
    grades: tuple[str, ...] = ()
    answer_tokens: int = 256
    method: str = "cosa"
    rank: int = 8
    budget: int = 0
    core: tuple[int, ...] = ()
    final_rank: int = 0
    alpha: float = 1.0
    dropout: float = 0.0
    kind: str = "gaussian"
    left: str = ""
    scale: str = "synthesis"
    whiten: bool = False
    moment_items: int = 256
    shape: str = "memory"
    targets: tuple[str, ...] = ()
    blocks: int = 0
    steps: int = 0
    epochs: float = 1.0
    batch: int = 8
    accumulation: int = 1
    learning_rate: float = 1e-3
    head_rate: float = 1e-2
    schedule: str = "linear"
    warm_up: float = 0.1
    weight_decay: float = 0.0
    beta2: float = 0.999
    clip: float = 1.0
    dtype: str = "float32"
    recompute: bool = False
    seed: int = 0
    draw: int = -1
    threads: int = 0
    checkpoint: int = 100
    evaluate: int = 0
    patience: int = 0
    watch: int = 0
    merge: bool = False
    report_to: str = ""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            choice(name, getattr(self, name), allowed)
        for name in _FROM_ONE:
            whole(name, getattr(self, name))
        for name in _FROM_ZERO:
            whole(name, getattr(self, name), least=0)
        whole("draw", self.draw, least=-1)
        whole("seed", self.seed, least=0, most=2**32 - 1)  # as numpy's global generator takes it
        for name in ("alpha", "learning_rate", "head_rate"):
            real(name, getattr(self, name), above=0)
        real("epochs", self.epochs, above=0, most=1e6)  # so that their steps are a whole number
        for name in ("warm_up", "weight_decay", "clip"):
            real(name, getattr(self, name), least=0)
        for name in ("dropout", "beta2"):
            real(name, getattr(self, name), least=0, below=1)
        for name in self.grades:
            if not str(name).startswith(HARNESS):
                choice("grades", name, GRADES)
        for name in ("patience", "watch"):
            if getattr(self, name) and not self.evaluate:
                raise refuse("evaluate", self.evaluate, f"at least 1 where {name} is asked for")
        if self.left == "identity" and not self.core and self.shape != "whole":
            raise refuse("shape", self.shape, 'whole where left is "identity": then a is m')
        if self.core:
            pair("core", self.core)
            if self.method != "cosa":
                raise refuse("core", self.core, f"left out: {self.method} takes rank or budget")
        if self.whiten and self.method == "cosa" and self.kind not in INFORMED:
            raise refuse("whiten", self.whiten, f"false: {self.kind} takes no such option")
        if self.final_rank > self.rank and not self.budget:
            raise refuse("final_rank", self.final_rank, f"at most the rank, {self.rank}")

    @property
    def drawn(self) -> int:
        """The seed of what the method draws."""
        return self.seed if self.draw < 0 else self.draw


_CHOICES = {
    "method": METHODS,
    "kind": (*KINDS, *INFORMED),
    "left": ("", "identity", *KINDS),
    "scale": ("synthesis", "analysis"),
    "shape": SHAPES,
    "learns": ("labels", "numbers", "answers"),
    "template": TEMPLATES,
    "metric": ("", "accuracy", "loss"),
    "schedule": SCHEDULES,
    "dtype": DTYPES,
}
_FROM_ONE = (
    *("tokens", "answer_tokens", "rank", "moment_items"),
    *("batch", "accumulation", "checkpoint"),
)
_FROM_ZERO = (
    *("rows", "items", "budget", "final_rank", "blocks", "steps", "threads"),
    *("evaluate", "patience", "watch"),
)


def read(path: Path | None, settings: Sequence[str] = ()) -> Config:
    """Read a training from a file, and from texts such as "method=lora" over it.

    Parameters
    ----------
    path : path, optional
        A TOML file; without one the defaults are the start.
    settings : sequence of str
        Fields and values as in TOML; a value that is no TOML is text.

    Raises
    ------
    InputError
        No such file, not TOML, an unknown field or section, or a value that cannot be.
    """
    chosen = dict(map(_setting, settings))
    given = {} if path is None else _extended(path, ())
    sections = {name: value for name, value in given.items() if isinstance(value, dict)}
    fields = {field.name for field in dataclasses.fields(Config)} - {"method"}
    for name, section in sections.items():
        choice(f"section of {path}", name, METHODS)
        for unknown in section.keys() - fields:
            raise InputError(
                f"configuration {path}: [{name}] has {quoted(unknown)}, no field that a method's "
                "section sets: mend or delete it"
            )
    plain = {name: value for name, value in given.items() if name not in sections}
    method = chosen.get("method", plain.get("method", Config.method))
    own = sections.get(method, {}) if isinstance(method, str) else {}
    where = "" if path is None else f"configuration {path}: "
    return with_fields(Config(), {**plain, **own, **chosen}, where)


def _extended(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Return the fields of a file over those of the one that it extends, section by section."""
    if path.resolve() in seen:
        raise InputError(f"configuration {path}: it extends itself")
    own = read_toml(path)
    parent = own.pop("extends", None)
    if parent is None:
        return own
    if not isinstance(parent, str):
        raise InputError(f"configuration {path}: extends is {quoted(parent)}: it must be a file")
    merged = _extended(path.parent / parent, (*seen, path.resolve()))
    for name, value in own.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = {**merged[name], **value} if both else value
    return merged


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(
            f"--set is {quoted(text)}: it must be a field and its value, such as rank=8"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return name.strip(), tuple(parsed) if isinstance(parsed, list) else parsed


def to_toml(config: Config) -> str:
    """Return the file of a training, every field in it; `read` gives the training again."""
    values = dataclasses.asdict(config).items()
    # JSON's text, numbers, truth and arrays are TOML's.
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values)
