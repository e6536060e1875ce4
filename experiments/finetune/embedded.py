"""The embedded models: a sentence encoder with a head, and a language model that is unpacked."""

import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from cosa_theory.assets import asset_folder
from cosa_theory.deltas.language_models import quiet_transformers
from experiments.finetune_delta import Classifier

__all__ = ["LabelledClassifier", "decoder_base", "text_losses"]

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


class LabelledClassifier(Classifier):
    """The classifier of `experiments.finetune_delta`, with the loss a trainer asks for."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> Any:
        """Return logits (texts × outputs), and the mean loss where labels are given."""
        logits = super().forward(input_ids, attention_mask)
        loss = None if labels is None else text_losses(logits, labels).mean()
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Keep the inputs of the encoder's blocks alone for backward."""
        encoder: Any = self.encoder
        encoder.gradient_checkpointing_enable(**settings)


def text_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy with each class, or the squared error of each number."""
    if labels.is_floating_point():
        return (logits[:, 0] - labels).square()
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def decoder_base(folder: Path) -> Path:
    """Unpack the quantised language model into float32, once; return its folder.

    Everything that trains or compares then starts from the same ordinary checkpoint.
    """
    target = folder / "decoder"
    if not (target / "model.safetensors").is_file():
        source = asset_folder("smollm2")
        with quiet_transformers():
            packed = transformers.AutoModelForCausalLM.from_pretrained(
                source, gguf_file=GGUF, dtype=torch.float32
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
            settings = packed.config.to_dict()
            # What is saved is no longer quantised, and must not say that it is.
            settings.pop("quantization_config", None)
            config = transformers.AutoConfig.for_model(**settings)
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
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
