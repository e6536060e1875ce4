"""What a language model says on texts: embeddings, or next-token logits, compared text by text."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cosa_theory.deltas.language_models import load_language_model
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.moments.losses import pooled
from cosa_theory.nn.moments.plan import linear_weights

__all__ = ["Difference", "Readout", "TextModel", "load_text_model"]

# Of the logits of one model that are kept in memory; positions are thinned to fit.
_MOST_LOGITS = 1 << 27
_ROWS = 64  # of logits that are compared at a time, so that what is computed stays in the cache


@dataclass
class TextModel:
    """A model in evaluation mode, its tokenizer, and what is asked of it."""

    network: Any  # an nn.Module of transformers
    tokenizer: Any
    task: str  # of "embeddings" and "causal-lm"
    normalised: bool = False  # whether its embeddings are used at length one

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the matrices of its linear layers by name, see `linear_weights`."""
        found: dict[str, Any] = {
            name: one.weight for name, one in linear_weights(self.network).items()
        }
        return found

    def transposed(self) -> set[str]:
        """Return the names of those that are stored in × out."""
        return {
            f"{name}.weight"
            for name, module in self.network.named_modules()
            if type(module).__name__ == "Conv1D"
        }

    def batches(
        self, texts: Sequence[str], max_tokens: int, size: int = 16
    ) -> list[tuple[list[int], Any]]:
        """Return the texts in batches of similar length: their places, and what the model takes.

        They are padded at the end, whatever the tokenizer does: so positions count from a text's
        first token. An `InputError` where the tokenizer does not know most of what they say.
        """
        pad, unknown = self.tokenizer.pad_token_id or 0, self.tokenizer.unk_token_id
        ids = self.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
        every = [one for listed in ids for one in listed]
        if unknown is not None and every.count(unknown) > len(every) / 2:
            raise InputError(
                f"the tokenizer knows less than half of the texts: {every.count(unknown)} of "
                f"{len(every)} tokens are {self.tokenizer.unk_token}: it lacks files, or is of "
                "another model or language"
            )
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        batches = []
        for start in range(0, len(order), size):
            places = order[start : start + size]
            rows = [torch.tensor(ids[place], dtype=torch.long) for place in places]
            taken = {
                "input_ids": nn.utils.rnn.pad_sequence(rows, True, pad),
                "attention_mask": nn.utils.rnn.pad_sequence(list(map(torch.ones_like, rows)), True),
            }
            batches.append((places, taken))
        return batches


def load_text_model(source: str | os.PathLike[str], task: str | None = None) -> TextModel:
    """Load a model of transformers with its tokenizer, in float32.

    Parameters
    ----------
    source : path or hub id
        A folder with weights, configuration and tokenizer.
    task : {"embeddings", "causal-lm"}, optional
        By default "causal-lm" for an architecture that ends so, "embeddings" for others.

    Raises
    ------
    InputError
        If it cannot be loaded, or has no head for the task.
    """
    name, chosen = os.fspath(source), "embeddings"

    def choose(heads: Sequence[str]) -> str:
        nonlocal chosen
        causal = any(head.endswith(("ForCausalLM", "LMHeadModel")) for head in heads)
        chosen = task or ("causal-lm" if causal else "embeddings")
        if chosen == "causal-lm" and not causal:
            raise InputError(
                f"task is 'causal-lm', but {name} is {', '.join(heads) or 'of no named kind'}, "
                "which predicts no next token: ask for embeddings",
                argument="task",
            )
        return "AutoModelForCausalLM" if chosen == "causal-lm" else "AutoModel"

    network, tokenizer = load_language_model(source, choose)
    return TextModel(network, tokenizer, chosen)


@dataclass(frozen=True)
class Difference:
    """How far a model is from the one that is remembered, on each text.

    Parameters
    ----------
    squared : array, shape (texts,)
        ‖f − g‖² over the embedding, or over the logits of the positions that are kept.
    divergence : array, shape (texts,), optional
        Sum over positions of the Kullback-Leibler divergence of the remembered next-token
        distribution from the model's, in nats; for causal models.
    loss : array, shape (texts,), optional
        By how much its cross-entropy of the next tokens is larger, summed over positions, in nats.
    """

    squared: NDArray[np.float64]
    divergence: NDArray[np.float64] | None = None
    loss: NDArray[np.float64] | None = None


class Readout:
    """The function of a model on fixed texts.

    Parameters
    ----------
    model : TextModel
        Whose weights may change between calls.
    texts : sequence of str
        What it is asked.
    max_tokens : int
        Longer texts are cut.

    Attributes
    ----------
    kept : list of (tensor, tensor)
        Of a causal model, row and column of the positions that are kept in each batch: all whose
        next token is known where their logits fit into 512 MB, else evenly spaced ones.
    """

    def __init__(self, model: TextModel, texts: Sequence[str], max_tokens: int) -> None:
        self.model = model
        self.count = len(texts)
        self.batches = model.batches(texts, max_tokens)
        self.kept = self._positions() if model.task == "causal-lm" else []
        self._reference: list[torch.Tensor] = []
        self._log_sums: list[torch.Tensor] = []

    def outputs(self) -> Iterator[torch.Tensor]:
        """Yield f of every batch: embeddings (texts × width), or kept logits (tokens × words)."""
        return map(self._output, range(len(self.batches)))

    @torch.inference_mode()
    def _output(self, index: int) -> torch.Tensor:
        batch = self.batches[index][1]
        if self.kept:
            found: torch.Tensor = self.model.network(**batch).logits[self.kept[index]]
            return found
        hidden = self.model.network(**batch).last_hidden_state
        embedded = pooled(hidden, batch["attention_mask"])
        return nn.functional.normalize(embedded) if self.model.normalised else embedded

    def _positions(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        found = [torch.nonzero(batch["attention_mask"][:, 1:]) for _, batch in self.batches]
        width = self.model.network.get_input_embeddings().num_embeddings
        total = sum(len(one) for one in found)
        step = max(1, math.ceil(total * width / _MOST_LOGITS))
        return [(one[::step, 0], one[::step, 1]) for one in found]

    def memory(self) -> int:
        """Return the bytes of what is remembered of a causal model, and of the largest batch."""
        words = self.model.network.get_input_embeddings().num_embeddings
        kept = sum(len(rows) for rows, _ in self.kept)
        largest = max(batch["input_ids"].numel() for _, batch in self.batches)
        return 4 * words * (kept + 2 * largest) if self.kept else 0

    def remember(self) -> None:
        """Take what the model says now for what it is compared with later."""
        self._reference = list(self.outputs())
        if self.kept:
            self._log_sums = [_log_sum_exp(one) for one in self._reference]

    def apart(self) -> Difference:
        """Run the model as it is, and tell how far it is from what is remembered."""
        names = ("squared", "divergence", "loss") if self.kept else ("squared",)
        totals = np.zeros((len(names), self.count))
        for index, outputs in enumerate(self.outputs()):
            gaps = self._gaps(index, outputs)
            for total, gap in zip(totals, gaps, strict=True):
                np.add.at(total, self._owners(index), gap.numpy())
        return Difference(**dict(zip(names, totals, strict=True)))

    def _owners(self, index: int) -> NDArray[np.int64]:
        """Return the text that each row of a batch's outputs belongs to."""
        places = np.asarray(self.batches[index][0])
        return places[self.kept[index][0].numpy()] if self.kept else places

    @torch.inference_mode()
    def _gaps(self, index: int, outputs: torch.Tensor) -> list[torch.Tensor]:
        """Return what `Difference` adds up, for each row of a batch's outputs g.

        With f what is remembered and s the logarithm of its Σ exp, the divergence is
        Σ exp(f − s)(f − g) − s + log Σ exp(g).
        """
        reference = self._reference[index]
        if not self.kept:
            return [(reference - outputs).square().sum(1, dtype=torch.float64)]
        rows, columns = self.kept[index]
        following = self.batches[index][1]["input_ids"][rows, columns + 1]
        found = []
        parts = (reference, self._log_sums[index], outputs, following)
        for f, log_sum, g, word in zip(*(part.split(_ROWS) for part in parts), strict=True):
            gap = f - g
            squared = gap.square().sum(1, dtype=torch.float64)
            said = gap.gather(1, word[:, None])[:, 0]
            grown = _log_sum_exp(g) - log_sum
            mean = gap.mul_((f - log_sum[:, None].float()).exp_()).sum(1, dtype=torch.float64)
            found.append(torch.stack([squared, mean + grown, grown + said]))
        return list(torch.cat(found, 1))

    def tokens(self) -> NDArray[np.int64]:
        """Return how many positions of each text are kept."""
        owners = [self._owners(index) for index in range(len(self.batches))]
        return np.bincount(np.concatenate(owners), minlength=self.count)


def _log_sum_exp(logits: torch.Tensor) -> torch.Tensor:
    """Return log Σ exp of each row in double precision, without a copy of all."""
    parts = []
    for part in logits.split(_ROWS):
        top = part.amax(1, keepdim=True)
        total = (part - top).exp_().sum(1, dtype=torch.float64)
        parts.append(total.log() + top[:, 0])
    return torch.cat(parts)
