"""Gradients are those of the first step, leave the model as it was, and find their matrices."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cosa_theory.deltas import LayerDelta
from cosa_theory.deltas.gradients import first_step_gradients, match_gradients
from cosa_theory.ground.errors import InputError


class Model(nn.Module):
    """Two linear layers with dropout between them, tied to a third; a loss when asked for."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3, bias=False)
            self.unused = nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, labels=None):
        logits = self.second(self.dropout(torch.tanh(self.first(x))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return type("Output", (), {"loss": loss, "logits": logits})


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 5, generator=generator)
    return {"x": x, "labels": torch.tensor([0, 1, 2, 0, 1, 2])}


def test_the_gradient_is_the_slope_of_the_loss(batch):
    model = Model().double()
    batch["x"] = batch["x"].double()
    found = {one.name: one for one in first_step_gradients(model, batch)}
    model.eval()
    for name, one in found.items():
        parameter = dict(model.named_parameters())[name]
        assert np.array_equal(one.base, parameter.detach().numpy())
        numerical = np.zeros(one.delta.shape)
        for place in np.ndindex(*one.delta.shape):
            losses = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter[place] += step
                    losses.append(float(model(**batch).loss))
                    parameter[place] -= step
            numerical[place] = (losses[0] - losses[1]) / 2e-6
        assert one.delta == pytest.approx(numerical, abs=1e-8)


def test_only_matrices_that_the_loss_depends_on_come_in_the_order_of_the_model(batch):
    names = [one.name for one in first_step_gradients(Model(), batch)]
    assert names == ["first.weight", "second.weight"]
    names = [one.name for one in first_step_gradients(Model(), batch, names=["second.weight"])]
    assert names == ["second.weight"]


def test_the_model_is_left_as_it_was(batch):
    model = Model()
    model.train()
    model.second.eval()
    model.first.weight.requires_grad_(False)
    model.second.weight.grad = torch.ones(3, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    found = [one.name for one in first_step_gradients(model, batch)]
    assert found == ["first.weight", "second.weight"]
    assert model.training
    assert model.dropout.training
    assert not model.second.training
    assert not model.first.weight.requires_grad
    assert model.second.weight.requires_grad
    assert model.first.weight.grad is None
    assert torch.equal(model.second.weight.grad, torch.ones(3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_error_leaves_the_model_as_it_was_too(batch):
    model = Model()
    model.first.weight.requires_grad_(False)
    with pytest.raises(InputError, match="gives no loss for this batch"):
        list(first_step_gradients(model, {"x": batch["x"]}))
    assert model.training
    assert not model.first.weight.requires_grad


def test_dropout_is_off_so_that_two_calls_agree(batch):
    one, other = ([g.delta for g in first_step_gradients(Model(), batch)] for _ in range(2))
    assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


def test_a_loss_of_ones_own_takes_the_place_of_the_models(batch):
    def twice(model, given):
        return 2 * model(**given).loss

    own = [one.delta for one in first_step_gradients(Model(), batch, loss=twice)]
    usual = [one.delta for one in first_step_gradients(Model(), batch)]
    assert own[0] == pytest.approx(2 * usual[0], rel=1e-5)


def test_tied_weights_come_under_both_names(batch):
    model = Model()
    model.again = model.second
    found = {one.name: one.delta for one in first_step_gradients(model, batch)}
    assert np.array_equal(found["second.weight"], found["again.weight"])


def test_gradients_inside_no_grad_are_the_same(batch):
    with torch.no_grad():
        inside = next(iter(first_step_gradients(Model(), batch)))
    assert np.array_equal(inside.delta, next(iter(first_step_gradients(Model(), batch))).delta)


def test_a_loss_that_is_not_finite_and_an_unknown_name_are_refused(batch):
    with pytest.raises(InputError, match="loss of the batch is nan"):
        list(first_step_gradients(Model(), batch | {"x": torch.full((6, 5), torch.nan)}))
    with pytest.raises(InputError, match=r"third\.weight is not a parameter"):
        list(first_step_gradients(Model(), batch, names=["third.weight"]))


# Matching ----------------------------------------------------------------------------------------

SHAPES = {"layers.0.q.weight": (4, 3), "layers.1.q.weight": (4, 3)}


def gradients(prefix="", **others):
    made = {f"{prefix}{name}": np.full(shape, 2.0, np.float32) for name, shape in SHAPES.items()}
    return made | others


def of(found, name):
    shape = SHAPES[name]
    return found.of(LayerDelta(name, np.ones(shape, np.float32), np.zeros(shape, np.float32)))


@pytest.mark.parametrize("prefix", ["", "model.", "module.encoder."])
def test_gradients_find_their_matrices_under_a_renamed_prefix(prefix):
    found = match_gradients(gradients(prefix), SHAPES)
    assert found.notices == ()
    one = of(found, "layers.1.q.weight")
    assert one.name == "layers.1.q.weight"
    assert (one.delta == 2).all()
    assert (one.base == 0).all()


def test_a_file_is_read_and_its_stored_type_sets_the_rounding(tmp_path):
    path = tmp_path / "g.safetensors"
    tensors = {name: torch.ones(shape, dtype=torch.bfloat16) for name, shape in SHAPES.items()}
    save_file(tensors | {"layers.0.q.bias": torch.ones(4)}, path)
    one = of(match_gradients(path, SHAPES), "layers.0.q.weight")
    assert one.delta.dtype == np.float32
    assert one.rounding_rms == pytest.approx(0.42 * 2**-8, rel=0.02)


def test_what_first_step_gradients_yields_is_a_source(batch):
    model = Model()
    shapes = {"first.weight": (4, 5), "second.weight": (3, 4)}
    found = match_gradients(first_step_gradients(model, batch), shapes)
    assert set(found.names) == set(shapes)


def test_what_has_no_partner_is_told():
    given = gradients(**{"head.weight": np.ones((2, 3)), "head.bias": np.ones(2)})
    del given["layers.0.q.weight"]
    found = match_gradients(given, SHAPES)
    assert of(found, "layers.0.q.weight") is None
    assert found.notices == (
        "1 of 2 matrices without a gradient: layers.0.q.weight.",
        "1 of 2 gradients without a matrix: head.weight.",
    )


def test_every_gradient_that_does_not_fit_is_named_with_its_remedy():
    given = gradients()
    given["layers.0.q.weight"] = np.ones((3, 4), np.float32)
    given["layers.1.q.weight"] = np.ones((4, 3), np.int64)
    with pytest.raises(InputError) as raised:
        match_gradients(given, SHAPES)
    first, second = raised.value.problems
    assert "the gradient layers.0.q.weight is 3 × 4, its matrix 4 × 3" in first
    assert "out × in" in first
    assert "stored as int64: save it as float32" in second


def test_gradients_of_another_model_are_refused():
    with pytest.raises(InputError, match=r"it has other\.bias\.weight; the pair has layers\.0"):
        match_gradients({"other.bias.weight": np.ones((4, 3))}, SHAPES)
    with pytest.raises(InputError, match="it has no matrix"):
        match_gradients({"layers.0.q.bias": np.ones(4)}, SHAPES)


def test_nan_in_a_gradient_is_named_when_it_is_read():
    given = gradients()
    given["layers.0.q.weight"][1, 1] = np.nan
    with pytest.raises(InputError, match=r"the gradient layers\.0\.q\.weight holds NaN or Inf"):
        of(match_gradients(given, SHAPES), "layers.0.q.weight")


def test_gradients_taken_at_other_weights_are_refused_and_rounded_ones_are_not():
    name, weight = "layers.0.q.weight", np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    gradient = np.ones((4, 3), np.float32)
    layer = LayerDelta(name, gradient, weight)
    rounded = LayerDelta(name, gradient, weight * np.float32(1 + 2**-8))
    assert match_gradients([rounded], {name: (4, 3)}).of(layer) is not None
    other = LayerDelta(name, gradient, weight + np.float32(0.1))
    with pytest.raises(InputError, match=r"layers\.0\.q\.weight was taken at other weights"):
        match_gradients([other], {name: (4, 3)}).of(layer)


@pytest.mark.parametrize("source", [None, torch.nn.Linear(3, 4), [np.ones((4, 3))]])
def test_what_is_no_source_of_gradients_is_refused(source):
    with pytest.raises(InputError, match=f"gradients is '{type(source).__name__}': it must be"):
        match_gradients(source, SHAPES)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"nowhere/g\.safetensors"):
        match_gradients("nowhere/g.safetensors", SHAPES)


def test_a_pickle_is_refused_without_a_remedy_that_gradients_do_not_take(tmp_path):
    torch.save(gradients(), tmp_path / "g.bin")
    with pytest.raises(InputError, match=r"a pickle, .* convert it to safetensors\.$"):
        match_gradients(tmp_path / "g.bin", SHAPES)
