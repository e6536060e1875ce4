"""Methods: what they train is within the budget, where they are put, and nothing else."""

from pathlib import Path

import pytest
from torch import nn

from experiments.finetune.budgets import released_shape
from experiments.finetune.config import Config
from experiments.finetune.methods import counts, linear_layers, prepared
from experiments.finetune_check import ADAPTERS
from tests.experiments.finetune_tiny import load


def config_of(method, **settings):
    return Config(**ADAPTERS[method], **settings)


@pytest.mark.parametrize("method", ["lora", "cosa", "cosa_haar", "cosa_released"])
@pytest.mark.parametrize("rank", [1, 3])
def test_no_layer_trains_more_than_lora_of_the_rank_and_hardly_less(method, rank):
    model = load(Path("."), 12, 6).model()
    sizes = linear_layers(model, 0)
    assert sizes["model.layers.0.self_attn.k_proj"] == (16, 32)
    made = prepared(model, config_of(method, rank=rank))
    trained = {}
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            layer = name.removeprefix("base_model.model.").split(".lora_")[0].split(".cosa_")[0]
            trained[layer] = trained.get(layer, 0) + parameter.numel()
    assert trained.keys() == sizes.keys()
    for name, (m, n) in sizes.items():
        budget = rank * (m + n)
        slack = 0 if method == "lora" else max(m, n)  # whole numbers in the core's shape
        assert budget - slack <= trained[name] <= budget, name


def test_equal_size_is_near_on_the_real_shapes():
    for m, n in ((576, 576), (192, 576), (1536, 576), (576, 1536), (384, 384), (1536, 384)):
        a, b = released_shape(m, n, 8 * (m + n))
        assert 0.97 * 8 * (m + n) <= a * b <= 8 * (m + n)
        assert a <= m
        assert b <= n
        if a < m:
            assert 3.5 <= a / b <= 4.5


@pytest.mark.parametrize("method", ADAPTERS)
def test_only_the_last_blocks_and_the_head_are_trained(method):
    class WithHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = load(Path("."), 12, 6).model()
            self.top = nn.Linear(5, 3)

        def forward(self, x):
            return self.top(x)

    model = prepared(WithHead(), config_of(method, rank=2, blocks=1), head="top")
    names = [name for name, part in model.named_parameters() if part.requires_grad]
    assert all(".layers.1." in name or ".top." in f".{name}" for name in names)
    size = counts(model, "top")
    assert size.head == 18
    blocks = sum(p.numel() for n, p in model.named_parameters() if ".layers.1." in n)
    if method == "full":
        assert size.adapter == blocks
    else:
        budget = 2 * sum(
            m + n for m, n in linear_layers(load(Path("."), 12, 6).model(), 1).values()
        )
        assert 0.8 * budget <= size.adapter <= budget
    with pytest.raises(ValueError, match="blocks is 3: the model has 2"):
        prepared(WithHead(), config_of(method, rank=2, blocks=3), head="top")


def test_full_fine_tuning_of_all_blocks_trains_everything():
    model = prepared(load(Path("."), 12, 6).model(), config_of("full"))
    assert all(parameter.requires_grad for parameter in model.parameters())
