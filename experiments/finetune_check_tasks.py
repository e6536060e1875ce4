"""What the end-to-end check trains on: a text classifier, and a language model of code.

- ``encoder``: all-MiniLM-L6-v2 with a linear head on its mean-pooled output, on Reuters R8; the
  score is the accuracy. ``encoder_r52`` and ``encoder_20newsgroups`` are the same on other texts.
- ``decoder``: SmolLM2-135M, on documented functions of the standard library: signature and
  docstring are given, and the score is the mean loss of the body's tokens, in nats. No module is
  on both sides of a split.

The held-out items are the same in every run, whatever its seed; a validation part, never the test
part, is what learning rates are chosen on.
"""

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from cosa_theory.assets import Text, asset_folder, read_newsgroups, read_reuters
from cosa_theory.deltas.language_models import quiet_transformers
from cosa_theory.projections import stream
from experiments.finetune_delta import Classifier
from experiments.function_bodies import FunctionText, read_functions, split_modules

__all__ = ["TASKS", "Example", "Score", "Task", "decoder_base", "read_labelled", "score"]

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Shares of the modules, and of the training texts, that are kept back.
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.25
VALIDATION_TEXTS = 600
IGNORED = -100  # the label of a token that is not predicted
_BATCH = 16
_RESAMPLES = 2000


@dataclass(frozen=True)
class Example:
    """One item in the model's terms.

    Attributes
    ----------
    input_ids : tuple of int
        Tokens.
    labels : int or tuple of int
        The class, or a label for every token, `IGNORED` where none is predicted.
    group : str
        Items of one group are not independent: functions of one module.
    """

    input_ids: tuple[int, ...]
    labels: int | tuple[int, ...]
    group: str


@dataclass(frozen=True)
class Score:
    """A mean over held-out items with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
        Accuracy with Wilson's interval; or loss in nats a token, with a bootstrap over groups.
    scored : int
        How many items.
    item_sums, item_weights : list of float
        For each group of items, in the order of their names, the sum that is averaged (hits, or
        nats) and its weight (texts, or tokens): equal weights in every score of the same items.
    """

    value: float
    low: float
    high: float
    scored: int
    item_sums: list[float]
    item_weights: list[float]


@dataclass(frozen=True)
class Task(ABC):
    """What a training needs to know of its task.

    Attributes
    ----------
    base : str
        Folder of the model before training.
    pad : int
        The token that fills short items up.
    train, validation, test : list of Example
        The parts.
    metric : {"accuracy", "loss"}
        What is scored.
    head : str, optional
        Name of a new module that every method trains as a whole.
    """

    base: str
    pad: int
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    metric: ClassVar[str]
    head: ClassVar[str | None] = None

    @abstractmethod
    def model(self) -> nn.Module:
        """Return the model before training; a new head is drawn from torch's generator."""

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the model's inputs, padded, with labels."""

    @abstractmethod
    def outcomes(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return for each item the sum that is averaged (hits, or nats), and its weight."""


class LabelledClassifier(Classifier):
    """The classifier of `experiments.finetune_delta`, with the loss a trainer asks for."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> Any:
        """Return logits (texts × classes), and the mean cross-entropy where labels are given."""
        logits = super().forward(input_ids, attention_mask)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@dataclass(frozen=True)
class EncoderTask(Task):
    """Labelled texts with the sentence encoder; `classes` is the number of their categories."""

    classes: int
    metric = "accuracy"
    head = "head"

    @classmethod
    def load(
        cls, folder: Path, max_tokens: int, held_out: int, corpus: str = "r8"
    ) -> "EncoderTask":
        """Tokenise both splits; at most `held_out` texts of each held-out part."""
        del folder  # the encoder is used as it was unpacked
        base = asset_folder("encoder")
        train, test = read_labelled(corpus, "train"), read_labelled(corpus, "test")
        classes = sorted({text.category for text in train})
        tokenizer = AutoTokenizer.from_pretrained(base)

        def examples(texts: Sequence[Text]) -> list[Example]:
            settings = {"truncation": True, "max_length": max_tokens}
            tokens = tokenizer([text.text for text in texts], **settings).input_ids
            return [
                Example(tuple(ids), classes.index(text.category), str(number))
                for number, (text, ids) in enumerate(zip(texts, tokens, strict=True))
            ]

        order = stream(0, "finetune_check", "validation").permutation(len(train))
        kept = [train[index] for index in sorted(order[VALIDATION_TEXTS:])]
        validation = [train[index] for index in order[: min(held_out, VALIDATION_TEXTS)]]
        return cls(
            base=str(base),
            pad=tokenizer.pad_token_id,
            classes=len(classes),
            train=examples(kept),
            validation=examples(validation),
            test=examples(_some(test, held_out, "test")),
        )

    def model(self) -> nn.Module:
        """Return the encoder with a new head."""
        with quiet_transformers():
            encoder = AutoModel.from_pretrained(self.base, add_pooling_layer=False)
        return LabelledClassifier(encoder, encoder.config.hidden_size, self.classes)

    def collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return input_ids, attention_mask and labels (one for each text)."""
        labels = torch.tensor([example.labels for example in examples])
        return {**_padded(examples, self.pad), "labels": labels}

    def outcomes(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return 1 for each text in its category, else 0; and ones."""
        labels = inputs.pop("labels")
        right = (model(**inputs)["logits"].argmax(1) == labels).double()
        return right, torch.ones_like(right)


@dataclass(frozen=True)
class DecoderTask(Task):
    """Bodies of library functions with the language model."""

    metric = "loss"

    @classmethod
    def load(cls, folder: Path, max_tokens: int, held_out: int) -> "DecoderTask":
        """Tokenise the functions of at most `max_tokens` tokens, `held_out` of each held-out part.

        The unpacked model goes to `folder`.
        """
        base = decoder_base(folder)
        tokenizer = AutoTokenizer.from_pretrained(base)

        def encode(texts: list[str]) -> list[list[int]]:
            tokens: list[list[int]] = tokenizer(texts, add_special_tokens=False).input_ids
            return tokens

        parts = split_modules(read_functions(), (VALIDATION_SHARE, TEST_SHARE))
        train, validation, test = (
            function_examples(part, encode, tokenizer.eos_token_id, max_tokens) for part in parts
        )
        return cls(
            base=str(base),
            pad=tokenizer.pad_token_id,
            train=train,
            validation=_some(validation, held_out, "functions", "validation"),
            test=_some(test, held_out, "functions", "test"),
        )

    def model(self) -> nn.Module:
        """Return the language model."""
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        model.config.use_cache = False
        return model

    def collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return input_ids, attention_mask and labels (one for each token)."""
        inputs = _padded(examples, self.pad)
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for row, example in enumerate(examples):
            labels[row, : len(example.input_ids)] = torch.tensor(example.labels)
        return {**inputs, "labels": labels}

    def outcomes(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy summed over each body, and its number of tokens."""
        labels = inputs.pop("labels")[:, 1:]
        logits = model(**inputs).logits[:, :-1].float().mT
        nats = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        return nats.sum(1).double(), (labels != IGNORED).sum(1).double()


def function_examples(
    functions: Sequence[FunctionText],
    encode: Callable[[list[str]], list[list[int]]],
    end: int,
    max_tokens: int,
) -> list[Example]:
    """Return the functions of at most `max_tokens` tokens, with labels on body and end alone."""
    prompts = encode([function.prompt for function in functions])
    bodies = encode([function.body for function in functions])
    return [
        Example(
            (*prompt, *body, end),
            (*[IGNORED] * len(prompt), *body, end),
            function.module,
        )
        for function, prompt, body in zip(functions, prompts, bodies, strict=True)
        if len(prompt) + len(body) < max_tokens
    ]


def decoder_base(folder: Path) -> Path:
    """Unpack the quantised language model into float32, once; return its folder.

    Everything that trains or compares then starts from the same ordinary checkpoint.
    """
    target = folder / "decoder"
    if not (target / "model.safetensors").is_file():
        source = asset_folder("smollm2")
        with quiet_transformers():
            packed = AutoModelForCausalLM.from_pretrained(
                source, gguf_file=GGUF, dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
            settings = packed.config.to_dict()
            # What is saved is no longer quantised, and must not say that it is.
            settings.pop("quantization_config", None)
            config = AutoConfig.for_model(**settings)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            model.load_state_dict(packed.state_dict())
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".decoder.", dir=folder) as work:
                content = Path(work) / "content"
                model.save_pretrained(content)
                tokenizer.save_pretrained(content)
                try:
                    content.rename(target)
                except OSError:
                    if not target.is_dir():  # otherwise another training was faster: the same
                        raise
    return target


def _padded(examples: Sequence[Example], pad: int) -> dict[str, Tensor]:
    length = max(len(example.input_ids) for example in examples)
    ids = torch.full((len(examples), length), pad)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        ids[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
        mask[row, : len(example.input_ids)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _some(items: Sequence[Any], count: int, *key: str) -> list[Any]:
    """Return `count` of the items, drawn without replacement, always the same."""
    order = stream(0, "finetune_check", *key).permutation(len(items))
    return [items[index] for index in order[:count]]


@torch.no_grad()
def score(task: Task, model: nn.Module, examples: Sequence[Example], seed: int = 0) -> Score:
    """Return the mean score of held-out items; the model is left in evaluation mode.

    Parameters
    ----------
    task : Task
        What the items are.
    model : nn.Module
        The model.
    examples : sequence of Example
        One part of the task.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Score
    """
    model.eval()
    device = next(model.parameters()).device
    # Sorted by length, the items of a batch need little padding.
    order = sorted(examples, key=lambda example: len(example.input_ids))
    sums, weights = [], []
    for start in range(0, len(order), _BATCH):
        inputs = task.collate(order[start : start + _BATCH])
        moved = {name: tensor.to(device) for name, tensor in inputs.items()}
        batch = task.outcomes(model, moved)
        sums.append(batch[0].cpu().numpy())
        weights.append(batch[1].cpu().numpy())
    total, weight = np.concatenate(sums), np.concatenate(weights)
    value = float(total.sum() / weight.sum())
    groups, member = np.unique([example.group for example in order], return_inverse=True)
    item_sums, item_weights = (np.bincount(member, x, len(groups)) for x in (total, weight))
    if task.metric == "accuracy":
        interval = binomtest(round(total.sum()), len(total)).proportion_ci(0.95, method="wilson")
        low, high = float(interval.low), float(interval.high)
    else:
        low, high = _bootstrap(item_sums, item_weights, seed)
    kept = (np.round(x, 6).tolist() for x in (item_sums, item_weights))
    return Score(value, low, high, len(order), *kept)


def _bootstrap(sums: NDArray[Any], weights: NDArray[Any], seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of a weighted mean under resampling of groups."""
    groups = len(sums)
    if groups < 2:
        return math.nan, math.nan
    picked = stream(seed, "finetune_check", "bootstrap").integers(groups, size=(_RESAMPLES, groups))
    means = sums[picked].sum(1) / weights[picked].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def read_labelled(corpus: str, split: str) -> list[Text]:
    """Return a split of Reuters ("r8", "r52") or of 20 Newsgroups ("20newsgroups")."""
    return read_newsgroups(split) if corpus == "20newsgroups" else read_reuters(split, corpus)


@lru_cache(maxsize=2)
def _encoder(corpus: str, folder: Path, max_tokens: int, held_out: int) -> Task:
    return EncoderTask.load(folder, max_tokens, held_out, corpus)


@lru_cache(maxsize=2)
def _decoder(folder: Path, max_tokens: int, held_out: int) -> Task:
    return DecoderTask.load(folder, max_tokens, held_out)


TASKS: dict[str, Callable[[Path, int, int], Task]] = {
    "encoder": partial(_encoder, "r8"),
    "encoder_r52": partial(_encoder, "r52"),
    "encoder_20newsgroups": partial(_encoder, "20newsgroups"),
    "decoder": _decoder,
}
"""How to load each task: maps (folder for unpacked models, max_tokens, held_out)."""
