"""All pairs in one table: by energy beside noise, and how many assumptions hold."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from cosa_theory.studies.audit.assumptions import ASSUMPTIONS
from experiments.command import REFERENCE
from experiments.pairs import PAIRS, Pair
from experiments.real_updates import Config, energy_of, returned, run


def pair_of(tmp_path, *updates):
    base = {f"layers.{i}.weight": np.ones(one.shape) for i, one in enumerate(updates)}
    tuned = {name: base[name] + one for name, one in zip(base, updates, strict=True)}
    for name, weights in (("base", base), ("tuned", tuned)):
        save_file(weights, tmp_path / f"{name}.safetensors")
    return tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"


def test_noise_is_no_further_ahead_than_noise_and_low_rank_is(tmp_path):
    draw = np.random.default_rng(0).standard_normal
    noise = energy_of(*pair_of(tmp_path, draw((96, 96)), draw((96, 96)), np.zeros((8, 8))))
    assert noise["matrices"] == 2
    assert noise["excess"] == pytest.approx(1, abs=0.02)
    assert noise["excess_sixteenth"] == pytest.approx(1, abs=0.03)
    low = energy_of(*pair_of(tmp_path, draw((96, 4)) @ draw((4, 96))))
    assert low["top_share"] == pytest.approx(1)
    assert low["crossover_ratio"] == pytest.approx(1 / low["law"])


def test_a_pair_without_texts_has_energies_and_assumptions_and_no_function(tmp_path, monkeypatch):
    draw = np.random.default_rng(0).standard_normal
    paths = pair_of(tmp_path, draw((24, 16)), draw((16, 16)))
    only = Pair("toy", "noise", "none", lambda: paths)
    monkeypatch.setitem(PAIRS, "toy", only)
    tables = run(Config(("toy",)))
    assert tables["energy"]["pair"].tolist() == ["toy"]
    assumptions = tables["assumptions"].set_index("assumption")
    assert (assumptions[["holds", "fails", "undecided"]].sum(axis=1) == 2).all()
    assert set(assumptions.index) == set(ASSUMPTIONS)
    assert tables["function"].empty


def test_the_row_of_a_pair_has_the_function_at_the_budget_asked_for():
    names = ["svd", "svd", "adjoint_haar", "adjoint_haar", "shuffled"]
    function = pd.DataFrame({"approximation": names, "rank": [2, 8, 8, 8, None], "pair": "one"})
    function = function.assign(gain=[1, 1, 1, 0.5, 1], domain=[0.1, 0.2, 0.3, 0.4, 0.0])
    prediction = pd.DataFrame(
        {"pair": "one", "texts": ["domain", "general"], "predictor": "energy"}
    ).assign(correlation=[0.5, 0.9])
    (row,) = returned({"function": function, "prediction": prediction}, 8).to_dict("records")
    assert (row["pair"], row["svd"], row["adjoint_haar"], row["shuffled"]) == ("one", 0.2, 0.3, 0.0)
    assert row["energy_correlation"] == 0.5
    assert pd.isna(row["mask_rescaled"])


def test_all_pairs_at_hand_are_measured_unless_some_are_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Config().chosen() == ["sre_encoder", "chgnet"]
    assert Config(("chgnet",)).chosen() == ["chgnet"]
    with pytest.raises(ValueError, match="nowhere"):
        Config(("nowhere",)).chosen()


def test_every_pair_of_the_reference_tables_is_a_known_one():
    for path in REFERENCE.glob("real_updates_*.csv"):
        pairs = set(pd.read_csv(path)["pair"])
        assert pairs - {name.rpartition("_")[0] for name in PAIRS} <= set(PAIRS), path.name
