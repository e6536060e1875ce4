"""`cosa-theory moments` as a stranger uses it."""

import json

import pytest

from cosa_theory.cli import main
from cosa_theory.nn.moments import model_fingerprint, read_moments
from cosa_theory.nn.readout import load_text_model
from tests.deltas.language_models import TEXTS, save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "causal", "causal")
    save_model(folder / "headless", "headless")
    (folder / "texts.txt").write_text(TEXTS)
    return folder


def test_moments_of_texts_are_stored_and_the_verdict_comes_first(folder, tmp_path, capsys):
    out = tmp_path / "new" / "moments.safetensors"
    command = ["moments", str(folder / "headless"), "--texts", str(folder / "texts.txt")]
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith("32 directions hold 100 % of the energy of what a layer is fed")
    assert "over 7 layers and 3 texts (least" in lines[0]
    assert lines[-1] == f"Moments: {out}"
    assert [one.name for one in out.parent.iterdir()] == [out.name]
    network = load_text_model(folder / "headless").network
    found = read_moments(out, model_fingerprint(network)).inputs
    assert found["encoder.layer.0.intermediate.dense.weight"].count == 14
    assert found["pooler.dense.weight"].count == 3
    assert main([*command, "--out", str(out)]) == 0  # its own are replaced


def test_random_tokens_and_the_models_samples_need_no_text(folder, tmp_path, capsys):
    out = tmp_path / "moments.safetensors"
    assert main(["moments", str(folder / "headless"), "--most-texts", "2", "--out", str(out)]) == 0
    assert read_moments(out).inputs["pooler.dense.weight"].count == 2  # of the 32 tokens it takes
    capsys.readouterr()
    command = ["moments", str(folder / "causal"), "--gradients", "samples", "--out", str(out)]
    assert main([*command, "--most-texts", "5", "--max-tokens", "9", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["command"] == "moments"
    assert "5 texts of random tokens" in content["verdict"]
    assert content["provenance"]["seed"] == 0
    rows = {(row["of"], row["layer"]): row for row in content["layers"]}
    shared = rows["inputs", "model.layers.0.self_attn.q_proj.weight"]
    assert (shared["layers"], shared["tokens"], shared["n"]) == (3, 45, 8)
    assert 0 < shared["top_8"] <= shared["top_32"] <= 1
    assert rows["gradients", "lm_head.weight"]["n"] == 14
    assert set(read_moments(out).gradients) == set(read_moments(out).inputs)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--texts", "nowhere.txt"], "--texts"),
        (["--out", "{folder}/texts.txt"], "--out"),
        (["--out", "{folder}"], "which is a folder: name a file in it"),
        (["--out", "{folder}/texts.txt/new"], "needs a folder where a file is"),
    ],
)
def test_bad_input_gives_one_line_that_names_the_option(folder, tmp_path, wrong, named, capsys):
    command = ["moments", str(folder / "headless"), "--out", str(tmp_path / "moments.safetensors")]
    assert main([*command, *(one.format(folder=folder) for one in wrong)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    errors = [line for line in printed.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert named in errors[0]
    assert (folder / "texts.txt").read_text() == TEXTS
