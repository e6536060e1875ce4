"""The atlas of real updates: leads, crossings, and what was expected, on updates made to order."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cosa_theory.deltas import LayerDelta
from cosa_theory.studies.atlas.pair import atlas_pair
from experiments import atlas
from tests.experiments.test_atlas_predictions import lead_of

FEW = ["truncated_svd", "cosa_haar", "cosa_gaussian", "mask", "top_entries", "low_bits"]
M, N = 32, 24


def layers(make):
    rng = np.random.default_rng(3)
    base = rng.standard_normal((M, N))
    return [LayerDelta(f"layer.{block}.query.weight", make(rng), base) for block in range(2)]


def low_rank(rng):
    return rng.standard_normal((M, 1)) @ rng.standard_normal((1, N))


def flat(rng):
    """All singular values equal: a core holds more than low rank does."""
    return np.linalg.qr(rng.standard_normal((M, N)))[0]


@pytest.fixture(scope="module")
def tables():
    made = {"encoder_r8_100": low_rank, "chgnet": flat}
    budgets = [round(share * 2 * M * N) for share in (0.08, 0.2, 0.3)]
    atlases = {
        name: atlas_pair(layers(make), budgets=budgets, families=FEW, draws=4)
        for name, make in made.items()
    }
    pooled, each = atlas.tables_of(atlases)
    return pooled, each, atlas.leads(pooled, each)


def test_low_rank_leads_where_the_update_is_of_low_rank_and_a_core_where_it_is_flat(tables):
    pooled, _, lead = tables
    assert set(pooled["share"]) == set(atlas.SHARES)
    by = lead.set_index(["update", "share"])
    first = by.loc["encoder_r8_100"]
    assert (first["svd"] > 0.999).all()
    assert (first["crossed"] == 0).all()
    assert (first["least"] > 2).all()
    assert (first["best"] == "truncated_svd").all()
    # r (m + n) numbers hold r/n of a flat update, and a core of as many r (m + n)/(mn): 1.75 times.
    last = by.loc["chgnet"]
    assert (last["crossed"] == last["matrices"]).all()
    assert (last["lead"] < 1).all()
    assert last["svd"].iloc[-1] == pytest.approx(4 / N)


def test_a_budget_below_rank_one_has_no_lead():
    budgets = [20, 600, 700]  # of two matrices: rank one takes 56 of each
    made = atlas_pair(layers(low_rank), budgets=budgets, families=FEW, draws=2)
    lead = atlas.leads(*atlas.tables_of({"encoder_r8_100": made})).set_index("share")
    first = lead.loc[atlas.SHARES[0]]
    assert np.isnan(first["lead"])
    assert (first["matrices"], first["crossed"], first["best"]) == (0, 0, "top_entries")
    assert lead.loc[atlas.SHARES[1], "matrices"] == 2


def test_the_same_of_noise_stands_beside_every_lead(tables):
    _, _, lead = tables
    noise = lead.groupby("share")["noise"].agg(["min", "max"])
    assert (noise["min"] > 1).all()
    assert noise["min"].to_numpy() == pytest.approx(noise["max"].to_numpy())  # of shapes alone


def test_the_first_step_of_adam_is_the_sign_where_the_gradient_is_not_tiny():
    slope = np.array([[3.0, -2e-3, 0.0, 1e-8]])
    assert atlas._adam(slope) == pytest.approx(np.array([[1.0, -1.0, 0.0, 0.5]]), abs=1e-5)


def test_the_command_stores_tables_and_refuses_what_is_no_update(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(atlas.UPDATES, "encoder_r8_gradient", lambda: layers(low_rank))
    monkeypatch.setattr(atlas, "SHARES", (0.1, 0.2))
    monkeypatch.setattr(atlas, "FAMILIES", {name: atlas.FAMILIES[name] for name in FEW})
    given = ["--pairs", "encoder_r8_gradient", "--out", str(tmp_path)]
    measure = atlas.measure
    monkeypatch.setattr(atlas, "measure", lambda *a: measure(*a, families=FEW))
    assert atlas.main(given) == 0
    assert "of 1 updates" in capsys.readouterr().out
    stored = json.loads((tmp_path / "atlas.json").read_text())
    assert stored["provenance"]["arguments"]["shares"] == [0.1, 0.2]
    assert set(pd.read_parquet(tmp_path / "atlas_leads.parquet")["update"]) == {
        "encoder_r8_gradient"
    }
    assert atlas.main(["--pairs", "nothing", "--out", str(tmp_path)]) == 2
    assert "nothing" in capsys.readouterr().err


def test_reference_tables_keep_what_other_runs_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "REFERENCE", tmp_path)
    lead = lead_of(encoder_r8_1000=12.0, encoder_r8_gradient=30.0)
    held = pd.DataFrame({"update": lead["update"], "share": 0.01, "family": "mask"})
    for name in ("encoder_r8_gradient", "encoder_r8_1000", "encoder_r8_1000"):
        tables = atlas._with_committed(
            {
                "atlas_leads": lead[lead["update"] == name],
                "atlas": held[held["update"] == name].assign(captured=0.01),
            }
        )
        for table, rows in tables.items():
            rows.to_csv(tmp_path / f"{table}.csv", index=False)
    assert list(tables["atlas_leads"]["update"]) == ["encoder_r8_1000", "encoder_r8_gradient"]
    assert len(tables["atlas"]) == 2
    told = " ".join(tables["atlas_judged"]["prediction"])
    assert "encoder_r8_1000" in told
    assert "encoder_r8_gradient" in told


def test_function_is_refused_for_what_has_no_texts_before_any_work(tmp_path, capsys):
    given = ["--pairs", "chgnet", "--function", "--out", str(tmp_path)]
    assert atlas.main(given) == 2
    assert "chgnet has no texts" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_function_goes_on_from_cells_of_its_own(tmp_path, monkeypatch):
    asked = {}

    def function_pair(*paths, **settings):
        asked.update(settings)
        return SimpleNamespace(function=pd.DataFrame())

    monkeypatch.setattr("cosa_theory.studies.function.pair.function_pair", function_pair)
    monkeypatch.setattr(atlas, "atlas_pair", lambda pair, function, **settings: function([]))
    atlas.measure("sre_encoder", tmp_path / "sre_encoder", function=True)
    assert asked["cells"] == tmp_path / "sre_encoder_function"
