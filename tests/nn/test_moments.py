"""Second moments of layers' inputs: gathered by hooks, shared, thinned, stored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import moments as module
from cosa_theory.nn.moments import (
    gather_moments,
    kept_tokens,
    model_fingerprint,
    read_moments,
    write_moments,
)


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


def counts(moments):
    return {name: one.count for name, one in moments.inputs.items()}


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
    np.testing.assert_allclose(found.inputs["query.weight"].matrix, expected, rtol=1e-5, atol=1e-6)
    assert found.inputs["key.weight"] is found.inputs["query.weight"]
    with torch.no_grad():
        inner = torch.tanh(network.query(rows) * network.key(rows))
    expected = (inner.T @ inner / len(rows)).numpy()
    np.testing.assert_allclose(found.inputs["out.weight"].matrix, expected, rtol=1e-5, atol=1e-6)
    assert counts(found) == dict.fromkeys(NAMES, len(rows))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_does_not_count(network, batches, side):
    masks = [torch.ones(4, 7, dtype=torch.long), torch.zeros(3, 5, dtype=torch.long)]
    real = slice(0, 5) if side == "right" else slice(2, 7)
    masks[0][:] = 0
    masks[0][:, real] = 1
    found = gathered(network, batches, masks)
    rows = batches[0][:, real].reshape(-1, 6)
    expected = (rows.T @ rows / len(rows)).numpy()
    np.testing.assert_allclose(found.inputs["query.weight"].matrix, expected, rtol=1e-5, atol=1e-6)
    assert found.inputs["out.weight"].count == 20


def test_packed_sequences_have_the_moments_of_padded_ones(network, batches):
    lengths, width = [7, 2, 5, 4], 7
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    padded = gathered(network, batches[:1], [mask])
    packed = batches[0][mask.bool()]
    for given in (None, [mask]):  # a model may pack what it was given with a mask
        found = gathered(network, [packed[None]], given)
        assert counts(found) == counts(padded)
        for name in NAMES:
            np.testing.assert_allclose(
                found.inputs[name].matrix, padded.inputs[name].matrix, rtol=1e-5, atol=1e-7
            )


def test_sums_are_of_double_precision():
    one = module._Gathered(1, 1.0)
    for rows in (torch.full((1, 1), 4096.0), torch.ones(1, 1)):  # 2²⁴ + 1 is no single number
        one.add(rows)
    assert one.total[0, 0] == 2**24 + 1


@pytest.mark.parametrize("tokens", [3000, 10_000, 10**6])
def test_the_products_cost_a_small_share_of_the_models_own_at_most(tokens):
    block = [(384, 384)] * 4 + [(1536, 384), (384, 1536)]
    kept = kept_tokens(block, tokens)
    price = sum(count * n * (n + 1) / 2 for count, (_, n) in zip(kept, block, strict=True))
    assert price <= 0.15 * tokens * sum(m * n for m, n in block)
    assert kept == kept_tokens(block * 6, tokens)[:6]
    assert min(kept) >= 512
    assert max(kept) <= 2 * 1536


def test_no_token_of_a_short_text_is_left_out_and_few_are_kept_at_least():
    assert kept_tokens([(384, 384), (384, 1536)], 250) == [250, 250]
    assert kept_tokens([(10, 4096)], 2000) == [512]
    assert kept_tokens([(384, 384)], 0) == [0]


def test_as_many_products_are_made_as_tokens_kept(network, monkeypatch):
    made = []
    original = module.ssyrk
    monkeypatch.setattr(
        module, "ssyrk", lambda scale, rows: made.append(rows.shape) or original(scale, rows)
    )
    torch.manual_seed(2)
    gathered(network, list(torch.randn(30, 2, 10, 6)), tokens=600)
    assert sum(rows for width, rows in made if width == 6) == 12
    assert sum(rows for width, rows in made if width == 5) == 10


def test_of_many_tokens_twice_a_layers_width_are_kept(network):
    torch.manual_seed(2)
    found = gathered(network, [torch.randn(1, 600, 6)], tokens=600)
    assert counts(found) == {"query.weight": 12, "key.weight": 12, "out.weight": 10}


def test_the_model_is_left_without_hooks_and_without_gradients(network, batches):
    gathered(network, batches)
    assert all(not module._forward_pre_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_stored_moments_come_back_and_shared_ones_once(network, batches, tmp_path):
    model = model_fingerprint(network)
    found = replace(gathered(network, batches), model=model, texts="some")
    path = tmp_path / "moments.safetensors"
    write_moments(found, path)
    again = read_moments(path, model)
    assert (counts(again), again.model, again.texts) == (counts(found), model, "some")
    for name in NAMES:
        np.testing.assert_array_equal(again.inputs[name].matrix, found.inputs[name].matrix)
        np.testing.assert_array_equal(again.inputs[name].mean, found.inputs[name].mean)
        assert again.inputs[name].trace == found.inputs[name].trace
    assert again.inputs["key.weight"] is again.inputs["query.weight"]
    assert path.stat().st_size < 4 * (36 + 25 + 11) + 1400


def test_moments_of_another_model_are_refused(network, batches, tmp_path):
    path = tmp_path / "moments.safetensors"
    write_moments(replace(gathered(network, batches), model=model_fingerprint(network)), path)
    with torch.no_grad():
        network.out.bias[0] += 1e-6
    with pytest.raises(InputError, match=r"moments\.safetensors: .* not of this base model"):
        read_moments(path, model_fingerprint(network))


def test_a_file_of_other_tensors_is_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"query.weight": np.ones((2, 2))}, path)
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        read_moments(path, "")
    layers = '{"inputs q": {"owner": "q", "count": 3, "trace": 1}}'
    about = {"format": "cosa_theory moments 3", "layers": layers, "model": "", "texts": ""}
    save_file({"inputs.q.matrix": np.full((2, 2), np.nan, np.float32)}, path, about)
    with pytest.raises(InputError, match=r"weights\.safetensors: the moments of q hold NaN"):
        read_moments(path, "")
