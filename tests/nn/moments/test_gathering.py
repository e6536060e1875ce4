"""Second moments of layers' inputs: gathered by hooks, shared, bounded in memory."""

import numpy as np
import pytest
import torch
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import layer_moments
from cosa_theory.nn.moments import batches_digest, model_fingerprint, plan


class Network(nn.Module):
    """Two layers on one input, a third on what they make."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.out = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, attention_mask=None):
        return self.out(self.drop(torch.tanh(self.query(x) * self.key(x))))


NAMES = ["query.weight", "key.weight", "out.weight"]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [{"x": torch.randn(4, 7, 6)}, {"x": torch.randn(3, 5, 6)}]


def counts(moments):
    return {name: one.count for name, one in moments.inputs.items()}


def agree(found, rows):
    rows = rows.double().numpy()
    np.testing.assert_allclose(found.matrix, rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-5, atol=1e-6)
    assert found.trace == pytest.approx((rows**2).sum() / len(rows), rel=1e-5)
    assert found.count == len(rows)


def test_moments_are_the_mean_products_of_inputs_and_shared_where_inputs_are(network, batches):
    found = layer_moments(network, iter(batches))
    assert list(found.inputs) == NAMES
    rows = torch.cat([batch["x"].reshape(-1, 6) for batch in batches])
    agree(found.inputs["query.weight"], rows)
    assert found.inputs["key.weight"] is found.inputs["query.weight"]
    with torch.no_grad():  # and dropout is off
        agree(found.inputs["out.weight"], torch.tanh(network.query(rows) * network.key(rows)))
    assert (found.model, found.texts) == (model_fingerprint(network), batches_digest(batches))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_does_not_count(network, batches, side):
    real = slice(0, 5) if side == "right" else slice(2, 7)
    mask = torch.zeros(4, 7, dtype=torch.long)
    mask[:, real] = 1
    found = layer_moments(network, [batches[0] | {"attention_mask": mask}], NAMES[:1])
    assert list(found.inputs) == NAMES[:1]
    agree(found.inputs["query.weight"], batches[0]["x"][:, real].reshape(-1, 6))


def test_packed_sequences_have_the_moments_of_padded_ones(network, batches):
    mask = (torch.arange(7) < torch.tensor([7, 2, 5, 4])[:, None]).long()
    padded = layer_moments(network, [batches[0] | {"attention_mask": mask}])
    packed = {"x": batches[0]["x"][mask.bool()][None]}
    for given in (packed, packed | {"attention_mask": mask}):  # a model may pack by the mask
        found = layer_moments(network, [given])
        assert counts(found) == counts(padded)
        for name in NAMES:
            np.testing.assert_allclose(
                found.inputs[name].matrix, padded.inputs[name].matrix, rtol=1e-5, atol=1e-7
            )


def test_the_model_is_left_as_it_was(network, batches):
    network.train()
    network.key.eval()
    network.out.weight.requires_grad_(False)
    layer_moments(network, batches)
    modes = [network.training, network.query.training, network.key.training, network.drop.training]
    assert modes == [True, True, False, True]
    assert all(not module._forward_pre_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert [parameter.requires_grad for parameter in network.parameters()].count(False) == 1


def test_transposed_layers_of_transformers_have_moments_of_their_inputs():
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    x = torch.randn(30, 4)
    found = layer_moments(nn.Sequential(Conv1D(7, 4)), [{"input": x}])
    agree(found.inputs["0.weight"], x)
    assert found.transposed == {"0.weight"}


def test_where_memory_is_short_the_widest_layers_are_sketched_first():
    network = nn.Sequential(nn.Linear(200, 90), nn.Linear(90, 200), nn.Linear(200, 4))
    torch.manual_seed(0)
    batches = [{"input": torch.randn(50, 3) @ torch.randn(3, 200)}]
    exact = layer_moments(network, batches).inputs
    found = layer_moments(network, batches, most_bytes=2_200_000, directions=4).inputs
    assert [found[name].matrix is None for name in found] == [True, False, True]
    assert found["0.weight"].vectors.shape == (200, 4)
    assert found["0.weight"].trace == pytest.approx(exact["0.weight"].trace, rel=1e-5)
    values = exact["0.weight"].leading(3)[0]
    np.testing.assert_allclose(found["0.weight"].values[:3], values, rtol=1e-4)
    np.testing.assert_array_equal(found["1.weight"].matrix, exact["1.weight"].matrix)
    with pytest.raises(InputError, match="most_bytes is 20,000"):
        layer_moments(network, batches, most_bytes=20_000, directions=4)


def test_of_many_tokens_as_many_are_taken_as_a_share_of_the_models_own_products_pays_for(
    network, monkeypatch
):
    monkeypatch.setattr(plan, "_FREE", 0)
    torch.manual_seed(2)
    batches = [{"x": torch.randn(10, 200, 6)} for _ in range(5)]
    found = layer_moments(network, batches)
    price = 6 * 6 / 2 * 2 + 5 * 5 / 2
    share = 0.08 * (6 * 5 * 2 + 5 * 3) / price
    assert found.inputs["query.weight"].count == pytest.approx(256 + share * (10_000 - 256), abs=9)
    # Every token stands for as many as it was taken from: those of the first batch count no more.
    batches = [{"x": torch.full((10, 200, 6), float(value))} for value in range(5)]
    found = layer_moments(network, batches)
    np.testing.assert_allclose(found.inputs["query.weight"].mean, 2.0, rtol=1e-5)
    np.testing.assert_allclose(found.inputs["query.weight"].matrix, 6.0, rtol=1e-5)


def test_the_first_layer_that_meets_nan_is_named_at_once(network, batches):
    with torch.no_grad():
        network.key.weight[1, 2] = torch.nan
    ran = []

    def watched():
        for batch in batches:
            ran.append(batch)
            yield batch

    with pytest.raises(InputError, match=r"inputs of out\.weight hold NaN or infinite") as caught:
        layer_moments(network, watched())
    assert len(str(caught.value)) <= 300
    assert len(ran) == 1
    assert all(not module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        ([], None, r"batches hold no tokens"),
        ([{"x": torch.zeros(0, 6)}], None, r"batches hold no tokens"),
        ([], [], r"names is \[\]: it must be a list of linear layers' weights, or None"),
        ([torch.ones(2, 6)], None, r"batch 0 is of type Tensor.*dict"),
        ([{"x": torch.ones(2, 6)}], ["queri.weight"], r"queri\.weight.*query\.weight"),
    ],
)
def test_what_cannot_be_gathered_is_told(network, given, names, message):
    with pytest.raises(InputError, match=message):
        layer_moments(network, given, names)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None])
def test_a_seed_is_refused_even_where_nothing_is_drawn(seed):
    network = nn.Linear(4, 3)
    with pytest.raises(InputError, match=r"seed is .*whole number of at least 0"):
        layer_moments(network, [{"input": torch.ones(2, 4)}], seed=seed)
