"""The Kronecker variance law on synthetic spectra and on updates of a pair."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from cosa_theory.laws.kronecker import kronecker_inflation, matrix_moments
from cosa_theory.studies.jl.figures import VARIANCE_FIGURE
from experiments.variance_law import DECAYS, REAL, Config, cells, main, matrix_of, run, verdict

SHAPE = (14, 10, 5, 3)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A rank-one and a full update of two matrices, one that did not move, and another name."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    names = ("a.weight", "b.weight", "c.weight", "other.weight")
    base = {f"encoder.layer.{name}": np.zeros((20, 30)) for name in names}
    updates = {
        "encoder.layer.a.weight": np.outer(rng.standard_normal(20), rng.standard_normal(30)),
        "encoder.layer.b.weight": rng.standard_normal((20, 30)),
        "encoder.layer.other.weight": np.ones((20, 30)),
    }
    save_file(base, folder / "base.safetensors")
    save_file(base | updates, folder / "tuned.safetensors")
    return folder


@pytest.fixture(scope="module")
def table(pair, tmp_path_factory):
    config = Config(
        shapes=(SHAPE,),
        kinds=("gaussian", "rademacher"),
        draws=400,
        core=(6, 4),
        real_kinds=("gaussian", "sjlt"),
        real_draws=400,
        layers=("layer.[abc]",),
        pair=str(pair),
    )
    return run(config, folder=tmp_path_factory.mktemp("cells"), jobs=1, progress=False)


def test_there_is_a_row_for_every_matrix_and_ensemble(table):
    synthetic = table[table["source"] == "synthetic"]
    assert len(synthetic) == len(DECAYS) * 2 * 2
    real = table[table["source"] == REAL]
    assert set(real["name"]) == {"encoder.layer.a.weight", "encoder.layer.b.weight"}
    assert len(real) == 4


def test_spectra_go_from_rank_one_to_flat_in_both_bases():
    found = {
        (cell.name, cell.aligned): matrix_moments(matrix_of(cell))
        for cell in cells(Config(shapes=(SHAPE,), kinds=("gaussian",), layers=()))
    }
    for aligned in (False, True):
        ratios = [found[name, aligned].participation_ratio for name in DECAYS]
        assert ratios == sorted(ratios)
        assert ratios[0] == pytest.approx(1.0)
        assert ratios[-1] == pytest.approx(10.0)
    assert found["rank one", True].entry_fourth == pytest.approx(1.0)
    assert found["rank one", False].entry_fourth < 0.5


def test_a_layer_is_found_whatever_signs_its_name_has(tmp_path):
    names = ("a(1)+b.weight", "a1b.weight")
    for side, value in (("base", 0.0), ("tuned", 1.0)):
        content = {name: np.full((4, 3), value) for name in names}
        save_file(content, tmp_path / f"{side}.safetensors")
    listed = cells(Config(shapes=(), layers=("a",), real_kinds=("gaussian",), pair=str(tmp_path)))
    assert {cell.name for cell in listed} == set(names)
    assert all(matrix_of(cell).shape == (4, 3) for cell in listed)


def test_another_base_is_another_cell(pair, tmp_path):
    settings = {"shapes": (), "layers": ("layer.b",), "real_kinds": ("gaussian",)}
    before = cells(Config(pair=str(pair), **settings))[0].digest
    for side in ("base", "tuned"):
        content = load_file(pair / f"{side}.safetensors")
        if side == "base":
            content["encoder.layer.b.weight"] += 1.0
        save_file(content, tmp_path / f"{side}.safetensors")
    assert cells(Config(pair=str(tmp_path), **settings))[0].digest != before


def test_results_do_not_go_into_the_folder_of_the_pair(pair, tmp_path, capsys):
    config = tmp_path / "pair.toml"
    config.write_text(f"pair = '{pair}'\n")
    assert main(["--config", str(config), "--out", str(pair)]) == 2
    assert "where the results are to be written" in capsys.readouterr().err


def test_the_law_is_the_closed_form_and_lies_in_the_intervals(table):
    gaussian = table[table["kind"] == "gaussian"]
    a, b = gaussian["a"].to_numpy(), gaussian["b"].to_numpy()
    closed = 2 / (a * b) * kronecker_inflation(a, b, gaussian["participation_ratio"].to_numpy())
    assert gaussian["law"].to_numpy() == pytest.approx(closed)
    assert table["z"].abs().max() < 5
    inside = (table["ci_low"] <= table["law"] + 1e-12) & (table["law"] <= table["ci_high"] + 1e-12)
    assert inside.mean() > 0.8


def test_a_real_rank_one_update_is_far_from_an_unstructured_map(table):
    rows = table[(table["kind"] == "gaussian") & (table["source"] == REAL)].set_index("name")
    rank_one = rows.loc["encoder.layer.a.weight"]
    assert rank_one["law"] / rank_one["unstructured"] == pytest.approx(12.0)  # 1 + (6 + 4 + 1)/1
    full = rows.loc["encoder.layer.b.weight"]
    assert full["law"] / full["unstructured"] < 3


def test_the_verdict_counts_intervals_and_names_the_real_inflation(table):
    text = verdict(table)
    assert re.search(r"\d+ of 20 measured 95 % intervals for synthetic matrices hold the law", text)
    assert re.search(r"\d of 4 measured 95 % intervals for real updates", text)
    assert "12.0" in text


def test_the_figure_leaves_out_laws_of_zero(table):
    figure = VARIANCE_FIGURE.draw({"variance_law": table})
    left = figure.axes[0]
    assert left.get_xlim()[0] > 1e-4  # a rank-one matrix at one entry has no variance for signs
    assert not VARIANCE_FIGURE.drawable({"variance_law": table.assign(law=0.0)})


def test_the_command_stores_table_and_verdict(tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(
        'shapes = [[6, 5, 3, 2]]\nkinds = ["haar"]\ndraws = 20\nlayers = []\n'
    )
    out = tmp_path / "out"
    assert main(["--config", str(tmp_path / "tiny.toml"), "--out", str(out), "--jobs", "1"]) == 0
    assert len(pd.read_parquet(out / "variance_law.parquet")) == 2 * len(DECAYS)
    document = json.loads((out / "variance_law.json").read_text())
    assert document["verdict"] == capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 1}, "draws is 1"),
        ({"shapes": ((4, 4, 5, 2),)}, "shape is (4, 4, 5, 2)"),
        ({"core": (0, 3)}, "core is (0, 3)"),
        ({"real_kinds": ("round",)}, "kinds is 'round'"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Config(**settings)
