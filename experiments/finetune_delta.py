"""A real weight update: full fine-tuning of a small sentence encoder on Reuters R8.

Every weight of the encoder is trained together with a linear head on its mean-pooled output.
Saved are the encoder's weights before and after, under the same names, so that the difference of
the two files is the update itself.

Example: `python -m experiments.finetune_delta --out results/finetune_delta`
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save
from scipy.stats import binomtest
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from cosa_theory.assets import ASSETS, Text, asset_folder, read_reuters
from cosa_theory.deltas.language_models import quiet_transformers
from cosa_theory.ground.checks import real, whole
from cosa_theory.ground.manifest import check_folder, is_damaged, own_files
from cosa_theory.ground.program import program
from cosa_theory.ground.progress import progress_bar
from cosa_theory.ground.provenance import provenance
from cosa_theory.ground.reading import read_json
from cosa_theory.ground.swap import reading
from cosa_theory.page.document import read_table
from cosa_theory.projections import stream
from experiments.command import command_parser, read_config, run_command

__all__ = [
    "Config",
    "Task",
    "batches",
    "run",
    "torch_settings",
]

DEFAULT_OUT = Path("results/finetune_delta")
PART = "finetune_delta"
FILES = ("base.safetensors", "tuned.safetensors", "loss.parquet", "summary.json")


@dataclass(frozen=True)
class Config:
    """Settings of one fine-tuning; the defaults are the report's short run.

    Attributes
    ----------
    steps, batch : int
        Optimiser steps, and texts in each.
    max_tokens : int
        Texts are cut to this many tokens, special ones included.
    test_texts : int
        Texts to test on, drawn without replacement from the test split.
    learning_rate, head_learning_rate : float
        Peak rates of AdamW for the encoder and for the new head. There is no weight decay: it
        would move weights that no text has touched, and the update would no longer be the
        gradient's doing.
    warm_up : float
        Share of the steps over which the rates rise linearly, before they fall linearly to zero.
    seed : int
        Of the head's first weights, the order of the texts, dropout and the choice of test texts.
    threads : int
        Torch threads. Sums in another order round differently, so this is part of the settings.
    """

    steps: int = 100
    batch: int = 16
    max_tokens: int = 64
    test_texts: int = 600
    learning_rate: float = 5e-5
    head_learning_rate: float = 1e-2
    warm_up: float = 0.1
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        for field in ("steps", "batch", "max_tokens", "test_texts", "threads"):
            whole(field, getattr(self, field))
        for field in ("learning_rate", "head_learning_rate"):
            real(field, getattr(self, field), above=0)
        real("warm_up", self.warm_up, least=0, below=1)
        whole("seed", self.seed, least=0)


def run(config: Config, out: str | Path = DEFAULT_OUT) -> pd.DataFrame:
    """Fine-tune, and store the two checkpoints, the loss curve and a summary.

    Parameters
    ----------
    config : Config
        The settings.
    out : path
        Folder for base.safetensors, tuned.safetensors, loss.parquet and summary.json. Nothing is
        computed when it already holds the result of equal settings and inputs; another result
        there is replaced, as a whole.

    Returns
    -------
    pandas.DataFrame
        The loss curve: step (from 1), loss (mean cross-entropy of the batch, nats),
        learning_rate (the encoder's).
    """
    out = Path(out)
    identity = _identity(config)
    with reading(out):
        finished = _is_finished(out, identity)
    if finished:
        return read_table(out / "loss.parquet")
    check_folder(out, PART, FILES)
    started = time.perf_counter()
    with torch_settings(config):
        base, tuned, curve, (correct, tested) = _fine_tune(config)
    interval = binomtest(correct, tested).proportion_ci(0.95, method="wilson")
    summary = {
        "identity": identity,
        "accuracy": correct / tested,
        "accuracy_ci95": [float(interval.low), float(interval.high)],
        "correct": correct,
        "tested": tested,
        "seconds": time.perf_counter() - started,
        "provenance": provenance(dataclasses.asdict(config), seed=config.seed),
    }
    with own_files(out, PART, last="summary.json") as new:
        for name, weights in (("base", base), ("tuned", tuned)):
            (new / f"{name}.safetensors").write_bytes(save(weights))
        curve.to_parquet(new / "loss.parquet")
        (new / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return curve


def _identity(config: Config) -> str:
    """Hash what decides the result: settings, inputs, and the code that runs them."""
    parts = {
        "config": dataclasses.asdict(config),
        "assets": [ASSETS["encoder"].sha256, ASSETS["texts"].sha256],
        "torch": torch.__version__,
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _is_finished(out: Path, identity: str) -> bool:
    if is_damaged(out, FILES):
        return False
    try:
        return bool(read_json(out / "summary.json")["identity"] == identity)
    except (ValueError, KeyError):  # damaged, without a list to tell
        return False


@contextmanager
def torch_settings(config: Config) -> Iterator[None]:
    """Set threads and the seed of dropout for the block alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            yield
    finally:
        torch.set_num_threads(threads)


class Classifier(nn.Module):
    """An encoder, the mean of its outputs over the tokens of a text, and a linear head."""

    def __init__(self, encoder: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map token numbers and mask (texts × tokens) to logits (texts × classes)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        logits: Tensor = self.head((hidden * weight).sum(1) / weight.sum(1))
        return logits


Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What is trained, and on what.

    Attributes
    ----------
    model : Classifier
        The encoder before training, with a new head.
    train, test : list of Text
        Both splits of Reuters R8.
    """

    model: Classifier
    train: list[Text]
    test: list[Text]
    _tokenizer: Any
    _max_tokens: int

    @classmethod
    def load(cls, config: Config) -> "Task":
        """Return the task; the head's first weights are drawn from torch's generator."""
        folder = asset_folder("encoder")
        train, test = read_reuters("train"), read_reuters("test")
        with quiet_transformers():
            # Mean pooling does not use BERT's pooler, which would only add an untrained matrix.
            encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        classes = len({text.category for text in train})
        model = Classifier(encoder, encoder.config.hidden_size, classes)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(model, train, test, tokenizer, config.max_tokens)

    @cached_property
    def classes(self) -> list[str]:
        """The categories, in the order of the logits."""
        return sorted({text.category for text in self.train})

    def batch(self, texts: list[Text]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the model's inputs and the labels of some texts."""
        tokens = self._tokenizer(
            [text.text for text in texts],
            padding=True,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        return inputs, torch.tensor([self.classes.index(text.category) for text in texts])


def _fine_tune(config: Config) -> tuple[Weights, Weights, pd.DataFrame, tuple[int, int]]:
    """Return the weights before and after, the loss curve, and (correct, tested) texts."""
    task = Task.load(config)
    base = _weights(task.model.encoder)
    curve = _train(task, config)
    correct, tested = _test(task, config)
    return base, _weights(task.model.encoder), curve, (correct, tested)


def _train(task: Task, config: Config) -> pd.DataFrame:
    """Train the model of the task; return the loss curve."""
    model = task.model
    optimiser = torch.optim.AdamW(
        [
            {"params": list(model.encoder.parameters()), "lr": config.learning_rate},
            {"params": list(model.head.parameters()), "lr": config.head_learning_rate},
        ],
        weight_decay=0.0,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    rows = []
    model.train()
    with progress_bar("fine-tuning", notes=True) as advance:
        for step, indices in enumerate(batches(len(task.train), config), start=1):
            inputs, labels = task.batch([task.train[index] for index in indices])
            loss = nn.functional.cross_entropy(model(**inputs), labels)
            optimiser.zero_grad()
            loss.backward()
            rate = optimiser.param_groups[0]["lr"]
            optimiser.step()
            schedule.step()
            rows.append({"step": step, "loss": loss.item(), "learning_rate": rate})
            advance(step, config.steps, f"loss {loss.item():.3f}")
    return pd.DataFrame(rows)


def _test(task: Task, config: Config) -> tuple[int, int]:
    """Return how many of the test texts the model puts into their category, and their number."""
    model = task.model.eval()
    order = stream(config.seed, "finetune_delta", "test").permutation(len(task.test))
    chosen = [task.test[index] for index in order[: config.test_texts]]
    # Sorted by length, the texts of a batch need little padding.
    chosen.sort(key=lambda text: len(text.text))
    correct = 0
    with torch.inference_mode(), progress_bar("texts tested") as advance:
        for start in range(0, len(chosen), 64):
            inputs, labels = task.batch(chosen[start : start + 64])
            correct += int((model(**inputs).argmax(1) == labels).sum())
            advance(min(start + 64, len(chosen)), len(chosen))
    return correct, len(chosen)


def _weights(encoder: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in encoder.state_dict().items()}


def _rate(step: int, config: Config) -> float:
    """Linear warm-up, then linear decay to zero, as a share of the peak rate."""
    warm_up = config.warm_up * config.steps
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return (config.steps - step) / (config.steps - warm_up)


def batches(texts: int, config: Config) -> Iterator[list[int]]:
    """Yield the indices of each step's texts: every text once before any text twice."""
    generator = stream(config.seed, "finetune_delta", "batches")
    order: list[int] = []
    for _ in range(config.steps):
        while len(order) < config.batch:
            order += generator.permutation(texts).tolist()
        yield order[: config.batch]
        order = order[config.batch :]


@program
def main(arguments: list[str] | None = None) -> int:
    """Run the experiment from the command line; the result is the exit code."""
    parser = command_parser(
        "experiments.finetune_delta",
        "Fully fine-tune a small encoder on Reuters R8; save it before and after.",
        out=DEFAULT_OUT,
        example="--out results/finetune_delta",
    )
    parser.add_argument("--config", type=Path, help="TOML file with fields of Config")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: 100)")
    parser.add_argument("--seed", type=int, help="default: 0")
    chosen = parser.parse_args(arguments)

    def body() -> None:
        config = read_config(Config(), chosen.config, steps=chosen.steps, seed=chosen.seed)
        run(config, chosen.out)
        summary = json.loads((chosen.out / "summary.json").read_text())
        low, high = summary["accuracy_ci95"]
        print(
            f"Test accuracy {summary['accuracy']:.1%} on {summary['tested']} texts (95 % interval "
            f"{low:.1%} to {high:.1%}), {summary['seconds']:.0f} s; base.safetensors and "
            f"tuned.safetensors are in {chosen.out}"
        )

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
