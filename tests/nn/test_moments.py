"""Second moments of layers' inputs: gathered by hooks, shared, thinned, stored."""

import numpy as np
import pytest
import torch
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.moments import gather_moments, read_moments, write_moments


class Network(nn.Module):
    """Two layers on one input, a third on what they make."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.out = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.query(x) * self.key(x)))


NAMES = ["query.weight", "key.weight", "out.weight"]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [torch.randn(4, 7, 6), torch.randn(3, 5, 6)]


def gathered(network, batches, masks=None, tokens=1):
    def run():
        for index, batch in enumerate(batches):
            yield None if masks is None else masks[index]
            network(batch)

    return gather_moments(network, NAMES, run, tokens)


def test_moments_are_the_mean_products_of_inputs_and_shared_where_inputs_are(network, batches):
    found = gathered(network, batches)
    rows = torch.cat([batch.reshape(-1, 6) for batch in batches])
    expected = (rows.T @ rows / len(rows)).numpy()
    np.testing.assert_allclose(found.matrices["query.weight"], expected, rtol=1e-5, atol=1e-6)
    assert found.matrices["key.weight"] is found.matrices["query.weight"]
    with torch.no_grad():
        inner = torch.tanh(network.query(rows) * network.key(rows))
    expected = (inner.T @ inner / len(rows)).numpy()
    np.testing.assert_allclose(found.matrices["out.weight"], expected, rtol=1e-5, atol=1e-6)
    assert found.counts == dict.fromkeys(NAMES, len(rows))


def test_padding_does_not_count(network, batches):
    masks = [torch.ones(4, 7, dtype=torch.long), torch.zeros(3, 5, dtype=torch.long)]
    masks[0][:, 5:] = 0
    found = gathered(network, batches, masks)
    rows = batches[0][:, :5].reshape(-1, 6)
    np.testing.assert_allclose(
        found.matrices["query.weight"], (rows.T @ rows / len(rows)).numpy(), rtol=1e-5, atol=1e-6
    )
    assert found.counts["out.weight"] == 20


def test_of_many_tokens_twice_a_layers_width_are_kept(network):
    torch.manual_seed(2)
    found = gathered(network, [torch.randn(1, 600, 6)], tokens=600)
    assert found.counts == {"query.weight": 12, "key.weight": 12, "out.weight": 10}


def test_the_model_is_left_without_hooks_and_without_gradients(network, batches):
    gathered(network, batches)
    assert all(not module._forward_pre_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_stored_moments_come_back_and_shared_ones_once(network, batches, tmp_path):
    found = gathered(network, batches)
    path = tmp_path / "moments.safetensors"
    write_moments(found, path, {"model": "small"})
    again = read_moments(path)
    assert again.counts == found.counts
    for name in NAMES:
        np.testing.assert_array_equal(again.matrices[name], found.matrices[name])
    assert again.matrices["key.weight"] is again.matrices["query.weight"]
    assert path.stat().st_size < 4 * (36 + 25) + 1000


def test_a_file_of_other_tensors_is_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"query.weight": np.ones((2, 2))}, path)
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        read_moments(path)
    save_file(
        {"q": np.full((2, 2), np.nan, np.float32)},
        path,
        {"format": "cosa_theory moments 1", "owners": '{"q": "q"}', "counts": '{"q": 3}'},
    )
    with pytest.raises(InputError, match="q are no finite"):
        read_moments(path)
