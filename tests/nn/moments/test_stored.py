"""Moments as a file: they come back, of one model only."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import layer_moments
from cosa_theory.nn.moments import model_fingerprint, read_moments, write_moments
from tests.nn.moments.test_gathering import NAMES, Network


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def found(network):
    return layer_moments(network, [{"x": torch.randn(4, 7, 6)}])


def test_stored_moments_come_back_and_shared_ones_once(network, found, tmp_path):
    path = tmp_path / "moments.safetensors"
    write_moments(found, path)
    again = read_moments(path, model_fingerprint(network))
    assert (list(again.inputs), again.model, again.texts) == (NAMES, found.model, found.texts)
    for name in NAMES:
        np.testing.assert_array_equal(again.inputs[name].matrix, found.inputs[name].matrix)
        np.testing.assert_array_equal(again.inputs[name].mean, found.inputs[name].mean)
        assert again.inputs[name].trace == found.inputs[name].trace
        assert again.inputs[name].count == found.inputs[name].count == 28
    assert again.inputs["key.weight"] is again.inputs["query.weight"]
    assert path.stat().st_size < 4 * (36 + 25 + 11) + 1400


def test_sketched_moments_come_back(tmp_path):
    network = nn.Sequential(nn.Linear(100, 2))
    torch.manual_seed(0)
    batches = [{"input": torch.randn(50, 100)}]
    found = layer_moments(network, batches, most_bytes=450_000, directions=5)
    path = tmp_path / "moments.safetensors"
    write_moments(found, path)
    one, again = found.inputs["0.weight"], read_moments(path).inputs["0.weight"]
    assert again.matrix is None
    assert (again.trace, again.count) == (one.trace, 50)
    np.testing.assert_array_equal(again.vectors, one.vectors)
    np.testing.assert_array_equal(again.values, one.values)


def test_moments_are_not_written_onto_a_folder(found, tmp_path):
    with pytest.raises(InputError, match=r"path is .*, which is a folder: name a file in it"):
        write_moments(found, tmp_path)


def test_moments_of_another_model_are_refused(network, found, tmp_path):
    path = tmp_path / "moments.safetensors"
    write_moments(found, path)
    with torch.no_grad():
        network.out.bias[0] += 1e-6
    with pytest.raises(InputError, match=r"moments\.safetensors: .* not of this base model"):
        read_moments(path, model_fingerprint(network))


def test_a_fingerprint_is_of_values_and_names_and_not_of_the_type_they_are_loaded_in(network):
    coarse = Network().bfloat16()
    network.load_state_dict(coarse.state_dict())
    assert model_fingerprint(network) == model_fingerprint(coarse)
    renamed = nn.ModuleDict({"other": nn.Linear(2, 2)})
    one = nn.ModuleDict({"one": renamed["other"]})
    assert model_fingerprint(renamed) != model_fingerprint(one)


def test_a_file_of_other_tensors_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"query.weight": np.ones((2, 2))}, path)
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        read_moments(path, "")
    layers = '{"inputs q": {"owner": "q", "count": 3, "trace": 1}}'
    about = {"format": "cosa_theory moments 4", "layers": layers, "model": "", "texts": ""}
    save_file({"inputs.q.matrix": np.full((2, 2), np.nan, np.float32)}, path, about)
    with pytest.raises(InputError, match=r"weights\.safetensors: the moments of q hold NaN"):
        read_moments(path, "")


def test_moments_of_another_version_are_refused(tmp_path):
    path = tmp_path / "moments.safetensors"
    save_file({"x": np.zeros(1)}, path, {"format": "cosa_theory moments 3", "layers": "{}"})
    with pytest.raises(InputError, match=r"holds moments of another version: make it with .* anew"):
        read_moments(path)
