"""An adapter has plain names, whatever wraps the model when it is trained, saved or read."""

import copy
import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from cosa_theory.deltas import open_pair
from cosa_theory.deltas.wrapped_names import unwrapped_name
from cosa_theory.ground.errors import InputError
from cosa_theory.nn import add_cosa, load_cosa, merge_cosa, save_cosa
from cosa_theory.nn.lora import to_lora
from cosa_theory.nn.peft import CosaConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LAYERS = {"blocks.0.q", "blocks.1.q", "blocks.0.k", "blocks.1.k"}
X = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.k(torch.tanh(self.q(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def compiled(module):
    return torch.compile(module, backend="eager")


def parts(wrap):
    """Return what wraps the blocks of a model, one inside the other."""

    def build(net):
        for index, block in enumerate(net.blocks):
            net.blocks[index] = wrap(block)
        return net

    return build


def layer(wrap):
    """Return what wraps a single layer of a model."""

    def build(net):
        net.blocks[0].q = wrap(net.blocks[0].q)
        return net

    return build


class Fabric(nn.Module):
    """Names as Lightning's."""

    def __init__(self, module):
        super().__init__()
        self._forward_module, self._original_module = compiled(module), module

    def forward(self, x):
        return self._forward_module(x)


WRAPPED = {
    "plain": lambda net: net,
    "compiled": compiled,
    "compiled blocks": parts(compiled),
    "compiled layer": layer(compiled),
    "checkpointed": parts(checkpoint_wrapper),
    "checkpointed layer": layer(checkpoint_wrapper),
    "data parallel": nn.DataParallel,
    "data parallel, compiled": lambda net: nn.DataParallel(compiled(net)),
    "lightning": Fabric,
}
everywhere = pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
TARGETS = {"endings": ["q", "k"], "whole names": sorted(LAYERS), "expression": r"blocks\.\d\.[qk]"}


def randomize(model):
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape))
    return model


def config(**changes):
    return CosaConfig(**{"a": 4, "b": 3, "target_modules": ["q", "k"], "seed": 3} | changes)


def reference(folder, **changes):
    """Save an adapter of the plain model; return what it computes."""
    model = randomize(add_cosa(Net(), ["q", "k"], 4, 3, seed=3, **changes))
    save_cosa(model, folder)
    return model(X).detach()


def names_in(folder):
    settings = json.loads((folder / CONFIG).read_text())
    keys = {entry["key"] for entry in settings["layers"].values()}
    return set(load_file(folder / WEIGHTS)), set(settings["layers"]), keys


@everywhere
def test_a_wrapped_model_saves_the_adapter_of_the_plain_one(tmp_path, wrap):
    expected = reference(tmp_path / "plain")
    model = randomize(add_cosa(wrap(Net()), ["q", "k"], 4, 3, seed=3))
    assert torch.allclose(model(X), expected, atol=1e-6)
    save_cosa(model, tmp_path / "wrapped")
    settings = [
        json.loads((tmp_path / name / CONFIG).read_text()) | {"auto_mapping": None}
        for name in ("plain", "wrapped")
    ]
    assert settings[0] == settings[1]
    written = [load_file(tmp_path / name / WEIGHTS) for name in ("plain", "wrapped")]
    assert written[0].keys() == written[1].keys()
    assert all(torch.equal(one, written[1][name]) for name, one in written[0].items())


@everywhere
def test_peft_on_a_wrapped_model_saves_plain_names(tmp_path, wrap):
    model = randomize(get_peft_model(wrap(Net()), config()))
    expected = model(X)
    model.save_pretrained(tmp_path)
    tensors, layers, keys = names_in(tmp_path)
    assert tensors == {f"base_model.model.{name}.cosa_Y" for name in LAYERS}
    assert layers == keys == LAYERS
    assert torch.allclose(load_cosa(Net(), tmp_path)(X), expected, atol=1e-6)
    again = PeftModel.from_pretrained(wrap(Net()), tmp_path)
    assert torch.allclose(again(X), expected, atol=1e-6)
    assert {one.name for one in open_pair(Net(), tmp_path)} == {f"{name}.weight" for name in LAYERS}
    merged = merge_cosa(load_cosa(wrap(Net()), tmp_path), unload=True)
    assert torch.allclose(merged(X), expected, atol=1e-5)
    to_lora(tmp_path, tmp_path / "lora")
    assert torch.allclose(
        PeftModel.from_pretrained(Net(), tmp_path / "lora")(X), expected, atol=1e-5
    )


@pytest.mark.parametrize("name", ["compiled blocks", "checkpointed layer", "data parallel"])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_an_adapter_of_the_plain_model_is_read_on_a_wrapped_one(tmp_path, name, targets):
    wrap = WRAPPED[name]
    plain = randomize(get_peft_model(Net(), config(target_modules=targets)))
    plain.save_pretrained(tmp_path)
    expected = plain(X)
    assert torch.allclose(PeftModel.from_pretrained(wrap(Net()), tmp_path)(X), expected, atol=1e-6)
    model = load_cosa(wrap(Net()), tmp_path)
    assert torch.allclose(model(X), expected, atol=1e-6)
    save_cosa(model, tmp_path / "again")
    assert names_in(tmp_path / "again") == names_in(tmp_path)


@everywhere
def test_modules_saved_whole_have_plain_names(tmp_path, wrap):
    model = add_cosa(wrap(Net()), ["q"], 4, 3, modules_to_save=["head"])
    expected = randomize(model)(X).detach()
    save_cosa(model, tmp_path)
    assert {name for name in names_in(tmp_path)[0] if "cosa" not in name} == {
        "base_model.model.head.weight",
        "base_model.model.head.bias",
    }
    assert torch.allclose(load_cosa(wrap(Net()), tmp_path)(X), expected, atol=1e-6)
    assert torch.allclose(PeftModel.from_pretrained(Net(), tmp_path)(X), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:the model is wrapped in DataParallel")
@pytest.mark.parametrize(
    "name", ["compiled", "compiled blocks", "compiled layer", "checkpointed", "data parallel"]
)
def test_peft_saves_modules_of_a_wrapped_model_under_plain_names(tmp_path, name):
    wrap = WRAPPED[name]
    settings = {"modules_to_save": ["head"], "bias": "cosa_only", "save_projections": True}
    model = randomize(get_peft_model(wrap(Net()), config(**settings)))
    expected = model(X)
    model.save_pretrained(tmp_path)
    assert all(name == unwrapped_name(name) for name in names_in(tmp_path)[0])
    for build in (Net, lambda: wrap(Net())):
        assert torch.allclose(PeftModel.from_pretrained(build(), tmp_path)(X), expected, atol=1e-6)
        assert torch.allclose(load_cosa(build(), tmp_path)(X), expected, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["compiled", "compiled blocks", "compiled layer", "checkpointed", "data parallel"]
)
@pytest.mark.parametrize("bias", ["none", "cosa_only", "all"])
def test_a_model_wrapped_after_peft_saves_plain_names(tmp_path, name, bias):
    model = randomize(get_peft_model(Net(), config(bias=bias)))
    expected = model(X).detach()
    model.save_pretrained(tmp_path / "plain")
    if name in ("compiled", "data parallel"):
        getattr(WRAPPED[name](model), "module", model).save_pretrained(tmp_path / "wrapped")
    else:
        WRAPPED[name](model.base_model.model)
        assert torch.allclose(model(X), expected, atol=1e-6)
        model.save_pretrained(tmp_path / "wrapped")
    assert names_in(tmp_path / "wrapped") == names_in(tmp_path / "plain")
    assert torch.allclose(load_cosa(Net(), tmp_path / "wrapped")(X), expected, atol=1e-6)


def test_a_compiled_model_stays_compiled_when_it_is_adapted():
    torch._dynamo.reset()  # what was compiled before counts against its limit
    calls = []

    def backend(graph, _):
        calls.append(graph)
        return graph.forward

    model = get_peft_model(torch.compile(Net(), backend=backend), config())
    model(X)
    assert calls


OLD = {
    "compiled": "_orig_mod.",
    "sharded": "_fsdp_wrapped_module.",
    "checkpointed": "_checkpoint_wrapped_module.",
    "data parallel": "module.",
    "several": "_forward_module.module._orig_mod.",
}


@pytest.mark.parametrize("prefix", OLD.values(), ids=OLD)
@pytest.mark.parametrize("where", ["file", "everywhere", "outside"])
def test_an_adapter_with_the_names_of_wrappers_is_read(tmp_path, prefix, where):
    """As files were before names were plain; `outside` as a wrapper's own state dict is."""
    expected = reference(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)

    def old(name):
        if where == "outside":
            return prefix + name
        return name.replace("base_model.model.", f"base_model.model.{prefix}")

    save_file({old(name): one for name, one in tensors.items()}, tmp_path / WEIGHTS)
    settings = json.loads((tmp_path / CONFIG).read_text())
    if where == "everywhere":  # the keys of the draws stay what they were
        settings["layers"] = {f"{prefix}{name}": one for name, one in settings["layers"].items()}
    (tmp_path / CONFIG).write_text(json.dumps(settings))
    assert torch.allclose(load_cosa(Net(), tmp_path)(X), expected, atol=1e-6)
    assert torch.allclose(PeftModel.from_pretrained(Net(), tmp_path)(X), expected, atol=1e-6)
    on_compiled = PeftModel.from_pretrained(compiled(Net()), tmp_path)
    assert torch.allclose(on_compiled(X), expected, atol=1e-6)
    on_compiled.save_pretrained(tmp_path / "again")
    assert names_in(tmp_path / "again")[1] == LAYERS


def test_the_key_of_an_old_draw_stands(tmp_path):
    """A draw that was made for a wrapped name comes back under the plain one."""
    inner = nn.Sequential()
    inner.add_module("was", Net())
    model = randomize(add_cosa(inner, ["q", "k"], 4, 3, seed=3))
    expected = model(X).detach()
    save_cosa(model, tmp_path)
    settings = json.loads((tmp_path / CONFIG).read_text())
    settings["layers"] = {
        name.removeprefix("was."): entry for name, entry in settings["layers"].items()
    }
    assert {entry["key"] for entry in settings["layers"].values()} == {
        f"was.{name}" for name in LAYERS
    }
    (tmp_path / CONFIG).write_text(json.dumps(settings))
    tensors = load_file(tmp_path / WEIGHTS)
    save_file(
        {name.replace("was.", "_orig_mod."): one for name, one in tensors.items()},
        tmp_path / WEIGHTS,
    )
    loaded = load_cosa(Net(), tmp_path)
    assert torch.allclose(loaded(X), expected, atol=1e-6)
    save_cosa(loaded, tmp_path / "again")
    assert torch.allclose(load_cosa(Net(), tmp_path / "again")(X), expected, atol=1e-6)


def test_a_gathered_state_dict_may_have_the_names_of_wrappers(tmp_path):
    model = randomize(add_cosa(Net(), ["q", "k"], 4, 3))
    state = copy.deepcopy(model.state_dict())
    for prefix in ("", "module.", "_fsdp_wrapped_module.", "_forward_module.module."):
        given = {f"{prefix}{name}": one for name, one in state.items()}
        save_cosa(model, tmp_path / f"of{prefix}", state_dict=given)
        assert torch.equal(load_cosa(Net(), tmp_path / f"of{prefix}")(X), model(X))


def test_modules_saved_whole_under_old_names_are_read_by_load_cosa_and_saved_for_peft(tmp_path):
    model = randomize(get_peft_model(Net(), config(modules_to_save=["head"])))
    model.save_pretrained(tmp_path)
    old = {
        name.replace("model.model.", "model.model._orig_mod."): one
        for name, one in load_file(tmp_path / WEIGHTS).items()
    }
    save_file(old, tmp_path / WEIGHTS)
    with pytest.raises(InputError, match=r"_orig_mod\.head\.\w+ has a name .* load_cosa"):
        PeftModel.from_pretrained(Net(), tmp_path)
    save_cosa(load_cosa(Net(), tmp_path), tmp_path / "again")
    assert torch.allclose(
        PeftModel.from_pretrained(Net(), tmp_path / "again")(X), model(X), atol=1e-6
    )
