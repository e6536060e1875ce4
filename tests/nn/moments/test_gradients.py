"""Second moments of the gradients of layers' outputs: by labels, and by the model's own samples."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import layer_moments


class Regression(nn.Module):
    """Two layers, the first's output written into, and a loss where labels are given."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
        self.unused = nn.Linear(6, 2)

    def forward(self, x, labels=None, attention_mask=None):
        hidden = self.first(x)
        hidden.mul_(2.0).relu_()
        self.unused(x)
        y = self.last(hidden)
        return {"loss": None if labels is None else (y - labels).square().sum(), "y": y}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Regression()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [{"x": torch.randn(40, 6), "labels": torch.randn(40, 3)} for _ in range(2)]


def second_moments(rows):
    rows = rows.detach().double().numpy()
    return rows.T @ rows / len(rows)


def test_gradients_of_a_loss_are_those_of_autograd(network, batches):
    x = torch.cat([one["x"] for one in batches])
    labels = torch.cat([one["labels"] for one in batches])
    first = network.first(x)
    last = network.last((2 * first).relu())
    expected = torch.autograd.grad((last - labels).square().sum(), [first, last])
    with pytest.warns(UserWarning, match=r"unused\.weight: left out of the moments of gradients"):
        found = layer_moments(network, batches, gradients="labels")
    assert list(found.gradients) == ["first.weight", "last.weight"]
    assert list(found.inputs) == ["first.weight", "last.weight", "unused.weight"]
    for one, rows in zip(found.gradients.values(), expected, strict=True):
        np.testing.assert_allclose(one.matrix, second_moments(rows), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.mean, rows.mean(0), rtol=1e-4, atol=1e-5)
        assert one.count == 80
    np.testing.assert_allclose(
        found.inputs["last.weight"].matrix, second_moments((2 * first).relu()), rtol=1e-4, atol=1e-5
    )


def test_going_backwards_leaves_no_trace(network, batches):
    network.train()
    network.last.weight.requires_grad_(False)
    names = ["last.weight"]
    layer_moments(network, batches, names, gradients="labels")
    wanted = {name: one.requires_grad for name, one in network.named_parameters()}
    assert [name for name, one in wanted.items() if not one] == names
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(not one._forward_hooks and one.training for one in network.modules())


def test_samples_of_a_linear_model_have_the_moments_of_its_jacobian():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5))
    batches = [{"input": torch.randn(5000, 4)} for _ in range(4)]
    found = layer_moments(network, batches, gradients="samples", seed=1).gradients
    J = network[1].weight.detach().double().numpy()
    # Of N normal vectors, entries of the moments have a standard deviation of √(2/N) at most.
    for name, expected in (("0.weight", J.T @ J), ("1.weight", np.eye(5))):
        error = np.abs(found[name].matrix - expected).max()
        assert error <= 5 * (2 / 20_000) ** 0.5 * np.diagonal(expected).max()


class Words(nn.Module):
    """A language model of one layer; what is said after a token may depend on those before."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 4, bias=False)

    def forward(self, x, attention_mask=None, sums=False):
        said = self.head(x)
        return {"logits": said.cumsum(1) if sums else said}


def test_sampled_tokens_follow_the_models_softmax_and_padding_is_not_sampled():
    torch.manual_seed(0)
    network = Words()
    x = torch.tensor([1.0, -2.0]).expand(50, 300, 2)
    mask = torch.ones(50, 300, dtype=torch.long)
    mask[:, 200:] = 0
    batch = {"x": x, "attention_mask": mask}
    one = layer_moments(network, [batch], gradients="samples").gradients["head.weight"]
    assert one.count == 10_000
    p = network.head(x[0, 0]).softmax(0).detach().double().numpy()
    error = one.matrix - (np.diag(p) - np.outer(p, p))  # the covariance of a categorical variable
    assert np.abs(error).max() <= 5 * (0.25 / 10_000) ** 0.5
    assert np.abs(one.mean).max() <= 5 * (0.25 / 10_000) ** 0.5
    again = layer_moments(network, [batch], gradients="samples").gradients["head.weight"]
    np.testing.assert_array_equal(again.matrix, one.matrix)
    other = layer_moments(network, [batch], gradients="samples", seed=1).gradients["head.weight"]
    assert not np.array_equal(other.matrix, one.matrix)


def test_nothing_flows_from_padding_into_the_gradients_of_tokens():
    torch.manual_seed(0)
    network, x = Words(), torch.randn(50, 30, 2)
    mask = torch.zeros(50, 30, dtype=torch.long)
    mask[:, 0] = 1
    batch = {"x": x, "attention_mask": mask, "sums": True}
    one = layer_moments(network, [batch], gradients="samples").gradients["head.weight"]
    assert one.trace <= 2  # ‖p − e_y‖² is no larger for one token


@pytest.fixture(scope="module")
def encoder():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=40, num_hidden_layers=1, max_position_embeddings=16, **sizes)
    return BertModel(config)


def test_padding_changes_nothing_of_an_encoders_gradients_and_its_pooler_is_told(encoder):
    torch.manual_seed(1)
    ids, ones = torch.randint(40, (6, 7)), torch.ones(6, 7, dtype=torch.long)
    plain = {"input_ids": ids, "attention_mask": ones}
    pad = nn.functional.pad
    padded = {"input_ids": pad(ids, (0, 5)), "attention_mask": pad(ones, (0, 5))}
    with pytest.warns(UserWarning, match=r"pooler\.dense\.weight: left out"):
        expected = layer_moments(encoder, [plain], gradients="samples")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = layer_moments(encoder, [padded], gradients="samples")
    assert "pooler.dense.weight" in found.inputs.keys() - found.gradients.keys()
    assert len(found.gradients) == len(found.inputs) - 1 == 6
    for name, one in expected.gradients.items():
        assert one.n == encoder.get_submodule(name.removesuffix(".weight")).out_features
        scale = np.abs(one.matrix).max()
        np.testing.assert_allclose(found.gradients[name].matrix, one.matrix, atol=1e-4 * scale)


def test_wide_gradients_are_sketched(network, batches):
    wide = nn.Sequential(nn.Linear(6, 300), nn.Linear(300, 2))
    given = [{"input": one["x"]} for one in batches]
    exact = layer_moments(wide, given, ["0.weight"], gradients="samples").gradients["0.weight"]
    found = layer_moments(
        wide, given, ["0.weight"], gradients="samples", most_bytes=1_400_000, directions=2
    ).gradients["0.weight"]
    assert found.matrix is None
    np.testing.assert_allclose(found.values, exact.leading(2)[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("given", "gradients", "message"),
    [
        ({"x": torch.ones(2, 6)}, "labels", r"'labels', and batch 0 has none.*samples"),
        ({"x": torch.ones(2, 6)}, "samples", r"neither logits nor hidden states.*labels"),
        ({"x": torch.ones(2, 6), "labels": None}, "labels", r"returns no loss.*samples"),
        ({"x": torch.ones(2, 6)}, "guess", r"'guess'.*labels, samples"),
    ],
)
def test_gradients_of_nothing_are_refused(network, given, gradients, message):
    with pytest.raises(InputError, match=message) as caught:
        layer_moments(network, [given], gradients=gradients)
    assert len(str(caught.value)) <= 300
    assert all(parameter.requires_grad for parameter in network.parameters())
