"""What comes back of an update: rows that say so, laws they obey, and a verdict in words."""

import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from cosa_theory import CosaBasis, laws
from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.errors import InputError
from cosa_theory.recovery import METHODS
from experiments import recovery
from experiments.command import read_config
from experiments.recovery import LEFT_OUT, PRESETS, Cell, Config, cells, compute, main, run
from experiments.recovery_verdict import reach, verdict

SOLVERS = (("least_norm", ()), ("basis_pursuit", (("max_iterations", 200),)))
TINY = {
    "shape": (16, 12),
    "share": 0.5,
    "shares": (0.25, 0.5),
    "updates": (("sparse", 3), ("low rank", 1), ("flat", 0)),
    "sparsities": (2, 60),
    "noises": (0.01, 0.1),
    "kinds": ("gaussian", "haar"),
    "bases": ("coordinate", "dct"),
    "solvers": SOLVERS,
    "few": SOLVERS,
    "draws": 2,
    "layers": ("layer.[abc]",),
    "real_shares": (0.25, 0.5),
    "real_solvers": (("fista", (("lam_ratio", 0.01),)),),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Three rows of 24 that moved, noise, one that did not move, and another name."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    base = {f"layer.{name}.weight": rng.standard_normal((24, 16)) for name in "abc"}
    base["other.weight"] = rng.standard_normal((24, 16))
    tuned = {name: weight.copy() for name, weight in base.items()}
    tuned["layer.a.weight"][[3, 11, 17]] += rng.standard_normal((3, 16))
    tuned["layer.b.weight"] += 0.01 * rng.standard_normal((24, 16))
    tuned["other.weight"] += 1.0
    for side, content in (("base", base), ("tuned", tuned)):
        save_file(content, folder / f"{side}.safetensors")
    return folder


def tiny(pair, **changes):
    sides = {side: str(pair / f"{side}.safetensors") for side in ("base", "tuned")}
    return Config(**(TINY | sides | changes))


@pytest.fixture(scope="module")
def table(pair, tmp_path_factory):
    return run(tiny(pair), folder=tmp_path_factory.mktemp("cells"), jobs=1, progress=False)


def cell(**changes):
    settings = {
        **{"sweep": "compression", "update": "sparse", "parameter": 3, "sparse_in": "coordinate"},
        **{"m": 16, "n": 12, "a": 11, "b": 8, "kind": "gaussian", "noise": 0.0},
        **{"basis": "coordinate", "method": "least_norm", "options": (), "draw": 0, "seed": 0},
    }
    return Cell(**(settings | changes))


def test_every_axis_has_its_rows(table):
    counts = table.groupby("sweep").size()
    assert counts["compression"] == 2 * (3 * 2 + 1) * 2  # nuclear norm for low rank besides
    assert counts["sparsity"] == 2 * 2 * 2
    assert counts["noise"] == 2 * 2 * 2
    assert counts["ensemble"] == 2 * 2 * 2  # kinds, sparsities, draws; one solver besides
    assert counts["basis"] == 2 * 2 * 2
    assert counts["real"] == 2 * 2 * (1 + 2)  # layers that moved, shares, least norm and 2 bases
    assert set(table["status"]) == {"done"}
    real = table[table["sweep"] == "real"]
    assert set(real["update"]) == {"layer.a.weight", "layer.b.weight"}


def test_the_errors_of_a_row_fit_together(table):
    np.testing.assert_allclose(table["share"], 1 - table["relative_error"] ** 2)
    np.testing.assert_allclose(table["least_norm_share"], 1 - table["least_norm_error"] ** 2)
    np.testing.assert_allclose(table["law"], table["a"] * table["b"] / (table["m"] * table["n"]))
    least = table[table["method"] == "least_norm"]
    np.testing.assert_array_equal(least["relative_error"], least["least_norm_error"])
    assert least["cosine"].isna().all()
    assert least["debiased_error"].isna().all()
    exact = table[(table["noise"] == 0) & (table["method"] == "least_norm")]
    assert exact["residual"].max() < 1e-10


@pytest.mark.parametrize("update", [("sparse", 3), ("low rank", 2), ("power law", 1.0)])
@pytest.mark.parametrize("kind", ["gaussian", "very_sparse"])
def test_least_norm_brings_back_the_captured_energy(update, kind):
    """Decoding a core by least norm gives P_L ΔW P_R, so the share is that of the best core."""
    chosen = cell(update=update[0], parameter=update[1], kind=kind)
    delta, _ = recovery.truth_of(chosen)
    factors = CosaBasis.sample(16, 12, 11, 8, kind=kind, scale="analysis", key=("recovery", "", 0))
    assert compute(chosen)["share"] == pytest.approx(factors.captured_energy(delta), abs=1e-9)


@pytest.mark.parametrize("update", [("flat", 0), ("low rank", 1), ("low rank", 4)])
def test_the_mean_share_of_least_norm_is_the_law(update):
    draws = 150
    rows = [
        compute(cell(update=update[0], parameter=update[1], a=6, b=5, draw=draw))
        for draw in range(draws)
    ]
    ratio = {"flat": 12, "low rank": update[1]}[update[0]]  # of equal singular values
    sd = math.sqrt(laws.energy_variance(16, 12, 6, 5, ratio) / draws)
    mean = np.mean([row["share"] for row in rows])
    assert abs(mean - rows[0]["law"]) / sd < 4


def test_a_sparse_update_comes_back_and_its_support_is_found():
    row = compute(cell(method="fista"))
    assert row["relative_error"] < 1e-4
    assert (row["precision"], row["recall"], row["found"]) == (1.0, 1.0, 3)
    assert row["debiased_error"] < 1e-6
    assert row["cosine"] == pytest.approx(1.0, abs=1e-6)  # it adds exactly what was missing
    assert row["solver_status"] in ("optimal", "fitted")


def test_an_answer_of_zero_finds_nothing():
    row = compute(cell(method="fista", options=(("lam_ratio", 1.0),)))
    assert (row["found"], row["precision"], row["recall"]) == (0, None, 0.0)
    assert row["share"] == 0.0


@pytest.mark.parametrize("basis", ["dct", "wavelet", "singular"])
def test_an_update_comes_back_in_the_basis_where_it_is_sparse(basis):
    size = {"m": 16, "n": 16, "a": 11, "b": 11}
    known = compute(cell(method="fista", sparse_in=basis, basis=basis, **size))
    few = (("max_iterations", 500),)  # it would go on for thousands, and not come closer
    unknown = compute(cell(method="fista", sparse_in=basis, options=few, **size))
    assert known["relative_error"] < 1e-4
    assert known["recall"] == 1.0
    assert unknown["relative_error"] > 0.05
    assert unknown["precision"] is None
    assert known["density"] < 0.05 < unknown["density"]
    assert known["least_norm_error"] == pytest.approx(unknown["least_norm_error"], abs=1e-9)


def test_noise_has_the_size_asked_for_and_the_solver_knows_it():
    quiet, loud = (recovery.problem_of(cell(noise=noise)) for noise in (0.0, 0.1))
    difference = np.linalg.norm(loud.measurements - quiet.measurements)
    assert difference == pytest.approx(0.1 * np.linalg.norm(quiet.measurements))
    assert loud.noise_level == pytest.approx(difference)
    assert quiet.noise_level == 0.0


def test_methods_and_bases_are_compared_on_the_same_measurements(table):
    keys = ["sweep", "update", "parameter", "sparse_in", "a", "b", "kind", "noise", "draw"]
    assert (table.groupby(keys)["least_norm_error"].agg(np.ptp) < 1e-9).all()
    synthetic = table[(table["sweep"] == "compression") & (table["method"] == "least_norm")]
    assert synthetic["relative_error"].nunique() == len(synthetic)  # draws and sizes differ


def test_a_layer_that_is_sparse_gains_and_noise_does_not(table):
    real = table[(table["sweep"] == "real") & (table["method"] == "fista")]
    gain = (real["share"] - real["least_norm_share"]).groupby([real["update"], real["basis"]]).max()
    assert gain["layer.a.weight", "coordinate"] > 0.05
    assert (gain["layer.b.weight"] < 0).all()


def test_cells_of_layers_are_known_by_the_content_of_the_pair(pair, tmp_path):
    before = [c.digest for c in cells(tiny(pair)) if c.sweep == "real"]
    for side in ("base", "tuned"):
        content = load_file(pair / f"{side}.safetensors")
        if side == "tuned":
            content["layer.b.weight"][0, 0] += 1e-3
        save_file(content, tmp_path / f"{side}.safetensors")
    after = [c.digest for c in cells(tiny(tmp_path)) if c.sweep == "real"]
    same = [one == other for one, other in zip(before, after, strict=True)]
    assert same == [True] * 6 + [False] * 6
    assert all(len(digest) == 64 for digest in before)
    delta, weights = np.ones((2, 3)), np.arange(6.0).reshape(2, 3)
    digests = {recovery._digest(LayerDelta("x", delta, base)) for base in (weights, -weights)}
    assert len(digests) == 2  # the singular basis is that of the weight


def test_compressions_that_cost_too_much_are_left_out(pair):
    kept = [c for c in cells(tiny(pair, largest_product=12 * 24 * 16)) if c.sweep == "real"]
    assert {(c.a, c.b) for c in kept} == {(12, 8)}
    assert not [c for c in cells(tiny(pair, largest_product=100)) if c.sweep == "real"]


def test_the_file_of_settings_is_one_that_the_command_takes():
    path = Path(recovery.__file__).parent / "configs" / "recovery.toml"
    config = read_config(PRESETS["quick"], path)
    assert config.real_solvers[0][0] == "basis_pursuit"
    assert config.base != Config.base


def test_a_finished_sweep_is_not_computed_again(pair, tmp_path, monkeypatch):
    config = tiny(pair, layers=(), sparsities=(2,), noises=(), kinds=("haar",), draws=1)
    first = run(config, folder=tmp_path, jobs=1, progress=False)

    def refuse(_cell):
        raise AssertionError("computed again")

    monkeypatch.setattr(recovery, "compute", refuse)
    pd.testing.assert_frame_equal(first, run(config, folder=tmp_path, jobs=1, progress=False))


def test_real_updates_are_left_out_only_where_the_default_pair_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(**(TINY | {"sparsities": (2,), "shares": (0.5,)}))
    assert {c.sweep for c in cells(config)} == {
        *("compression", "sparsity", "noise", "ensemble", "basis")
    }
    given = Config(**(TINY | {"base": "nowhere/base.safetensors"}))
    with pytest.raises(InputError, match="nowhere"):
        cells(given)


def test_every_method_is_swept_or_has_a_reason_not_to_be():
    for config in PRESETS.values():
        swept = {method for method, _ in config.solvers}
        assert swept.isdisjoint(LEFT_OUT)
        assert swept | set(LEFT_OUT) == set(METHODS)


def test_every_preset_has_cells_that_are_all_different(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # without the pair
    for config in PRESETS.values():
        planned = cells(config)
        assert len(set(planned)) == len(planned)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (1, 4)}, "shape"),
        ({"shares": (1.5,)}, "share is 1.5"),
        ({"real_shares": (0.0,)}, "share is 0.0"),
        ({"noises": (1.0,)}, "noise is 1.0"),
        ({"draws": 0}, "draws is 0"),
        ({"kinds": ("cauchy",)}, "kinds is 'cauchy'"),
        ({"kinds": ()}, "there must be an ensemble"),
        ({"bases": ("fourier",)}, "bases is 'fourier'"),
        ({"updates": (("round", 1),)}, "updates is 'round'"),
        ({"updates": (("sparse", 0),)}, "sparse update is 0: it must be a whole number from 1"),
        ({"sparsities": (10**6,)}, "sparse update is 1000000: it must be a whole number from 1"),
        ({"updates": (("flat", 0),)}, "a sparse update to begin with"),
        ({"few": (("magic", ()),)}, "method is 'magic'"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        Config(**changes)


def sparsity_rows(errors):
    """Return rows of the sweep over sparsities: errors[method][s] holds one error per draw."""
    rows = [
        {"method": method, "parameter": s, "relative_error": error}
        for method, by_s in errors.items()
        for s, drawn in by_s.items()
        for error in drawn
    ]
    return pd.DataFrame(rows).assign(sweep="sparsity", status="done", m=16, n=12, a=8, b=6)


def test_the_reach_of_a_method_ends_at_its_first_failure():
    table = sparsity_rows(
        {
            "omp": {2: [1e-9, 1e-9, 1.0], 4: [1e-9, 0.5, 0.5], 8: [1e-9] * 3},
            "iht": {2: [0.3, 0.2, 1e-9], 4: [1e-9] * 3, 8: [0.1] * 3},
            "fista": {2: [1e-5] * 3, 4: [1e-5, 9e-4, 1.0], 8: [1e-5, 1.1e-3, 1.0]},
        }
    )
    assert reach(table).to_dict() == {"fista": 4, "omp": 2, "iht": 0}
    assert list(reach(table).index) == ["fista", "omp", "iht"]
    late = table.assign(status="timed out")
    assert set(reach(late)) == {0}


def real_rows(rows):
    names = ["update", "method", "basis", "share", "least_norm_share"]
    return pd.DataFrame(rows, columns=names).assign(
        sweep="real",
        status="done",
        m=8,
        n=8,
        a=4,
        b=4,
        law=0.25,
        relative_error=0.9,
        parameter=0,
        density=0.6,
        certificate_value=0.043,
    )


def test_the_verdict_counts_where_l1_wins_and_says_by_how_much_it_loses():
    lost = [("x", "fista", basis, 0.05, 0.25) for basis in ("coordinate", "dct", "wavelet")]
    least = [(name, "least_norm", "coordinate", 0.25, 0.25) for name in "xy"]
    won = [("y", "fista", "wavelet", 0.5, 0.2)]
    text = verdict(real_rows(lost + least), Config())
    assert text.startswith(
        "In 0 of 3 recoveries of 1 real update ℓ1 brought back more than the least-norm answer; in "
    )
    assert "in the median it brought back 20 % of the energy less" in text
    assert "Their duality gaps are at most 4.3 %. The median density" in text
    assert "is 0.60, where Gaussian noise has 0.64." in text
    assert "1.00 of it in the median" in text
    text = verdict(real_rows(lost + won + least), Config())
    assert text.startswith("In 1 of 4 recoveries of 2 real updates ℓ1")
    assert "answer (all of y; bases wavelet; at best 50 % against 20 %); in the median" in text


def test_without_real_rows_the_verdict_says_why(table):
    synthetic = table[table["sweep"] != "real"]
    assert verdict(synthetic, Config()).startswith("No real update was measured: make a pair")
    asked = verdict(synthetic, Config(**(TINY | {"layers": ()})))
    assert asked.startswith("No real update was asked for.")


def test_the_verdict_of_a_run_names_sparse_and_dense_updates(table, pair):
    text = verdict(table, tiny(pair))
    assert re.match(r"In [1-4] of 8 recoveries of 2 real updates ℓ1 brought back more than", text)
    assert "all of layer.a.weight" in text
    assert (
        "Synthetic sparse updates of 16 × 12 come back from 11 × 8 cores, in the median draw, up "
        "to s = 2 (basis_pursuit); none (least_norm); and by ensemble up to s = 2 (gaussian, haar)."
        in text
    )
    assert "not sparse (low rank, flat) ℓ1 won in " in text


def test_the_command_writes_a_table_that_its_figure_reads(pair, tmp_path, capsys, monkeypatch):
    path = tmp_path / "tiny.toml"
    path.write_text(
        "shape = [16, 12]\nshares = [0.5]\nsparsities = [2]\nnoises = [0.1]\ndraws = 1\n"
        'kinds = ["gaussian"]\nbases = ["coordinate"]\nupdates = [["sparse", 3]]\n'
        'solvers = [["fista", []]]\nfew = [["fista", []]]\nreal_shares = [0.5]\n'
        'real_solvers = [["fista", [["lam_ratio", 0.1]]]]\nlayers = ["layer.a"]\n'
        f'base = "{pair}/base.safetensors"\ntuned = "{pair}/tuned.safetensors"\n'
    )
    out = tmp_path / "out"
    assert main(["--config", str(path), "--out", str(out), "--jobs", "1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert re.match(r"In [01] of 1 recoveries of 1 real update ℓ1 brought back more than", first)
    stored = pd.read_parquet(out / "recovery.parquet")
    assert len(stored) == 7
    assert second.startswith("7 rows are in")
    monkeypatch.setattr(sys, "argv", ["x", str(out), "--out", str(tmp_path / "figures")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("figures.recovery", run_name="__main__")
    assert ended.value.code == 0
    assert (tmp_path / "figures" / "recovery.png").read_bytes().startswith(b"\x89PNG")
