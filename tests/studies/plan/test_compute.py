"""What the planner says is what the layers cost: bytes, numbers, operations, activations, files."""

import copy
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

from cosa_theory.ground.errors import InputError
from cosa_theory.laws import informed_budget, informed_shape, informed_share
from cosa_theory.nn import CosaLinear, CosaSettings, add_cosa, forward, save_cosa
from cosa_theory.nn.model import cosa_layers
from cosa_theory.nn.moments import Moments
from cosa_theory.nn.projection import ProjectionSpec, frozen_projection
from cosa_theory.nn.shapes import ModelLayers, model_layers
from cosa_theory.nn.sparse_form import SparseProjection
from cosa_theory.projections import KINDS, SecondMoments
from cosa_theory.studies.plan import compute
from cosa_theory.studies.plan.compute import make_plan
from cosa_theory.studies.plan.core_shapes import budget_settings
from cosa_theory.studies.plan.costs import (
    DTYPES,
    OPTIMIZERS,
    TrainingStep,
    _undrawn,
    cosa_budget,
    equal_ranks,
    file_bytes,
    lora_budget,
)
from cosa_theory.studies.plan.tables import plan_tables
from cosa_theory.studies.plan.views import plan_verdict
from tests.nn.made import moments_for

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
STEP = TrainingStep()
FIELDS = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SIZES}


def one_layer(m, n, name="layer"):
    return ModelLayers("One", {name: (m, n)}, {name: name})


def tiny(dtype=torch.float32):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, attn_implementation="eager")
    return AutoModelForCausalLM.from_config(config).to(dtype)


def quiet(function, *arguments, **options):
    """Call without the warning about clipped cores."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return function(*arguments, **options)


# Against real layers -----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("kind", ["gaussian", "haar", "rademacher", "sjlt", "srht"])
def test_numbers_and_bytes_are_those_of_a_real_model(kind, share, tmp_path):
    settings = CosaSettings(40, 24, kind=kind, share_projections=share)
    found = quiet(cosa_budget, model_layers(FIELDS), settings, TrainingStep(dtype="bfloat16"))
    model = tiny(torch.bfloat16)
    quiet(add_cosa, model, "all-linear", 40, 24, kind=kind, share_projections=share)
    layers = cosa_layers(model)
    projections = {id(p): p for x in layers.values() for p in (x.left, x.right)}
    assert found.frozen_bytes == sum(one.nbytes for one in projections.values())
    assert [layer.shape for layer in found.layers] == [tuple(x.Y.shape) for x in layers.values()]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert found.trainable == sum(p.numel() for p in trained)
    assert found.trainable_bytes == sum(p.nbytes for p in trained)
    save_cosa(model, tmp_path)
    assert found.file_bytes == (tmp_path / "adapter_model.safetensors").stat().st_size


@pytest.mark.parametrize("kind", ["activation", "gradient"])
def test_projections_made_from_data_count_into_the_file(tmp_path, kind):
    model = nn.ModuleDict({"up": nn.Linear(16, 24), "down": nn.Linear(24, 12)})
    sizes = {"up": (24, 16), "down": (12, 24)}
    layers = ModelLayers("Two", sizes, dict(zip(sizes, sizes, strict=True)))
    found = cosa_budget(layers, CosaSettings(6, 4, kind=kind), STEP)
    add_cosa(model, list(sizes), 6, 4, kind=kind, moments=moments_for(sizes))
    save_cosa(model, tmp_path)
    assert found.file_bytes == (tmp_path / "adapter_model.safetensors").stat().st_size


def test_a_side_that_is_not_compressed_costs_nothing():
    m, n, b, tokens = 96, 64, 8, 128
    step = TrainingStep(tokens, "float32")
    (layer,) = cosa_budget(one_layer(m, n), CosaSettings(1, b, left="identity"), step).layers
    assert (layer.shape, layer.order, layer.energy) == ((m, b), "through", b / n)
    assert (layer.saved, layer.formed, layer.frozen_bytes) == (b, 0, 4 * b * n)
    assert layer.flops == tokens * (2 * 2 * b * n + 3 * 2 * m * b)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_and_optimiser_states_are_those_of_a_real_step(optimizer):
    step = TrainingStep(dtype="float32", optimizer=optimizer)
    found = quiet(cosa_budget, model_layers(FIELDS), CosaSettings(8, 6), step)
    model = tiny()
    add_cosa(model, "all-linear", 8, 6)
    trained = [p for p in model.parameters() if p.requires_grad]
    build = {
        "adamw": lambda: torch.optim.AdamW(trained),
        "momentum": lambda: torch.optim.SGD(trained, momentum=0.9),
        "sgd": lambda: torch.optim.SGD(trained, lr=0.1),
    }
    used = build[optimizer]()
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    used.step()
    assert found.trainable_bytes == sum(p.grad.nbytes for p in trained)
    states = [
        x for p in trained for x in used.state[p].values() if torch.is_tensor(x) and x.ndim == 2
    ]
    assert found.optimizer_bytes == sum(state.nbytes for state in states)


def test_lora_trains_and_stores_what_peft_trains_and_stores(tmp_path):
    layers = model_layers(FIELDS)
    found = lora_budget(layers, dict.fromkeys(layers.sizes, 3), TrainingStep())
    adapted = get_peft_model(tiny(), LoraConfig(r=3, target_modules="all-linear"))
    assert found.trainable == adapted.get_nb_trainable_parameters()[0]
    adapted.save_pretrained(tmp_path)
    assert found.file_bytes == (tmp_path / "adapter_model.safetensors").stat().st_size


def saved_bytes(model, tokens):
    """Bytes of the activations that a forward keeps for backward, each storage once."""
    model.train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    if any(isinstance(x, CosaLinear) for x in model.modules()):
        for layer in cosa_layers(model).values():
            for projection in (layer.left, layer.right):
                tensors = projection.tensors.values()
                own |= {tensor.untyped_storage().data_ptr() for tensor in tensors}
    kept, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        alive.append(tensor)
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    embedded = torch.randn(1, tokens, 64, generator=torch.Generator().manual_seed(0))
    embedded.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(inputs_embeds=embedded).logits
    del output
    return sum(kept.values())


def added_bytes(adapted, base):
    """What the adapter keeps beyond the base model: for one more token, and whatever their number.

    With so many tokens that one order of the products is the best for both numbers.
    """
    few, many = (saved_bytes(adapted, tokens) - saved_bytes(base, tokens) for tokens in TOKENS)
    per_token = (many - few) / (TOKENS[1] - TOKENS[0])
    return per_token, few - TOKENS[0] * per_token


TOKENS = (320, 336)


@pytest.mark.parametrize(
    ("a", "b", "orders"),
    [(24, 8, {"left"}), (8, 24, {"right"}), (20, 20, {"through"})],
    ids=["left", "right", "through"],
)
def test_saved_activations_are_those_that_hooks_see(a, b, orders):
    base = tiny().requires_grad_(False)
    adapted = copy.deepcopy(base)
    add_cosa(adapted, "all-linear", a, b, alpha=2.0)
    step = TrainingStep(tokens=TOKENS[0], dtype="float32")
    found = cosa_budget(model_layers(FIELDS), CosaSettings(a, b, alpha=2.0), step)
    assert orders <= {layer.order for layer in found.layers}
    assert added_bytes(adapted, base) == (found.saved_bytes, found.formed_bytes)


@pytest.mark.parametrize(("a", "b"), [(32, 16), (16, 32), (24, 24)])
def test_what_sparse_projections_keep_at_most_is_told(a, b, monkeypatch):
    monkeypatch.setattr(SparseProjection, "_gathers", lambda self, x: False)  # as on a GPU
    monkeypatch.setattr(SparseProjection, "pays", True)  # and as if the layers were large
    monkeypatch.setattr(forward, "is_plain", lambda layer, x: False)  # or not plain
    base = tiny().requires_grad_(False)
    adapted = copy.deepcopy(base)
    settings = {"kind": "sjlt", "options": {"nonzeros": 2}}
    add_cosa(adapted, "all-linear", a, b, **settings)
    plan = make_plan(FIELDS, CosaSettings(a, b, **settings), TrainingStep(TOKENS[0], "float32"))
    per_token, constant = added_bytes(adapted, base)
    assert per_token == plan.budgets["cosa"].saved_bytes
    more = constant - plan.budgets["cosa"].formed_bytes
    assert any(f"up to {more / 1e6:,.1f} MB a step more" in notice for notice in plan.notices)


def test_lora_keeps_at_least_what_is_said_of_it():
    """PEFT's layers keep exactly this where the model is in float32, as its factors are."""
    base = tiny().requires_grad_(False)
    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=3, target_modules="all-linear"))
    layers = model_layers(FIELDS)
    found = lora_budget(layers, dict.fromkeys(layers.sizes, 3), TrainingStep(dtype="float32"))
    assert added_bytes(adapted.base_model.model, base) == (found.saved_bytes, 0)


@pytest.mark.parametrize(
    ("m", "n", "a", "b", "tokens"),
    [(64, 48, 32, 8, 4), (64, 48, 32, 8, 400), (48, 64, 8, 32, 400), (40, 40, 20, 20, 30)],
)
def test_operations_are_those_that_torch_counts(m, n, a, b, tokens):
    layer = CosaLinear(nn.Linear(n, m, bias=False), a, b, init_weights=False)
    step = TrainingStep(tokens=tokens, dtype="float32")
    found = cosa_budget(one_layer(m, n), CosaSettings(a, b), step)
    x = torch.randn(tokens, n, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == round(tokens * (found.base_flops + found.flops))


def test_operations_of_lora_are_those_that_torch_counts():
    adapted = get_peft_model(
        nn.Sequential(nn.Linear(48, 64, bias=False)), LoraConfig(r=5, target_modules=["0"])
    )
    found = lora_budget(one_layer(64, 48), {"layer": 5}, TrainingStep(tokens=30, dtype="float32"))
    x = torch.randn(30, 48, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        adapted(x).sum().backward()
    assert counter.get_total_flops() == 30 * (found.base_flops + found.flops)


@pytest.mark.parametrize("size", [(16, 100), (100, 100), (256, 1024)])
@pytest.mark.parametrize("kind", KINDS)
def test_an_undrawn_projection_costs_what_the_drawn_one_does(kind, size):
    spec = ProjectionSpec(kind, *size)
    undrawn, drawn = (make(spec, torch.bfloat16) for make in (_undrawn, _drawn))
    assert type(undrawn) is type(drawn)
    assert (undrawn.flops, undrawn.nbytes) == (drawn.flops, drawn.nbytes)
    assert (undrawn.k, undrawn.d) == (drawn.k, drawn.d)


def _drawn(spec, dtype):
    return frozen_projection(spec, dtype=dtype)


# Against formulas --------------------------------------------------------------------------------


def test_a_layer_by_hand():
    """2048², (1024, 256), 4,096 tokens: L Y formed, 4b(m + n) + 2bm + 4abm/T operations a token."""
    budget = cosa_budget(one_layer(2048, 2048), CosaSettings(), TrainingStep())
    (layer,) = budget.layers
    assert layer.order == "left"
    assert budget.flops == 4 * 256 * 4096 + 2 * 256 * 2048 + 4 * 1024 * 256 * 2048 / 4096
    assert budget.frozen_bytes == 2 * (1024 * 2048 + 256 * 2048)
    assert budget.trainable_bytes == 4 * 1024 * 256
    assert budget.optimizer_bytes == 2 * budget.trainable_bytes
    assert budget.saved_bytes == 2 * 256
    assert budget.energy == 1 / 16
    assert layer.rank == 256
    assert equal_ranks(budget) == {"layer": 64}
    assert budget.formed_bytes == 2 * 2048 * 256
    kept = 4096 * budget.saved_bytes + budget.formed_bytes
    assert budget.memory_bytes == 4 * 1024 * 256 * 4 + budget.frozen_bytes + kept


def test_few_tokens_go_through_the_width_of_the_core():
    step = TrainingStep(tokens=16)
    (layer,) = cosa_budget(one_layer(2048, 2048), CosaSettings(), step).layers
    assert layer.order == "through"
    assert layer.flops == 16 * (4 * (256 * 2048 + 1024 * 256 + 1024 * 2048) + 2 * 1024 * 256)


def test_energy_in_all_weighs_layers_by_their_entries():
    model = ModelLayers("Two", {"x": (64, 64), "y": (64, 192)}, {"x": "x", "y": "y"})
    budget = cosa_budget(model, CosaSettings(16, 16), TrainingStep())
    assert budget.energy == pytest.approx(2 * 16 * 16 / (64 * 64 + 64 * 192))


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_projections_and_activations_follow_the_models_type(dtype):
    budget = cosa_budget(one_layer(64, 64), CosaSettings(16, 8), TrainingStep(dtype=dtype))
    itemsize = getattr(torch, dtype).itemsize
    assert budget.frozen_bytes == itemsize * 64 * 24
    assert budget.saved_bytes == itemsize * 8
    assert budget.trainable_bytes == 4 * 128


def test_sharing_keeps_one_projection_for_each_size():
    layers = model_layers({"model_type": "llama"} | SIZES)
    alone, shared = (
        cosa_budget(layers, CosaSettings(16, 8, share_projections=share), TrainingStep())
        for share in (False, True)
    )
    # L for m in {64, 32, 96}, R for n in {64, 96}, in bfloat16
    assert shared.frozen_bytes == 2 * (16 * (64 + 32 + 96) + 8 * (64 + 96))
    assert shared.frozen_bytes < alone.frozen_bytes
    assert (shared.trainable, shared.flops) == (alone.trainable, alone.flops)


def test_an_equal_rank_is_the_nearest_and_a_layer_has_no_more_than_its_sides():
    step = TrainingStep()
    for m, n, a, b, rank in ((512, 2048, 512, 256, 51), (64, 64, 64, 64, 32), (90, 10, 2, 3, 1)):
        budget = cosa_budget(one_layer(m, n), CosaSettings(a, b), step)
        assert equal_ranks(budget) == {"layer": rank}
    whole = cosa_budget(one_layer(2, 1000), CosaSettings(2, 1000), step)
    assert equal_ranks(whole) == {"layer": 2}


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": (3, 5)},
        {f"base_model.model.layers.{i}.x.cosa_Y": (i + 1, 7) for i in range(12)},
        {"Ebene.größe": (2, 2), 'quo"ted': (1, 9)},
    ],
    ids=["one", "twelve", "odd names"],
)
def test_a_file_is_as_large_as_safetensors_writes_it(tensors, tmp_path):
    values = {name: torch.zeros(shape) for name, shape in tensors.items()}
    save_file(values, tmp_path / "file", metadata={"format": "pt"})
    assert file_bytes(tensors) == (tmp_path / "file").stat().st_size


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"tokens": 0}, "tokens is 0: it must be"),
        ({"tokens": True}, "tokens is True"),
        ({"dtype": "int8"}, "dtype is 'int8': it must be one of bfloat16, float16, float32"),
        ({"optimizer": "adam"}, "optimizer is 'adam': it must be one of adamw, momentum, sgd"),
    ],
)
def test_a_step_that_cannot_be_is_refused(values, expected):
    with pytest.raises(InputError, match=expected):
        TrainingStep(**values)


# Plans -------------------------------------------------------------------------------------------


def test_balanced_shapes_train_as_much_with_smaller_projections():
    plan = make_plan(FIELDS, CosaSettings(40, 10), TrainingStep())
    asked, balanced = plan.budgets["cosa"], plan.budgets["cosa_balanced"]
    assert 0.95 * asked.trainable < balanced.trainable <= asked.trainable
    assert balanced.frozen_bytes < 0.85 * asked.frozen_bytes
    for layer in balanced.layers:
        left, right = layer.shape[0] * layer.m, layer.shape[1] * layer.n
        # Least at equality; whole numbers may cost a few hundredths more.
        assert left + right < 1.03 * 2 * (left * right) ** 0.5


def test_shapes_that_are_balanced_already_have_no_second_recommendation():
    plan = make_plan(FIELDS, CosaSettings(20, 20), TrainingStep(), target_modules=["q_proj"])
    assert plan.balanced is None
    assert list(plan.budgets) == ["cosa", "lora"]


def test_a_rank_gives_lora_that_rank_and_cosa_no_more_parameters():
    plan = make_plan(FIELDS, CosaSettings(), TrainingStep(), rank=4)
    assert plan.balanced is None
    for core, low_rank in zip(*(plan.budgets[x].layers for x in ("cosa", "lora")), strict=True):
        assert low_rank.shape == (4,)
        assert 0.95 * low_rank.trainable < core.trainable <= low_rank.trainable


@pytest.mark.parametrize("parameters", [900, 5_000, 12_345])
def test_a_budget_is_spent_and_not_exceeded(parameters):
    plan = make_plan(FIELDS, CosaSettings(), TrainingStep(), parameters=parameters)
    assert plan.balanced is None
    assert 0.93 * parameters < plan.budgets["cosa"].trainable <= parameters


@pytest.mark.parametrize("spared", [5_000, 500, 0])
def test_what_a_layer_cannot_take_of_a_budget_goes_to_the_others(spared):
    sizes = {**dict.fromkeys(("small", "one"), (8, 4)), "tall": (64, 4), "large": (96, 64)}
    model = ModelLayers("Four", sizes, dict(zip(sizes, sizes, strict=True)))
    budget = sum(m * n for m, n in sizes.values()) - spared
    settings = budget_settings(CosaSettings(), model, parameters=budget)
    trained = cosa_budget(model, settings, STEP).trainable
    assert 0.98 * budget < trained <= budget


def test_a_budget_too_small_for_every_layer_says_how_much_is_needed():
    with pytest.raises(InputError, match="some of the 14 layers none; give at least") as caught:
        make_plan(FIELDS, CosaSettings(), TrainingStep(), parameters=10)
    needed = int(str(caught.value).split("at least ")[1].split(",")[0])
    assert make_plan(FIELDS, CosaSettings(), TrainingStep(), parameters=needed)
    with pytest.raises(InputError):
        make_plan(FIELDS, CosaSettings(), TrainingStep(), parameters=needed - 1)


def test_clipping_is_told_once_and_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = make_plan(FIELDS, CosaSettings(50, 20), TrainingStep())
    told = [notice for notice in plan.notices if "larger than" in notice]
    assert len(told) == 1
    assert "larger than 4 of 14 layers" in told[0]
    assert "k_proj, v_proj of 32 × 64 from 50 × 20 to 32 × 20" in told[0]
    patterned = make_plan(FIELDS, CosaSettings(8, 8, shape_pattern={"o_proj": (70, 8)}), STEP)
    assert "o_proj of 64 × 64 from 70 × 8 to 64 × 8" in patterned.notices[0]


def test_a_rank_above_the_sides_of_a_layer_is_told():
    notices = make_plan(FIELDS, CosaSettings(), STEP, rank=40).notices
    assert any("above min(m, n) in 4 of 14 layers" in notice for notice in notices)


def test_without_clipping_a_core_that_is_too_large_is_refused():
    with pytest.raises(InputError, match="larger than 4 of 14 layers"):
        make_plan(FIELDS, CosaSettings(50, 20, clip=False), TrainingStep())


def test_a_whole_side_is_recommended_with_orthonormal_factors():
    notices = make_plan(FIELDS, CosaSettings(50, 20), TrainingStep()).notices
    assert any("kind haar has orthonormal factors, at the same" in notice for notice in notices)
    for settings in (
        CosaSettings(50, 20, kind="haar"),
        CosaSettings(50, 20, kind="srht"),
        CosaSettings(20, 20),
    ):
        notices = make_plan(FIELDS, settings, TrainingStep()).notices
        assert not any("kind haar" in notice for notice in notices)


def test_a_whole_side_of_a_cut_hadamard_matrix_is_not_orthonormal():
    settings = CosaSettings(96, 8, kind="srht")
    notices = make_plan(FIELDS, settings, TrainingStep(), target_modules=["up_proj"]).notices
    assert any("a square srht factor is nearly singular" in notice for notice in notices)


def test_the_scale_is_said_to_change_what_alpha_means():
    plan = make_plan(
        FIELDS, CosaSettings(16, 16, scale="analysis"), TrainingStep(), target_modules=["q_proj"]
    )
    assert any("4 to 4 times as large" in notice for notice in plan.notices)


def known_of(sizes):
    """Moments of a decaying spectrum, faster for later layers."""

    def second(d, decay):
        return SecondMoments(np.diag(decay ** np.arange(d)).astype(np.float32), count=1000)

    decays = dict(zip(sizes, np.linspace(0.95, 0.7, len(sizes)), strict=True))
    return Moments(
        {f"{name}.weight": second(n, decays[name]) for name, (_, n) in sizes.items()},
        {f"{name}.weight": second(m, decays[name]) for name, (m, _) in sizes.items()},
    )


@pytest.fixture
def two(monkeypatch):
    sizes = {"up": (48, 32), "down": (32, 48)}
    layers = ModelLayers("Two", sizes, dict(zip(sizes, sizes, strict=True)))
    monkeypatch.setattr(compute, "model_layers", lambda *_: layers)
    return sizes


def test_an_informed_plan_is_one_sided_and_knows_no_energy_without_moments(two):
    plan = make_plan("two", CosaSettings(kind="activation"), STEP, rank=4)
    shapes = {layer.name: layer.shape for layer in plan.budgets["cosa"].layers}
    assert shapes == {"up": (48, 320 // 48), "down": (32, 320 // 32)}
    assert plan.balanced is None
    assert all(np.isnan(layer.energy) for layer in plan.budgets["cosa"].layers)
    verdict = plan_verdict(plan_tables(plan))
    assert "give moments" in verdict
    assert "whatever the update" not in verdict


def test_an_informed_plan_takes_the_shapes_that_the_moments_say(two):
    known, settings = known_of(two), CosaSettings(kind="activation")
    inputs = {name: known.inputs[f"{name}.weight"] for name in two}
    plan = make_plan("two", settings, STEP, parameters=640, moments=known)
    layers = {layer.name: layer for layer in plan.budgets["cosa"].layers}
    best = informed_budget({name: (m, inputs[name].shares(n)) for name, (m, n) in two.items()}, 640)
    assert {name: one.shape[1] for name, one in layers.items()} == best.columns
    for name, layer in layers.items():
        assert layer.shape[0] == layer.m
        assert layer.energy == pytest.approx(inputs[name].share(layer.shape[1]))
    assert "an estimate and no law" in plan_verdict(plan_tables(plan))
    gradient = make_plan("two", CosaSettings(kind="gradient"), STEP, rank=4, moments=known)
    for layer in gradient.budgets["cosa"].layers:
        columns = known.gradients[f"{layer.name}.weight"].shares(layer.m)
        rows = inputs[layer.name].shares(layer.n)
        assert layer.shape == informed_shape(layer.m, layer.n, 320, rows, columns)
        expected = informed_share(layer.shape[0], layer.m, layer.shape[1], rows, columns)
        assert layer.energy == pytest.approx(expected)


@pytest.mark.parametrize("known", [False, True])
def test_an_informed_core_is_told_the_gain_of_its_scale_by_its_size(two, known):
    settings = CosaSettings(12, 8, kind="activation", scale="analysis")
    plan = make_plan("two", settings, STEP, moments=known_of(two) if known else None)
    assert any("4 to 4 times as large" in notice for notice in plan.notices)


def few_directions(sizes, count):
    """Moments of few inputs."""
    return Moments(
        {
            f"{name}.weight": SecondMoments(
                np.diag(np.arange(n) < count).astype(np.float32), count=count
            )
            for name, (_, n) in sizes.items()
        }
    )


def test_a_core_that_holds_all_inputs_is_not_called_as_large_as_its_layer(two):
    plan = make_plan(
        "two", CosaSettings(48, 3, kind="activation"), STEP, moments=few_directions(two, 3)
    )
    verdict = plan_verdict(plan_tables(plan))
    assert "expected to capture 100 % of an update's energy" in verdict
    assert "as large as the layers" not in verdict


def test_a_budget_that_known_directions_do_not_spend_is_told(two):
    settings, known = CosaSettings(kind="activation"), few_directions(two, 3)
    plan = make_plan("two", settings, STEP, parameters=1000, moments=known)
    assert any("of the budget of 1,000 parameters 240 are trained" in one for one in plan.notices)
    plan = make_plan("two", settings, STEP, parameters=240, moments=known)
    assert not any("of the budget" in one for one in plan.notices)


@pytest.mark.parametrize(
    ("kind", "names", "named"),
    [
        ("gaussian", ["up", "down"], ("gaussian", "leave them out")),
        ("activation", ["up"], ("1 of 2", "down.weight")),
        ("activation", [], ("no layer", "up.weight")),
    ],
)
def test_moments_that_do_not_serve_a_plan_are_refused(two, kind, names, named):
    moments = known_of({name: two[name] for name in names}) if names else Moments({})
    with pytest.raises(InputError) as caught:
        make_plan("two", CosaSettings(kind=kind), STEP, rank=4, moments=moments)
    assert all(name in str(caught.value) for name in named)
    assert len(str(caught.value)) <= 300
