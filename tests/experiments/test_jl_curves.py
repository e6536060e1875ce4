"""Failure curves on synthetic and real vectors: repeatable, and their intervals hold the laws."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from cosa_theory.ground.errors import InputError
from cosa_theory.laws.norms import chi_square_failure
from cosa_theory.studies.jl.figures import CURVES_FIGURE
from experiments import first_gradient, jl_curves, real_vectors
from experiments.jl_curves import Config, cells, compute, main, run, verdict

SYNTHETIC = ("gaussian", "spike")
TINY = Config(kinds=("gaussian", "rademacher", "very_sparse"), sets=SYNTHETIC, k=16, draws=300)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return run(TINY, folder=tmp_path_factory.mktemp("cells"), jobs=1, progress=False)


def test_there_is_a_row_for_every_ensemble_set_and_level(table):
    assert len(table) == 3 * 2 * TINY.levels
    assert set(table["status"]) == {"done"}
    assert set(table["vectors_of"]) == {"Gaussian vectors", "spikes"}
    assert table["d"].eq(384).all()


def test_the_chi_square_law_lies_in_the_gaussian_intervals(table):
    gaussian = table[table["kind"] == "gaussian"]
    law = chi_square_failure(16, gaussian["eps"].to_numpy())
    assert gaussian["chi_square"].to_numpy() == pytest.approx(law)
    assert gaussian["exact"].to_numpy() == pytest.approx(law)
    inside = (gaussian["ci_low"] <= law) & (law <= gaussian["ci_high"])
    assert inside.mean() > 0.85  # levels of one curve are dependent


def test_the_kurtosis_law_lies_in_the_intervals_of_the_variance(table):
    curves = table.drop_duplicates(["kind", "set"]).set_index(["kind", "set"])
    sparse = curves.loc[("very_sparse", "spike")]
    assert sparse["variance_law"] == pytest.approx(
        (2 + np.sqrt(384) - 3) / 16
    )  # (2 + (κ − 3)‖x‖₄⁴)/k
    assert sparse["variance_low"] < sparse["variance_law"] < sparse["variance_high"]
    spike = curves.loc[("rademacher", "spike")]
    assert spike["variance"] < 1e-20
    assert spike["variance_law"] == 0


def test_cells_do_not_depend_on_each_other():
    (cell,) = cells(Config(kinds=("sjlt",), sets=("spike",), k=16, draws=20, vectors=2, levels=3))
    assert cell.file == cell.digest == ""
    assert compute(cell) == compute(cell)
    assert len(compute(cell)) == 3


def test_the_verdict_names_the_worst_case(table):
    text = verdict(table)
    assert "The largest variance is that of very_sparse on spikes" in text
    assert "of all ensembles in 6 of 6" in text or "of all ensembles in 5 of 6" in text


def test_the_figure_has_one_panel_for_each_set(table):
    figure = CURVES_FIGURE.draw({"jl_curves": table})
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.axison]
    assert titles == ["Gaussian vectors\nk = 16, d = 384", "spikes\nk = 16, d = 384"]
    assert not CURVES_FIGURE.drawable({"jl_curves": table.iloc[:0]})


def test_the_command_stores_table_and_verdict(tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(
        'kinds = ["sjlt"]\nsets = ["flat"]\nk = 16\ndraws = 5\nvectors = 2\nlevels = 4\n'
    )
    out = tmp_path / "out"
    assert main(["--config", str(tmp_path / "tiny.toml"), "--out", str(out), "--jobs", "1"]) == 0
    assert len(pd.read_parquet(out / "jl_curves.parquet")) == 4
    document = json.loads((out / "jl_curves.json").read_text())
    assert document["verdict"] == capsys.readouterr().out.splitlines()[0]
    assert document["provenance"]["arguments"]["sets"] == ["flat"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"draws": 1}, "draws is 1"),
        ({"sets": ("round",)}, "sets is 'round'"),
        ({"kinds": ("round",)}, "kinds is 'round'"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Config(**settings)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Real vectors from a pair with a small made-up update, and the table about them."""
    folder = tmp_path_factory.mktemp("real")
    pair = folder / "pair"
    pair.mkdir()
    base = {
        name: value
        for name, value in load_file(
            real_vectors.asset_folder("encoder") / "model.safetensors"
        ).items()
        if "layer.0.attention" in name and value.ndim == 2
    }
    rng = np.random.default_rng(0)
    tuned = {name: W + 1e-3 * rng.standard_normal(W.shape, "float32") for name, W in base.items()}
    save_file(base, pair / "base.safetensors")
    save_file(tuned, pair / "tuned.safetensors")
    config = real_vectors.Config(count=12, texts=3, max_tokens=16)
    return folder, config, real_vectors.run(config, folder / "out", pair)


def test_real_vectors_are_updates_gradients_and_activations_of_one_length(real):
    folder, _, table = real
    stored = real_vectors.read(folder / "out" / real_vectors.FILE)
    assert list(stored) == ["delta", "gradient", "activation"]
    assert all(rows.shape == (12, 384) and rows.dtype == np.float32 for rows in stored.values())
    assert all(np.linalg.norm(rows, axis=1).min() > 0 for rows in stored.values())
    assert list(table["vectors_of"]) == ["rows of ΔW", "rows of gradients", "activations"]
    # The made-up update is Gaussian; real activations have a few large coordinates.
    power = table.set_index("vectors_of")["fourth_power"]
    assert power["rows of ΔW"] == pytest.approx(3 / 386, rel=0.3)
    assert power["activations"] > 1.3 * power["rows of ΔW"]


def test_activations_are_what_linear_layers_read(real):
    """The first layer reads layer-normalised embeddings, as the model itself computes them."""
    import torch
    from transformers import AutoModel

    _, config, _ = real
    first = next(iter(real_vectors._activations(config)))
    encoder = AutoModel.from_pretrained(
        real_vectors.asset_folder("encoder"), add_pooling_layer=False
    )
    scale = encoder.embeddings.LayerNorm
    unscaled = (torch.tensor(first) - scale.bias) / scale.weight
    assert unscaled.mean(dim=1).abs().max() < 1e-4
    assert (unscaled**2).mean(dim=1).detach().numpy() == pytest.approx(1.0, abs=1e-3)
    assert len(first) <= config.texts * config.max_tokens


def test_equal_settings_keep_the_file_and_others_make_it_anew(real, monkeypatch):
    folder, config, table = real

    class Called(Exception):
        pass

    def made_again(*_):
        raise Called

    monkeypatch.setattr(first_gradient, "run", made_again)
    assert real_vectors.run(config, folder / "out", folder / "pair").equals(table)
    with pytest.raises(Called):
        real_vectors.run(replace(config, count=5), folder / "out", folder / "pair")


def test_cells_of_real_vectors_carry_their_content(real):
    folder, _, _ = real
    file = folder / "out" / real_vectors.FILE
    settings = {"kinds": ("sjlt",), "sets": ("activation", "spike"), "file": str(file)}
    real_cell, synthetic = cells(Config(**settings, k=16, draws=10, vectors=3, levels=2))
    assert len(real_cell.digest) == 64
    assert synthetic.digest == ""
    assert jl_curves.vectors_of(real_cell).shape == (3, 384)
    assert compute(real_cell)[0]["vectors_of"] == "activations"


def test_bad_settings_of_real_vectors_are_named():
    with pytest.raises(InputError, match="count is 0"):
        real_vectors.Config(count=0)
