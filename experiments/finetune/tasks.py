"""Tasks: a model with its data in tokens, and how it is scored on what was held back.

Texts have labels (a classifier, scored by accuracy or cross-entropy), numbers (a regression, by its
squared error), or are continued by answers (a language model, by the mean loss of the answer's
tokens, in nats). The embedded models are all-MiniLM-L6-v2 with a linear head on its mean-pooled
output ("minilm"), and SmolLM2-135M ("smollm2"); all others are loaded by transformers.

The held-out items are the same in every run, whatever its seed; a validation part, never the test
part, is what learning rates are chosen on and training may end on.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from cosa_theory.assets import asset_folder
from cosa_theory.ground.errors import InputError
from cosa_theory.projections import stream
from experiments.finetune.config import Config
from experiments.finetune.data import Parts, load_parts
from experiments.finetune.embedded import LabelledClassifier, decoder_base, text_losses
from experiments.finetune.pretrained import (
    beginning_of,
    form_of,
    loaded,
    padding_of,
    refuse_lacking,
    sees_ahead,
    tokenizer_of,
)
from experiments.finetune.rows import Item
from experiments.finetune.templates import answered, put

__all__ = ["TASKS", "Example", "Task", "load_task"]

IGNORED = -100  # the label of a token that is not predicted


@dataclass(frozen=True)
class Example:
    """One item in the model's terms.

    Attributes
    ----------
    input_ids : tuple of int
        Tokens.
    labels : int, float or tuple of int
        The class, the number, or a label for every token, `IGNORED` where none is predicted.
    group : str
        Items of one group are not independent: functions of one module.
    """

    input_ids: tuple[int, ...]
    labels: int | float | tuple[int, ...]
    group: str


@dataclass(frozen=True)
class Task(ABC):
    """What a training needs to know of its task.

    Attributes
    ----------
    base : str
        Folder or name of the model before training.
    pad : int
        The token that fills short items up.
    train, validation, test : list of Example
        The parts.
    metric : {"accuracy", "loss"}
        What is scored with an interval.
    dtype : str
        Of the model's weights.
    learns : {"labels", "numbers", "answers"}
        What the outputs are.
    template : str
        How prompts are put, see `experiments.finetune.templates`.
    head : tuple of str
        Names of new modules that every method trains as a whole.
    """

    base: str
    pad: int
    train: list[Example]
    validation: list[Example]
    test: list[Example]
    metric: str = "loss"
    dtype: str = "float32"
    learns: str = "answers"
    template: str = ""
    head: tuple[str, ...] = ()

    @abstractmethod
    def model(self) -> nn.Module:
        """Return the model before training; a new head is drawn from torch's generator."""

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the model's inputs, padded, with labels."""

    @abstractmethod
    def outcomes(self, model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return for each item its `loss` (a sum), `weight`, and of classifiers `said`, `true`."""


@dataclass(frozen=True)
class TextTask(Task):
    """Texts with labels or numbers; `classes` is how many outputs the head has."""

    classes: int = 1

    @classmethod
    def load(cls, config: Config, parts: Parts) -> "TextTask":
        """Tokenise the parts."""
        base = str(asset_folder("encoder")) if config.model == "minilm" else config.model
        tokenizer = tokenizer_of(base)
        head, positions = form_of(base)
        if positions is not None and config.tokens > positions:
            raise InputError(
                f"tokens is {config.tokens:,}: model {config.model} has positions for "
                f"{positions:,}: lower it",
                argument="tokens",
            )
        classes = sorted({str(item.output) for item in parts.train})

        def examples(items: Sequence[Item]) -> list[Example]:
            columns = zip(*(item.inputs for item in items), strict=True)
            settings = {"truncation": True, "max_length": config.tokens}
            tokens = tokenizer(*map(list, columns), **settings).input_ids
            return [
                Example(
                    tuple(ids),
                    classes.index(str(item.output)) if numbers is None else numbers(item.output),
                    str(number),  # every text is a group of its own
                )
                for number, (item, ids) in enumerate(zip(items, tokens, strict=True))
            ]

        numbers = float if parts.learns == "numbers" else None
        most = config.items or None
        return cls(
            base=base,
            pad=padding_of(tokenizer),
            train=examples(parts.train),
            validation=examples(parts.validation[:most]),
            test=examples(parts.test[:most]),
            metric=config.metric or ("accuracy" if numbers is None else "loss"),
            dtype=config.dtype,
            classes=len(classes) if numbers is None else 1,
            learns=parts.learns,
            head=("head",) if config.model == "minilm" else head,
        )

    def model(self) -> nn.Module:
        """Return the model with a new head."""
        if self.head == ("head",):
            made = transformers.AutoModel
            encoder = loaded(self.base, self.dtype, made, add_pooling_layer=False)
            return LabelledClassifier(encoder, encoder.config.hidden_size, self.classes)
        kind = "regression" if self.learns == "numbers" else "single_label_classification"
        made = transformers.AutoModelForSequenceClassification
        model = loaded(self.base, self.dtype, made, num_labels=self.classes, problem_type=kind)
        model.config.pad_token_id = self.pad
        return model

    def collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return input_ids, attention_mask and labels (one for each text)."""
        labels = torch.tensor([example.labels for example in examples])
        return {**_padded(examples, self.pad), "labels": labels}

    def outcomes(self, model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of each text, ones as weights, and the classes or numbers."""
        labels = inputs.pop("labels")
        logits = model(**inputs)["logits"].float()
        losses = text_losses(logits, labels).double()
        said = logits.argmax(1) if self.learns == "labels" else logits[:, 0]
        return {"loss": losses, "weight": torch.ones_like(losses), "said": said, "true": labels}


@dataclass(frozen=True)
class AnswerTask(Task):
    """Prompts that a language model continues."""

    @classmethod
    def load(cls, config: Config, parts: Parts, folder: Path) -> "AnswerTask":
        """Tokenise the items of at most so many tokens; "smollm2" is unpacked to `folder`.

        Raises
        ------
        InputError
            If that leaves nothing of a part, or the model is an encoder.
        """
        base = str(decoder_base(folder)) if config.model == "smollm2" else config.model
        tokenizer = tokenizer_of(base)
        if sees_ahead(base):
            raise InputError(
                f"model is {config.model!r}, an encoder whose tokens see those that follow: it "
                "learns labels or numbers, no answers; name a language model that continues texts",
                argument="model",
            )
        refuse_lacking(base, transformers.AutoModelForCausalLM)

        def encode(texts: list[str]) -> list[list[int]]:
            return tokenizer(texts, add_special_tokens=False).input_ids if texts else []

        def examples(name: str) -> list[Example]:
            items = getattr(parts, name)
            if parts.template == "chat":
                found = chat_examples(items, encode, tokenizer, config.tokens)
            else:
                asked = [
                    replace(one, inputs=(put(one.inputs[0], parts.template, tokenizer),))
                    for one in items
                ]
                begin, end = beginning_of(tokenizer), tokenizer.eos_token_id
                found = answer_examples(asked, encode, end, config.tokens, begin)
            if not found:
                raise InputError(
                    f"tokens is {config.tokens}: all {len(items):,} items of the {name} part are "
                    "longer, or the tokenizer makes nothing of their answers: raise it",
                    argument="tokens",
                )
            if name == "train":
                return found
            return _some(found, config.items or len(found), *(parts.drawn or (config.data,)), name)

        return cls(
            base=base,
            pad=padding_of(tokenizer),
            train=examples("train"),
            validation=examples("validation"),
            test=examples("test"),
            dtype=config.dtype,
            template=parts.template,
        )

    def model(self) -> nn.Module:
        """Return the language model."""
        model = loaded(self.base, self.dtype, transformers.AutoModelForCausalLM)
        model.config.use_cache = False
        return model

    def collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return input_ids, attention_mask and labels (one for each token)."""
        inputs = _padded(examples, self.pad)
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for row, example in enumerate(examples):
            labels[row, : len(example.input_ids)] = torch.tensor(example.labels)
        return {**inputs, "labels": labels}

    def outcomes(self, model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the cross-entropy summed over each answer, and its number of tokens."""
        labels = inputs.pop("labels")[:, 1:]
        logits = model(**inputs).logits[:, :-1].float().mT
        nats = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        return {"loss": nats.sum(1).double(), "weight": (labels != IGNORED).sum(1).double()}


def answer_examples(
    items: Sequence[Item],
    encode: Callable[[list[str]], list[list[int]]],
    end: int,
    max_tokens: int,
    begin: Sequence[int] = (),
) -> list[Example]:
    """Return the items of at most `max_tokens` tokens, with labels on answer and end alone.

    Left out are those that the tokenizer makes nothing of, too.
    """
    prompts = [[*begin, *prompt] for prompt in encode([item.inputs[0] for item in items])]
    answers = encode([str(item.output) for item in items])
    return [
        Example((*prompt, *answer, end), (*[IGNORED] * len(prompt), *answer, end), item.group)
        for item, prompt, answer in zip(items, prompts, answers, strict=True)
        if answer and len(prompt) + len(answer) < max_tokens
    ]


def chat_examples(
    items: Sequence[Item],
    encode: Callable[[list[str]], list[list[int]]],
    tokenizer: Any,
    max_tokens: int,
) -> list[Example]:
    """Return the chats of at most `max_tokens` tokens, with labels on the last answer alone.

    It begins where the tokens of the prompt and of the whole chat part. Left out are empty answers.
    """
    said = [(one.inputs[0], str(one.output), one) for one in items if str(one.output).strip()]
    prompts = encode([put(asked, "chat", tokenizer, one.history) for asked, _, one in said])
    chats = encode([answered(asked, answer, tokenizer, one.history) for asked, answer, one in said])
    found = []
    for prompt, chat, (_, _, one) in zip(prompts, chats, said, strict=True):
        pairs = enumerate(zip(prompt, chat, strict=False))
        begin = next((place for place, (a, b) in pairs if a != b), min(len(prompt), len(chat)))
        if begin < len(chat) <= max_tokens:
            labels = (*[IGNORED] * begin, *chat[begin:])
            found.append(Example(tuple(chat), labels, one.group))
    return found


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


def load_task(config: Config, folder: Path) -> Task:
    """Load the data and what the model's tokenizer makes of it; the model itself is not loaded.

    Parameters
    ----------
    config : Config
        The training.
    folder : path
        For the unpacked "smollm2".

    Raises
    ------
    InputError
        As `load_parts`; or if a model is embedded for another kind of data, or cannot be loaded.
    """
    parts = load_parts(config)
    answers = parts.learns == "answers"
    if config.model in ("minilm", "smollm2") and answers != (config.model == "smollm2"):
        raise InputError(
            f"model is {config.model!r}, and {parts.learns} are learnt from {config.data}: "
            f"{'minilm has no head for answers' if answers else 'smollm2 continues texts'}, name "
            "another model or other data",
            argument="model",
        )
    if config.grades and not answers:
        raise InputError(
            f"grades are {', '.join(config.grades)}, and {parts.learns} are learnt: leave them out",
            argument="grades",
        )
    if config.template and not answers:
        raise InputError(
            f"template is {config.template!r}, and {parts.learns} are learnt: leave it out",
            argument="template",
        )
    if config.metric == "accuracy" and parts.learns != "labels":
        raise InputError(
            f"metric is 'accuracy', and {parts.learns} are learnt: ask for the loss",
            argument="metric",
        )
    if answers:
        return AnswerTask.load(config, parts, folder)
    return TextTask.load(config, parts)


@lru_cache(maxsize=2)
def _embedded(model: str, data: str, folder: Path, tokens: int, items: int) -> Task:
    return load_task(Config(model=model, data=data, tokens=tokens, items=items), folder)


TASKS: dict[str, Callable[[Path, int, int], Task]] = {
    "encoder": partial(_embedded, "minilm", "r8"),
    "encoder_r52": partial(_embedded, "minilm", "r52"),
    "encoder_20newsgroups": partial(_embedded, "minilm", "20newsgroups"),
    "decoder": partial(_embedded, "smollm2", "functions"),
}
"""The embedded tasks by name: each maps (folder for unpacked models, tokens, items) to its task."""
