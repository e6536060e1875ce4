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
    ("place", "given", "says"),
    [
        (1, "{tmp}", "BASE is {tmp}, which holds no config.json: name a folder of transformers"),
        (1, __file__, f"BASE is {__file__}, which is a file: name a folder of transformers"),
        (-1, "{tmp}/none.safetensors", "{tmp}/none.safetensors: there is no such file"),
        (-1, __file__, __file__),
    ],
)
def test_a_wrong_path_is_told_before_a_model_is_loaded(
    arguments, place, given, says, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("cosa_theory.nn.readout.load_text_model", None)
    monkeypatch.setattr("cosa_theory.studies.function.pair.open_pair", None)
    command = [*arguments, "--moments", ""] if place < 0 else list(arguments)
    command[place] = given.format(tmp=tmp_path)
    assert main(command) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error")]
    assert says.format(tmp=tmp_path) in line


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--approximations", "svd,magic"], "--approximations"),
        (["--ranks", "0"], "--ranks"),
        (["--texts", "nowhere.txt"], "--texts"),
        (["--task", "causal-lm"], "--task"),
        (["--moments", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--save-moments", "."], "--save-moments"),
        (["--save-moments", __file__], "holds no moments: name another file"),
        (["--save-moments", f"{__file__}/moments"], "needs a folder where a file is"),
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
