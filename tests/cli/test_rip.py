"""`cosa-theory rip` as a stranger uses it, with good input and bad."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from cosa_theory import CosaBasis
from cosa_theory.cli import main
from cosa_theory.isometry.rip import rip_exact
from cosa_theory.projections import KINDS

LAYER = ("--shape", "16", "12", "--core", "10", "8", "--sparsity", "1,2")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of one complete run, of a dense, a sparse and an orthonormal ensemble."""
    out = tmp_path_factory.mktemp("rip") / "out"
    kinds = ("--kind", "gaussian,very_sparse,haar")
    assert main(["rip", *LAYER, *kinds, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    path = tmp_path_factory.mktemp("matrix") / "A.npy"
    np.save(path, np.random.default_rng(0).standard_normal((12, 18)) / math.sqrt(12))
    return path


def errors(capsys):
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


def test_the_first_line_is_the_verdict_about_both_operators(capsys):
    assert main(["rip", *LAYER, "--kind", "haar"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("With orthonormal factors, Ψ is proven to have δ_s < 1 on cores ")
    assert "Over all cores, dense ones included, it is an isometry to rounding." in lines[0]
    assert "no method recovers all updates with more than 4 nonzero entries" in lines[0]
    text = "\n".join(lines)
    for title in ("Restricted isometry constants", "over all cores", "coherence", "Guaranteed"):
        assert title in text


def test_one_other_ensemble_is_counted_as_one(capsys):
    about = ["--about", "dictionary", "--sparsity", "1", "--kind", "haar,srht"]
    assert main(["rip", *LAYER, *about]) == 0
    assert "(1 other ensemble below)" in capsys.readouterr().out.splitlines()[0]


def test_json_is_one_document_alone_on_standard_output(capsys):
    assert main(["rip", *LAYER, "--json", "--about", "sensing", "--seed", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "rip"
    assert document["verdict"].startswith("With Gaussian factors, Φ")
    rows = document["brackets"]
    assert [row["s"] for row in rows] == [1, 2]
    assert {row["about"] for row in rows} == {"sensing"}
    assert {row["scale"] for row in rows} == {"analysis"}
    assert all(row["lower"] <= row["upper"] for row in rows)
    assert all(row["vacuous"] == (row["upper"] >= 1) for row in rows)
    assert "cores" not in document
    assert len(document["guarantees"]) == 6
    assert document["provenance"]["seed"] == 3
    assert document["provenance"]["arguments"]["sparsity"] == "1,2"


def test_out_holds_tables_summary_figures_and_page_and_report_renders_them_again(made, capsys):
    names = {path.name for path in made.iterdir()}
    tables = {f"{name}.parquet" for name in ("brackets", "cores", "columns", "guarantees")}
    assert names == {*tables, "rip.json", "report.html", "figures", ".cosa-theory.json"}
    figures = {path.name for path in (made / "figures").iterdir()}
    assert figures == {f"{n}.{e}" for n in ("brackets", "cores") for e in ("pdf", "png")}
    page = (made / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml") == 2
    assert main(["report", str(made)]) == 0
    assert capsys.readouterr().out.startswith("With Gaussian factors (2 other ensembles below), Ψ")
    assert (made / "report.html").read_text(encoding="utf-8") == page


def test_every_ensemble_and_scale_has_its_constant_over_all_cores(made):
    cores = pd.read_parquet(made / "cores.parquet")
    assert set(zip(cores["kind"], cores["scale"], strict=True)) == {
        (kind, scale) for kind in KINDS for scale in ("synthesis", "analysis")
    }
    for row in cores.to_dict("records"):
        settings = {"kind": row["kind"], "scale": row["scale"]}
        low, high = CosaBasis.sample(16, 12, 10, 8, **settings).singular_value_range()
        assert row["least"] == pytest.approx(low**2, abs=1e-9)
        assert row["greatest"] == pytest.approx(high**2)
    haar = cores[(cores["kind"] == "haar") & (cores["scale"] == "synthesis")].iloc[0]
    assert haar["delta"] < 1e-12
    assert haar["bai_yin_delta"] > 5


def test_zero_columns_of_a_sparse_projection_are_told_and_have_no_coherence(capsys):
    settings = ("--shape", "40", "32", "--core", "8", "6", "--sparsity", "2")
    assert main(["rip", *settings, "--kind", "very_sparse", "--about", "sensing", "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["columns"][0]["coherence"] is None
    assert document["columns"][0]["spark_upper"] == 1
    assert document["brackets"][0]["lower"] >= 1
    assert any("Φ (very sparse) has zero columns" in notice for notice in document["notices"])
    assert "no method recovers all updates of even one nonzero entry" in document["verdict"]
    assert "note: Φ (very sparse) has zero columns" in printed.err


def test_a_matrix_is_bracketed_as_it_is_scaled(matrix, capsys):
    assert main(["rip", str(matrix), "--sparsity", "2,3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    A = np.load(matrix)
    for row, s in zip(document["brackets"], (2, 3), strict=True):
        assert row["exact"]
        assert row["lower"] == pytest.approx(rip_exact(A, s).value)
        assert len(row["worst_support"].split(", ")) == s
    assert document["verdict"].startswith("A is ")


@pytest.mark.parametrize("name", ["one.safetensors", "two.safetensors:b"])
def test_a_matrix_may_be_a_tensor_of_a_safetensors_file(name, matrix, tmp_path, capsys):
    A = np.load(matrix)
    save_file({"a": A}, tmp_path / "one.safetensors")
    save_file({"a": 2 * A, "b": A}, tmp_path / "two.safetensors")
    assert main(["rip", str(tmp_path / name), "--sparsity", "2"]) == 0
    first = capsys.readouterr().out
    assert main(["rip", str(matrix), "--sparsity", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == first.splitlines()[0]


BAD = {
    "nothing to do": ([], "nothing to do: give --shape M N with --core A B, or the file"),
    "shape alone": (["--shape", "4", "4"], "nothing to do"),
    "both": (["A.npy", "--core", "2", "2"], "exclude each other"),
    "no file": (["A.npy"], "FILE is A.npy: there is no such file"),
    "kind": (
        [*LAYER, "--kind", "gauss"],
        "--kind is 'gauss': it must be one of gaussian, rademacher",
    ),
    "empty kind": ([*LAYER, "--kind", ""], "--kind is '': it must be one of gaussian"),
    "sparsity": ([*LAYER, "--sparsity", "2,x"], "--sparsity is '2,x': give positive integers"),
    "order": (
        [*LAYER, "--sparsity", "400"],
        "--sparsity is 400: it must be a whole number from 1 to 80",
    ),
    "size": (["--shape", "0", "4", "--core", "2", "2"], "--shape is (0, 4): it must be"),
    "haar": (["--shape", "4", "4", "--core", "5", "2", "--kind", "haar"], "k is 5: "),
    "idle": (
        ["A.npy", "--kind", "haar", "--about", "sensing"],
        "--kind and --about and A.npy exclude each other",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_plain_line_and_exit_code_two(name, capsys):
    arguments, message = BAD[name]
    assert main(["rip", *arguments]) == 2
    lines = errors(capsys)
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_files_that_are_no_matrix_of_numbers_are_named(tmp_path, capsys):
    cases = {
        "pickled.npy": np.array([{"a": 1}], dtype=object),
        "vector.npy": np.ones(3),
        "nan.npy": np.array([[1.0, np.nan], [0.0, 1.0]]),
    }
    for name, array in cases.items():
        np.save(tmp_path / name, array, allow_pickle=True)
        assert main(["rip", str(tmp_path / name), "--sparsity", "1"]) == 2
        (line,) = errors(capsys)
        assert line.startswith(f"error: {tmp_path / name}")
        assert "pickle" not in line or "pickled objects, which are never loaded" in line
    (tmp_path / "empty.npy").touch()
    assert main(["rip", str(tmp_path / "empty.npy")]) == 2
    assert "it does not begin as a .npy file does" in errors(capsys)[0]
    np.save(tmp_path / "A.npy", np.eye(2))
    assert main(["rip", f"{tmp_path / 'A.npy'}:w"]) == 2
    assert "holds one array without a name: leave out :w" in errors(capsys)[0]
    (tmp_path / "A.txt").write_text("1 2")
    assert main(["rip", str(tmp_path / "A.txt")]) == 2
    assert "neither .npy nor .safetensors" in errors(capsys)[0]
    (tmp_path / "B.safetensors").write_bytes(b"nothing of numbers")
    assert main(["rip", str(tmp_path / "B.safetensors")]) == 2
    assert "not a safetensors file" in errors(capsys)[0]
    save_file({"a": np.eye(2), "b": np.eye(2)}, tmp_path / "C.safetensors")
    assert main(["rip", str(tmp_path / "C.safetensors")]) == 2
    assert "has 2 tensors: name one as" in errors(capsys)[0]


def test_help_shows_an_example(capsys):
    assert main(["rip", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "cosa-theory rip --shape 4096 4096 --core 1024 256 --sparsity 2,4,8,16" in text


def test_orders_nobody_asked_for_end_with_the_columns(capsys):
    assert main(["rip", "--shape", "8", "8", "--core", "2", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["brackets"]
    assert [(row["about"], row["s"]) for row in rows] == [
        ("dictionary", 2),
        ("dictionary", 4),
        ("sensing", 2),
        ("sensing", 4),
    ]


def test_a_constant_of_one_or_more_everywhere_is_said_once(capsys):
    settings = ("--shape", "8", "8", "--core", "9", "2", "--about", "dictionary")
    assert main(["rip", *settings, "--sparsity", "2"]) == 0
    verdict = capsys.readouterr().out.splitlines()[0]
    assert verdict.startswith("With Gaussian factors, Ψ is proven to have δ_s ≥ 1 at every order ")
    assert "not proven" not in verdict


def test_an_interruption_is_one_plain_line(matrix, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cosa_theory.studies.rip.compute.matrix_isometry", interrupted)
    assert main(["rip", str(matrix)]) == 130
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("interrupted: nothing is kept")


def test_zero_columns_of_a_file_are_not_laid_to_a_projection(tmp_path, capsys):
    np.save(tmp_path / "A.npy", np.diag([1.0, 1.0, 0.0]))
    assert main(["rip", str(tmp_path / "A.npy"), "--sparsity", "1", "--json"]) == 0
    (notice, *_) = json.loads(capsys.readouterr().out)["notices"]
    assert notice.startswith("A has zero columns, so δ_s ≥ 1")
    assert "projection" not in notice


def test_sizes_beyond_memory_are_one_plain_line(capsys):
    huge = ("--shape", "10000000000", "10000000000", "--core", "100000", "100000")
    assert main(["rip", *huge, "--sparsity", "2"]) == 2
    (line,) = errors(capsys)
    assert line.startswith("error: not enough memory: ")
    assert line.endswith("choose smaller sizes")


def test_anyone_can_multiply_the_lower_end_again_with_the_witness_in_the_json(capsys):
    assert main(["rip", *LAYER, "--json", "--seed", "5"]) == 0
    for row in json.loads(capsys.readouterr().out)["brackets"]:
        basis = CosaBasis.sample(16, 12, 10, 8, seed=5, scale=row["scale"])
        operator = getattr(basis, row["about"])()
        x = np.zeros(operator.shape[1])
        x[row["witness_columns"]] = row["witness_values"]
        assert np.count_nonzero(x) <= row["s"]
        image = operator @ x
        assert abs(image @ image / (x @ x) - 1) == pytest.approx(row["lower"], rel=1e-9)


def test_two_results_are_shown_side_by_side_in_a_folder_of_their_own(made, tmp_path, capsys):
    other, both = tmp_path / "other", tmp_path / "both"
    assert main(["rip", *LAYER, "--kind", "haar", "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["report", str(made), str(other), "--out", str(both)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"2 results of cosa-theory rip, side by side: {made}, {other}."
    assert lines[0].startswith(f"{made}: ")
    page = (both / "report.html").read_text(encoding="utf-8")
    assert '<th scope="colgroup" colspan="' in page
    assert page.count(f">{other}</th>") >= 1
    assert {path.name for path in both.iterdir()} == {"report.html", ".cosa-theory.json"}


@pytest.mark.parametrize("results", [1, 2])
def test_a_folder_for_one_result_and_none_for_two_are_refused(made, tmp_path, results, capsys):
    folders = [str(made), str(tmp_path)][:results]
    wanted = ["--out", str(tmp_path)] if results == 1 else []
    assert main(["report", *folders, *wanted]) == 2
    assert "--out" in capsys.readouterr().err
