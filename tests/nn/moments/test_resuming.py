"""A killed pass goes on from its stored sums, and only from its own."""

import numpy as np
import pytest
import torch
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import layer_moments
from cosa_theory.nn.moments import resuming


class Counting(nn.Module):
    """Two layers on one input, and how many batches they met."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.wide = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 60)
        self.met = 0

    def forward(self, x):
        self.met += 1
        return self.wide(self.one(x) + self.two(x).tanh())


OPTIONS = {"gradients": "samples", "most_bytes": 375_000, "directions": 3}


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [{"x": torch.randn(9, 6)} for _ in range(5)]


@pytest.fixture(params=[3])
def killed(request, batches, tmp_path, monkeypatch):
    """The file of a pass that was killed after its third batch, or another."""
    monkeypatch.setattr(resuming, "_EVERY", 0.0)
    monkeypatch.setattr(resuming, "_SPARE", 0)

    def dying():
        yield from batches[: request.param]
        raise KeyboardInterrupt

    path = tmp_path / "sums.safetensors"
    with pytest.raises(KeyboardInterrupt):
        layer_moments(Counting(), dying(), resume=path, **OPTIONS)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    return path


@pytest.mark.parametrize("killed", [3, 5], indirect=True)
def test_a_killed_pass_goes_on_and_has_the_moments_of_one_that_was_not(batches, killed, request):
    expected = layer_moments(Counting(), batches, **OPTIONS)
    network = Counting()
    found = layer_moments(network, iter(batches), resume=killed, **OPTIONS)
    assert network.met == 5 - request.node.callspec.params["killed"]
    assert not killed.exists()
    assert (found.texts, found.model) == (expected.texts, expected.model)
    assert found.inputs["two.weight"] is found.inputs["one.weight"]
    for side in ("inputs", "gradients"):
        for name, one in getattr(expected, side).items():
            again = getattr(found, side)[name]
            assert again.count == one.count == 45
            assert again.trace == pytest.approx(one.trace, rel=1e-5)
            if one.matrix is not None:
                np.testing.assert_allclose(again.matrix, one.matrix, rtol=1e-4, atol=1e-5)
            else:
                np.testing.assert_allclose(again.values, one.values, rtol=1e-4)
    assert found.gradients["wide.weight"].matrix is None


@pytest.mark.parametrize("what", ["texts", "fewer", "model", "settings", "file"])
def test_a_pass_of_other_things_is_refused_and_the_file_stays(what, batches, killed):
    network, options = Counting(), OPTIONS
    message = "another model or other settings"
    if what == "texts":
        batches[1]["x"][0, 0] += 1
        message = "other texts"
    elif what == "fewer":
        batches, message = batches[:2], "more texts"
    elif what == "model":
        network.two.bias.data[0] += 1e-6
    elif what == "settings":
        options = OPTIONS | {"directions": 2}
    else:
        killed.write_bytes(killed.read_bytes()[:-50])
        message = "no pass that can go on"
    kept = killed.read_bytes()
    with pytest.raises(InputError, match=f"sums.safetensors.*{message}") as caught:
        layer_moments(network, batches, resume=killed, **options)
    assert len(str(caught.value)) <= 300
    assert network.met == 0
    assert killed.read_bytes() == kept
