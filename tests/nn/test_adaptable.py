"""A layer is adapted if it computes W x + b from a weight of its own, in both front ends."""

import functools

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import add_cosa, merge_cosa
from cosa_theory.nn.adaptable import shared_weights
from cosa_theory.nn.peft import CosaConfig

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


class Normalised(nn.Linear):
    def forward(self, x):
        return F.linear(x, F.normalize(self.weight))


class Cached(nn.Linear):
    def forward(self, x):
        if not hasattr(self, "kept"):
            self.kept = self.weight.detach().clone()
        return F.linear(x, self.kept, self.bias)


class Clipped(nn.Linear):
    def forward(self, x):
        return super().forward(x.clamp(-50, 50))


class NoisyInTraining(nn.Linear):
    def forward(self, x):
        noise = 0.1 * torch.randn_like(self.weight) if self.training else 0
        return F.linear(x, self.weight + noise, self.bias)


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


class Spelt(nn.Linear):
    def forward(self, input):
        hidden = input @ self.weight.T
        return hidden if self.bias is None else hidden + self.bias


class Twice(nn.Linear):
    def forward(self, x, scale=1.0):
        return super().forward(x) * scale


def replaced(linear):
    linear.forward = functools.partial(lambda own, x: F.linear(x, 2 * own.weight, own.bias), linear)
    return linear


def hooked(linear):
    linear.register_forward_hook(lambda module, args, output: 2 * output)
    return linear


def normalising(linear):
    def normalise(module, args):
        module.weight.data = F.normalize(module.weight.data)

    linear.register_forward_pre_hook(normalise)
    return linear


UNFIT = {
    "weight_norm": (lambda: parametrizations.weight_norm(nn.Linear(6, 6)), "is computed"),
    "spectral_norm": (lambda: parametrizations.spectral_norm(nn.Linear(6, 6)), "is computed"),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(6, 6)), "is computed"),
    "old weight_norm": (lambda: weight_norm(nn.Linear(6, 6)), "is computed"),
    "old spectral_norm": (lambda: spectral_norm(nn.Linear(6, 6)), "is computed"),
    "pruned": (lambda: prune.random_unstructured(nn.Linear(6, 6), "weight", 0.5), "is computed"),
    "normalised": (lambda: Normalised(6, 6), "a Normalised with a forward of its own"),
    "cached": (lambda: Cached(6, 6), "a Cached with a forward of its own"),
    "clipped": (lambda: Clipped(6, 6), "a Clipped with a forward of its own"),
    "noisy": (lambda: NoisyInTraining(6, 6), "a NoisyInTraining with a forward"),
    "pair": (lambda: Pair(6, 6), "a Pair with a forward of its own"),
    "replaced": (lambda: replaced(nn.Linear(6, 6)), "a Linear with a forward of its own"),
    "hooked": (lambda: hooked(nn.Linear(6, 6)), "a hook that changes what it computes"),
    "normalising": (lambda: normalising(nn.Linear(6, 6)), "a hook that changes what it"),
}


def peft(model, targets):
    return get_peft_model(model, CosaConfig(a=3, b=3, target_modules=targets))


def plain(model, targets):
    return add_cosa(model, targets, 3, 3)


@pytest.mark.parametrize("adapt", [plain, peft])
@pytest.mark.parametrize("case", UNFIT)
def test_what_is_not_a_plain_product_is_refused_by_name_and_left_out_by_all_linear(case, adapt):
    build, reason = UNFIT[case]
    model = nn.Sequential(nn.Linear(6, 6), build()).eval()
    with pytest.raises(InputError, match=rf"target_modules matches 1, .*{reason}"):
        adapt(model, ["0", "1"])
    adapted = adapt(nn.Sequential(nn.Linear(6, 6), build()), "all-linear")
    cores = [name for name, one in adapted.named_parameters() if one.requires_grad]
    assert len(cores) == 1
    assert "0." in cores[0]


@pytest.mark.parametrize("kind", [Spelt, Twice, nn.modules.linear.NonDynamicallyQuantizableLinear])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_forward_of_its_own_that_is_the_same_map_is_adapted(kind, device):
    model = nn.Sequential(kind(6, 6, device=device))
    add_cosa(model, "all-linear", 3, 3, init_weights=False)
    if device == "cpu":
        expected = model(X)
        assert torch.allclose(merge_cosa(model, unload=True)(X), expected, atol=1e-5)
        assert type(model[0]) is kind


def test_a_hook_that_only_looks_does_not_stand_in_the_way():
    seen = []
    model = nn.Sequential(nn.Linear(6, 6))
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    assert len(list(add_cosa(model, ["0"], 3, 3).named_parameters())) == 3


def tied_model():
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 6, bias=False))
    model[2].weight = model[0].weight
    return model


def viewed_model():
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False))
    model[2].weight.data = model[0].weight.data[2:5]
    return model


@pytest.mark.parametrize("build", [tied_model, viewed_model])
def test_layers_with_one_memory_are_told_when_adapted_and_not_merged(build):
    with pytest.warns(UserWarning, match=r"the weight of 0 is tied to that of 2"):
        model = peft(build(), ["0", "2"])
    before = model(X)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(InputError, match="untie it first"):
            merge()
    assert torch.equal(model(X), before)
    with pytest.warns(UserWarning, match=r"the weight of 0 is tied to that of 2"):
        model = plain(build(), ["0", "2"])
    with pytest.raises(InputError, match="untie it first"):
        merge_cosa(model)


def test_parameters_side_by_side_in_one_memory_are_not_shared():
    memory = torch.randn(12, 6)
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    model[0].weight.data, model[1].weight.data = memory[:6], memory[6:]
    assert shared_weights(model) == {}
    model[1].weight.data = memory[5:11]
    assert shared_weights(model) == {"0": ("1",), "1": ("0",)}
