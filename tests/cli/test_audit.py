"""`cosa-theory audit` as a stranger uses it, with good input and bad."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

import cosa_theory.studies.audit.layer as layer_module
import figures.audit
from cosa_theory.cli import main
from cosa_theory.page.document import read_document
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS
from cosa_theory.studies.audit.pair import TABLES
from tests.deltas.language_models import TEXTS, save_model

QUICK = ("--draws", "4", "--threads", "1")
VERDICT = "Of 7 assumptions of the theory, "


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two small checkpoints: four matrices and a vector; and a gradient for two of them."""
    folder = tmp_path_factory.mktemp("pair")
    generator = np.random.default_rng(0)
    base, tuned, gradient = {}, {}, {}
    for block in range(2):
        for name, shape in (("attn.q_proj", (40, 32)), ("mlp.up_proj", (64, 32))):
            key = f"model.layers.{block}.{name}.weight"
            base[key] = generator.standard_normal(shape).astype(np.float32)
            update = np.outer(generator.standard_normal(shape[0]), generator.standard_normal(32))
            tuned[key] = base[key] + 0.1 * update.astype(np.float32)
            if block == 0:
                gradient[key] = generator.standard_normal(shape).astype(np.float32)
    base["norm.weight"] = tuned["norm.weight"] = np.ones(32, np.float32)
    for name, tensors in (("base", base), ("tuned", tuned), ("gradient", gradient)):
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def paths(pair):
    return str(pair / "base.safetensors"), str(pair / "tuned.safetensors")


@pytest.fixture(scope="module")
def made(pair, tmp_path_factory):
    """The folder of one complete run with a gradient."""
    out = tmp_path_factory.mktemp("made") / "out"
    arguments = [str(pair / f"{name}.safetensors") for name in ("base", "tuned")]
    gradient = ("--gradients", str(pair / "gradient.safetensors"))
    assert main(["audit", *arguments, *gradient, "--out", str(out), *QUICK]) == 0
    return out


def errors(capsys):
    """Return the lines on standard error; standard output must be empty."""
    printed = capsys.readouterr()
    assert printed.out == ""
    return [line for line in printed.err.splitlines() if not line.startswith("note: ")]


def test_the_first_line_is_the_verdict_and_every_assumption_and_matrix_is_listed(paths, capsys):
    assert main(["audit", *paths, *QUICK]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(VERDICT)
    for one in ASSUMPTIONS.values():
        assert f"\n{one.title} " in printed.out
        assert one.meaning in printed.out
    for block in range(2):
        assert f"\nmodel.layers.{block}.attn.q_proj.weight " in printed.out


def test_json_is_one_document_alone_on_standard_output(paths, capsys):
    assert main(["audit", *paths, "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "audit"
    assert document["verdict"].startswith(VERDICT)
    assert set(TABLES) <= set(document)
    assert len(document["assumptions"]) == 4 * len(ASSUMPTIONS)
    assert {row["outcome"] for row in document["assumptions"]} <= {"holds", "fails", "undecided"}
    assert document["provenance"]["arguments"]["base"] == paths[0]


def test_out_holds_tables_summary_figures_and_page(made):
    names = {path.name for path in made.iterdir()}
    assert {f"{name}.parquet" for name in TABLES} <= names
    assert {"audit.json", "report.html", "figures"} <= names
    figures = {path.stem for path in (made / "figures").iterdir()}
    assert figures == {"assumptions", "assumptions_gradient", "participation", "decay"}
    stored = read_document(made, "audit")
    assert len(stored.tables["assumptions"]) == 4 * 7 + 2 * 5
    assert set(stored.tables["layers"]["subject"]) == {"update", "gradient"}
    summary = json.loads((made / "audit.json").read_text())
    assert summary["verdict"] == stored.verdict


def test_the_page_says_what_the_tables_hold(made):
    page = (made / "report.html").read_text(encoding="utf-8")
    stored = read_document(made, "audit")
    for text in (stored.verdict[:60], "Assumptions, for the update", "By module type", "Bai-Yin"):
        assert text in page
    assert "How the dictionary stretches cores" in page
    assert "Sparsity in three bases" in page
    for layer in stored.tables["layers"]["layer"].unique():
        assert layer in page
    for one in ASSUMPTIONS.values():
        assert page.count(one.title) >= 3  # the summary, the details, how to read them
    assert page.count("data:image/svg+xml") == 4
    assert 'src="http' not in page


def test_a_second_run_computes_nothing_and_finds_the_same(paths, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cosa_theory.studies.shown.write_document_page", lambda _, out: out)
    out = str(tmp_path / "out")
    assert main(["audit", *paths, "--out", out, "--json", *QUICK]) == 0
    first = json.loads(capsys.readouterr().out)

    def never(*args, **settings):
        raise AssertionError("computed again")

    monkeypatch.setattr(layer_module, "measure_conditioning", never)
    assert main(["audit", *paths, "--out", out, "--json", *QUICK]) == 0
    second = json.loads(capsys.readouterr().out)
    assert first["assumptions"] == second["assumptions"]


def test_the_core_can_be_given_and_one_that_does_not_fit_is_said(paths, capsys):
    assert main(["audit", *paths, "--core", "50,16", "--json", *QUICK]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    fits = {
        row["layer"]: row["outcome"]
        for row in document["assumptions"]
        if row["assumption"] == "admissible"
    }
    assert sorted(fits.values()) == ["fails", "fails", "holds", "holds"]
    assert "note: A core of 50 × 16 does not fit 2 of 4 matrices" in printed.err
    assert {(row["a"], row["b"]) for row in document["layers"]} == {(40, 16), (50, 16)}


def test_ensemble_scale_and_rank_are_passed_on(paths, capsys):
    options = ("--kind", "haar", "--scale", "analysis", "--rank", "2")
    assert main(["audit", *paths, *options, "--json", *QUICK]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert {row["rank_budget"] for row in layers} == {2}
    for row in layers:
        assert row["kappa"] == pytest.approx(1.0)
        gain = row["m"] * row["n"] / (row["a"] * row["b"])
        assert row["delta"] == pytest.approx(gain - 1)


# Gradients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_gradient_is_taken_from_a_model_and_texts(tmp_path, capsys, kind):
    folder = save_model(tmp_path / "model", kind)
    tuned = {name: 1.01 * x for name, x in load_torch(folder / "model.safetensors").items()}
    save_torch(tuned, tmp_path / "tuned.safetensors")
    (tmp_path / "texts.txt").write_text(TEXTS)
    source = ("--model", str(folder), "--data", str(tmp_path / "texts.txt"), "--batch", "2")
    pair = (str(folder), str(tmp_path / "tuned.safetensors"))
    assert main(["audit", *pair, *source, "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    subjects = pd.DataFrame(document["layers"])["subject"].value_counts()
    assert subjects["gradient"] >= 7
    assert "for the gradient of the first step" in document["verdict"]


def test_a_model_without_a_head_is_refused_with_the_remedy(tmp_path, paths, capsys):
    folder = save_model(tmp_path / "model", "headless")
    (tmp_path / "texts.txt").write_text(TEXTS)
    source = ("--model", str(folder), "--data", str(tmp_path / "texts.txt"))
    capsys.readouterr()  # what saving the model printed
    assert main(["audit", *paths, *source, *QUICK]) == 2
    [line] = errors(capsys)
    assert "BertModel, which has no loss on plain text: save the gradient of your own" in line


def test_matrices_without_a_gradient_are_noted(pair, paths, capsys):
    assert main(["audit", *paths, "--gradients", str(pair / "gradient.safetensors"), *QUICK]) == 0
    assert "note: 2 of 4 matrices without a gradient" in capsys.readouterr().err


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--core", "1024"), "--core is '1024': give two sizes a,b as in --core 1024,256"),
        (("--core", "8,4", "--rank", "2"), "--core 8,4 and --rank 2 both set the size"),
        (("--core", "8,x"), "--core is '8,x': give positive integers, as in --core 1024,256"),
        (("--kind", "sparse"), "--kind is 'sparse': it must be one of gaussian, "),
        (("--gradients", "no.safetensors"), "no.safetensors"),
        (("--model", "somewhere"), "--model and --data belong together: add --data FILE"),
        (("--data", "texts.txt"), "--model and --data belong together: add --model FOLDER"),
        (("--gradients", "a", "--model", "b", "--data", "c"), "two sources: give one of them"),
        (("--batch", "2"), "--batch is about the texts of --model and --data: give both"),
        (("--max-tokens", "9"), "--max-tokens is about the texts of --model and --data: give both"),
        (("--rank", "0"), "--rank"),
    ],
)
def test_bad_options_are_one_plain_line_and_exit_code_2(paths, capsys, options, said):
    assert main(["audit", *paths, *options, *QUICK]) == 2
    [line] = errors(capsys)
    assert line.startswith("error: ")
    assert said in line


def test_gradients_of_another_shape_are_named(pair, paths, tmp_path, capsys):
    gradient = load_file(pair / "gradient.safetensors")
    turned = {name: np.ascontiguousarray(value.T) for name, value in gradient.items()}
    save_file(turned, tmp_path / "turned.safetensors")
    assert main(["audit", *paths, "--gradients", str(tmp_path / "turned.safetensors")]) == 2
    lines = errors(capsys)
    assert len(lines) == 2
    assert "is 32 × 40, its matrix 40 × 32: save it as the weight is stored" in lines[0]


def test_help_shows_an_example(capsys):
    assert main(["audit", "--help"]) == 0
    assert "cosa-theory audit base.safetensors tuned.safetensors" in capsys.readouterr().out


def test_a_figure_can_be_drawn_from_the_stored_results(made, tmp_path):
    assert figures.audit.main(["decay", str(made), "--out", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"decay.pdf", "decay.png", ".cosa-theory.json"}


def test_an_informed_basis_is_audited_with_moments(paths, tmp_path, capsys):
    from cosa_theory.nn.moments import Moments, write_moments
    from cosa_theory.projections import SecondMoments

    names = [name for name in load_file(paths[0]) if name.endswith("proj.weight")]
    inputs = SecondMoments(np.diag(0.8 ** np.arange(32)).astype(np.float32), count=99)
    write_moments(Moments(dict.fromkeys(names, inputs)), tmp_path / "moments.safetensors")
    command = ["audit", *paths, *QUICK, "--kind", "activation", "--json"]
    assert main([*command, "--moments", str(tmp_path / "moments.safetensors")]) == 0
    rows = json.loads(capsys.readouterr().out)["layers"]
    assert {(row["m"], row["a"], row["predicted_error"]) for row in rows} == {
        (40, 40, None),
        (64, 64, None),
    }
    assert main(command) == 2
    assert "--moments" in capsys.readouterr().err
