"""The end-to-end check: equal sizes, resumable trainings, scores of the right tokens."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from experiments import finetune_check, finetune_check_training
from experiments.finetune_check import GRID, PRESETS, Config, main, run
from experiments.finetune_check_methods import (
    counts,
    linear_layers,
    prepared,
    released_shape,
)
from experiments.finetune_check_results import (
    METHODS,
    best_rates,
    read_rates,
)
from experiments.finetune_check_tasks import (
    TASKS,
    EncoderTask,
    Example,
    _bootstrap,
    function_examples,
    score,
)
from experiments.finetune_check_training import kept_bytes
from experiments.function_bodies import FunctionText
from tests.experiments.finetune_results import results
from tests.experiments.finetune_tiny import CELL, TinyTask, asked, load, train

NUMBERS = ["value", "low", "high", "train_loss"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Every "decoder" of these tests is the tiny one; one thread."""
    monkeypatch.setitem(TASKS, "decoder", load)
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    asked.clear()
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted trainings by every method: folder and rows."""
    TASKS["decoder"], kept = load, TASKS["decoder"]
    out = tmp_path_factory.mktemp("whole")
    rows = {
        method: train(dataclasses.replace(CELL, method=method), out, checkpoint=100)
        for method in METHODS
    }
    TASKS["decoder"] = kept
    return out, rows


# Interruption ------------------------------------------------------------------------------------


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_numbers(whole, tmp_path):
    out, rows = whole
    root = Path(finetune_check.__file__).parent.parent
    command = [sys.executable, "-m", "tests.experiments.finetune_tiny", str(tmp_path), "9"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (state,) = tmp_path.glob("runs/*/checkpoint-6/trainer_state.json")
    # What a kill in the middle of writing leaves: a newer folder without the state.
    (state.parent.parent / "checkpoint-9").mkdir()
    row = train(CELL, tmp_path)
    assert row[NUMBERS].tolist() == rows["cosa"][NUMBERS].tolist()
    # One batch to count bytes, four for the steps that were left and one ahead, one to score.
    assert len(asked) == 7, "steps 1 to 6 are skipped, not trained again"
    name = "adapter_model.safetensors"
    resumed, uninterrupted = (load_file(path / row["adapter"] / name) for path in (tmp_path, out))
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[key], uninterrupted[key]) for key in resumed)
    assert list(tmp_path.glob("runs/*")) == []


def test_an_unfinished_checkpoint_is_deleted_and_the_newest_whole_one_taken(tmp_path):
    for step, content in ((3, '{"global_step": 3}'), (12, '{"global_step": 12}'), (15, "{")):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(content)
    (tmp_path / "checkpoint-18").mkdir()
    found = finetune_check_training._last_checkpoint(tmp_path)
    assert found == str(tmp_path / "checkpoint-12")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-3", "checkpoint-12"}
    assert finetune_check_training._last_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_other_methods_resume_to_the_same_numbers_too(whole, tmp_path, monkeypatch, method):
    _, rows = whole
    cell = dataclasses.replace(CELL, method=method)

    class Stopped(TinyTask):
        def collate(self, examples):
            if len(asked) == 9:
                raise RuntimeError("stopped")
            return super().collate(examples)

    def loaded(*settings):
        task = load(*settings)
        return Stopped(*(getattr(task, field.name) for field in dataclasses.fields(task)))

    with monkeypatch.context() as patch:
        patch.setitem(TASKS, "decoder", loaded)
        with pytest.raises(RuntimeError, match="stopped"):
            train(cell, tmp_path)
    assert list(tmp_path.glob("runs/*/checkpoint-6"))
    assert train(cell, tmp_path)[NUMBERS].tolist() == rows[method][NUMBERS].tolist()


def test_a_finished_training_is_not_repeated(whole):
    out, rows = whole
    assert train(CELL, out, checkpoint=100)[NUMBERS].tolist() == rows["cosa"][NUMBERS].tolist()
    assert asked == []


def test_a_training_leaves_every_global_generator_and_the_threads_alone(tmp_path):
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    torch.set_num_threads(2)
    expected = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    train(dataclasses.replace(CELL, steps=2), tmp_path)
    assert torch.get_num_threads() == 2
    assert random.getstate() == expected[0]
    assert np.random.get_state()[1].tolist() == expected[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), expected[2])


# What is trained ---------------------------------------------------------------------------------


def test_every_method_learns_and_its_row_says_what_it_cost(whole):
    out, rows = whole
    before = score(load(out, 12, 6), load(out, 12, 6).model(), load(out, 12, 6).test).value
    for method, row in rows.items():
        assert row["metric"] == "loss"
        assert row["low"] <= row["value"] <= row["high"]
        assert row["value"] < before, method
        assert row["state_bytes"] == 12 * row["trainable_parameters"]
        assert row["seconds_per_step"] > 0
        assert row["saved_bytes"] > 0
        if method == "full":
            assert row["adapter"] is None
            assert row["frozen_bytes"] == 0
            assert row["adapter_bytes"] == 4 * row["trainable_parameters"]
        else:
            size = (out / row["adapter"] / "adapter_model.safetensors").stat().st_size
            assert row["adapter_bytes"] == size > 4 * row["trainable_parameters"]
            assert (row["frozen_bytes"] > 0) == method.startswith("cosa")


@pytest.mark.parametrize("method", ["lora", "cosa", "cosa_haar", "cosa_released"])
def test_a_trained_adapter_opens_as_an_update_of_its_base(whole, tmp_path, method):
    out, rows = whole
    task = load(tmp_path, 12, 6)
    task.model().save_pretrained(task.base)
    layers = {layer.name: layer for layer in open_pair(task.base, out / rows[method]["adapter"])}
    assert len(layers) == 14
    assert all(np.linalg.norm(layer.delta) > 0 for layer in layers.values())


def test_the_seed_decides_the_result_and_a_head_is_equal_for_all_methods(whole, tmp_path):
    _, rows = whole
    other = train(dataclasses.replace(CELL, seed=4), tmp_path)
    assert other["value"] != rows["cosa"]["value"]


@pytest.mark.parametrize("method", ["lora", "cosa", "cosa_haar", "cosa_released"])
@pytest.mark.parametrize("rank", [1, 3])
def test_no_layer_trains_more_than_lora_of_the_rank_and_hardly_less(method, rank):
    model = load(Path("."), 12, 6).model()
    sizes = linear_layers(model, 0)
    assert sizes["model.layers.0.self_attn.k_proj"] == (16, 32)
    made = prepared(model, method, blocks=0, rank=rank, seed=0, head=None)
    trained = {}
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            layer = name.removeprefix("base_model.model.").split(".lora_")[0].split(".cosa_")[0]
            trained[layer] = trained.get(layer, 0) + parameter.numel()
    assert trained.keys() == sizes.keys()
    for name, (m, n) in sizes.items():
        budget = rank * (m + n)
        slack = 0 if method == "lora" else max(m, n)  # whole numbers in the core's shape
        assert budget - slack <= trained[name] <= budget, name


def test_equal_size_is_near_on_the_real_shapes():
    for m, n in ((576, 576), (192, 576), (1536, 576), (576, 1536), (384, 384), (1536, 384)):
        a, b = released_shape(m, n, 8 * (m + n))
        assert 0.97 * 8 * (m + n) <= a * b <= 8 * (m + n)
        assert a <= m
        assert b <= n
        if a < m:
            assert 3.5 <= a / b <= 4.5


@pytest.mark.parametrize("method", METHODS)
def test_only_the_last_blocks_and_the_head_are_trained(method):
    class WithHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = load(Path("."), 12, 6).model()
            self.top = nn.Linear(5, 3)

        def forward(self, x):
            return self.top(x)

    model = prepared(WithHead(), method, blocks=1, rank=2, seed=0, head="top")
    names = [name for name, part in model.named_parameters() if part.requires_grad]
    assert all(".layers.1." in name or ".top." in f".{name}" for name in names)
    size = counts(model, "top")
    assert size.head == 18
    blocks = sum(p.numel() for n, p in model.named_parameters() if ".layers.1." in n)
    if method == "full":
        assert size.adapter == blocks
    else:
        budget = 2 * sum(
            m + n for m, n in linear_layers(load(Path("."), 12, 6).model(), 1).values()
        )
        assert 0.8 * budget <= size.adapter <= budget
    with pytest.raises(ValueError, match="blocks is 3: the model has 2"):
        prepared(WithHead(), method, blocks=3, rank=2, seed=0, head="top")


def test_full_fine_tuning_of_all_blocks_trains_everything():
    model = prepared(load(Path("."), 12, 6).model(), "full", blocks=0, rank=2, seed=0, head=None)
    assert all(parameter.requires_grad for parameter in model.parameters())


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


# Scores ------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_the_tokens_of_bodies_alone(tmp_path):
    task = load(tmp_path, 12, 6)
    model = task.model().eval()
    nats, tokens = 0.0, 0
    for example in task.test:
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].log_softmax(-1)
        for place, label in enumerate(example.labels):
            if label != -100:
                nats -= logs[place - 1, label].item()
                tokens += 1
    assert tokens == 6 * 8
    found = score(task, model, task.test)
    assert found.value == pytest.approx(nats / tokens, abs=1e-5)
    assert found.item_weights == [16.0] * 3, "two functions of eight tokens in each module"
    assert sum(found.item_sums) == pytest.approx(nats, abs=1e-3)
    assert found.scored == 6


def test_padding_and_the_order_of_items_do_not_change_the_loss(tmp_path):
    task = load(tmp_path, 12, 6)
    short = Example((3, 4, 5), (-100, 4, 5), "9")
    model = task.model()
    together = score(task, model, [*task.test, short])
    apart = [score(task, model, [short]).value, score(task, model, task.test).value]
    assert together.value == pytest.approx((2 * apart[0] + 48 * apart[1]) / 50, abs=1e-5)
    assert score(task, model, [short, *task.test]).value == pytest.approx(together.value)


def test_the_interval_of_a_loss_resamples_groups_not_items():
    low, high = _bootstrap(np.array([2.0, 6.0]), np.full(2, 2.0), 0)
    assert (low, high) == (1.0, 3.0), "two groups: a quarter of the resamples have only one"
    low, high = _bootstrap(np.tile([1.0, 3.0], 100), np.ones(200), 0)
    half = 1.96 / np.sqrt(200)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=0.3 * half)
    assert np.isnan(_bootstrap(np.array([8.0]), np.array([4.0]), 0)).all()


def test_functions_are_labelled_on_body_and_end_alone_and_long_ones_are_left_out():
    def encode(texts):
        return [[ord(letter) for letter in text] for text in texts]

    texts = [FunctionText("m", "n", "ab", "cd"), FunctionText("m", "o", "abc", "def")]
    (example,) = function_examples(texts, encode, 1, 5)
    assert example.input_ids == (97, 98, 99, 100, 1)
    assert example.labels == (-100, -100, 99, 100, 1)
    assert example.group == "m"
    assert len(function_examples(texts, encode, 1, 7)) == 2


@pytest.fixture(scope="module")
def texts():
    return EncoderTask.load(Path("."), 16, 30)


def test_the_parts_of_the_texts_have_nothing_in_common_and_are_always_the_same(texts):
    again = EncoderTask.load(Path("."), 16, 30)
    assert (texts.train, texts.validation, texts.test) == (
        again.train,
        again.validation,
        again.test,
    )
    assert len(texts.validation) == len(texts.test) == 30
    assert len(texts.train) == 5485 - 600
    assert all(len(example.input_ids) <= 16 for example in texts.train)
    larger = EncoderTask.load(Path("."), 16, 40)
    assert larger.train == texts.train
    assert larger.validation[:30] == texts.validation


def test_accuracy_counts_hits_and_has_wilsons_interval(texts):
    class Always(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, attention_mask):
            return {"logits": torch.eye(8)[2].expand(len(input_ids), 8)}

    hits = sum(example.labels == 2 for example in texts.test)
    found = score(texts, Always(), texts.test)
    assert found.value == hits / 30
    assert sorted(found.item_sums) == [0.0] * (30 - hits) + [1.0] * hits
    n, p, z = 30, hits / 30, 1.959963984540054
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


def test_the_encoder_trains_with_a_head_that_is_equal_for_all_methods(texts, tmp_path):
    sizes = {"rank": 2, "blocks": 1, "steps": 1, "batch": 2, "threads": 1}
    rows = {}
    for method in ("full", "lora", "cosa"):
        settings = finetune_check_training.Settings(method, 1e-30, 0, **sizes)
        adapter = tmp_path / method
        torch.manual_seed(len(rows))  # what came before does not matter
        rows[method] = finetune_check_training.train(
            texts, settings, "test", tmp_path / "run", adapter, 100
        )
        assert rows[method]["trainable_parameters"] - rows[method]["adapter_parameters"] == 3080
    assert len({row["value"] for row in rows.values()}) == 1, "one step of the head alone"
    assert len({row["train_loss"] for row in rows.values()}) == 1
    heads = [load_file(tmp_path / m / "adapter_model.safetensors") for m in ("lora", "cosa")]
    key = "base_model.model.head.weight"
    torch.testing.assert_close(heads[0][key], heads[1][key])


# Results -----------------------------------------------------------------------------------------


def test_stored_results_without_the_outcomes_of_items_are_refused(tmp_path):
    old = results({"lora": [0.9], "cosa": [0.9]}).drop(columns=["item_sums", "item_weights"])
    finetune_check.store(old.assign(status="done"), pd.DataFrame(), TINY, tmp_path)
    with pytest.raises(InputError, match=r"finetune_check\.parquet is of an older version.*again"):
        finetune_check.stored_or_short(tmp_path)


def test_the_stored_grid_is_that_of_the_quick_settings():
    grid, quick = read_rates(), PRESETS["quick"]
    planned = finetune_check.grid_cells(dataclasses.replace(quick, methods=tuple(METHODS)))
    for row in grid.to_dict(orient="records"):
        names = ("part", "seed", "rank", "steps", "batch", "tokens", "blocks", "items")
        alike = [
            cell
            for cell in planned
            if (cell.model, cell.method) == (row["model"], row["method"])
            and cell.learning_rate == row["learning_rate"]
        ]
        assert [row[name] for name in names] == [getattr(alike[0], name) for name in names]
    tried = {key: set(part.learning_rate) for key, part in grid.groupby(["model", "method"])}
    for key in [(model, method) for model in quick.models for method in quick.methods]:
        assert tried[key] == set(GRID[key])


def test_the_short_run_is_part_of_the_quick_one():
    grid = read_rates()
    quick = finetune_check.test_cells(PRESETS["quick"], grid)
    short = finetune_check.test_cells(PRESETS["short"], grid)
    assert set(short) < set(quick)
    assert {cell.seed for cell in short if cell.method == "cosa"} == {0, 1, 2}


# The command -------------------------------------------------------------------------------------

TINY = Config(
    models=("decoder",),
    methods=("lora", "cosa"),
    tune=True,
    rank=2,
    decoder_steps=4,
    decoder_tokens=12,
    decoder_blocks=0,
    decoder_items=6,
    seeds=2,
    threads=1,
)


def test_the_command_tunes_trains_and_stores_and_a_second_run_trains_nothing(
    tmp_path, capsys, monkeypatch
):
    rates = {("decoder", "lora"): (1e-3, 1e-2), ("decoder", "cosa"): (1e-3, 1e-1)}
    monkeypatch.setattr(finetune_check, "GRID", rates)
    monkeypatch.setitem(PRESETS, "quick", TINY)
    assert main(["--jobs", "1", "--out", str(tmp_path)]) == 0
    first = capsys.readouterr()
    assert first.out.startswith("With as many trainable parameters as LoRA of rank 2 has")
    table = pd.read_parquet(tmp_path / "finetune_check.parquet")
    assert table["method"].tolist() == ["start", "lora", "lora", "cosa", "cosa"]
    assert table["seed"].tolist() == [0, 0, 1, 0, 1]
    assert (table["before"] == table["value"].iloc[0]).all()
    grid = pd.read_parquet(tmp_path / "finetune_check_grid.parquet")
    assert set(grid["part"]) == {"validation"}
    best = best_rates(grid).set_index("method")["learning_rate"]
    assert set(table.loc[table.method == "cosa", "learning_rate"]) == {best["cosa"]}
    stored = json.loads((tmp_path / "finetune_check.json").read_text())
    assert stored["verdict"] == first.out.splitlines()[0]
    assert stored["provenance"]["arguments"]["decoder_steps"] == 4
    adapters = {path.name for path in (tmp_path / "adapters").iterdir()}
    assert adapters == {f"decoder-{name}-{seed}" for name in ("lora", "cosa") for seed in (0, 1)}
    asked.clear()
    assert main(["--jobs", "1", "--out", str(tmp_path)]) == 0
    assert asked == []
    assert capsys.readouterr().out == first.out


def test_without_a_stored_result_the_short_run_is_made_once_and_said_so(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(finetune_check, "GRID", {("decoder", name): (1e-2,) for name in METHODS})
    monkeypatch.setitem(PRESETS, "short", dataclasses.replace(TINY, seeds=1))
    first = finetune_check.stored_or_short(tmp_path, seed=5, jobs=1)
    assert "making a short one" in capsys.readouterr().err
    assert set(first["seed"]) == {5}
    second = finetune_check.stored_or_short(tmp_path, seed=6, jobs=1)
    assert capsys.readouterr().err == ""
    assert second["value"].tolist() == first["value"].tolist()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ("encodr",)}, "models is 'encodr': it must be one of encoder, decoder"),
        ({"methods": ("lora", "dora")}, "methods is 'dora': it must be one of full, lora, cosa"),
        ({"methods": ()}, "at least one name, and each once"),
        ({"methods": ("cosa", "cosa")}, "each once"),
        ({"methods": ("cosa",)}, "repeated is 'lora': it must be one of cosa"),
        ({"decoder_steps": 0}, "decoder_steps is 0: it must be"),
        ({"encoder_blocks": -1}, "encoder_blocks is -1: it must be"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(changes, words):
    with pytest.raises(ValueError, match=words):
        Config(**changes)


def test_a_method_without_a_stored_rate_is_refused_before_anything_is_trained(
    tmp_path, monkeypatch
):
    grid = read_rates()
    monkeypatch.setattr(finetune_check, "read_rates", lambda: grid[grid["method"] != "cosa"])
    config = dataclasses.replace(TINY, tune=False)
    with pytest.raises(InputError, match="no learning rate is known for cosa on the decoder: set"):
        run(config, tmp_path)
    assert asked == []


def test_the_stored_configuration_is_one_of_its_settings():
    path = Path(finetune_check.__file__).parent / "configs" / "finetune_check.toml"
    config = finetune_check.read_config(PRESETS["quick"], path)
    assert config != PRESETS["quick"]
