"""`cosa-theory plan` as a stranger uses it, with good input and bad."""

import json

import numpy as np
import pytest

from cosa_theory.cli import main
from cosa_theory.page.views import memory, percent

FIELDS = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
CORE = ("--a", "40", "--b", "10")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "config.json"
    file.write_text(json.dumps(FIELDS))
    return str(file)


def document(capsys, *arguments):
    """The one JSON document on standard output."""
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error(capsys, *arguments):
    """The one line on standard error of a command that must fail."""
    assert main(["plan", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


def test_the_first_line_is_the_verdict_in_plain_words(config, capsys):
    assert main(["plan", config, *CORE]) == 0
    printed = capsys.readouterr()
    first = printed.out.splitlines()[0]
    assert first.startswith("CoSA on 14 layers of LlamaForCausalLM trains 5,280 parameters, ")
    assert "frozen projections" in first
    assert "cosa-theory spectrum" in first
    assert "CosaConfig(a=" in printed.out
    assert "model.layers.*.self_attn.q_proj" in printed.out
    assert printed.err.startswith("note: the core is larger than 4 of 14 layers")


def test_json_has_totals_shapes_and_what_is_recommended(config, capsys):
    found = document(capsys, config, *CORE)
    totals = {row["method"]: row for row in found["totals"]}
    assert list(totals) == ["cosa", "cosa_balanced", "lora"]
    assert totals["cosa"]["trainable"] == 10 * 400 + 4 * 320
    assert totals["cosa"]["optimizer_bytes"] == 8 * totals["cosa"]["trainable"]
    for method, row in totals.items():
        parts = [part for part in found["shapes"] if part["method"] == method]
        for name in ("trainable", "frozen_bytes", "saved_bytes_per_token", "base_flops_per_token"):
            assert sum(part[name] for part in parts) == row[name]
        flops = sum(part["flops_per_token"] for part in parts)
        assert flops == pytest.approx(row["flops_per_token"])
        assert sum(part["layers"] for part in parts) == row["layers"] == 14
    assert found["recommended"][-1]["pattern"] == "all others"


def test_the_recommended_shapes_are_settings_that_give_what_was_promised(config, capsys):
    from cosa_theory.nn import CosaSettings
    from cosa_theory.nn.shapes import model_layers
    from cosa_theory.studies.plan.costs import TrainingStep, cosa_budget

    found = document(capsys, config, *CORE)
    *patterns, (_, a, b) = (tuple(row.values()) for row in found["recommended"])
    settings = CosaSettings(a, b, shape_pattern={name: (a, b) for name, a, b in patterns})
    budget = cosa_budget(model_layers(config), settings, TrainingStep())
    promised = next(row for row in found["totals"] if row["method"] == "cosa_balanced")
    assert (budget.trainable, budget.frozen_bytes) == (
        promised["trainable"],
        promised["frozen_bytes"],
    )


@pytest.mark.parametrize(
    ("options", "lora"),
    [(("--rank", "4"), 4 * (4 * 128 + 4 * 96 + 6 * 160)), (("--budget", "7.5k"), None)],
    ids=["rank", "budget"],
)
def test_a_rank_or_a_budget_sets_the_size(config, capsys, options, lora):
    totals = {row["method"]: row for row in document(capsys, config, *options)["totals"]}
    assert list(totals) == ["cosa", "lora"]
    expected = lora or 7500
    assert 0.95 * expected < totals["cosa"]["trainable"] <= expected
    if lora:
        assert totals["lora"]["trainable"] == lora


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        ("q_proj,v_proj", 4),
        ("q_proj", 2),
        ("layers.0.mlp.up_proj", 1),
        (r".*\.mlp\.(up|down)_proj", 4),
        ("all-linear", 14),
    ],
)
def test_layers_are_chosen_by_ends_of_names_or_an_expression(config, capsys, targets, layers):
    totals = document(capsys, config, "--target-modules", targets, "--rank", "2")["totals"]
    assert {row["layers"] for row in totals} == {layers}


def test_settings_that_do_not_belong_to_the_shape_are_heeded(config, capsys):
    def cosa(*options):
        return document(capsys, config, "--a", "16", "--b", "16", *options)["totals"][0]

    plain = cosa()
    assert cosa("--dtype", "float32")["frozen_bytes"] == 2 * plain["frozen_bytes"]
    assert cosa("--optimizer", "sgd")["optimizer_bytes"] == 0
    assert cosa("--share-projections")["frozen_bytes"] < plain["frozen_bytes"]
    assert cosa("--kind", "sjlt")["kind"] == "sjlt"
    assert cosa("--tokens", "1")["flops_per_token"] > plain["flops_per_token"]


@pytest.mark.parametrize(
    ("options", "start"),
    [
        (["--tokens", "1"], "Recommended for memory, a·m = b·n ("),
        (["--tokens", "100000"], "The shapes a·m = b·n, which save no memory here ("),
        (["--kind", "sjlt"], "The shapes a·m = b·n, which save no memory here ("),
    ],
)
def test_shapes_are_recommended_only_where_they_save_memory(config, capsys, options, start):
    assert main(["plan", config, *CORE, *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    (line,) = (line for line in printed if "CosaConfig(" in line)
    assert line.startswith(start)
    totals = document(capsys, config, *CORE, *options)["totals"]
    asked, other, _ = (row["memory_bytes"] for row in totals)
    assert (other < asked) == start.startswith("Recommended")
    assert f"training takes {memory(other)}, not {memory(asked)}, " in line


def test_a_recommended_shape_that_trains_fewer_numbers_says_so(config, capsys):
    main(["plan", config, "--a", "1", "--b", "7"])
    printed = capsys.readouterr().out
    asked, other = (
        row["trainable"]
        for row in document(capsys, config, "--a", "1", "--b", "7")["totals"]
        if row["method"] != "lora"
    )
    assert other < 0.99 * asked
    assert f"at {percent(other / asked)} of the trainable parameters training takes" in printed
    main(["plan", config, *CORE])
    assert "at as many trainable parameters training takes" in capsys.readouterr().out


def test_cores_as_large_as_their_layers_are_called_so(config, capsys):
    assert main(["plan", config, "--a", "1000", "--b", "1000"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "as large as the layers and express every update" in first
    assert "LoRA's best matrix captures more" not in first


def test_stored_results_are_rendered_again(config, capsys, tmp_path):
    out = tmp_path / "plan"
    assert main(["plan", config, *CORE, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "plan.json",
        "totals.parquet",
        "shapes.parquet",
        "recommended.parquet",
        "report.html",
        ".cosa-theory.json",
    }
    first = (out / "report.html").read_text()
    verdict = capsys.readouterr().out.splitlines()[0]
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == verdict
    assert (out / "report.html").read_text() == first
    assert "How to read this" in first


def test_a_second_run_leaves_no_table_of_the_first(config, tmp_path):
    out = tmp_path / "plan"
    assert main(["plan", config, *CORE, "--out", str(out)]) == 0
    assert main(["plan", config, "--rank", "2", "--out", str(out)]) == 0
    assert not (out / "recommended.parquet").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--rank", "8", "--a", "5"), "--a, --rank set the size of the core more than once"),
        (("--rank", "8", "--budget", "5k"), "--budget, --rank set the size"),
        (("--budget", "ten"), "--budget is 'ten': give a number of trainable parameters"),
        (("--budget", "nan"), "--budget is 'nan'"),
        (("--budget", "1e400"), "--budget is '1e400'"),
        (("--budget", "-3M"), "--budget is '-3M'"),
        (("--budget", "2"), "leaves some of the 14 layers none; give at least"),
        (("--budget", "1e30"), "parameters is more than the"),
        (("--kind", "gausian"), "kind is 'gausian': it must be one of gaussian"),
        (("--dtype", "int8"), "--dtype"),
        (("--tokens", "0"), "--tokens"),
        (("--target-modules", "q_poj"), "the closest are q_proj"),
        (("--target-modules", "*attn"), "--target-modules is '*attn': it must be a regular"),
        (("--target-modules", "q_proj,,v_proj"), "which has an empty name"),
        (("--target-modules", ""), "which has an empty name"),
    ],
)
def test_bad_options_are_one_line_with_the_remedy(config, capsys, options, expected):
    assert expected in error(capsys, config, *options)


def test_a_bad_model_is_one_line_with_the_remedy(capsys, tmp_path):
    assert "give the config.json" in error(capsys, str(tmp_path / "none.json"))
    assert "has no config.json" in error(capsys, str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "lama"}')
    assert "no model type 'lama'" in error(capsys, str(tmp_path))


def test_a_bad_option_is_told_before_anything_is_written(config, capsys, tmp_path):
    out = tmp_path / "out"
    error(capsys, config, "--budget", "ten", "--out", str(out))
    assert not out.exists()


def test_an_informed_kind_is_planned_with_moments_and_without(config, tmp_path, capsys):
    from cosa_theory.nn.moments import Moments, write_moments
    from cosa_theory.nn.shapes import model_layers
    from cosa_theory.projections import SecondMoments

    inputs = {
        f"{name}.weight": SecondMoments(np.diag(0.9 ** np.arange(n)).astype(np.float32), count=999)
        for name, (_, n) in model_layers(config).sizes.items()
    }
    write_moments(Moments(inputs), tmp_path / "moments.safetensors")
    options = ("--kind", "activation", "--rank", "2")
    plain = document(capsys, config, *options)
    moments = ("--moments", str(tmp_path / "moments.safetensors"))
    known = document(capsys, config, *options, *moments)
    for found, energy in ((plain, False), (known, True)):
        rows = [row for row in found["shapes"] if row["method"] == "cosa"]
        assert energy or all(row["a"] == row["m"] for row in rows if row["b"] > 1)
        assert all((row["energy"] is not None) == energy for row in rows)
    assert main(["plan", config, "--kind", "activation", "--a", "8", "--b", "4"]) == 0
    capsys.readouterr()
    assert main(["plan", config, *moments]) == 2
    assert "--moments" in capsys.readouterr().err
