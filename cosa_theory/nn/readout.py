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

__all__ = ["Difference", "Readout", "TextModel", "load_text_model"]

# Of the logits of one model that are kept in memory; positions are thinned to fit.
_MOST_LOGITS = 1 << 27


@dataclass
class TextModel:
    """A model in evaluation mode, its tokenizer, and what is asked of it."""

    network: Any  # an nn.Module of transformers
    tokenizer: Any
    task: str  # of "embeddings" and "causal-lm"
    normalised: bool = False  # whether its embeddings are used at length one

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the matrices of its linear layers by name, each once, in the order of the model.

        `Conv1D` of transformers counts as well, although it stores in × out (`transposed`).
        """
        found, seen = {}, set()
        for name, module in self.network.named_modules():
            weight = getattr(module, "weight", None)
            if not isinstance(weight, nn.Parameter) or weight.ndim != 2 or id(weight) in seen:
                continue
            if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
                seen.add(id(weight))
                found[f"{name}.weight"] = weight
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
        """Return the texts in batches of similar length: their places, and what the model takes."""
        lengths = [len(text) for text in texts]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        batches = []
        for start in range(0, len(order), size):
            places = order[start : start + size]
            encoded = self.tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=max_tokens,
                return_tensors="pt",
            )
            taken = {key: encoded[key] for key in ("input_ids", "attention_mask")}
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
    """How far two models are apart on each text.

    Parameters
    ----------
    squared : array, shape (texts,)
        ‖f − g‖² over the embedding, or over the logits of the positions that are kept.
    divergence : array, shape (texts,), optional
        Sum over positions of the Kullback-Leibler divergence of f's next-token distribution from
        g's, in nats; for causal models.
    """

    squared: NDArray[np.float64]
    divergence: NDArray[np.float64] | None = None


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
    positions : tensor or None
        Of a causal model, which predicted tokens are kept, per batch: all of them where their
        logits fit into 512 MB, else evenly spaced ones.
    """

    def __init__(self, model: TextModel, texts: Sequence[str], max_tokens: int) -> None:
        self.model = model
        self.count = len(texts)
        self.batches = model.batches(texts, max_tokens)
        self.kept = self._positions() if model.task == "causal-lm" else []

    @torch.inference_mode()
    def outputs(self) -> list[torch.Tensor]:
        """Return f of every batch: embeddings (texts × width), or kept logits (tokens × words)."""
        return list(self._outputs())

    def _outputs(self) -> Iterator[torch.Tensor]:
        if self.model.task == "embeddings":
            for _, batch in self.batches:
                hidden = self.model.network(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * mask).sum(1) / mask.sum(1)
                yield nn.functional.normalize(pooled) if self.model.normalised else pooled
            return
        for (_, batch), (rows, columns) in zip(self.batches, self.kept, strict=True):
            yield self.model.network(**batch).logits[rows, columns]

    def _positions(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return row and column of every position whose next token is known and kept."""
        found = [torch.nonzero(batch["attention_mask"][:, 1:]) for _, batch in self.batches]
        width = self.model.network.get_input_embeddings().num_embeddings
        total = sum(len(one) for one in found)
        step = max(1, math.ceil(total * width / _MOST_LOGITS))
        return [(one[::step, 0], one[::step, 1]) for one in found]

    def difference(self, first: list[torch.Tensor], second: list[torch.Tensor]) -> Difference:
        """Return how far two outputs are apart, in the order of the texts."""
        squared = np.zeros(self.count)
        divergence = np.zeros(self.count) if self.kept else None
        for index, (places, _) in enumerate(self.batches):
            f, g = first[index], second[index]
            gaps = (f - g).double().square().sum(1).numpy()
            rows = np.asarray(places)
            if divergence is None:
                squared[rows] = gaps
                continue
            owners = rows[self.kept[index][0].numpy()]
            np.add.at(squared, owners, gaps)
            log_f, log_g = f.log_softmax(1), g.log_softmax(1)
            np.add.at(divergence, owners, (log_f.exp() * (log_f - log_g)).sum(1).double().numpy())
        return Difference(squared, divergence)

    def losses(self, outputs: list[torch.Tensor]) -> NDArray[np.float64]:
        """Return the cross-entropy of the next tokens, summed over each text's kept positions."""
        totals = np.zeros(self.count)
        for index, (places, batch) in enumerate(self.batches):
            rows, columns = self.kept[index]
            following = batch["input_ids"][rows, columns + 1]
            one = nn.functional.cross_entropy(outputs[index], following, reduction="none")
            np.add.at(totals, np.asarray(places)[rows.numpy()], one.double().numpy())
        return totals

    def tokens(self) -> NDArray[np.int64]:
        """Return how many positions of each text are kept."""
        totals = np.zeros(self.count, dtype=np.int64)
        for (places, _), (rows, _) in zip(self.batches, self.kept, strict=True):
            np.add.at(totals, np.asarray(places)[rows.numpy()], 1)
        return totals
