"""The tangent space of an adapter is the span of its weight's derivatives."""

import copy
import itertools

import pytest
import torch

from experiments.finetune.config import Config
from experiments.finetune.methods import linear_layers, prepared
from experiments.finetune.training import moment_batches
from experiments.finetune.watching import adapted_layers
from experiments.subspace.arms import ARMS
from experiments.subspace.tangent import tangent
from tests.experiments import finetune_tiny


@torch.no_grad()
def derivatives(layer):
    """Return a basis of the span of dW/dθ.

    W is affine in every single trained number, so differences are exact whatever their step.
    """
    layer = copy.deepcopy(layer).double()
    units = torch.eye(layer.in_features, dtype=torch.float64)
    start, columns = layer(units), []
    for parameter in (one for one in layer.parameters() if one.requires_grad):
        for place in itertools.product(*map(range, parameter.shape)):
            parameter[place] += 1
            column = (layer(units) - start).T.reshape(-1)
            columns.append(column / column.norm().clamp(min=1e-9))
            parameter[place] -= 1
    left, values, _ = torch.linalg.svd(torch.stack(columns, 1), full_matrices=False)
    return left[:, values > 1e-7 * values[0]]


@pytest.mark.parametrize(
    "arm",
    ["cosa_haar", "cosa_whitened", "lora", "lora_fa", "lora_ga", "pissa", "shira", "randlora"],
)
def test_the_projection_is_onto_the_span_of_the_derivatives(arm, tmp_path):
    task = finetune_tiny.load(tmp_path, 12, 6)
    base = task.model().eval()
    budget = sum(2 * (m + n) for m, n in linear_layers(base, 0).values())
    config = Config(**ARMS[arm].settings, budget=budget, batch=4)
    torch.manual_seed(0)
    model = prepared(base, config, batches=moment_batches(task, config)).eval()
    name = next(one for one in adapted_layers(model) if one.endswith("k_proj"))
    layer = model.get_submodule(name)
    X = torch.randn(layer.out_features, layer.in_features)
    basis = derivatives(layer)
    expected = (basis @ (basis.T @ X.double().reshape(-1))).reshape(X.shape)
    torch.testing.assert_close(tangent(layer)(X), expected, atol=1e-4, rtol=1e-4)
    assert basis.shape[1] < X.numel()
