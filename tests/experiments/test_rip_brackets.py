"""Brackets in a sweep: they contain the constants, and what they are about is said."""

import runpy
import sys

import numpy as np
import pandas as pd
import pytest

from cosa_theory import CosaBasis
from cosa_theory.isometry import core_isometry, rip_exact
from cosa_theory.studies.rip.brackets import BRACKETS_FIGURE, brackets_figure
from experiments import rip_brackets
from experiments.rip_brackets import PRESETS, Cell, Config, cells, compute, main, matrix_of, run

TINY = Config(
    shape=(6, 5, 3, 2),
    orders=(1, 2, 3, 4),
    shapes=((6, 5, 3, 2), (8, 8, 3, 3)),
    order=2,
    kinds=("gaussian", "haar", "very_sparse"),
    semidefinite=6,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return run(TINY, folder=tmp_path_factory.mktemp("cells"), jobs=1, progress=False)


def cell(**changes):
    settings = {
        **{"structure": "kronecker", "about": "tall", "kind": "gaussian", "scale": "synthesis"},
        **{"m": 6, "n": 5, "a": 3, "b": 2, "orders": (1, 2), "semidefinite": False},
        **{"draw": 0, "seed": 0},
    }
    return Cell(**{**settings, **changes})


def explicit(matrix):
    return matrix @ np.eye(matrix.shape[1])


def test_every_structure_side_ensemble_and_scale_is_there(table):
    rows = table[table["s"] == 2]
    found = rows.groupby(["structure", "about", "kind", "scale", "m"]).size()
    assert (found == 1).all()
    assert len(found) == 2 * 2 * 3 * 2 * 2
    assert set(rows[rows["about"] == "tall"]["scale"]) == {"unit-norm", "synthesis"}
    assert set(rows[rows["about"] == "wide"]["scale"]) == {"unit-norm", "analysis"}
    sizes = rows[["rows", "columns"]].itertuples(index=False, name=None)
    assert set(sizes) == {(30, 6), (6, 30), (64, 9), (9, 64)}


def test_a_matrix_of_fewer_columns_than_every_order_has_no_row():
    listed = cells(Config(shape=(2, 2, 1, 1), orders=(2,), shapes=(), kinds=("haar",)))
    assert {one.about for one in listed} == {"wide"}


def test_a_bracket_contains_the_constant_of_the_matrix_it_names(table):
    for row in table.to_dict(orient="records"):
        names = Cell.__dataclass_fields__
        given = {name: row[name] for name in names if name != "orders"}
        matrix = matrix_of(Cell(**given, orders=(row["s"],)))
        assert matrix.shape == (row["rows"], row["columns"])
        exact = rip_exact(explicit(matrix), row["s"]).value
        assert row["lower"] <= exact + 1e-12, row
        assert exact <= row["upper"] + 1e-12, row
        assert row["vacuous"] == (row["upper"] >= 1)


@pytest.mark.parametrize("about", ["tall", "wide"])
@pytest.mark.parametrize("kind", ["gaussian", "sjlt", "srht"])
def test_the_matrices_are_the_dictionary_and_the_sensing_operator(about, kind):
    tall = explicit(matrix_of(cell(kind=kind)))
    assert tall.shape == (30, 6)
    scale = (6 * 5 / (3 * 2)) ** 0.5  # from synthesis to analysis
    wide = explicit(matrix_of(cell(kind=kind, about="wide", scale="analysis")))
    np.testing.assert_allclose(wide, scale * tall.T, atol=1e-12)


@pytest.mark.parametrize("structure", ["plain", "kronecker"])
@pytest.mark.parametrize("about", ["tall", "wide"])
def test_unit_columns_are_the_drawn_ones_divided_by_their_norms(structure, about):
    scale = rip_brackets.SCALES[about][1]
    drawn, unit = (
        explicit(matrix_of(cell(structure=structure, about=about, scale=name)))
        for name in (scale, "unit-norm")
    )
    np.testing.assert_allclose(np.linalg.norm(unit, axis=0), 1.0)
    np.testing.assert_allclose(unit * np.linalg.norm(drawn, axis=0), drawn, atol=1e-12)


def test_over_all_columns_the_bracket_is_the_exact_constant_over_all_cores():
    (row,) = compute(cell(orders=(6,)))
    basis = CosaBasis.sample(6, 5, 3, 2, seed=0, key=("rip_brackets", 0))
    assert row["exact"]
    assert row["lower"] == pytest.approx(core_isometry(basis).delta)
    assert row["matrix"] == "the tall dictionary Ψ = L ⊗ Rᵀ (30 × 6)"


def test_orthonormal_dictionaries_have_the_constant_zero(table):
    rows = table[(table["kind"] == "haar") & (table["about"] == "tall")]
    assert rows["upper"].max() < 1e-10


def test_a_semidefinite_bound_is_asked_for_plain_matrices_with_few_columns():
    chosen = [cell for cell in cells(TINY) if cell.semidefinite]
    assert {(cell.structure, cell.about, cell.m) for cell in chosen} == {("plain", "tall", 6)}
    config = Config(shape=(8, 8, 4, 4), orders=(8,), shapes=(), kinds=("gaussian",), order=1)
    searched = [c for c in cells(config) if (c.structure, c.about) == ("plain", "tall")]
    with_sdp = Cell(**{**vars(searched[0]), "semidefinite": True})
    plain, tight = (
        rip_brackets.rip_bracket(matrix_of(c), 8, exact=0, methods=methods)
        for c, methods in ((searched[0], rip_brackets._UPPER), (with_sdp, ("sdp",)))
    )
    assert tight.lower <= tight.upper <= plain.upper + 1e-9


def test_orders_above_the_number_of_columns_are_left_out(table):
    assert table[(table["about"] == "tall") & (table["columns"] == 6)]["s"].max() == 4
    assert cells(Config(**{**vars(TINY), "orders": (7,)}))[0].orders == (2,)


def test_independent_draws_differ_and_the_seed_decides():
    first, second, again, other = (
        explicit(matrix_of(cell(**changes)))
        for changes in ({}, {"draw": 1}, {"orders": (1,)}, {"seed": 1})
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, second)
    assert not np.allclose(first, other)


def test_every_preset_has_cells_that_are_all_different():
    for config in PRESETS.values():
        planned = cells(config)
        assert len(set(planned)) == len(planned)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (4, 4, 5, 2)}, "with 1 ≤ a ≤ m"),
        ({"shapes": ((4, 4, 2),)}, "must be"),
        ({"orders": (0,)}, "order is 0"),
        ({"draws": 0}, "draws is 0"),
        ({"kinds": ("cauchy",)}, "kinds is 'cauchy'"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        Config(**changes)


def test_the_command_writes_a_table_that_its_figure_reads(tmp_path, capsys, monkeypatch):
    path = tmp_path / "tiny.toml"
    path.write_text(
        "shape = [6, 5, 3, 2]\norders = [1, 2]\nshapes = [[8, 8, 3, 3]]\norder = 2\n"
        'kinds = ["gaussian", "haar"]\n'
    )
    out = tmp_path / "out"
    assert main(["--config", str(path), "--out", str(out), "--jobs", "1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("With unit columns at (m, n, a, b) = (6, 5, 3, 2), the tall dictionary")
    stored = pd.read_parquet(out / "rip_brackets.parquet")
    assert second.startswith(f"{len(stored)} rows are in")
    monkeypatch.setattr(sys, "argv", ["x", str(out), "--out", str(tmp_path / "figures")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("figures.rip_brackets", run_name="__main__")
    assert ended.value.code == 0
    assert (tmp_path / "figures" / "rip_brackets.png").read_bytes().startswith(b"\x89PNG")


def test_the_verdict_counts_orders_that_are_proven(table):
    """Orthonormal dictionaries are proven at every order, and others at some or none."""
    config = Config(**{**vars(TINY), "kinds": ("haar",)})
    text = rip_brackets.verdict(table[table["kind"] == "haar"], config)
    assert "Ψ = L ⊗ Rᵀ has δ_s < 1 proven up to s = 4" in text
    vacuous = table[table["kind"] == "haar"].assign(upper=1.5)
    assert "proven up to s = 0 where" in rip_brackets.verdict(vacuous, config)


def test_the_figure_draws_each_bracket_between_its_ends(table):
    table = table.assign(upper=table["upper"] + 0.1)  # at these sizes the ends meet
    axes = brackets_figure(table).axes
    assert len(axes) == 4 * 3
    assert [ax.get_ylabel() for ax in axes[::4]] == ["Gaussian", "orthonormal", "very sparse"]
    rows = table[(table["kind"] == "gaussian") & (table["scale"] == "unit-norm")]
    rows = rows[(rows["about"] == "tall") & (rows["m"] == 6) & (rows["structure"] == "kronecker")]
    upper, lower = axes[0].lines[-2:]
    assert lower.get_label() == "Kronecker product"
    np.testing.assert_array_equal(lower.get_xdata(), rows["s"])
    np.testing.assert_allclose(lower.get_ydata(), rows["lower"])
    np.testing.assert_allclose(upper.get_ydata(), rows["upper"])
    band = axes[0].collections[-1].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(rows["lower"].min())
    assert band.max() == pytest.approx(rows["upper"].max())
    assert axes[0].get_title(loc="left") == "tall Ψ, 30 × 6"
    assert axes[2].get_title(loc="left") == "tall, s = 2"


def test_a_table_without_unit_columns_has_no_figure(table):
    drawn = table[table["scale"] != "unit-norm"]
    assert not BRACKETS_FIGURE.drawable({"rip_brackets": drawn})
    assert BRACKETS_FIGURE.drawable({"rip_brackets": table})
