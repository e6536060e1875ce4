"""What low rank holds of noise, beside noise that is drawn here."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory.spectrum.families import crossover, null
from cosa_theory.spectrum.families.null import noise_top_share


@pytest.mark.parametrize(
    ("m", "n", "draws"),
    [(2, 384, 4000), (8, 8, 4000), (16, 4, 4000), (33, 33, 2000), (96, 64, 300), (20, 3000, 50)],
)
def test_drawn_noise_exceeds_the_null_by_nothing(m, n, draws):
    """Within the stated error of the law, and four standard errors of the mean."""
    noise = np.random.default_rng(0).standard_normal((draws, m, n))
    energy = np.linalg.eigvalsh(noise @ noise.mT if m < n else noise.mT @ noise)[:, ::-1]
    shares = energy.cumsum(axis=1) / energy.sum(axis=1, keepdims=True)
    # Beyond 32 the law is asymptotic, and below the truth; up to 32 the null is drawn itself.
    least, most = (0.998, 1.002) if min(m, n) <= 32 else (1, 1.018)
    for row in crossover(np.sqrt(energy[0]), m, n).to_dict("records"):
        excess = shares[:, row["rank_budget"] - 1] / row["law"] / row["noise_ratio"]
        error = 4 * excess.std() / math.sqrt(draws)
        assert least - error <= excess.mean() <= most + error


def test_two_by_two_noise_has_its_closed_form():
    """The squares of σ₁ ± σ₂ are independent and χ²₂ but for scale: the share is ½ + π/8."""
    assert noise_top_share(2, 2, 1) == pytest.approx(0.5 + math.pi / 8, rel=2e-3)


def test_long_sides_that_no_one_could_draw_in_full_have_a_null():
    assert noise_top_share(2, 10**9, 1) == pytest.approx(0.5, rel=1e-3)
    assert noise_top_share(10**9, 2, 1) == noise_top_share(2, 10**9, 1)


@pytest.mark.parametrize(
    ("m", "n", "rank"), [(1, 1, 1), (1, 9, 1), (9, 1, 5), (6, 4, 4), (6, 4, 9)]
)
def test_where_low_rank_is_everything_noise_is_no_different(m, n, rank):
    sigma = np.arange(min(m, n), 0, -1.0)
    row = crossover(sigma, m, n, ranks=[rank]).iloc[0]
    assert row["excess"] == 1
    assert row["noise_ratio"] == row["crossover_ratio"]


@settings(max_examples=25)
@given(st.sampled_from([2, 5, 12, 40, 300]), st.sampled_from([2, 7, 33, 900]), st.data())
def test_more_ranks_hold_more_of_noise_and_always_their_part_at_least(m, n, data):
    rank = data.draw(st.integers(1, min(m, n) - 1))
    share = noise_top_share(m, n, rank)
    assert rank / min(m, n) < share < noise_top_share(m, n, rank + 1) <= 1


def test_the_excess_is_the_ratio_over_that_of_noise_also_where_the_core_is_cut():
    # At (4, 6) and rank 2 a core gets 20 of 24 entries; at (5, 5) no product of integers is 10.
    for m, n, rank in [(384, 96, 8), (4, 6, 2), (5, 5, 1), (3, 50, 1)]:
        row = crossover(np.arange(min(m, n), 0, -1.0), m, n, ranks=[rank]).iloc[0]
        assert row["noise_ratio"] == pytest.approx(noise_top_share(m, n, rank) / row["law"])
        assert row["excess"] == pytest.approx(row["crossover_ratio"] / row["noise_ratio"])


def test_a_zero_update_has_no_excess():
    table = crossover(np.zeros(20), 20, 20)
    assert table["excess"].isna().all()
    assert (table["noise_ratio"] > 1).all()


def test_each_shape_and_rank_is_computed_once(monkeypatch):
    calls = []
    law, drawn = null.noise_crossover, null.stream
    monkeypatch.setattr(null, "noise_crossover", lambda *key: calls.append(key) or law(*key))
    monkeypatch.setattr(null, "stream", lambda *key: calls.append(key) or drawn(*key))
    for cached in (noise_top_share, null._mean_shares):
        cached.cache_clear()
    for _ in range(3):
        for m, n in ((64, 80), (12, 15), (15, 12)):
            crossover(np.ones(min(m, n)), m, n, ranks=[1, 4, 8])
    assert len(calls) == 3 + 1
