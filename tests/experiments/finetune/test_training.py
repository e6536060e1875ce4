"""Trainings: resumed to the same numbers, with what they take."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from experiments.finetune.checkpoints import last_checkpoint
from experiments.finetune.config import Config
from experiments.finetune.methods import prepared
from experiments.finetune.trainer import optimiser_of
from experiments.finetune.training import fit, isolated, kept_bytes, train
from tests.experiments.finetune_tiny import load


def test_an_unfinished_checkpoint_is_deleted_and_the_newest_whole_one_taken(tmp_path):
    for step, content in ((3, '{"global_step": 3}'), (12, '{"global_step": 12}'), (15, "{")):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(content)
    (tmp_path / "checkpoint-18").mkdir()
    found = last_checkpoint(tmp_path)
    assert found == str(tmp_path / "checkpoint-12")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-3", "checkpoint-12"}
    assert last_checkpoint(tmp_path / "none") is None


def test_saved_bytes_are_those_of_a_small_network_counted_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)
            self.first.requires_grad_(False)
            self.second.requires_grad_(False)
            self.second.weight.requires_grad_(True)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    # Only the input of the trained layer is kept: 3 × 8 numbers.
    model = Net()
    assert kept_bytes(model, {"x": torch.ones(3, 4)}) == 4 * 24
    model.first.weight.requires_grad_(True)  # and now the first one's, 3 × 4
    assert kept_bytes(model, {"x": torch.ones(3, 4)}) == 4 * (24 + 12)


def test_the_encoder_trains_with_a_head_that_is_equal_for_all_methods(texts, tmp_path):
    sizes = {"rank": 2, "blocks": 1, "steps": 1, "batch": 2, "threads": 1, "learning_rate": 1e-30}
    rows = {}
    for method in ("full", "lora", "cosa"):
        config = Config(method=method, **sizes)
        torch.manual_seed(len(rows))  # what came before does not matter
        rows[method] = train(texts, config, "test", tmp_path / "run", tmp_path / method)
        assert rows[method]["trainable_parameters"] - rows[method]["adapter_parameters"] == 3080
    assert len({row["value"] for row in rows.values()}) == 1, "one step of the head alone"
    assert len({row["train_loss"] for row in rows.values()}) == 1
    heads = [load_file(tmp_path / m / "adapter_model.safetensors") for m in ("lora", "cosa")]
    key = "base_model.model.head.weight"
    torch.testing.assert_close(heads[0][key], heads[1][key])


@pytest.mark.parametrize("method", ["pissa", "adalora", "lora_fa"])
def test_methods_with_a_state_of_their_own_go_on_to_the_same_numbers(method, tmp_path):
    config = Config(
        method=method, rank=4, steps=4, batch=4, checkpoint=2, learning_rate=1e-2, threads=1
    )
    task = load(tmp_path, 12, 6)

    def stop(done, total):
        if done == 3:
            raise InterruptedError

    def trained(folder, progress=None):
        with isolated(0, 1):
            return fit(task, config, tmp_path / folder, progress)

    whole = trained("whole")
    with pytest.raises(InterruptedError):
        trained("stopped", stop)
    resumed = trained("stopped")
    assert resumed.final_loss() == whole.final_loss()
    losses = [[row["loss"] for row in one.history if "loss" in row] for one in (whole, resumed)]
    assert losses[0] == losses[1]
    parameters = dict(whole.model.named_parameters())
    for name, value in resumed.model.named_parameters():
        assert torch.equal(value, parameters[name]), name
    if method == "lora_fa":
        names = [name for name, value in parameters.items() if value.requires_grad]
        assert all(".lora_B." in name for name in names)


@pytest.mark.parametrize("size", [{"rank": 4}, {"budget": 5000}])
def test_the_optimiser_of_lora_fa_has_the_factor_of_the_update(size, tmp_path):
    config = Config(method="lora_fa", alpha=3.0, **size)
    model = prepared(load(tmp_path, 12, 6).model(), config)
    (group,) = optimiser_of(model, (), config).param_groups
    factors = dict(zip(group["names"], group["scaling_factors"], strict=True))
    assert {one for name, one in factors.items() if ".lora_" in name} == {3.0}
    assert group["scaling_factor"] == 3.0, "which earlier versions of PEFT divide by"


@pytest.mark.parametrize("method", ["lora", "lora_fa"])
def test_a_second_moment_without_memory_may_be_written_without_a_point(method, tmp_path):
    config = Config(method=method, rank=2, beta2=0)
    model = prepared(load(tmp_path, 12, 6).model(), config)
    assert optimiser_of(model, (), config).param_groups[0]["betas"] == (0.9, 0.0)


def test_a_loss_that_is_no_number_is_kept_as_such(tmp_path):
    config = Config(rank=4, steps=3, batch=4, learning_rate=1e30, warm_up=0, clip=0, threads=1)
    with isolated(0, 1):
        fitted = fit(load(tmp_path, 12, 6), config, tmp_path / "run")
    losses = [row["loss"] for row in fitted.history if "loss" in row]
    assert math.isfinite(losses[0])
    assert math.isnan(losses[-1]), "and not 0"


def test_the_factors_of_adalora_are_kept_orthogonal_as_peft_keeps_them(tmp_path):
    config = Config(method="adalora", rank=4, steps=2, batch=4, learning_rate=1e-2, threads=1)
    task = load(tmp_path, 12, 6)
    with isolated(0, 1):
        fitted = fit(task, config, tmp_path / "run")
    model, batch = fitted.model.eval(), task.collate(task.train[:4])
    model.training = True  # but nothing inside, which would drop some
    loss = fitted.trainer.compute_loss(model, batch)
    assert loss > model(**batch).loss + 0.1
    # PEFT's own tuner, which its wrappers for named tasks call, adds the same.
    assert float(loss) == pytest.approx(float(model.base_model(**batch).loss), rel=1e-6)
    assert float(fitted.trainer.compute_loss(model.eval(), batch)) == pytest.approx(
        float(model(**batch).loss)
    )


def test_recomputing_keeps_less_and_changes_nothing_and_bfloat16_trains_the_same_at_its_precision(
    tmp_path, monkeypatch
):
    task = load(tmp_path, 12, 6)
    whole = type(task).model

    def losses(**settings):
        config = Config(rank=4, steps=3, batch=4, warm_up=0, threads=1, **settings)
        with isolated(0, 1):
            fitted = fit(task, config, tmp_path / "run")
        return [row["loss"] for row in fitted.history if "loss" in row], fitted.saved_bytes

    plain, kept = losses()
    assert plain[-1] < plain[0]
    recomputed, fewer = losses(recompute=True)
    assert recomputed == plain
    assert fewer < kept / 5
    monkeypatch.setattr(type(task), "model", lambda self: whole(self).bfloat16())
    assert losses(dtype="bfloat16")[0] == pytest.approx(plain, rel=2**-8)
