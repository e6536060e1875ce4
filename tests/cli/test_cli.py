"""The command as a stranger uses it, with good input and bad."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import cosa_theory.studies.spectrum.pair
from cosa_theory.cli import main
from experiments.command import write_table

QUICK = ("--families", "truncated_svd,cosa_gaussian", "--draws", "4")
FIGURES = ("spectra", "cumulative_energy", "captured_energy", "heatmap")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two small checkpoints: four matrices, a vector, and a tensor that only the base has."""
    folder = tmp_path_factory.mktemp("pair")
    generator = np.random.default_rng(0)
    base, tuned = {}, {}
    for block in range(2):
        for name, shape in (("attn.q_proj", (20, 16)), ("mlp.up_proj", (32, 16))):
            key = f"model.layers.{block}.{name}.weight"
            base[key] = generator.standard_normal(shape).astype(np.float32)
            update = np.outer(generator.standard_normal(shape[0]), generator.standard_normal(16))
            noise = generator.standard_normal(shape)
            tuned[key] = base[key] + (0.1 * update + 0.01 * noise).astype(np.float32)
    base["norm.weight"] = tuned["norm.weight"] = np.ones(16, np.float32)
    base["old_head.weight"] = np.ones((4, 16), np.float32)
    save_file(base, folder / "base.safetensors")
    save_file(tuned, folder / "tuned.safetensors")
    return str(folder / "base.safetensors"), str(folder / "tuned.safetensors")


@pytest.fixture(scope="module")
def made(pair, tmp_path_factory):
    """The folder of one complete run."""
    out = tmp_path_factory.mktemp("made") / "out"
    assert main(["spectrum", *pair, "--out", str(out), *QUICK]) == 0
    return out


def errors(capsys):
    """Return the lines on standard error; standard output must be empty."""
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


def test_the_first_line_of_the_text_is_the_verdict_and_every_layer_is_listed(pair, capsys):
    assert main(["spectrum", *pair, *QUICK]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(
        "4 of 5 layers compared: Low rank wins in 4 of 4 matrices at equal trainable parameters"
    )
    for block in range(2):
        assert f"\nmodel.layers.{block}.attn.q_proj.weight " in printed.out
    assert "\nmlp.up_proj " in printed.out
    assert "note: " in printed.err
    assert "old_head.weight" in printed.err


def test_json_is_one_document_alone_on_standard_output(pair, capsys):
    assert main(["spectrum", *pair, "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"].startswith("4 of 5 layers compared: Low rank wins in 4 of 4")
    assert len(document["layers"]) == 4
    assert {row["family"] for row in document["families"]} == {"truncated_svd", "cosa_gaussian"}
    made = document["provenance"]
    assert made["arguments"]["families"] == "truncated_svd,cosa_gaussian"
    assert made["arguments"]["base"] == pair[0]
    assert made["seed"] == 0


def test_out_holds_tables_summary_figures_and_page(made):
    names = {path.name for path in made.iterdir()}
    tables = {f"{name}.parquet" for name in ("layers", "spectra", "families", "crossover")}
    own = {"spectrum.json", "report.html", "figures", ".cells", ".cosa-theory.json"}
    assert names == tables | own
    figures = {path.name for path in (made / "figures").iterdir()}
    assert figures == {f"{name}.{ending}" for name in FIGURES for ending in ("pdf", "png")}
    spectra = pd.read_parquet(made / "spectra.parquet")
    assert set(spectra["matrix"]) == {"base", "tuned", "delta"}


def test_report_renders_the_same_page_from_the_tables_alone(made, capsys):
    page = (made / "report.html").read_bytes()
    (made / "report.html").unlink()
    assert main(["report", str(made)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("4 of 5 layers compared: Low rank wins in 4 of 4")
    assert printed.rstrip().endswith(str(made / "report.html"))
    assert (made / "report.html").read_bytes() == page


def test_results_of_before_the_noise_null_are_refused_with_the_remedy(made, capsys, tmp_path):
    old = shutil.copytree(made, tmp_path / "old")
    table = pd.read_parquet(old / "crossover.parquet")
    table.drop(columns=["noise_ratio", "excess"]).to_parquet(old / "crossover.parquet")
    assert main(["report", str(old)]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert str(old) in error
    assert "excess" in error
    assert "run the command again" in error


def test_a_second_run_replaces_the_results_and_computes_nothing_twice(
    pair, tmp_path, capsys, monkeypatch
):
    settings = ["spectrum", *pair, "--out", str(tmp_path), "--families", "none"]
    monkeypatch.setattr("cosa_theory.page.html.write_page_files", lambda *_: None)
    assert main(settings) == 0
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / ".cells").iterdir()}
    assert len(cells) == 4
    first = (tmp_path / "layers.parquet").read_bytes()
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "photo.png").write_text("mine")
    assert main(settings) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / ".cells").iterdir()} == cells
    assert (tmp_path / "layers.parquet").read_bytes() == first
    assert (tmp_path / "figures" / "photo.png").read_text() == "mine"
    assert main([*settings, "--ranks", "1"]) == 0
    assert len(list((tmp_path / ".cells").iterdir())) == 8
    capsys.readouterr()


def test_options_reach_the_survey(pair, capsys):
    chosen = ["--ranks", "1,3", "--include", "q_proj", "--exclude", r"layers\.1", "--seed", "7"]
    more = ["--families", "cosa_haar", "--draws", "4", "--matrices", "delta", "--threads", "1"]
    more += ["--device", "cpu"]
    assert main(["spectrum", *pair, "--json", *chosen, *more]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in document["layers"]] == ["model.layers.0.attn.q_proj.weight"]
    assert [row["rank_budget"] for row in document["crossover"]] == [1, 3]
    assert {row["family"] for row in document["families"]} == {"cosa_haar"}
    assert document["provenance"]["seed"] == 7
    chosen[-1] = "8"
    assert main(["spectrum", *pair, "--json", *chosen, *more]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["families"][0]["captured"] != document["families"][0]["captured"]


def test_an_interruption_says_what_is_kept_and_how_to_resume(pair, tmp_path, capsys, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cosa_theory.studies.spectrum.pair, "survey_pair", interrupted)
    assert main(["spectrum", *pair, "--out", str(tmp_path)]) == 130
    last = errors(capsys)[-1]
    assert last.startswith("interrupted: finished matrices are kept in")
    assert last.endswith("the same command resumes")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["spectrum", "BASE"], "Missing argument 'TUNED'"),
        (["spectrum", "BASE", "TUNED", "--rank", "4"], "No such option: --rank"),
        (["spectrum", "BASE", "TUNED", "--ranks", "4,x"], "--ranks is '4,x': give positive"),
        (["spectrum", "BASE", "TUNED", "--ranks", "0"], "--ranks is '0': give positive"),
        (["spectrum", "BASE", "TUNED", "--draws", "1"], "'--draws'"),
        (["spectrum", "BASE", "TUNED", "--seed", "-1"], "'--seed'"),
        (["spectrum", "BASE", "TUNED", "--on-shape", "guess"], "'--on-shape'"),
        (["spectrum", "BASE", "TUNED", "--families", "lora"], "families is 'lora'"),
        (["spectrum", "BASE", "TUNED", "--families", ""], "--families is '': it must be one of"),
        (["spectrum", "BASE", "TUNED", "--include", "nothing"], "nothing"),
        (["spectrum", "BASE", "TUNED", "--out", "BASE"], "a file is in the way"),
        (["spectrum", "BASE", "TUNED", "--out", "BASE/out"], "a file is in the way"),
        (["spectrum", "BASE", "TUNED", "--device", "tpu9"], "--device is 'tpu9'"),
        (["spectrum", "absent.safetensors", "TUNED"], "absent.safetensors"),
        (["report", "absent"], "absent holds no results: name the folder"),
        (["report", "."], "name the folder given to --out of a command or experiment (atlas, "),
        (["repot"], "No such command 'repot'"),
    ],
)
def test_each_mistake_gives_one_plain_line_and_exit_code_2(pair, arguments, expected, capsys):
    known = {"BASE": pair[0], "BASE/out": f"{pair[0]}/out", "TUNED": pair[1]}
    assert main([known.get(argument, argument) for argument in arguments]) == 2
    lines = errors(capsys)
    problems = [line for line in lines if not line.startswith("note: ")]
    assert len(problems) == 1
    assert problems[0].startswith("error: ")
    assert expected in problems[0]


def test_tables_of_an_experiment_are_not_taken_for_a_page(tmp_path, capsys):
    table = pd.DataFrame({"share": [1.0]})
    write_table(table, tmp_path, "atlas", arguments={}, verdict="A verdict.")
    assert main(["report", str(tmp_path)]) == 2
    assert "holds tables of the experiment atlas, which have no page: open" in errors(capsys)[0]


def test_all_problems_of_the_input_are_listed_one_line_each(pair, tmp_path, capsys):
    tuned = {
        "model.layers.0.attn.q_proj.weight": np.ones((20, 17), np.float32),
        "model.layers.1.attn.q_proj.weight": np.ones((21, 16), np.float32),
    }
    save_file(tuned, tmp_path / "tuned.safetensors")
    assert main(["spectrum", pair[0], str(tmp_path / "tuned.safetensors")]) == 2
    lines = errors(capsys)
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)
    assert "(20, 17)" in lines[0] or "20 × 17" in lines[0]


def test_remedies_are_spelt_as_options_and_they_work(pair, tmp_path, capsys):
    base = {"head.weight": np.ones((20, 16), np.float32), "up.weight": np.eye(8, dtype="float32")}
    tuned = {"head.weight": np.ones((20, 17), np.float32), "up.weight": np.eye(8, dtype="float32")}
    tuned["up.weight"] = tuned["up.weight"] * np.float32("nan")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("base", "tuned")]
    save_file(base, files[0])
    save_file(tuned, files[1])
    run = ["spectrum", *files, "--families", "none"]
    assert main(run) == 2
    assert "--on-shape skip" in errors(capsys)[-1]
    assert main([*run, "--on-shape", "skip"]) == 2
    assert "--on-nonfinite skip" in errors(capsys)[-1]
    assert main([*run, "--on-shape", "skip", "--on-nonfinite", "skip"]) == 0
    assert capsys.readouterr().out.startswith("0 of 2 layers compared: No matrix was compared")
    (tmp_path / "model.pt").write_bytes(b"\x80\x04N.")
    assert main(["spectrum", str(tmp_path / "model.pt"), pair[1]]) == 2
    assert "--allow-pickle" in errors(capsys)[-1]


def test_a_problem_of_both_sides_is_told_once(tmp_path, capsys):
    assert main(["spectrum", str(tmp_path), str(tmp_path)]) == 2
    assert len(errors(capsys)) == 1


def test_a_read_only_place_is_named(pair, capsys, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied", "/locked/out")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert main(["spectrum", *pair, "--out", "/locked/out"]) == 2
    assert errors(capsys)[-1].startswith("error: /locked/out cannot be written (Permission denied)")


@pytest.mark.parametrize("command", ["spectrum", "report"])
def test_help_shows_an_example(command, capsys):
    assert main([command, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split()).replace("Examples:", "Example:")
    assert f"Example: cosa-theory {command} " in told


def test_help_lists_the_commands_and_nothing_is_printed_to_standard_error(capsys):
    assert main([]) == 0
    printed = capsys.readouterr()
    assert "spectrum" in printed.out
    assert "report" in printed.out
    assert printed.err == ""


def test_the_installed_command_pipes_json_and_survives_a_closed_pipe(pair):
    run = [sys.executable, "-m", "cosa_theory", "spectrum", *pair, "--families", "none"]
    environment = {**os.environ, "COLUMNS": "40"}  # nothing may be wrapped to the terminal
    piped = subprocess.run([*run, "--json"], capture_output=True, text=True, env=environment)
    assert piped.returncode == 0
    assert json.loads(piped.stdout)["verdict"].startswith("4 of 5 layers compared: Low rank wins")
    reader, writer = os.pipe()
    os.close(reader)
    closed = subprocess.run(run, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writer)
    assert "Traceback" not in closed.stderr
    assert "BrokenPipe" not in closed.stderr
    assert "error:" not in closed.stderr  # a reader who has seen enough is no error
    assert closed.returncode == 1


def test_moments_of_the_base_add_the_informed_families(pair, tmp_path, capsys):
    from cosa_theory.nn.moments import Moments, write_moments
    from cosa_theory.projections import SecondMoments

    names = [name for name in load_file(pair[0]) if name.endswith("proj.weight")]
    inputs = SecondMoments(np.diag(0.8 ** np.arange(16)).astype(np.float32), count=99)
    write_moments(Moments(dict.fromkeys(names, inputs)), tmp_path / "moments.safetensors")
    chosen = ["--families", "cosa_activation,cosa_gradient", "--ranks", "2"]
    moments = ["--moments", str(tmp_path / "moments.safetensors")]
    assert main(["spectrum", *pair, *chosen, *moments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["families"]
    assert {(row["family"], row["law"]) for row in rows} == {("cosa_activation", None)}
    assert {row["layer"] for row in rows} == set(names)
    assert main(["spectrum", *pair, "--moments", pair[0]]) == 2
    assert "holds no moments" in errors(capsys)[-1]
