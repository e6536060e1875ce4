"""What each family captures: exact where it can be, by its law and an honest interval elsewhere."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from cosa_theory import laws
from cosa_theory.ground.errors import InputError
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.projections import INFORMED, KINDS
from cosa_theory.spectrum.families import FAMILIES, compare_families, crossover
from cosa_theory.spectrum.families.base import Draws, Update, plan_draws
from cosa_theory.spectrum.families.lora_xs import singular_core

COLUMNS = [
    "family",
    "rank_budget",
    "budget",
    "parameters",
    "size",
    "a",
    "b",
    "captured",
    "ci_low",
    "ci_high",
    "sd",
    "draws",
    "law",
]


def random_update(m, n, rng, decay=1.0):
    """Return a dense matrix with singular values k^(−decay)."""
    U = np.linalg.qr(rng.standard_normal((m, min(m, n))))[0]
    V = np.linalg.qr(rng.standard_normal((n, min(m, n))))[0]
    return U @ np.diag(np.arange(1, min(m, n) + 1.0) ** -decay) @ V.T


def rotation(d, rng):
    Q, R = np.linalg.qr(rng.standard_normal((d, d)))
    return Q * np.sign(np.diagonal(R))


def only(table, family):
    return table[table["family"] == family].reset_index(drop=True)


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(1)
    return random_update(40, 28, rng), rng.standard_normal((40, 28))


def test_every_ensemble_and_both_bases_are_offered_and_the_columns_are_as_documented(pair):
    assert set(FAMILIES) >= {"truncated_svd", "lora_xs", *(f"cosa_{kind}" for kind in KINDS)}
    assert all(name == family.name for name, family in FAMILIES.items())
    table = compare_families(*pair, draws=4)
    assert list(table.columns) == COLUMNS
    # Without what is known of inputs and gradients, three families are left out.
    assert len(table) == (len(FAMILIES) - len(INFORMED) - 1) * 3
    assert (table["parameters"] <= table["budget"]).all()
    oblivious = {name for name, family in FAMILIES.items() if not family.data_dependent}
    assert oblivious > {f"cosa_{kind}" for kind in KINDS}
    assert table["law"].notna().equals(table["family"].isin(oblivious))
    assert "lora_xs" not in set(compare_families(pair[0], draws=4)["family"])


def test_the_truncated_svd_is_the_best_matrix_of_its_rank(pair):
    delta = pair[0]
    table = compare_families(delta, families=["truncated_svd"], ranks=[1, 3, 5])
    U, sigma, Vt = np.linalg.svd(delta, full_matrices=False)
    for rank, captured in zip(table["rank_budget"], table["captured"], strict=True):
        best = (U[:, :rank] * sigma[:rank]) @ Vt[:rank]
        residual = np.linalg.norm(delta - best) ** 2 / np.linalg.norm(delta) ** 2
        assert captured == pytest.approx(1 - residual, rel=1e-12)
    assert (table["draws"] == 0).all()
    assert (table["ci_low"] == table["captured"]).all()


@pytest.mark.parametrize("shape", [(40, 28), (28, 40), (30, 30)])
@pytest.mark.parametrize("spread", [1, 3, 16])
def test_lora_xs_captures_the_core_in_the_singular_basis_of_the_weight(shape, spread):
    # At a spread of 1e-16 the Gram matrix knows nothing of the last wanted vectors.
    rng = np.random.default_rng(2)
    U = rotation(shape[0], rng)[:, : min(shape)]
    V = rotation(shape[1], rng)[:, : min(shape)]
    base = (U * np.logspace(0, -spread, min(shape))) @ V.T
    delta = rng.standard_normal(shape)
    table = compare_families(delta, base, families=["lora_xs"], ranks=[1, 3])
    for row in table.itertuples():
        r = row.a
        assert (row.b, row.parameters, row.size) == (r, r * r, f"r={r}")
        share = np.linalg.norm(U[:, :r].T @ delta @ V[:, :r]) ** 2 / np.linalg.norm(delta) ** 2
        assert row.captured == pytest.approx(share, rel=1e-5)


def test_lora_xs_captures_no_more_than_the_truncated_svd_in_float32_either():
    delta = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)
    table = compare_families(delta, delta, ranks=[1, 2], families=["truncated_svd", "lora_xs"])
    low = compare_families(delta, ranks=[1, 2, 3, 4], families=["truncated_svd"])
    best = dict(zip(low["size"], low["captured"], strict=True))
    rows = only(table, "lora_xs")
    assert (rows["captured"] <= [best[size] for size in rows["size"]]).all()


def test_the_whole_singular_basis_of_the_weight_captures_a_square_update():
    rng = np.random.default_rng(3)
    delta, base = rng.standard_normal((2, 12, 12))
    assert np.linalg.norm(singular_core(delta, base, 12)) == pytest.approx(np.linalg.norm(delta))


def test_the_singular_basis_of_a_rank_deficient_weight_still_captures_its_own_directions():
    rng = np.random.default_rng(4)
    left, right = rng.standard_normal((30, 2)), rng.standard_normal((2, 20))
    table = compare_families(left @ right * 0.1, left @ right, families=["lora_xs"], ranks=[1])
    assert table["captured"][0] == pytest.approx(1)


def test_a_zero_weight_has_no_singular_basis_and_the_share_is_null(pair):
    table = compare_families(pair[0], 0 * pair[1], families=["lora_xs"])
    assert table["captured"].isna().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_draws_are_those_of_a_sampled_basis(pair, kind, dtype):
    delta = pair[0].astype(dtype)
    row = compare_families(
        delta, ranks=[2], families=[f"cosa_{kind}"], draws=4, seed=7, key="layer"
    ).iloc[0]
    assert (row["draws"], row["a"] < 40, row["b"] < 28) == (4, True, True)
    shares = [
        CosaBasis.sample(
            40, 28, row["a"], row["b"], kind=kind, seed=7, key=("layer", "draw", i), dtype=dtype
        ).captured_energy(delta)
        for i in range(4)
    ]
    assert row["captured"] == pytest.approx(
        np.mean(shares), rel=1e-9 if dtype == "float64" else 1e-4
    )
    assert row["sd"] == pytest.approx(
        np.std(shares, ddof=1), rel=1e-6 if dtype == "float64" else 0.01
    )


def test_every_ensemble_captures_the_law_on_average_over_rotations_of_the_update():
    # Rotating the update on both sides makes any fixed span see what a rotation-invariant one
    # sees: same mean ab/(mn), same variance law, whatever the ensemble.
    rng = np.random.default_rng(5)
    m, n, trials = 24, 18, 24
    sigma = np.arange(1, n + 1.0) ** -1
    delta = np.zeros((m, n))
    np.fill_diagonal(delta, sigma)
    ratio = (sigma**2).sum() ** 2 / (sigma**4).sum()
    for kind in KINDS:
        shares = []
        for trial in range(trials):
            turned = rotation(m, rng) @ delta @ rotation(n, rng).T
            row = compare_families(
                turned, ranks=[2], families=[f"cosa_{kind}"], draws=2, key=(kind, trial)
            ).iloc[0]
            shares.append(row["captured"])
        a, b = int(row["a"]), int(row["b"])
        assert row["law"] == a * b / (m * n)
        # Two draws share one rotation but not their span; each is a draw of the same law.
        variance = laws.energy_variance(m, n, a, b, ratio)
        z = (np.mean(shares) - row["law"]) / np.sqrt(variance / trials)
        assert abs(z) < 4, (kind, z)


@pytest.mark.parametrize("kind", ["gaussian", "haar"])
def test_the_mean_over_draws_agrees_with_the_law_to_its_known_deviation(kind):
    rng = np.random.default_rng(6)
    delta = random_update(48, 32, rng, decay=0.5)
    sigma = np.linalg.svd(delta, compute_uv=False)
    row = compare_families(delta, ranks=[3], families=[f"cosa_{kind}"], draws=400).iloc[0]
    ratio = (sigma**2).sum() ** 2 / (sigma**4).sum()
    variance = laws.energy_variance(48, 32, row["a"], row["b"], ratio)
    assert abs(row["captured"] - row["law"]) < 4 * np.sqrt(variance / row["draws"])
    # The sample deviation of N draws is off by about 1/√(2N).
    assert row["sd"] == pytest.approx(np.sqrt(variance), rel=4 / np.sqrt(2 * row["draws"]))


def test_the_intervals_cover_the_law_as_often_as_they_say():
    rng = np.random.default_rng(7)
    delta = random_update(20, 14, rng, decay=0.5)
    trials, confidence = 120, 0.9
    covered = 0
    for trial in range(trials):
        row = compare_families(
            delta,
            ranks=[2],
            families=["cosa_gaussian"],
            draws=6,
            key=("trial", trial),
            confidence=confidence,
        ).iloc[0]
        covered += row["ci_low"] <= row["law"] <= row["ci_high"]
    # The shares are a little skewed, so the t interval is a little off its nominal coverage.
    assert binom.cdf(covered, trials, confidence - 0.02) > 1e-3
    assert binom.sf(covered, trials, confidence + 0.02) > 1e-3


def test_equal_arguments_draw_equal_tables_and_another_layer_or_seed_draws_others(pair):
    settings = {"families": ["cosa_gaussian", "cosa_sjlt"], "draws": 4}
    first = compare_families(*pair, key="a", **settings)
    assert first.equals(compare_families(*pair, key="a", **settings))
    for other in ({"key": "b"}, {"key": "a", "seed": 1}):
        again = compare_families(*pair, **settings, **other)
        assert (first["captured"] != again["captured"]).all()


def test_a_core_of_the_whole_layer_captures_everything_without_a_draw():
    delta = np.random.default_rng(8).standard_normal((6, 9))
    table = compare_families(delta, ranks=[4], families=["cosa_rademacher", "truncated_svd"])
    full = table.iloc[0]
    assert (full["captured"], full["ci_low"], full["ci_high"], full["draws"]) == (1, 1, 1, 0)
    assert (full["law"], full["parameters"]) == (1, 54)


@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "sjlt"])
def test_a_whole_side_is_exact_so_that_only_the_other_side_is_random(kind):
    # A drawn 4 × 4 factor of signs would be singular in two draws of three.
    rng = np.random.default_rng(9)
    delta = rng.standard_normal((400, 4))
    row = compare_families(delta, ranks=[1], families=[f"cosa_{kind}"], draws=4, key="k").iloc[0]
    assert row["b"] == 4
    shares = []
    for index in range(4):
        basis = CosaBasis.sample(400, 4, row["a"], 4, kind=kind, key=("k", "draw", index))
        Q = np.linalg.qr(basis.L @ np.eye(row["a"]))[0]
        shares.append(np.linalg.norm(Q.T @ delta) ** 2 / np.linalg.norm(delta) ** 2)
    assert row["captured"] == pytest.approx(np.mean(shares))


def test_a_rank_deficient_hadamard_factor_is_measured_in_float32_too():
    # Draw 13 has a right factor (240 × 384, padded to 512) of rank below 240, on which the
    # single-precision SVD does not converge.
    delta = np.random.default_rng(12).standard_normal((1536, 384)).astype(np.float32)
    key = "encoder.layer.2.intermediate.dense.weight"
    settings = {"ranks": [8], "families": ["cosa_srht"], "draws": 14, "key": key}
    sigma = np.zeros(384)
    sigma[0] = 1  # the plan for a rank-one update: as many draws as allowed
    single = compare_families(delta, sigma=sigma, **settings).iloc[0]
    double = compare_families(delta.astype(float), sigma=sigma, **settings).iloc[0]
    assert (single["a"], single["b"], single["draws"]) == (64, 240, 14)
    assert single["captured"] == pytest.approx(double["captured"], rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_a_projection_that_is_drawn_as_zero_captures_nothing(shape):
    delta = np.random.default_rng(0).standard_normal(shape)
    row = compare_families(delta, families=["cosa_achlioptas"], draws=40).iloc[0]
    assert row["ci_low"] < row["captured"] < row["ci_high"]
    update = Update(delta, None, np.linalg.svd(delta, compute_uv=False))
    family = FAMILIES["cosa_achlioptas"]
    size = family.size(*shape, 1)
    fits = [family.fit(update, size, Draws(key=(index,))) for index in range(20)]
    left = [float(np.sum((delta - fit.update()) ** 2)) for fit in fits]
    total = float(np.sum(delta**2))
    assert max(left) == total  # a draw without entries leaves the update as it is
    assert min(left) < total


def test_a_zero_update_has_null_shares_and_no_winner():
    table = compare_families(np.zeros((20, 20)), np.ones((20, 20)))
    assert len(table) == (len(FAMILIES) - len(INFORMED) - 1) * 3
    assert table[["captured", "ci_low", "ci_high"]].isna().all(axis=None)
    assert (table["draws"] == 0).all()
    crossed = crossover(np.zeros(20), 20, 20)
    assert crossed[["top_share", "crossover_ratio", "winner"]].isna().all(axis=None)
    assert crossed["law"].notna().all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_shares_do_not_depend_on_the_scale_of_the_update(pair, scale):
    families = ["truncated_svd", "lora_xs", "cosa_gaussian"]
    reference = compare_families(*pair, families=families, draws=4)
    delta = (pair[0] * scale).astype(np.float32)
    assert np.isfinite(delta).all()
    table = compare_families(delta, pair[1].astype(np.float32), families=families, draws=4)
    assert table["captured"].to_numpy() == pytest.approx(reference["captured"].to_numpy(), rel=1e-4)


# Crossover -------------------------------------------------------------------------------------

SPECTRA = st.lists(st.floats(0, 1), min_size=40, max_size=40).map(
    lambda values: np.sort(np.array(values))[::-1]
)


def test_a_flat_square_spectrum_reaches_the_factor_two():
    table = crossover(np.ones(64), 64, 64, ranks=[8])
    row = table.iloc[0]
    assert (row["top_share"], row["law"], row["winner"]) == (8 / 64, 1024 / 64**2, "cosa")
    assert 1 / row["crossover_ratio"] == row["advantage_bound"] == 2


@given(SPECTRA, st.integers(40, 400), st.integers(1, 20), st.booleans())
def test_no_spectrum_gives_cosa_more_than_the_bound(sigma, long, rank, tall):
    m, n = (long, 40) if tall else (40, long)
    row = crossover(sigma, m, n, ranks=[rank]).iloc[0]
    if sigma[0] == 0:
        assert np.isnan(row["crossover_ratio"])
        return
    assert 1 / row["crossover_ratio"] <= row["advantage_bound"] * (1 + 1e-12)
    assert row["advantage_bound"] <= 2


def test_an_update_of_rank_one_is_held_by_rank_one_and_lost_to_a_random_core():
    rng = np.random.default_rng(10)
    delta = np.outer(rng.standard_normal(50), rng.standard_normal(30))
    sigma = np.linalg.svd(delta, compute_uv=False)
    row = crossover(sigma, 50, 30, ranks=[1]).iloc[0]
    assert row["top_share"] == pytest.approx(1)
    assert row["winner"] == "low rank"
    assert row["crossover_ratio"] == pytest.approx(1 / row["law"])
    assert row["crossover_ratio"] == pytest.approx(50 * 30 / 80, rel=0.05)


@settings(max_examples=30)
@given(SPECTRA, st.integers(1, 19))
def test_the_winner_is_the_larger_of_the_two_shares_of_the_table(sigma, rank):
    if sigma[0] == 0:
        sigma = np.ones(40)
    delta = np.diag(sigma)
    families = compare_families(
        delta, ranks=[rank], families=["truncated_svd", "cosa_very_sparse"], draws=2, sigma=sigma
    )
    low, core = only(families, "truncated_svd").iloc[0], only(families, "cosa_very_sparse").iloc[0]
    row = crossover(sigma, 40, 40, ranks=[rank]).iloc[0]
    assert row["top_share"] == pytest.approx(low["captured"], rel=1e-12)
    assert row["law"] == pytest.approx(core["law"], rel=1e-12)
    assert row["parameters"] == low["budget"] == core["budget"]
    if abs(row["crossover_ratio"] - 1) > 1e-9:
        expected = "low rank" if low["captured"] > core["law"] else "cosa"
        assert row["winner"] == expected


def test_two_families_that_are_everything_tie():
    assert crossover([3.0, 1.0], 2, 3, ranks=[2])["winner"].tolist() == ["tie"]


# Number of draws -------------------------------------------------------------------------------


def test_the_number_of_draws_is_the_least_that_brings_the_interval_to_one_per_cent():
    settings = Draws(most=10_000)
    for deviation in (0.005, 0.02, 0.1):
        count = plan_draws(0.1, (0.1 * deviation) ** 2, 1.0, settings)
        # t quantiles exceed the normal one, 1.96, and approach it.
        assert count >= max(4, (1.96 * deviation / 0.01) ** 2)
        assert count <= max(8, 1.2 * (1.96 * deviation / 0.01) ** 2 + 4)


@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
def test_draws_are_planned_for_the_spectrum_of_the_update(decay):
    delta = random_update(60, 40, np.random.default_rng(11), decay)
    row = compare_families(delta, ranks=[4], families=["cosa_sjlt"], draws=300).iloc[0]
    energy = np.arange(1, 41.0) ** (-2 * decay)
    ratio = energy.sum() ** 2 / (energy**2).sum()
    variance = laws.energy_variance(60, 40, row["a"], row["b"], ratio)
    assert row["draws"] == plan_draws(row["law"], variance, 1.0, Draws(most=300))


def test_draws_stay_within_their_limits_and_long_draws_get_fewer():
    assert plan_draws(0.1, 0.0, 1.0, Draws(most=20)) == 4
    assert plan_draws(0.1, 1.0, 1.0, Draws(most=20)) == 20
    assert plan_draws(0.1, 1.0, 1.0, Draws(most=3)) == 3
    assert plan_draws(0.1, 1.0, 5e9, Draws(most=20)) == 10
    assert plan_draws(0.1, 1.0, 5e12, Draws(most=20)) == 4


# Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "arguments", "settings"),
    [
        ("delta", (np.full((3, 3), np.nan),), {}),
        ("base", (np.ones((3, 3)), np.full((3, 3), np.inf)), {}),
        ("delta", (np.ones(3),), {}),
        ("delta", (np.ones((0, 3)),), {}),
        ("base", (np.ones((3, 3)), np.ones((3, 2))), {}),
        ("sigma", (np.ones((3, 3)),), {"sigma": np.ones(2)}),
        ("sigma", (np.ones((3, 3)),), {"sigma": [1.0, 2.0, 3.0]}),
        ("draws", (np.ones((3, 3)),), {"draws": 1}),
        ("confidence", (np.ones((3, 3)),), {"confidence": 1.0}),
        ("families", (np.ones((3, 3)),), {"families": ["lora"]}),
        ("families", (np.ones((3, 3)),), {"families": "truncated_svd"}),
        ("ranks", (np.ones((3, 3)),), {"ranks": 5}),
        ("key", (np.ones((3, 3)),), {"key": 3}),
    ],
)
def test_bad_arguments_are_named(argument, arguments, settings):
    with pytest.raises(InputError) as error:
        compare_families(*arguments, **settings)
    assert error.value.argument == argument


def test_tensors_of_any_type_are_compared():
    delta = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 0.25]])
    expected = compare_families(delta.numpy(), families=["truncated_svd"])
    for update in (delta.bfloat16(), delta.clone().requires_grad_()):
        assert compare_families(update, families=["truncated_svd"]).equals(expected)
