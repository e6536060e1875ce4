"""The command: what it prints, what it stores, and how it refuses bad input."""

import dataclasses
import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from cosa_theory.ground.errors import InputError
from cosa_theory.projections import stream
from experiments import finetune_delta
from paper_checks import c04, c05, c09, run_checks, to_frame
from paper_checks.__main__ import main
from paper_checks.base import NO_CLAIM, Case
from paper_checks.run import CHECKS, default_pair, headline, select
from tests.paper_checks.updates import studied

NAME = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def pair(tmp_path):
    """Write a small pair whose update is low-rank."""
    generator = stream(0, "test", "pair")
    base = generator.standard_normal((64, 48)).astype(np.float32)
    update = np.outer(generator.standard_normal(64), generator.standard_normal(48))
    save_file({NAME: base}, tmp_path / "base.safetensors")
    save_file({NAME: base + 0.01 * update.astype(np.float32)}, tmp_path / "tuned.safetensors")
    return str(tmp_path / "base.safetensors"), str(tmp_path / "tuned.safetensors")


def test_every_module_named_after_a_claim_is_a_check():
    modules = sorted(Path(finetune_delta.__file__).parent.parent.glob("paper_checks/c*[0-9].py"))
    claims = [name for name, check in CHECKS.items() if check.claim.source != NO_CLAIM]
    assert claims == [f"C{int(path.stem[1:])}" for path in modules]
    assert len(claims) >= 11


def test_json_is_one_document_and_everything_else_goes_to_standard_error(pair, tmp_path):
    command = [sys.executable, "-m", "paper_checks", "C9", "c06", "--json"]
    command += ["--out", str(tmp_path / "out"), "--pair", *pair]
    root = Path(finetune_delta.__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [check["id"] for check in content["checks"]] == ["C6", "C9"]
    assert content["verdict"] == headline(run_checks(["C6", "C9"], pair))
    assert content["provenance"]["arguments"]["pair"] == list(pair)
    assert set(content["thresholds"]) >= {"c4_kept", "c6_saving"}
    assert content["thresholds"]["c6_saving"]["date"] == "2026-11-22"
    assert done.stderr.splitlines() == ["checking C6", "checking C9"]


@pytest.fixture
def without_others(monkeypatch):
    """Leave out the updates that others trained, and the study of function."""
    for check, measure in (
        ("C4", partial(c04.measure, function=lambda seed: studied())),
        ("C5", partial(c05.measure, others=dict)),
    ):
        monkeypatch.setitem(CHECKS, check, dataclasses.replace(CHECKS[check], measure=measure))


@pytest.mark.usefixtures("without_others")
def test_the_first_line_is_the_verdict_and_the_tables_say_the_same(pair, tmp_path, capsys):
    assert main(["C1", "C4", "C5", "C6", "--pair", *pair, "--out", str(tmp_path / "checks")]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == (
        "Of 4 claims of the paper, 1 holds (C1), 2 hold under conditions (C5, C6), 1 fails (C4)."
    )
    assert max(len(line) for line in rest if str(tmp_path) not in line) <= 98
    assert "LoRA (PiSSA trains as many) at least 0.684 (set on 2026-11-22)" in " ".join(
        " ".join(rest).split()
    )
    table = pd.read_parquet(tmp_path / "checks" / "checks.parquet")
    assert list(table.id) == ["C1", "C4", "C5", "C6"]
    assert list(table.verdict) == ["holds", "fails", *["holds under conditions"] * 2]
    cases = pd.read_parquet(tmp_path / "checks" / "cases.parquet")
    stored = json.loads((tmp_path / "checks" / "checks.json").read_text())
    assert len(cases) == sum(len(check["cases"]) for check in stored["checks"])
    deciding = cases[~cases.control]
    for row in table.itertuples():
        outcomes = deciding[deciding.id == row.id].outcome
        for word in ("holds", "fails", "undecided"):
            assert getattr(row, word) == (outcomes == word).sum()


def test_a_later_run_replaces_the_stored_one(tmp_path, capsys):
    assert main(["C1", "C6", "--out", str(tmp_path)]) == 0
    assert main(["C6", "--out", str(tmp_path)]) == 0
    assert list(pd.read_parquet(tmp_path / "checks.parquet").id) == ["C6"]
    assert set(pd.read_parquet(tmp_path / "cases.parquet").id) == {"C6"}
    assert "Of 1 claim of the paper" in capsys.readouterr().out


def test_a_number_that_cannot_be_computed_is_null_undecided_and_said_first(
    tmp_path, monkeypatch, capsys
):
    missing = Case("lost", "g", np.nan, 0.0, np.nan, "c1_error", details={"x": np.float32("nan")})
    broken = Case.exact("broken", "g", np.nan, "c1_error", control=True)

    def measure(layers, seed):
        return [Case.exact("found", "g", 0.0, "c1_error"), missing, broken]

    monkeypatch.setitem(CHECKS, "C1", dataclasses.replace(CHECKS["C1"], measure=measure))
    assert main(["C1", "--json", "--out", str(tmp_path)]) == 0
    stored = (tmp_path / "checks.json").read_text()
    for text in (stored, capsys.readouterr().out):
        (check,) = json.loads(text, parse_constant=pytest.fail)["checks"]
        assert check["verdict"] == "undecided"
        assert check["summary"].startswith("Of 3 numbers, 2 could not be computed (lost; broken).")
        assert [case["value"] for case in check["cases"]] == [0.0, None, None]
        assert check["cases"][1]["details"] == {"x": None}
    cases = pd.read_parquet(tmp_path / "cases.parquet")
    json.loads(cases["details"][1], parse_constant=pytest.fail)


def test_updates_that_are_zero_leave_a_claim_undecided(pair, tmp_path):
    assert main(["C5", "--pair", pair[0], pair[0], "--out", str(tmp_path / "out")]) == 0
    (check,) = json.loads((tmp_path / "out" / "checks.json").read_text())["checks"]
    assert (check["verdict"], check["cases"]) == ("undecided", [])


def test_a_folder_whose_name_is_no_text_takes_the_results(tmp_path):
    assert main(["C6", "--out", str(tmp_path / "out\udcff\n")]) == 0
    (made,) = tmp_path.iterdir()
    assert len(pd.read_parquet((made / "cases.parquet").open("rb")))


def test_the_results_say_the_command_that_makes_them_again(tmp_path):
    words = ["C6", "--out", str(tmp_path / "a b")]
    assert main(words) == 0
    made = json.loads((tmp_path / "a b" / "checks.json").read_text())["provenance"]
    assert shlex.split(made["command"]) == ["python", "-m", "paper_checks", *words]
    assert "This command makes them again" in (tmp_path / "a b" / "report.html").read_text()


def test_identifiers_come_in_any_case_and_order():
    assert select(["c9", "C01", "C4", "C4", "c04i"]) == ["C1", "C4", "C9", "C4i"]
    everything = ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11"]
    assert select([]) == list(CHECKS)
    assert list(CHECKS)[:11] == everything


@pytest.mark.parametrize("given", ["C99", "", "C", "9", "Cx", "C¹"])
def test_an_unknown_identifier_names_those_there_are(given):
    with pytest.raises(InputError, match="C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11"):
        select([given])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["C99"], "no check 'C99'"),
        (["C1", "--seed", "-1"], "--seed is -1"),
        (["C4", "--pair", "no.safetensors", "such.safetensors"], "no.safetensors"),
    ],
)
def test_bad_input_is_a_plain_line_and_exit_code_2(arguments, words, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("checking")]
    assert lines
    assert all(line.startswith("error: ") for line in lines)
    assert words in printed.err
    assert not (tmp_path / "out").exists()


def test_checks_without_real_updates_need_no_pair(monkeypatch):
    def fail():
        raise AssertionError("looked for a pair")

    monkeypatch.setattr("paper_checks.run.default_pair", fail)
    assert [verdict.claim.id for verdict in run_checks(["C1", "C6"])] == ["C1", "C6"]
    with pytest.raises(AssertionError, match="looked for a pair"):
        run_checks(["C4"])


def test_the_default_pair_is_made_once_and_said_so(tmp_path, monkeypatch, capsys):
    made = []

    def run(config, out):
        made.append(config)
        out.mkdir()
        (out / "summary.json").write_text("{}")

    monkeypatch.setattr(finetune_delta, "DEFAULT_OUT", tmp_path / "pair")
    monkeypatch.setattr(finetune_delta, "run", run)
    expected = (tmp_path / "pair" / "base.safetensors", tmp_path / "pair" / "tuned.safetensors")
    assert default_pair() == expected
    assert "making one" in capsys.readouterr().err
    assert default_pair() == expected
    assert capsys.readouterr().err == ""
    assert made == [finetune_delta.Config()]


def test_a_failed_control_is_the_first_thing_said(pair, monkeypatch):
    def broken(layers, seed):
        return c09.measure(layers, seed, rank_of=lambda update: 10**6)

    monkeypatch.setitem(CHECKS, "C9", dataclasses.replace(CHECKS["C9"], measure=broken))
    (verdict,) = run_checks(["C9"], pair)
    assert verdict.verdict == "undecided"
    assert verdict.summary.startswith("The control 'all measured ranks' failed")


def test_the_frame_has_the_texts_that_the_report_shows():
    frame = to_frame(run_checks(["C1"]))
    assert {
        "id",
        "claim",
        "source",
        "method",
        "quantity",
        "criterion",
        "verdict",
        "summary",
    } <= set(frame.columns)
    assert not frame.isna().to_numpy().any()
