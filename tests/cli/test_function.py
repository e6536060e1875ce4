"""`cosa-theory function` as a stranger uses it."""

import json

import pytest

from cosa_theory.cli import main
from tests.deltas.language_models import save_model
from tests.studies.function.test_pair import DOMAIN, tuned_from

NAMES = "svd,best_core_haar,adjoint_haar,noise,mask,signs"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    base = save_model(folder / "base", "headless")
    tuned = tuned_from(base, folder / "tuned")
    (folder / "texts.txt").write_text("\n".join(DOMAIN))
    return [
        "function",
        str(base),
        str(tuned),
        *("--texts", str(folder / "texts.txt"), "--general", str(folder / "texts.txt")),
        *("--ranks", "1,2", "--approximations", NAMES),
    ]


def test_the_verdict_comes_first_and_the_folder_is_a_report(arguments, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("CoSA's core returns ")
    assert first.endswith("(budget of rank 2).")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Function against energy" in page
    for name in ("function", "function_bits"):
        assert (out / "figures" / f"{name}.pdf").is_file()
    assert main(["report", str(out)]) == 0


def test_json_is_one_document_with_every_approximation(arguments, capsys):
    assert main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["command"] == "function"
    assert {row["approximation"] for row in content["approximations"]} == set(NAMES.split(","))
    assert {row["texts"] for row in content["function"]} == {"domain", "general"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--approximations", "svd,magic"], "--approximations"),
        (["--ranks", "0"], "--ranks"),
        (["--texts", "nowhere.txt"], "--texts"),
        (["--task", "causal-lm"], "--task"),
        (["--moments", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--save-moments", "."], "--save-moments"),
        (["--general", "."], "--general"),
    ],
)
def test_bad_input_gives_one_line_that_names_the_option(arguments, wrong, named, capsys):
    assert main([*arguments, *wrong]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    errors = [line for line in printed.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert named in errors[0]
