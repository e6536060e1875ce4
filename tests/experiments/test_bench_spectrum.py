"""The model-sized pair is what it says, and the benchmark measures what it says, at small size."""

import json

import numpy as np
import pytest

from cosa_theory.deltas import open_pair
from cosa_theory.spectrum import summarize
from experiments import bench_spectrum, llama_pair

SMALL = llama_pair.Config(blocks=2, hidden=48, feed_forward=96, key_value=16, rank=4)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    llama_pair.write_pair(SMALL, folder)
    return folder


def test_the_default_pair_has_the_112_matrices_of_the_model():
    table = llama_pair.run(llama_pair.Config())
    assert len(table) == 112
    # Llama-3.2-1B: 973 million weights in its linear maps.
    assert (table["m"] * table["n"]).sum() == 973_078_528
    assert set(zip(table["m"], table["n"], strict=True)) == {
        (2048, 2048),
        (512, 2048),
        (8192, 2048),
        (2048, 8192),
    }


def test_the_pair_is_sharded_bfloat16_with_low_rank_plus_noise_updates(pair):
    assert len(list((pair / "tuned").glob("*.safetensors"))) == SMALL.blocks
    index = json.loads((pair / "base" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(llama_pair.run(SMALL)["name"])
    layers = list(open_pair(pair / "base", pair / "tuned"))
    assert len(layers) == 14
    for layer in layers:
        assert layer.base_dtype == layer.tuned_dtype == "bfloat16"
        found = summarize(layer.delta)
        assert found.rank_90 <= SMALL.rank
        assert found.resolved
        expected = np.sqrt(layer.delta.size * (SMALL.low_rank_sd**2 + SMALL.noise_sd**2))
        # The norm of a random rank-4 product varies by its two thin factors: a wide margin.
        assert 0.5 < found.frobenius / expected < 1.7


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(pair, tmp_path):
    llama_pair.write_pair(SMALL, tmp_path)
    for file in (pair / "tuned").iterdir():
        assert file.read_bytes() == (tmp_path / "tuned" / file.name).read_bytes()
    shape = (8, 6)
    first = llama_pair.matrix_pair("x", shape, SMALL)[0]
    other = llama_pair.matrix_pair("x", shape, llama_pair.Config(seed=1))[0]
    assert (first != other).any()


def test_methods_are_timed_beside_one_reference_and_agree_with_it():
    config = bench_spectrum.Config(sizes=(64,), rounds=1)
    table = bench_spectrum.run(config).set_index("method")
    assert table.loc["numpy svd", "speedup"] == pytest.approx(1.0)
    np.testing.assert_allclose(
        table["speedup"], table.loc["numpy svd", "seconds"] / table["seconds"]
    )
    assert table.loc["this, gram", "median_error"] < 1e-9
    assert table.loc["this, svd", "max_error"] < 1e-9


def test_the_pair_is_timed_in_full(pair):
    table = bench_spectrum.time_pair(bench_spectrum.Config(pair=pair)).set_index("quantity")
    assert "unavoidable, 14 matrices" in table.index
    parts = table.loc[["reading the pair", "spectra of base, tuned and ΔW"], "seconds"].sum()
    assert table.loc["reading, and all spectra", "seconds"] == pytest.approx(parts)
    assert (table["seconds"] > 0).all()


def test_the_command_prints_both_tables_and_the_peak(pair, capsys, monkeypatch):
    arguments = ["bench_spectrum", "--pair", str(pair), "--sizes", "64", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    bench_spectrum.main()
    printed = capsys.readouterr().out
    assert "spectra of ΔW" in printed
    assert "peak memory" in printed
    assert "torch svdvals" in printed
