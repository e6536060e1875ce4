"""`cosa-theory atlas` as a stranger uses it."""

import json

import pytest
from safetensors.torch import load_file, save_file

from cosa_theory.cli import main
from tests.deltas.language_models import save_model
from tests.studies.function.test_pair import DOMAIN, tuned_from

NAMES = "shira_gradient,truncated_svd,adalora,cosa_haar,mask,top_entries,cosa_activation,dare"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    base = save_model(folder / "base", "headless")
    tuned = tuned_from(base, folder / "tuned")
    (folder / "texts.txt").write_text("\n".join(DOMAIN))
    # As gradients any matrices of these shapes: here the weights of the base.
    matrices = {
        name: tensor
        for name, tensor in load_file(base / "model.safetensors").items()
        if tensor.ndim == 2
    }
    save_file(matrices, folder / "gradients.safetensors")
    paths = ["atlas", str(base), str(tuned), "--families", NAMES, "--draws", "2"]
    more = ["--texts", str(folder / "texts.txt")]
    return paths, [*more, "--gradients", str(folder / "gradients.safetensors")]


def test_the_folder_is_a_report_with_energy_and_function_of_every_family(
    arguments, tmp_path, capsys
):
    paths, known = arguments
    out = tmp_path / "out"
    given = [*paths, *known, "--include", "query|key|dense", "--exclude", "norm|Norm"]
    assert main([*given, "--budgets", "100,4e2", "--out", str(out)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "400 trainable parameters" in first
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "What each family returns of the model" in page
    for name in ("atlas", "atlas_function", "atlas_winners"):
        assert (out / "figures" / f"{name}.pdf").is_file()
    assert main(["report", str(out)]) == 0
    content = json.loads((out / "atlas.json").read_text(encoding="utf-8"))
    rows = {(row["family"], row["budget"]): row for row in content["pooled"]}
    # Informed cores have no energies without moments, and no row.
    assert {family for family, _ in rows} == set(NAMES.split(",")) - {"cosa_activation"}
    for (family, _), row in rows.items():
        if row["captured"] is None:
            assert row["reason"]
        assert row["recovered_low"] <= row["recovered"] <= row["recovered_high"], family
    # Nearly all of so small an update is nearly all of its function, half of it is not.
    assert rows["top_entries", 400]["captured"] > 0.98
    assert rows["top_entries", 400]["recovered"] > 0.95
    # A mask by the weights, which are no gradients here, returns no more than any other.
    assert 0 < rows["shira_gradient", 400]["recovered"] < 0.98
    assert rows["mask", 100]["recovered"] < 0.7


def test_json_is_one_document_of_energies_without_texts(arguments, capsys):
    paths, _ = arguments
    assert main([*paths, "--budgets", "300", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["command"] == "atlas"
    assert all(row["recovered"] is None for row in content["pooled"])
    assert {row["budget"] for row in content["pooled"]} == {300}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--families", "mask,magic"], "--families"),
        (["--families", ""], "--families is '': it must be one of"),
        (["--budgets", "0"], "--budgets"),
        (["--budgets", "1e4,many"], "--budgets"),
        (["--budgets", "1.5"], "--budgets"),
        (["--budgets", "inf"], "--budgets"),
        (["--texts", "nowhere.txt"], "--texts"),
        (["--moments", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--gradients", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(arguments, capsys, wrong, named):
    paths, _ = arguments
    assert main([*paths, *wrong]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = [one for one in told.err.splitlines() if one.startswith("error")]
    assert named in line
