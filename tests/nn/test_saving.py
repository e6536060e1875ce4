"""Adapters saved and loaded: by this library, by PEFT, and by the released code."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from cosa_theory.nn import CosaLinear, add_cosa, load_cosa, merge_cosa, save_cosa
from cosa_theory.nn.lora import to_lora
from cosa_theory.nn.model import cosa_layers
from cosa_theory.projections import KINDS
from tests.nn.kills import killed

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.ModuleDict({name: nn.Linear(16, 16) for name in ("q", "k")})
        self.up = nn.Linear(16, 24)
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        x = x + self.body["k"](torch.tanh(self.body["q"](x)))
        return self.head(self.norm(self.up(x)))


def adapted(target=("q", "k", "up"), **settings):
    model = Net()
    torch.manual_seed(1)
    settings = {"alpha": 1.5, "init_weights": False, **settings}
    return add_cosa(model, list(target), 6, 4, **settings)


def inputs(count=9):
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(2))


def settings_of(folder):
    return json.loads((folder / CONFIG).read_text())


@pytest.mark.parametrize("stored", [False, True], ids=["drawn", "stored"])
@pytest.mark.parametrize(
    ("kind", "scale", "share"),
    [
        *((kind, "synthesis", False) for kind in KINDS),
        ("gaussian", "analysis", True),
        ("srht", "synthesis", True),
        ("sjlt", "analysis", False),
    ],
)
def test_a_loaded_adapter_computes_what_the_saved_one_did(tmp_path, kind, scale, stored, share):
    model = adapted(kind=kind, scale=scale, share_projections=share, seed=11)
    save_cosa(model, tmp_path / "adapter", save_projections=stored)
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "README.md",
        CONFIG,
        WEIGHTS,
    ]
    loaded = load_cosa(Net(), tmp_path / "adapter")
    expected = model.requires_grad_(False)(inputs())
    # Stored projections are dense, and multiply in another order than the fast forms.
    tolerance = 0 if kind == "gaussian" or not stored else 2e-5
    assert torch.allclose(loaded(inputs()), expected, rtol=0, atol=tolerance)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_file_holds_the_cores_alone_in_float32(tmp_path):
    save_cosa(adapted().bfloat16(), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {
        f"{PREFIX}{name}.cosa_Y": ((6, 4), torch.float32) for name in ("body.q", "body.k", "up")
    }


def test_stored_projections_are_the_draws_even_of_a_model_in_half_precision(tmp_path):
    save_cosa(adapted().bfloat16(), tmp_path / "half", save_projections=True)
    save_cosa(adapted(), tmp_path / "full", save_projections=True)
    half, full = (load_file(tmp_path / name / WEIGHTS) for name in ("half", "full"))
    for name in full:
        if not name.endswith("cosa_Y"):
            assert torch.equal(half[name], full[name])
    assert full[f"{PREFIX}up.cosa_L"].shape == (24, 6)
    assert full[f"{PREFIX}up.cosa_R"].shape == (4, 16)


def test_shared_projections_are_stored_once(tmp_path):
    model = adapted(share_projections=True)
    save_cosa(model, tmp_path, save_projections=True)
    stored = [name for name in load_file(tmp_path / WEIGHTS) if not name.endswith("cosa_Y")]
    assert sorted(stored) == [
        f"{PREFIX}body.q.cosa_L",
        f"{PREFIX}body.q.cosa_R",
        f"{PREFIX}up.cosa_L",
    ]
    layers = cosa_layers(load_cosa(Net(), tmp_path))
    assert layers["body.q"].left is layers["body.k"].left
    assert layers["body.q"].right is layers["up"].right


def test_the_settings_describe_every_layer(tmp_path):
    model = adapted(kind="sjlt", options={"nonzeros": 2}, seed=9, dropout=0.25)
    save_cosa(model, tmp_path, base_model_name_or_path="some/model", task_type="FEATURE_EXTRACTION")
    settings = settings_of(tmp_path)
    assert settings["peft_type"] == "COSA"
    assert settings["base_model_name_or_path"] == "some/model"
    assert settings["task_type"] == "FEATURE_EXTRACTION"
    assert (settings["a"], settings["b"], settings["alpha"]) == (6, 4, 1.5)
    assert (settings["kind"], settings["options"]) == ("sjlt", {"nonzeros": 2})
    assert (settings["seed"], settings["dropout"]) == (9, 0.25)
    assert settings["target_modules"] == ["q", "k", "up"]
    layer = cosa_layers(model)["up"]
    assert settings["layers"]["up"].pop("Y")
    assert settings["layers"]["up"] == {
        "key": "up",
        "size": [24, 16],
        "core": [6, 4],
        "L": layer.left.fingerprint,
        "R": layer.right.fingerprint,
    }


def test_modules_called_left_or_base_layer_are_modules_like_others(tmp_path):
    """They have the names of parts of a CoSA layer, and here the end of an adapted layer's name."""
    from peft import PeftModel

    import cosa_theory.nn.peft  # noqa: F401

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            names = ("left", "right", "base_layer")
            self.one = nn.ModuleDict({name: nn.Linear(16, 16) for name in names})
            self.two = nn.ModuleDict({name: nn.Linear(16, 16) for name in names})

        def forward(self, x):
            for layer in (*self.one.values(), *self.two.values()):
                x = layer(x)
            return x

    targets = ["one.left", "one.base_layer", "two.right"]
    model = add_cosa(Pair(), targets, 6, 4, init_weights=False)
    save_cosa(model, tmp_path)
    assert settings_of(tmp_path)["target_modules"] == targets
    for again in (load_cosa(Pair(), tmp_path), PeftModel.from_pretrained(Pair(), tmp_path)):
        assert torch.allclose(again(inputs()), model(inputs()), rtol=0, atol=1e-5)


def test_shapes_and_alphas_of_single_layers_come_back(tmp_path):
    model = adapted(shape_pattern={"q": (3, 7)}, alpha_pattern={"up": -2.0, "k": 0.5})
    save_cosa(model, tmp_path)
    settings = settings_of(tmp_path)
    assert settings["shape_pattern"] == {"q": [3, 7]}
    loaded = load_cosa(Net(), tmp_path)
    for name, layer in cosa_layers(model).items():
        assert cosa_layers(loaded)[name].spec == layer.spec
    assert torch.allclose(loaded(inputs()), model(inputs()), rtol=0, atol=1e-5)


def test_a_loaded_adapter_saves_to_the_same_bytes(tmp_path):
    save_cosa(adapted(dropout=0.1, modules_to_save=["head"]), tmp_path / "first")
    loaded = load_cosa(Net(), tmp_path / "first", trainable=True)
    save_cosa(loaded, tmp_path / "second")
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_training_goes_on_where_it_was_saved(tmp_path):
    def steps(model, count):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(count):
            optimizer.zero_grad()
            model(inputs()).square().mean().backward()
            optimizer.step()
        return model

    whole = steps(adapted(modules_to_save=["head"]), 6)
    save_cosa(steps(adapted(modules_to_save=["head"]), 3), tmp_path)
    resumed = load_cosa(Net(), tmp_path, trainable=True)
    assert {name for name, p in resumed.named_parameters() if p.requires_grad} == {
        "body.q.Y", "body.k.Y", "up.Y", "head.weight", "head.bias"
    }  # fmt: skip
    assert torch.equal(steps(resumed, 3)(inputs()), whole(inputs()))


def test_modules_trained_whole_are_saved_with_the_adapter(tmp_path):
    model = adapted(modules_to_save=["head", "norm"])
    with torch.no_grad():
        model.head.weight.mul_(3)
        model.norm.bias.add_(1)
    save_cosa(model, tmp_path)
    assert settings_of(tmp_path)["modules_to_save"] == ["norm", "head"]
    loaded = load_cosa(Net(), tmp_path)
    assert torch.equal(loaded.head.weight, model.head.weight)
    assert torch.equal(loaded.norm.bias, model.norm.bias)


def test_a_merged_model_saves_the_same_adapter(tmp_path):
    model = adapted()
    save_cosa(model, tmp_path / "before")
    save_cosa(merge_cosa(model), tmp_path / "after")
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()


def test_a_model_that_became_part_of_another_keeps_the_keys_of_its_draws(tmp_path):
    inner = adapted(alpha_pattern={"up": 3.0}, shape_pattern={"body.q": (2, 2)})
    save_cosa(nn.Sequential(inner), tmp_path)
    assert settings_of(tmp_path)["layers"]["0.up"]["key"] == "up"
    loaded = load_cosa(nn.Sequential(Net()), tmp_path)
    assert torch.allclose(loaded(inputs()), inner(inputs()), rtol=0, atol=1e-5)


def test_layers_put_in_by_hand_are_saved_too(tmp_path):
    model = Net()
    model.up = CosaLinear(model.up, 6, 4, key="mine", init_weights=False, seed=2)
    save_cosa(model, tmp_path)
    loaded = load_cosa(Net(), tmp_path)
    assert torch.allclose(loaded(inputs()), model(inputs()), rtol=0, atol=1e-5)
    model.head = CosaLinear(model.head, 2, 2, key="head", seed=3)
    with pytest.raises(InputError, match="seed is 2 in up and 3 in head"):
        save_cosa(model, tmp_path)
    model.head = CosaLinear(model.head.base_layer, 2, 2, key="head", seed=2, dropout=0.5)
    with pytest.raises(InputError, match=r"dropout differs between the layers \(0.0, 0.5\)"):
        save_cosa(model, tmp_path)


def test_saving_replaces_an_adapter_and_leaves_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "checkpoint-1").mkdir()
    save_cosa(adapted(seed=1), tmp_path)
    model = adapted(("up",), seed=2)
    save_cosa(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        CONFIG,
        WEIGHTS,
        "checkpoint-1",
        "notes.txt",
    ]
    assert torch.allclose(load_cosa(Net(), tmp_path)(inputs()), model(inputs()), rtol=0, atol=1e-5)


def test_an_adapter_survives_a_failure_to_save_another(tmp_path, monkeypatch):
    model = adapted(seed=1)
    save_cosa(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("cosa_theory.nn.folder.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        save_cosa(adapted(seed=2), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_kill_leaves_the_earlier_adapter_or_the_new_one(tmp_path):
    from peft import PeftModel

    import cosa_theory.nn.peft  # noqa: F401

    models = [adapted(seed=1, alpha=0.5), adapted(("up",), seed=2)]
    outputs = [model(inputs()).detach() for model in models]
    found = []
    save_cosa(models[0], tmp_path)
    while killed(len(found) + 1, lambda: save_cosa(models[1], tmp_path)):
        if len(found) % 2:  # whichever reads first
            loaded = load_cosa(Net(), tmp_path)
        else:
            loaded = PeftModel.from_pretrained(Net(), tmp_path)
        found.append([torch.allclose(loaded(inputs()), one, atol=1e-5) for one in outputs])
        save_cosa(models[0], tmp_path)
    assert found[0] == [True, False]
    assert found[-1] == [False, True]
    assert all(sum(one) == 1 for one in found)


@pytest.mark.parametrize("part", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("saver", ["plain", "peft"])
def test_files_of_two_savings_are_not_taken_for_an_adapter(tmp_path, part, saver):
    """As PEFT leaves them, which writes one after the other, if it is killed between."""
    from peft import PeftModel, get_peft_model

    from cosa_theory.nn.peft import CosaConfig

    for name in ("first", "second"):
        net = Net()
        torch.manual_seed(len(name))
        if saver == "plain":
            model = add_cosa(net, ["q", "k"], 6, 4, init_weights=False)
            save_cosa(model, tmp_path / name)
        else:
            settings = CosaConfig(a=6, b=4, target_modules=["q", "k"], init_weights=False)
            get_peft_model(net, settings).save_pretrained(tmp_path / name)
    shutil.copy(tmp_path / "first" / part, tmp_path / "second" / part)
    for read in (
        lambda: load_cosa(Net(), tmp_path / "second"),
        lambda: PeftModel.from_pretrained(Net(), tmp_path / "second"),
        lambda: to_lora(tmp_path / "second", tmp_path / "lora"),
        lambda: next(iter(open_pair(Net(), tmp_path / "second"))).delta,
    ):
        with pytest.raises(ValueError, match="is not the one that adapter_config"):
            read()


def test_peft_reads_what_is_saved_here(tmp_path):
    from peft import PeftModel

    import cosa_theory.nn.peft  # noqa: F401

    model = adapted(
        alpha_pattern={"up": 3.0},
        shape_pattern={"q": (3, 7)},
        modules_to_save=["head"],
        kind="rademacher",
    )
    with torch.no_grad():
        model.head.weight.mul_(2)
    save_cosa(model, tmp_path)
    loaded = PeftModel.from_pretrained(Net(), tmp_path)
    assert torch.allclose(loaded(inputs()), model(inputs()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("stored", [False, True], ids=["drawn", "stored"])
@pytest.mark.parametrize("share", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("bias", ["none", "all", "cosa_only"])
def test_what_peft_saves_is_read_here_and_saved_again(tmp_path, stored, share, bias):
    from peft import PeftModel, get_peft_model

    from cosa_theory.nn.peft import CosaConfig

    config = CosaConfig(
        a=6,
        b=20,
        alpha=-1.5,
        seed=4,
        kind="sjlt",
        target_modules=["q", "up"],
        modules_to_save=["head"],
        alpha_pattern={"up": 0.5},
        share_projections=share,
        save_projections=stored,
        bias=bias,
        init_weights=False,
    )
    with pytest.warns(UserWarning, match="was reduced"):
        model = get_peft_model(Net(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "cosa_Y" not in name:
                parameter.add_(0.25)
    model.save_pretrained(tmp_path / "peft")
    expected = model(inputs())
    loaded = load_cosa(Net(), tmp_path / "peft", trainable=True)
    assert torch.allclose(loaded(inputs()), expected, rtol=0, atol=2e-5)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(p.numel() for p in loaded.parameters() if p.requires_grad) == count
    save_cosa(loaded, tmp_path / "again")
    for found in (
        load_cosa(Net(), tmp_path / "again"),
        PeftModel.from_pretrained(Net(), tmp_path / "again"),
    ):
        assert torch.allclose(found(inputs()), expected, rtol=0, atol=2e-5)


def released_folder(folder, model, *, r=4, rslora=False):
    """An adapter as the code released with the paper writes it; returns the update's factors."""
    generator = torch.Generator().manual_seed(5)
    tensors, factors = {}, {}
    for name, (a, b) in {"body.q": (6, 4), "up": (8, 3)}.items():
        m, n = model.get_submodule(name).weight.shape
        L = torch.randn(m, a, generator=generator) / a**0.5
        Y = torch.randn(a, b, generator=generator)
        R = torch.randn(b, n, generator=generator) / b**0.5
        tensors[f"{PREFIX}{name}.lora_Y.weight"] = Y
        tensors[f"{PREFIX}{name}.lora_L"] = L.mT.contiguous()
        tensors[f"{PREFIX}{name}.lora_R"] = R.mT.contiguous()
        factors[name] = L, Y, R
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    settings = {
        "peft_type": "COSA",
        "r": r,
        "lora_alpha": 6,
        "use_rslora": rslora,
        "lora_dropout": 0.1,
        "use_compression": True,
        "compression_a": 1024,
        "compression_b": 256,
        "use_adaptive_compression": False,
        "compression_seed": 42,
        "target_modules": ["q", "up"],
        "bias": "none",
        "fan_in_fan_out": False,
    }
    (folder / CONFIG).write_text(json.dumps(settings))
    return factors


@pytest.mark.parametrize("rslora", [False, True], ids=["plain", "rslora"])
def test_an_adapter_of_the_released_code_is_read_and_saved_again(tmp_path, rslora):
    expected = Net()
    factors = released_folder(tmp_path / "released", expected, rslora=rslora)
    scaling = 6 / (4**0.5 if rslora else 4)
    with torch.no_grad():
        for name, (L, Y, R) in factors.items():
            expected.get_submodule(name).weight.add_(scaling * L @ Y @ R)
    loaded = load_cosa(Net(), tmp_path / "released").eval()
    assert torch.allclose(loaded(inputs()), expected(inputs()), rtol=0, atol=2e-5)
    assert cosa_layers(loaded)["up"].dropout == 0.1
    save_cosa(loaded, tmp_path / "ours")  # without a seed for L and R, these are stored
    assert settings_of(tmp_path / "ours")["save_projections"] is True
    again = load_cosa(Net(), tmp_path / "ours").eval()
    assert torch.equal(again(inputs()), loaded(inputs()))


def test_an_adapter_moves_with_its_folder(tmp_path):
    model = adapted()
    save_cosa(model, tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    loaded = load_cosa(Net(), str(tmp_path / "there"))
    assert torch.allclose(loaded(inputs()), model(inputs()), rtol=0, atol=1e-5)
    assert "/" not in (Path(tmp_path) / "there" / CONFIG).read_text()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["double", "bfloat16"])
def test_an_adapter_loads_into_a_model_of_another_precision(tmp_path, dtype):
    model = adapted()
    save_cosa(model, tmp_path)
    loaded = load_cosa(Net().to(dtype), tmp_path)
    assert {layer.left.matrix().dtype for layer in cosa_layers(loaded).values()} == {dtype}
    assert {layer.Y.dtype for layer in cosa_layers(loaded).values()} == {torch.float32}
    expected = model.double()(inputs().double())
    error = (loaded(inputs().to(dtype)).double() - expected).norm() / expected.norm()
    assert error < (1e-6 if dtype == torch.float64 else 12 * 2**-9)
