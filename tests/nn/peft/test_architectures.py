"""Tiny random models of many architectures, adapted, trained, saved, read, merged and exported.

Each step gives equal outputs, or is refused with the sentence that stands here.
"""

import copy
import re
import warnings

import pytest
import torch
from peft import PeftModel, get_peft_model

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from cosa_theory.nn import add_cosa
from cosa_theory.nn.lora import to_lora
from cosa_theory.nn.peft import CosaConfig, CosaLayer
from cosa_theory.nn.shapes import model_layers
from tests.nn.peft.architectures import ARCHITECTURES

SETTINGS = {"a": 6, "b": 5, "seed": 1}

LEFT_OUT = {
    "llama4_text": ["feed_forward.router"],
    "mamba": ["mixer.x_proj", "mixer.dt_proj", "mixer.out_proj"],
    "falcon_mamba": ["mixer.x_proj", "mixer.dt_proj", "mixer.out_proj"],
    "mamba2": ["mixer.out_proj"],
    "falcon_h1": ["mamba.out_proj"],
    "zamba2": ["mamba.out_proj"],
    "jamba": ["mamba.dt_proj"],
    "gemma3n_text": ["altup.correction_coefs", "altup.prediction_coefs"],
    "deberta": ["self.in_proj"],
    "mobilebert": ["predictions.dense"],
    "wavlm": ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj"],
    "siglip_vision": ["head.attention.out_proj"],
    "siglip": ["head.attention.out_proj"],
    "gemma3": ["head.attention.out_proj"],
    "paligemma": ["head.attention.out_proj"],
}
"""Ends of the names of linear layers that "all-linear" means no more: they are refused by name."""

UNUSED = {
    "canine": r"canine\.pooler\.dense",
    "zamba2": r".*gate_up_proj_adapter_list\..*",
    "gemma3": r".*vision_tower\.head\.mlp\.fc[12]",
    "paligemma": r".*vision_tower\.head\.mlp\.fc[12]",
}
"""Layers that these models have and do not call, so that no gradient reaches them."""

REFUSED = {
    ("zamba2", "merge"): "is tied to that of .* untie it first",
    ("gpt2", "plain"): "leaves no layer to adapt",
    ("qwen3_next", "export"): "PEFT takes .* for parts of the experts",  # its own mapping
    ("deepseek_v3", "export"): "PEFT takes .* for parts of the experts",
    ("rwkv", "gradient"): "modified by an inplace operation",  # transformers' does not train
}
"""Steps that are refused, or that warn, with what the sentence says."""

STEPS = ("plain", "plan", "gradient", "load", "merge", "export", "pair")


def outputs(model, feed):
    with torch.no_grad():
        result = model(**feed)
    found = [result[name] for name in ("logits", "last_hidden_state", "logits_per_image")
             if result.get(name) is not None]  # fmt: skip
    return torch.cat([one.float().flatten() for one in found])


def adapted_names(model):
    return {
        name.removeprefix("base_model.model.")
        for name, one in model.named_modules()
        if isinstance(one, CosaLayer)
    }


class Trial:
    """An architecture with an adapter whose cores are random, and the steps it goes through."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        architecture = ARCHITECTURES[name]
        self.base, self.feed = architecture.build(), architecture.feed()
        config = CosaConfig(**SETTINGS, target_modules="all-linear", init_weights=False)
        self.model = get_peft_model(copy.deepcopy(self.base), config).eval()
        self.layers = adapted_names(self.model)
        self.expected = outputs(self.model, self.feed)
        self.model.save_pretrained(folder / "adapter")

    def same(self, model):
        error = (outputs(model.eval(), self.feed) - self.expected).abs().max()
        return bool(error < 1e-4 * self.expected.abs().max())

    def plain(self):
        model = add_cosa(copy.deepcopy(self.base), "all-linear", **SETTINGS)
        names = [name for name, _ in model.named_parameters()]
        return {name.removesuffix(".Y") for name in names if name.endswith(".Y")} == self.layers

    def plan(self):
        config = self.base.config.to_dict() | {"architectures": [type(self.base).__name__]}
        return set(model_layers(config).sizes) == self.layers

    def gradient(self):
        result = self.model(**self.feed)
        names = ("logits", "last_hidden_state", "pooler_output", "logits_per_image")
        sum(result[n].pow(2).sum() for n in names if result.get(n) is not None).backward()
        idle = {
            name.partition(".cosa_Y")[0].removeprefix("base_model.model.")
            for name, one in self.model.named_parameters()
            if "cosa_Y" in name and (one.grad is None or not one.grad.any())
        }
        unused = UNUSED.get(self.name, "$")
        return all(re.fullmatch(unused, name) for name in idle)

    def load(self):
        return self.same(PeftModel.from_pretrained(self.copy(), self.folder / "adapter"))

    def merge(self):
        return self.same(copy.deepcopy(self.model).merge_and_unload())

    def export(self):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            to_lora(self.folder / "adapter", self.folder / "lora")
        if told:
            return str(told[0].message)
        return self.same(PeftModel.from_pretrained(self.copy(), self.folder / "lora"))

    def pair(self):
        self.base.save_pretrained(self.folder / "base")
        pair = open_pair(self.folder / "base", self.folder / "adapter")
        return len({delta.name for delta in pair}) == len(self.layers)

    def copy(self):
        return copy.deepcopy(self.base)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_step_is_equal_or_refused_with_its_reason(name, tmp_path):
    trial = Trial(name, tmp_path)
    wrong = {}
    for step in STEPS:
        try:
            outcome = getattr(trial, step)()
        except (InputError, RuntimeError) as error:
            outcome = str(error)
        reason = REFUSED.get((name, step))
        fits = outcome is True if reason is None else re.search(reason, str(outcome))
        if not fits:
            wrong[step] = outcome
    assert wrong == {}
    left_out = [
        one
        for one, module in trial.base.named_modules()
        if isinstance(module, torch.nn.Linear)
        and one.endswith(tuple(LEFT_OUT.get(name, ["no such layer"])))
    ]
    assert trial.layers.isdisjoint(left_out)
    assert bool(left_out) is (name in LEFT_OUT)
    for one in left_out[:1]:
        with pytest.raises(InputError, match=re.escape(one)):
            get_peft_model(trial.base, CosaConfig(a=3, b=3, target_modules=[one]))
