"""The shapes of the named models are those that transformers builds."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from paper_checks.models import adaptive_core, load_models

MODELS = load_models()


@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_total_are_those_of_the_real_architecture(name):
    model = MODELS[name]
    fields = dict(model.config)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    encoder = config.model_type == "roberta"
    with torch.device("meta"):
        built = (AutoModel if encoder else AutoModelForCausalLM).from_config(config)
    linear = {
        path: tuple(module.weight.shape)
        for path, module in built.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    for block in range(model.blocks):
        prefix = f"encoder.layer.{block}." if encoder else f"model.layers.{block}."
        inside = {path.removeprefix(prefix): m for path, m in linear.items() if prefix in path}
        assert inside == model.matrices
    assert len(built.encoder.layer if encoder else built.model.layers) == model.blocks
    assert sum(parameter.numel() for parameter in built.parameters()) == model.parameters


def test_counts_of_one_model_by_hand():
    """Rank 128 on Llama-3.2-1B: 128 (m + n), seven matrices in each of 16 blocks."""
    by_hand = 16 * 128 * (2 * (2048 + 2048) + 2 * (512 + 2048) + 3 * (8192 + 2048))
    assert MODELS["Llama-3.2-1B"].count(lambda m, n: 128 * (m + n)) == by_hand == 90_177_536


@pytest.mark.parametrize(
    ("m", "n", "core"),
    [
        (4096, 4096, (2048, 128)),
        (8192, 2048, (2048, 128)),
        (2048, 2048, (1024, 128)),  # 2048² is not above 2048²
        (512, 2048, (512, 256)),  # 1024² entries: (1024, 256), clipped
        (768, 768, (768, 256)),
        (512, 512, (512, 256)),
        (100, 90, (100, 90)),
    ],
)
def test_the_adaptive_core_follows_the_release_and_fits_the_layer(m, n, core):
    assert adaptive_core(m, n) == core
