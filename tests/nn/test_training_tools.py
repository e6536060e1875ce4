"""CoSA layers with the tools of training: autocast, checkpointing, compile, DDP, FSDP, offload."""

import copy
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cosa_theory.nn import layer_moments, load_cosa, save_cosa
from cosa_theory.nn.model import add_cosa, cosa_layers, merge_cosa
from cosa_theory.projections import KINDS
from tests.nn.distributed_run import KINDS as DISTRIBUTED
from tests.nn.distributed_run import Branching, batch, build, loss_of, shares

NAMES = ("0", "2")


def model_of(*, kind="gaussian", dropout=0.0, share=False, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 24))
    torch.manual_seed(1)
    settings = {"alpha": 1.5, "init_weights": False, **settings}
    return add_cosa(
        model, ["0", "2"], 10, 6, kind=kind, dropout=dropout, share_projections=share, **settings
    )


def inputs(*shape):
    return torch.randn(*(shape or (5, 32)), generator=torch.Generator().manual_seed(3))


def core_gradients(model):
    return {name: layer.Y.grad for name, layer in cosa_layers(model).items()}


def assert_same_gradients(found, expected, tolerance=1e-6):
    for name in expected:
        scale = expected[name].abs().max()
        assert (found[name] - expected[name]).abs().max() <= tolerance * scale, name


def relative(found, expected):
    return float((found - expected).detach().double().norm() / expected.detach().double().norm())


def test_under_autocast_products_are_in_bfloat16_and_gradients_of_the_core_in_float32():
    model, x = model_of(), inputs(40, 32)
    expected = model(x)
    expected.square().mean().backward()
    exact = {name: grad.clone() for name, grad in core_gradients(model).items()}
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(x)
    assert found.dtype == torch.bfloat16
    # Two layers of at most four roundings each, and bfloat16 rounds by at most 2⁻⁹.
    assert 0 < relative(found, expected) < 8 * 2**-9
    found.float().square().mean().backward()
    for name, gradient in core_gradients(model).items():
        assert gradient.dtype == torch.float32
        assert 0 < relative(gradient, exact[name]) < 16 * 2**-9


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(reentrant, dropout):
    model, x = model_of(dropout=dropout), inputs().requires_grad_()
    torch.manual_seed(7)
    model(x).square().sum().backward()
    expected = {name: grad.clone() for name, grad in core_gradients(model).items()}
    model.zero_grad()
    torch.manual_seed(7)
    checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
    assert_same_gradients(core_gradients(model), expected)


@pytest.mark.parametrize("kind", ["gaussian", "sjlt", "srht"])
def test_a_compiled_model_is_one_graph_with_the_same_output_and_gradients(kind):
    torch._dynamo.reset()
    model, x = model_of(kind=kind), inputs()
    expected = model(x)
    expected.square().sum().backward()
    gradients = {name: grad.clone() for name, grad in core_gradients(model).items()}
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = compiled(x)
    found.square().sum().backward()
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert_same_gradients(core_gradients(model), gradients, 1e-5)


def test_a_compiled_model_takes_batches_of_many_sizes_in_few_compilations():
    torch._dynamo.reset()
    model, compilations = model_of(), []

    def backend(graph, _):
        compilations.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=True)
    for tokens in (2, 3, 5, 7, 11, 400, 500):
        x = inputs(tokens, 32)
        assert torch.allclose(compiled(x), model(x), rtol=0, atol=1e-5)
    # One for each order of products that the number of tokens makes the cheapest, at most.
    assert len(compilations) <= 3


def test_a_compiled_model_saves_its_adapter_under_the_names_of_the_model(tmp_path):
    model = model_of()
    save_cosa(torch.compile(model, backend="eager"), tmp_path / "compiled")
    save_cosa(model, tmp_path / "plain")
    for name in ("adapter_model.safetensors",):
        assert (tmp_path / "compiled" / name).read_bytes() == (
            tmp_path / "plain" / name
        ).read_bytes()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """What two gloo processes computed together, and where they saved their adapters."""
    folder = tmp_path_factory.mktemp("distributed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.nn.distributed_run"]
    runs = [
        subprocess.Popen(
            [*command, str(rank), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        output = [run.communicate(timeout=200)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [run.returncode for run in runs] == [0, 0], "\n".join(output)
    return folder, torch.load(folder / "results.pt", weights_only=False)


@pytest.mark.parametrize("way", DISTRIBUTED)
def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(distributed, way):
    folder, results = distributed
    model = build(DISTRIBUTED[way])
    loss_of(model(batch())).backward()
    assert_same_gradients(results[way]["gradients"], core_gradients(model))
    fresh = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 10))
    fresh.load_state_dict(
        {
            name.replace(".base_layer", ""): value
            for name, value in model.state_dict().items()
            if not name.endswith(".Y")
        }
    )
    load_cosa(fresh, folder / way)
    assert torch.allclose(fresh(batch()), model(batch()), rtol=0, atol=1e-6)


def test_data_parallel_communicates_the_gradients_of_the_cores_and_nothing_else(distributed):
    _, results = distributed
    assert results["data_parallel"]["sent"] == 2 * 5 * 4


def test_moments_are_those_of_the_batches_of_all_processes(distributed):
    first, second = distributed[1]["gathered_moments"]
    whole = layer_moments(
        Branching(), [*shares()[0], *shares()[1]], most_bytes=306_000, directions=4
    )
    assert list(first["moments"].inputs) == list(whole.inputs)
    assert whole.inputs["more.weight"].count == 10
    for one in (first["moments"], second["moments"]):
        for name, expected in whole.inputs.items():
            found = one.inputs[name]
            assert found.count == expected.count
            np.testing.assert_allclose(found.matrix, expected.matrix, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5, atol=1e-6)
    # Samples are of each process's own, so that only both can have the same.
    for name, found in first["moments"].gradients.items():
        same = second["moments"].gradients[name]
        held = (
            (found.vectors, same.vectors) if found.matrix is None else (found.matrix, same.matrix)
        )
        np.testing.assert_array_equal(*held)
        assert found.count == (10 if name == "more.weight" else 24)
    assert first["moments"].gradients["last.weight"].matrix is None
    assert first["moments"].texts == second["moments"].texts != whole.texts
    assert first["left"] == second["left"] == []


def test_sharded_cores_ask_for_the_gathered_state(tmp_path):
    model = model_of()
    with torch.device("meta"):
        away = model_of()
    with pytest.raises(ValueError, match=r"0\.Y, 2\.Y are not here .* give the gathered values"):
        save_cosa(away, tmp_path / "away")
    assert not (tmp_path / "away").exists()
    save_cosa(away, tmp_path / "away", state_dict=model.state_dict())
    save_cosa(model, tmp_path / "here")
    assert (tmp_path / "away" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "here" / "adapter_model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["assign", "to_empty"])
def test_a_model_built_on_the_meta_device_is_the_model_built_directly(kind, way):
    direct = model_of(kind=kind)
    with torch.device("meta"):
        model = model_of(kind=kind)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    if way == "to_empty":
        model.to_empty(device="cpu")
    model.load_state_dict(direct.state_dict(), assign=way == "assign")
    assert torch.equal(model(inputs()), direct(inputs()))


def test_a_model_moved_to_the_meta_device_and_back_draws_its_projections_again():
    direct, model = model_of(), model_of().to("meta").to_empty(device="cpu")
    model.load_state_dict(direct.state_dict())
    assert torch.equal(model(inputs()), direct(inputs()))


def test_an_adapter_loads_onto_a_model_whose_weights_come_later(tmp_path):
    direct = model_of()
    save_cosa(direct, tmp_path)
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 24))
        load_cosa(model, tmp_path)
    weights = {k: v for k, v in direct.state_dict().items() if "base_layer" in k}
    model.load_state_dict(weights, strict=False, assign=True)
    assert torch.equal(model(inputs()), direct(inputs()))


def test_weights_offloaded_by_accelerate_are_fetched_for_every_product(tmp_path):
    from accelerate import cpu_offload, disk_offload, dispatch_model

    expected = model_of()(inputs())
    assert torch.equal(cpu_offload(model_of(), torch.device("cpu"))(inputs()), expected)
    dispatched = dispatch_model(
        model_of(),
        {"0": "cpu", "1": "cpu", "2": "disk"},
        main_device="cpu",
        offload_dir=tmp_path / "parts",
        force_hooks=True,
    )
    assert cosa_layers(dispatched)["2"].Y.device.type == "meta"
    assert torch.equal(dispatched(inputs()), expected)
    on_disk = disk_offload(model_of(), tmp_path / "all", torch.device("cpu"))
    assert torch.equal(on_disk(inputs()), expected)


def test_a_copy_is_independent_and_keeps_shared_projections_shared():
    model = model_of(share=True)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(inputs()), model(inputs()))
    with torch.no_grad():
        cosa_layers(twin)["0"].Y.zero_()
    assert not torch.equal(twin(inputs()), model(inputs()))
    torch.manual_seed(0)
    square = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    layers = cosa_layers(
        copy.deepcopy(add_cosa(square, "all-linear", 4, 4, share_projections=True))
    )
    assert layers["0"].left is layers["1"].left


def test_the_state_dict_holds_cores_and_weights_and_loads_into_a_model_of_equal_settings():
    model, twin = model_of(), model_of()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    twin.load_state_dict(torch.load(stream))
    assert torch.equal(twin(inputs()), model(inputs()))
    assert {name.rpartition(".")[2] for name in model.state_dict()} == {"Y", "weight", "bias"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_made_double_has_the_projections_of_one_built_double(kind):
    late = model_of(kind=kind).double()
    torch.manual_seed(0)
    early = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 24)).double()
    early = add_cosa(early, ["0", "2"], 10, 6, kind=kind, alpha=1.5, core_dtype=torch.float64)
    early.load_state_dict(late.state_dict())
    x = inputs().double()
    assert relative(late(x), early(x)) < 1e-14


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["half", "bfloat16"])
def test_half_precision_loses_no_more_than_its_rounding_and_comes_back(kind, dtype):
    model = model_of(kind=kind)
    exact = model(inputs())
    u = torch.finfo(dtype).eps / 2
    assert relative(model.to(dtype)(inputs().to(dtype)), exact) < 12 * u
    projection = cosa_layers(model.float())["0"].left
    assert torch.equal(projection.matrix(), cosa_layers(model_of(kind=kind))["0"].left.matrix())


def test_the_optimizer_holds_nothing_but_the_state_of_the_cores():
    model = model_of()
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    model(inputs()).square().sum().backward()
    optimizer.step()
    moments = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    assert sum(t.numel() for t in moments) == 2 * 2 * 10 * 6


def test_merging_inside_a_wrapper_of_data_parallel_training_is_merging_the_model():
    model = model_of()
    expected = model(inputs())
    merge_cosa(nn.DataParallel(model))
    assert all(layer.merged for layer in cosa_layers(model).values())
    assert torch.allclose(model(inputs()), expected, rtol=0, atol=1e-5)
