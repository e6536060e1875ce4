"""Methods: what they train is within the budget, where they are put, and nothing else."""

from pathlib import Path

import pytest
from torch import nn

from cosa_theory.ground.errors import InputError
from experiments.finetune.budgets import METHODS, released_shape, size_of
from experiments.finetune.config import Config
from experiments.finetune.methods import counts, linear_layers, prepared, size_for
from experiments.finetune.training import moment_batches
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


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_whole_budget_is_kept_and_the_count_is_that_of_the_model(method):
    task = load(Path("."), 12, 6)
    model, config = task.model(), Config(method=method, budget=5000)
    planned = size_for(config, linear_layers(model, 0)).trained
    made = prepared(model, config, steps=10, batches=moment_batches(task, config))
    assert counts(made, ()).adapter == planned
    # Block sizes divide the sides, and bases of RandLoRA are whole: those are coarse.
    assert (0.5 if method in ("c3a", "randlora") else 0.8) * 5000 <= planned <= 5000


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_budget_that_no_size_meets_is_refused_with_what_would(method):
    layers = {"a": (32, 32), "b": (48, 32)}
    with pytest.raises(InputError, match=r"budget is 1 |may have 0|needs at least"):
        size_of(method, layers, budget=1)


@pytest.mark.parametrize("method", ["pissa", "lora_eva", "lora_corda", "lora_ga"])
def test_a_rank_beyond_the_singular_vectors_that_it_starts_from_is_refused(method):
    layers = {"a": (32, 32), "b": (48, 16)}
    assert size_of(method, layers, rank=16).rank == 16
    with pytest.raises(InputError, match=f"rank is 17: {method} .*smallest layer has 16: lower"):
        size_of(method, layers, rank=17)


@pytest.mark.parametrize("method", ["lora", "cosa", "shira"])
def test_a_rank_that_no_layer_has_is_refused(method):
    layers = {"a": (32, 32), "b": (48, 16)}
    assert size_of(method, layers, rank=32).trained
    with pytest.raises(InputError, match="rank is 33: the adapted layers have at most 32: lower"):
        size_of(method, layers, rank=33)


@pytest.mark.parametrize(
    ("targets", "words"), [(("q_prj",), "closest are q_proj"), (("xyz",), "end in")]
)
def test_targets_that_the_model_lacks_are_named_with_the_closest(targets, words):
    with pytest.raises(InputError, match=f"targets has '{targets[0]}'.*{words}"):
        linear_layers(load(Path("."), 12, 6).model(), 0, targets)


def test_targets_outside_the_last_blocks_are_told():
    model = load(Path("."), 12, 6).model()
    with pytest.raises(InputError, match=r"targets are 0\.self_attn\.q_proj, of which the last 1 "):
        linear_layers(model, 1, ("0.self_attn.q_proj",))


def test_a_core_beside_the_identity_is_as_large_as_it_is_planned():
    model, config = load(Path("."), 12, 6).model(), Config(core=(4, 2), left="identity")
    layers = linear_layers(model, 0)
    planned = size_for(config, layers)
    assert planned.by_layer == {name: (m, 2) for name, (m, _) in layers.items()}
    assert counts(prepared(model, config), ()).adapter == planned.trained


def test_the_last_ranks_of_adalora_are_compared_with_those_that_a_budget_gives():
    layers = {"a": (32, 32)}
    rank = size_for(Config(method="adalora", budget=1000, final_rank=15), layers).rank
    assert rank == 1000 // 65
    with pytest.raises(InputError, match="final_rank is 16: it must be at most the rank, 15"):
        size_for(Config(method="adalora", budget=1000, final_rank=16), layers)


def test_a_small_alpha_of_randlora_is_not_rounded_to_nothing():
    model = load(Path("."), 12, 6).model()
    made = prepared(model, Config(method="randlora", rank=2, alpha=1e-3)).peft_config["default"]
    assert made.randlora_alpha == pytest.approx(20 * 1e-3 * made.r)


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

    model = prepared(WithHead(), config_of(method, rank=2, blocks=1), head=["top"])
    names = [name for name, part in model.named_parameters() if part.requires_grad]
    assert all(".layers.1." in name or ".top." in f".{name}" for name in names)
    size = counts(model, ["top"])
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
        prepared(WithHead(), config_of(method, rank=2, blocks=3), head=["top"])


def test_full_fine_tuning_of_all_blocks_trains_everything():
    model = prepared(load(Path("."), 12, 6).model(), config_of("full"))
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "settings",
    [{"kind": "activation"}, {"kind": "activation", "left": "identity", "shape": "whole"}],
)
def test_informed_cores_are_made_from_batches_within_the_budget(settings):
    task = load(Path("."), 12, 6)
    model = task.model()
    batch = {name: one for name, one in task.collate(task.train).items() if name != "labels"}
    config = Config(rank=4, **settings)
    made = prepared(model, config, batches=[batch])
    planned = size_for(config, linear_layers(load(Path("."), 12, 6).model(), 0)).trained
    assert (
        counts(made, ()).adapter
        == planned
        <= 4 * sum(m + n for m, n in linear_layers(task.model(), 0).values())
    )
    layer = made.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    assert type(layer.left("default")).__name__.startswith("Identity") is ("left" in settings)
