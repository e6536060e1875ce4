"""`cosa-theory to-lora` as a stranger uses it, with good input and bad."""

import json
from pathlib import Path

import numpy as np
import pytest

from cosa_theory.cli import main
from cosa_theory.deltas import open_pair
from tests.deltas.cosa_files import SIZES, base_model, cosa_adapter, released_adapter


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """A folder to stand in, with an adapter of 8 × 5 cores; its exact updates."""
    monkeypatch.chdir(tmp_path)
    return cosa_adapter(tmp_path / "adapter")


def lines(capsys):
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err.splitlines()


def test_the_first_line_says_that_the_export_is_exact_and_how_large(adapter, capsys):
    assert main(["to-lora", "adapter", "--out", "lora"]) == 0
    out, err = lines(capsys)
    assert out[0].startswith("An exact LoRA adapter of rank 5 in 3 layers: its ΔW equals that of ")
    sizes = [Path(name, "adapter_model.safetensors").stat().st_size for name in ("lora", "adapter")]
    assert f"its file has {sizes[0] / 1e3:.2f} kB, {sizes[0] / sizes[1]:.2f} times the " in out[0]
    assert out[-1] == "Adapter: lora"
    assert err == []
    rows = [line.split() for line in out if line.startswith("model.layers.")]
    assert len(rows) == len(SIZES)
    assert rows[0][:7] == ["model.layers.0.mlp.up_proj", "24", "×", "16", "8", "×", "5"]
    assert rows[0][-2:] == ["40", "200"]
    for layer in open_pair(base_model(), "lora"):
        exact = adapter[layer.name.removesuffix(".weight")]
        assert np.linalg.norm(layer.delta - exact) < 3e-7 * np.linalg.norm(exact)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_export_in_a_shorter_type_is_not_called_exact(adapter, capsys, dtype):
    assert main(["to-lora", "adapter", "--out", "lora", "--dtype", dtype]) == 0
    first = lines(capsys)[0][0]
    assert first.startswith("An uncut LoRA adapter of rank 5 in 3 layers: its ΔW equals that of ")
    assert "the rounding of what is stored" in first


def test_a_truncation_says_what_it_keeps_and_where_least(adapter, capsys):
    assert main(["to-lora", "adapter", "--out", "lora", "--rank", "2"]) == 0
    out, _ = lines(capsys)
    energy = {name: np.linalg.svd(one, compute_uv=False) ** 2 for name, one in adapter.items()}
    kept = {name: one[:2].sum() / one.sum() for name, one in energy.items()}
    total = sum(one[:2].sum() for one in energy.values()) / sum(o.sum() for o in energy.values())
    worst = min(kept, key=kept.get)
    assert out[0].startswith(
        f"A LoRA adapter of rank 2 in 3 layers that keeps {100 * total:.1f} % of the energy of all "
        f"updates (least {100 * kept[worst]:.1f} %, in {worst}), the most that these ranks can;"
    )


def test_ranks_that_differ_are_noted(adapter, capsys, tmp_path):
    cosa_adapter(tmp_path / "mixed", shapes={next(iter(SIZES)): (3, 2)})
    command = ["to-lora", "mixed", "--out", "lora", "--rank", "4"]
    assert main(command) == 0
    out, err = lines(capsys)
    assert "of rank at most 4" in out[0]
    (note,) = err
    assert note.startswith("note: updates of rank 2 to 4 are filled up with zeros")
    assert main([*command, "--keep-ranks"]) == 0
    (note,) = lines(capsys)[1]
    assert note.startswith("note: the layers have ranks from 2 to 4, which PEFT reads from rank_")


def test_json_is_one_document_alone_on_standard_output(adapter, capsys):
    assert main(["to-lora", "adapter", "--out", "lora", "--rank", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "to-lora"
    assert document["verdict"].startswith("A LoRA adapter of rank 3")
    assert document["provenance"]["arguments"]["adapter"] == "adapter"
    rows = {row["layer"]: row for row in document["layers"]}
    for name, update in adapter.items():
        squares = np.linalg.svd(update, compute_uv=False) ** 2
        lost = squares[3:].sum() / squares.sum()
        assert rows[name]["energy_lost"] == pytest.approx(lost, rel=1e-9)
        assert rows[name]["norm"] == pytest.approx(np.linalg.norm(update), rel=1e-9)
        assert rows[name]["rank"] == 3
        assert (rows[name]["m"], rows[name]["n"]) == SIZES[name]


def test_an_untrained_adapter_is_called_so(adapter, capsys, tmp_path):
    cosa_adapter(tmp_path / "zero", alpha=0.0)
    assert main(["to-lora", "zero", "--out", "lora"]) == 0
    assert "changes nothing, as the CoSA adapter does: every core is zero" in lines(capsys)[0][0]


def test_tensors_besides_the_factors_are_noted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    head = {"base_model.model.head.weight": np.ones((3, 3), dtype=np.float32)}
    cosa_adapter(tmp_path / "adapter", extra=head)
    assert main(["to-lora", "adapter", "--out", "lora"]) == 0
    (note,) = lines(capsys)[1]
    assert note.startswith("note: 1 tensor besides the factors carried over (modules_to_save")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", "--out", "lora"], "nowhere: no such folder"),
        (["adapter", "--out", "adapter"], "which is not replaced: name another folder (--out)"),
        (["adapter", "--out", "file"], "file: a file is in the way: name a folder (--out)"),
        (["adapter", "--out", "lora", "--energy", "2"], "energy is 2.0: it must be"),
        (["adapter", "--out", "lora", "--rank", "0"], "Invalid value for '--rank'"),
        (["adapter/adapter_config.json", "--out", "lora"], "config.json: a file, not a folder"),
        (["pickled", "--out", "lora"], "pickled: holds adapter_model.bin, a pickle, which can run"),
        (["adapter"], "Missing option '--out'"),
        (["released", "--out", "lora"], "L and R are not in the file for 3 of 3 layers"),
    ],
)
def test_errors_are_one_plain_line_and_exit_code_2(adapter, arguments, says, capsys, tmp_path):
    released_adapter(tmp_path / "released", drop=["lora_R"])
    cosa_adapter(tmp_path / "pickled")
    (tmp_path / "file").write_text("")
    weights = tmp_path / "pickled" / "adapter_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    assert main(["to-lora", *arguments]) == 2
    out, err = lines(capsys)
    assert out == []
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert says in err[0]
    assert not (tmp_path / "lora").exists()


def test_help_shows_an_example(capsys):
    assert main(["to-lora", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--out adapter-lora" in text
