"""The main job, with a tiny pair in place of the fine-tuned model."""

import html
import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from cosa_theory.ground.errors import InputError
from cosa_theory.page.document import read_document
from experiments import phase_transition, recovery
from paper_checks import report
from paper_checks.base import Case, Claim, Verdict
from tests.experiments.finetune_results import results
from tests.paper_checks.updates import studied

PHASES = phase_transition.Config(
    shape=(12, 12),
    cores=((6, 6),),
    core=(6, 6),
    kinds=("gaussian",),
    packings=("random", "column"),
    fractions=(0.5, 1.5),
    draws=1,
    updates=3,
)
ERRORS = recovery.Config(
    shape=(12, 12),
    shares=(0.5,),
    updates=(("sparse", 2),),
    sparsities=(2,),
    noises=(),
    kinds=("gaussian",),
    bases=("coordinate",),
    solvers=(("fista", ()),),
    few=(("least_norm", ()),),
    draws=1,
    layers=("layers.0.up",),
    real_shares=(0.25,),
)


@pytest.fixture
def tiny(monkeypatch):
    """Replace the slow stages: fetching, fine-tuning and the checks; small recoveries."""
    calls = {}

    def finetune(config, out):
        calls["steps"], calls["seed"] = config.steps, config.seed
        out.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(config.seed)
        base = {"layers.0.up.weight": generator.standard_normal((24, 20))}
        tuned = {name: w + 0.01 * generator.standard_normal(w.shape) for name, w in base.items()}
        save_file(base, out / "base.safetensors")
        save_file(tuned, out / "tuned.safetensors")
        return pd.DataFrame()

    def checks(ids, pair, seed, progress):
        calls["pair"] = pair
        progress("C1")
        claim = Claim("C1", "An identity.", "abstract", "Explicitly.", "error", "at most 1e-13")
        case = Case.exact("one", "all", 0.0, "c1_error")
        return [Verdict(claim, "holds", "No difference at all.", (case,), 0.0)]

    def trainings(seed):
        calls["trainings"] = seed
        return results({"lora": [0.90, 0.91], "cosa": [0.88, 0.90]})

    def function(seed):
        calls["function"] = seed
        return studied()

    def gradient(config, out):
        save_file({"layers.0.up.weight": np.ones((24, 20), np.float32)}, out)

    monkeypatch.setitem(phase_transition.PRESETS, "quick", PHASES)
    monkeypatch.setitem(recovery.PRESETS, "quick", ERRORS)
    monkeypatch.setattr(report, "asset_folder", lambda name: name)
    monkeypatch.setattr(report.first_gradient, "run", gradient)
    monkeypatch.setattr(report.finetune_delta, "run", finetune)
    monkeypatch.setattr(report.finetune_check, "stored_or_short", trainings)
    monkeypatch.setattr(report, "quick_function", function)
    monkeypatch.setattr("cosa_theory.studies.function.figures.FIGURES", {})
    monkeypatch.setattr(report, "run_checks", checks)
    return calls


def test_the_job_ends_with_the_path_of_a_page_that_holds_survey_and_checks(tiny, tmp_path, capsys):
    out, pair = tmp_path / "report", tmp_path / "pair"
    settings = ["--steps", "3", "--draws", "4", "--seed", "5"]
    assert report.main(["--out", str(out), "--pair", str(pair), *settings]) == 0
    assert tiny == {
        "steps": 3,
        "seed": 5,
        "trainings": 5,
        "function": 5,
        "pair": (pair / "base.safetensors", pair / "tuned.safetensors"),
    }
    returned, *lines = capsys.readouterr().out.splitlines()
    assert returned == read_document(out / "function", "function").verdict
    assert returned.startswith("On a sentence encoder, 1,808 pairs of sentences, one epoch, by oth")
    stored = read_document(out, "spectrum")
    assert lines[0] == stored.verdict
    judged = read_document(out / "audit", "audit")
    assert lines[1] == judged.verdict
    assert set(judged.tables["assumptions"]["subject"]) == {"update", "gradient"}
    recovered = read_document(out / "recovery", "experiments")
    assert lines[2] == recovered.verdict
    assert set(recovered.tables) == {"phase_transition", "phase_lines", "recovery"}
    assert set(recovered.tables["recovery"]["seed"]) == {5}
    assert "layers.0.up.weight" in set(recovered.tables["recovery"]["update"])
    compared = read_document(out / "finetune", "finetune")
    assert lines[3] == compared.verdict
    assert set(compared.tables) == {"summary", "trainings"}
    assert lines[4] == "Of 1 claim of the paper, 1 holds (C1)."
    assert lines[-1] == str(out / "report.html")
    page = html.unescape((out / "report.html").read_text())
    assert "No difference at all." in page
    assert judged.verdict in page
    assert page.count("<h1>") == 1
    assert f'<h1>Function, not only energy: <span class="rest">{returned}</span></h1>' in page
    assert page.index('<a href="function/report.html">') < page.index(f"<h2>{stored.verdict}</h2>")
    assert '<a href="audit/report.html">' in page
    assert (out / "audit" / "report.html").is_file()
    assert recovered.verdict in page
    assert '<a href="recovery/report.html">' in page
    assert '<a href="finetune/report.html">' in page
    assert "Sentence encoder on Reuters R8: test accuracy" in page
    assert "Every training" in (out / "finetune" / "report.html").read_text()
    inner = (out / "recovery" / "report.html").read_text()
    assert '<figure id="phase_transition">' in inner
    assert '<figure id="recovery">' in inner
    assert "What comes back of 1 real updates" in inner
    assert list(stored.tables["checks"]["verdict"]) == ["holds"]
    assert json.loads((out / "checks.json").read_text())["verdict"] == lines[4]


def test_the_time_of_every_stage_is_printed_and_stored(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cosa_theory.page.html.write_page_files", lambda *_: None)
    table = report.run(report.Config(draws=4), tmp_path / "report", tmp_path / "pair")
    assert len(table) == 9
    assert (table["seconds"] >= 0).all()
    stored = read_document(tmp_path / "report", "spectrum").provenance["seconds"]
    assert list(stored) == list(table["stage"])[:8]
    assert "9/9 write tables" in capsys.readouterr().err


def test_input_that_can_be_mended_gives_plain_lines_and_exit_code_2(
    tiny, tmp_path, capsys, monkeypatch
):
    def offline(_name):
        raise InputError("the wheel cannot be fetched: connect to a network")

    monkeypatch.setattr(report, "asset_folder", offline)
    assert report.main(["--out", str(tmp_path / "report"), "--pair", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("error: the wheel cannot be fetched")
