"""The benchmark of layers measures what it says, in small."""

import dataclasses
import json

import pandas as pd
import pytest
import torch
from torch import nn

from cosa_theory.nn import CosaLinear
from cosa_theory.nn.forward import update_flops
from experiments import bench_layer, layer_costs, model_costs
from experiments.bench_layer import (
    PRESETS,
    Config,
    layer_table,
    markdown,
    readers_table,
    verdict,
)
from experiments.layer_costs import (
    adapted_layers,
    added_flops,
    frozen_bytes,
    interleaved,
    peak_bytes,
    ratio,
    saved_bytes,
    step,
    trainable_bytes,
)

TINY = Config(((64, 48, 32),), dtypes=("float32",), core=(16, 8), rank=4, small_rank=2, rounds=1,
              readers=((48, (64, 32), 16),))  # fmt: skip


@pytest.fixture(scope="module")
def table():
    return layer_table((64, 48, 32), "float32", TINY)


@pytest.fixture(scope="module")
def layers():
    layer = nn.Linear(48, 64, bias=False)
    return {"base": layer, **adapted_layers(layer, (16, 8), 4, 0, 2)}


def test_every_method_adapts_the_same_weight_and_trains_its_own_parameters(layers):
    base = layers["base"]
    x = torch.randn(5, 48)
    for name, module in layers.items():
        weights = {id(part) for part in module.parameters()}
        assert id(base.weight) in weights, name
        assert not base.weight.requires_grad
        if name.startswith(("CoSA", "LoRA")):  # both start at zero
            assert torch.allclose(module(x), base(x), rtol=0, atol=1e-6)
    assert trainable_bytes(layers["CoSA (16, 8)"]) == 4 * 16 * 8
    assert trainable_bytes(layers["LoRA 4"]) == 4 * 4 * (64 + 48)
    slim, lora = layers["CoSA one-sided (64, 3)"], layers["LoRA 2"]
    assert trainable_bytes(slim) <= trainable_bytes(lora) < trainable_bytes(slim) + 4 * 64
    assert {"VeRA", "RandLoRA", "LoRA 1", "CoSA (16, 8) sjlt", "CoSA (16, 8) srht"} <= set(layers)


def test_frozen_bytes_are_those_of_the_projections(layers):
    base = layers["base"]
    assert frozen_bytes(layers["CoSA (16, 8)"], base) == 4 * (16 * 64 + 8 * 48)
    assert frozen_bytes(layers["LoRA 4"], base) == 0
    assert frozen_bytes(base, base) == 0


def test_operations_are_the_closed_form_for_cosa_and_counted_for_others(layers):
    base, x = layers["base"], torch.randn(32, 48, requires_grad=True)
    gradient, flops = torch.ones(32, 64), 4 * 64 * 48 * 32
    lora, ours = layers["LoRA 4"], layers["CoSA (16, 8) through a"]
    assert added_flops(base, step(base, x, gradient), 32, flops) == 0
    assert added_flops(lora, step(lora, x, gradient), 32, flops) == 6 * 4 * (64 + 48) * 32
    expected = update_flops("through", 32, ours.left, ours.right)
    assert added_flops(ours, step(ours, x, gradient), 32, flops) == expected


def test_layers_of_one_input_train_as_much_with_either_method_and_a_shared_product_is_kept_once():
    table = readers_table((48, (64, 32), 16), TINY).set_index("method")
    lora, own, shared = (row for _, row in table.iloc[1:].iterrows())
    assert own["trainable_bytes"] == shared["trainable_bytes"] <= lora["trainable_bytes"]
    assert lora["trainable_bytes"] < own["trainable_bytes"] + 4 * (64 + 32)
    assert own["saved_bytes"] == 2 * shared["saved_bytes"]
    assert "one R for all" in verdict({"readers": table.reset_index()})


def test_saved_bytes_count_inputs_once_and_no_weights(layers):
    x = torch.randn(32, 48, requires_grad=True)
    assert saved_bytes(layers["base"], lambda: layers["base"](x)) == 0
    # R x and nothing else; LoRA keeps x and A x.
    through = layers["CoSA (16, 8) through a"]
    assert saved_bytes(through, lambda: through(x)) == 4 * 32 * 8
    lora = layers["LoRA 4"]
    assert saved_bytes(lora, lambda: lora(x)) == 4 * 32 * (48 + 4)


def test_the_peak_counts_what_is_lent_at_once():
    def call():
        for _ in range(3):  # each is returned before the next is asked for
            torch.ones(1 << 20)

    assert 4 << 20 <= peak_bytes(call) < 5 << 20


def test_rounds_are_timed_in_turn_and_the_first_does_not_count():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("one", "two")}
    seconds = interleaved(calls, 2)
    assert order == ["one", "two"] * 3
    assert [len(times) for times in seconds.values()] == [2, 2]
    assert ratio({"a": [2.0, 30.0, 4.0], "b": [1.0, 10.0, 4.0]}, "a", "b") == 2.0


def test_a_step_leaves_no_gradient_behind(layers):
    x = torch.randn(4, 48, requires_grad=True)
    module = layers["CoSA (16, 8)"]
    step(module, x, torch.ones(4, 64))()
    assert x.grad is None
    assert module.Y.grad is None


def test_a_table_has_ratios_to_the_base_and_multiples_of_operations(table):
    base, rest = table.iloc[0], table.iloc[1:]
    assert base["method"] == "base"
    assert (base["ratio"], base["flop_ratio"], base["multiple"]) == (1, 1, 1)
    assert (rest["flop_ratio"] > 1).all()
    assert (table["multiple"] - table["ratio"] / table["flop_ratio"]).abs().max() < 1e-12
    assert (table["optimiser_bytes"] == 2 * table["trainable_bytes"]).all()


def test_the_verdict_names_the_worst_case_and_what_is_kept(table):
    text = verdict({"layers": table})
    assert "64 × 48, 32 tokens, float32" in text
    assert "Backward keeps at most" in text
    kept = table.set_index("method")["saved_bytes"]
    assert f"{kept['CoSA (16, 8)'] / kept['LoRA 1']:.2f}" in text


def test_a_markdown_table_has_megabytes_and_a_line_for_every_row(table):
    lines = markdown(table).splitlines()
    assert len(lines) == len(table) + 2
    assert "saved MB" in lines[0]
    assert lines[1].count("---") == len(table.columns)
    nothing = markdown(pd.DataFrame({"x": [1.0, float("nan")], "n_bytes": [2e6, 3e6]}))
    assert nothing.splitlines()[2:] == ["| 1 | 2 |", "|  | 3 |"]


def test_a_small_model_is_measured_saved_and_loaded(monkeypatch):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    monkeypatch.setattr(
        model_costs,
        "embedded_model",
        lambda dtype: LlamaForCausalLM(config).to(dtype).requires_grad_(False),
    )
    table = model_costs.model_table((16, 16), 4, 8, torch.float32, 1, 0).set_index("method")
    assert table.loc["base", "saved_bytes"] == 0
    ours = table[table.index.str.startswith("CoSA")]
    assert (ours["trainable_bytes"] == 2 * 7 * 4 * 16 * 16).all()
    assert (ours["file_bytes"] > ours["trainable_bytes"]).all()
    assert (ours[["save_seconds", "load_seconds"]] > 0).all(axis=None)
    # What a seed restores is in no file, ours or a rival's.
    assert (table.loc[["VeRA", "RandLoRA"], "file_bytes"] < 40_000).all()
    own, shared = (ours.loc[f"CoSA (16, 16){kind}", "frozen_bytes"] for kind in ("", " shared"))
    # L for outputs of 64, 32 and 96, R for inputs of 64 and 96, once each.
    assert shared == 4 * 16 * (64 + 32 + 96 + 64 + 96)
    assert own > shared


def test_drawing_counts_every_projection_or_every_shared_one():
    sizes = {"q": (64, 48), "k": (32, 48), "v": (32, 48)}
    own, shared = model_costs.drawing((16, 8), 1, sizes).to_dict("records")
    assert (own["draws"], shared["draws"]) == (6, 3)
    assert own["numbers"] == 16 * (64 + 32 + 32) + 3 * 8 * 48
    assert shared["numbers"] == 16 * (64 + 32) + 8 * 48
    assert own["bytes"] == 2 * own["numbers"]
    assert len(model_costs.LLAMA_8B) == 224


def test_the_command_prints_one_json_document_and_stores_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(bench_layer.PRESETS, "quick", TINY)
    threads = torch.get_num_threads()
    arguments = ["--parts", "layers", "--json", "--out", str(tmp_path)]
    assert bench_layer.main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"] == json.loads(json.dumps(dataclasses.asdict(TINY)))
    stored = pd.read_parquet(tmp_path / "bench_layer_layers.parquet")
    assert list(stored["method"]) == [row["method"] for row in document["layers"]]
    assert torch.get_num_threads() == threads
    assert bench_layer.main(["--parts", "layers"]) == 0
    assert "| m | n | tokens |" in capsys.readouterr().out


def test_bad_numbers_are_refused_before_anything_is_measured(capsys):
    for option in ("--threads", "--rounds"):
        with pytest.raises(SystemExit, match="2"):
            bench_layer.main([option, "0"])
        assert "at least 1" in capsys.readouterr().err


def test_the_presets_hold_the_layer_that_the_targets_name():
    for config in PRESETS.values():
        assert (2048, 2048, 4096) in config.cases
        assert config.core == (1024, 256)
        assert config.dtypes == ("float32", "bfloat16")
    assert isinstance(layer_costs.adapted_layers(nn.Linear(8, 8), (4, 4), 2, 0, 1)["CoSA (4, 4)"],
                      CosaLinear)  # fmt: skip
