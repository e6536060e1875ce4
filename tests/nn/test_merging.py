"""A merge checks itself: the merged layer computes what it did, or nothing is merged."""

import copy

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import add_cosa, merge_cosa
from cosa_theory.nn.peft import CosaConfig, CosaLayer

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
TARGETS = ["0", "2"]


def net(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).to(dtype)


def plain(model):
    return add_cosa(model, TARGETS, 3, 3, init_weights=False)


def peft(model):
    torch.manual_seed(0)
    return get_peft_model(model, CosaConfig(a=3, b=3, target_modules=TARGETS, init_weights=False))


def normalise(module, args):
    module.weight.data = F.normalize(module.weight.data)


def last_base(model):
    return [one for one in model.modules() if type(one) is nn.Linear][-1]


@pytest.mark.parametrize("unload", [False, True])
@pytest.mark.parametrize("adapt", [plain, peft])
def test_a_layer_whose_weight_is_changed_by_a_hook_is_named_and_nothing_is_merged(adapt, unload):
    model = adapt(net()).eval()
    base = last_base(model)
    with torch.no_grad():
        base.weight.copy_(F.normalize(base.weight))
    base.register_forward_pre_hook(normalise)
    before, weights = model(X), [one.clone() for one in model.parameters()]
    merges = {
        (plain, False): lambda: merge_cosa(model),
        (plain, True): lambda: merge_cosa(model, unload=True),
        (peft, False): lambda: model.merge_adapter(),
        (peft, True): lambda: model.merge_and_unload(),
    }
    with pytest.raises(InputError, match=r"^2 cannot be merged: .*unmerged, or leave this layer"):
        merges[adapt, unload]()
    assert torch.allclose(model(X), before, atol=1e-6)
    for one, other in zip(model.parameters(), weights, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert not any(getattr(one, "merged", False) for one in model.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("adapt", [plain, peft])
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_what_is_merged_right_passes_in_every_dtype(adapt, dtype, size):
    model = adapt(net(dtype))
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.mul_(size)
    generator = torch.get_rng_state()
    merge_cosa(model) if adapt is plain else model.merge_adapter()
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_model_without_memory_is_not_merged():
    with pytest.raises(InputError, match=r"^0 cannot be merged: its weight is on the meta device"):
        merge_cosa(plain(net().to("meta")))
    with pytest.raises(InputError, match=r"^0 cannot be merged: its weight is on the meta device"):
        peft(net().to("meta")).merge_adapter()


def test_an_adapter_merged_before_stays_merged_when_another_cannot_be():
    model = peft(net())
    model.add_adapter("other", copy.deepcopy(model.peft_config["default"]))
    model.merge_adapter(["default"])
    merged = model(X)
    with torch.no_grad():
        model.base_model.model[2].cosa_Y["other"][0, 0] = float("nan")
    with pytest.raises(InputError, match=r"^2 cannot be merged: NaNs detected"):
        model.merge_adapter(["default", "other"])
    assert torch.allclose(model(X), merged, atol=1e-6)
    layers = [one for one in model.modules() if isinstance(one, CosaLayer)]
    assert [one.merged_adapters for one in layers] == [["default"], ["default"]]


def test_the_scaling_is_multiplied_divided_and_reset_as_in_pefts_lora():
    model = peft(net())
    model.add_adapter("other", CosaConfig(a=3, b=3, target_modules=["0"], alpha=3.0))
    layer = model.base_model.model[0]
    own = dict(layer.scaling)
    layer.scale_layer(0.5)
    layer.scale_layer(4.0)
    assert layer.scaling == {"default": 2 * own["default"], "other": own["other"]}
    layer.unscale_layer(2.0)
    assert layer.scaling == own
    layer.set_scale("other", 0.25)
    layer.set_scale("absent", 0.25)
    assert layer.scaling == {"default": own["default"], "other": own["other"] / 4}
    layer.set_adapter(["default", "other"])
    layer.scale_layer(3.0)
    layer.unscale_layer()
    assert layer.scaling == own


def test_unmerging_takes_out_what_was_merged_whatever_the_scaling_became():
    model, bare = peft(net()), net()
    layer = model.base_model.model[0]
    full = layer(X) - layer.base_layer(X)
    layer.scale_layer(0.5)
    layer.merge()
    assert torch.allclose(layer(X), bare[0](X) + full / 2, atol=1e-6)
    layer.scale_layer(7.0)
    layer.unmerge()
    assert torch.allclose(layer.base_layer.weight, bare[0].weight, atol=1e-6)
    own = add_cosa(net(), ["0"], 3, 3, init_weights=False)[0]
    own.merge()
    own.scaling *= 3
    own.unmerge()
    assert torch.allclose(own.weight, bare[0].weight, atol=1e-6)
