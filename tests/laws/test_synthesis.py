"""Each closed form is reproduced by simulation, within standard errors computed from its variance.

Fixed seeds; a z-score beyond 4 fails. Where the variance of what is averaged has a closed form it
is used, elsewhere the sample's own.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import fft
from scipy.stats import beta, ks_2samp

from cosa_theory import CosaBasis, laws
from cosa_theory.ground.errors import InputError
from cosa_theory.projections import KINDS, make_projection

Z = 4.0
LAYER = (24, 20, 9, 5)  # m, n, a, b: rectangular, all different


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def haar(d, k, rng):
    """Orthonormal columns, d × k, uniformly distributed, by another route than the library's."""
    Q, R = np.linalg.qr(rng.standard_normal((d, k)))
    return Q * np.sign(np.diag(R))


def with_spectrum(m, n, values, seed=0):
    rng = np.random.default_rng(seed)
    k = len(values)
    return (haar(m, k, rng) * values) @ haar(n, k, rng).T


def participation_ratio(dW):
    energy = np.linalg.svd(dW, compute_uv=False) ** 2
    return energy.sum() ** 2 / (energy**2).sum()


def shares(updates, a, b, kind, draws, **options):
    """Return the captured shares of several updates, one row each, over the same draws."""
    m, n = updates[0].shape
    bases = (CosaBasis.sample(m, n, a, b, kind=kind, seed=s, **options) for s in range(draws))
    return np.array([[basis.captured_energy(dW) for dW in updates] for basis in bases]).T


def z_of_mean(values, mean, variance=None):
    variance = np.var(values, ddof=1) if variance is None else variance
    return (np.mean(values) - mean) / math.sqrt(variance / len(values))


def z_of_variance(values, variance):
    """Standard score of a sample variance, from the sample's own fourth moment."""
    centred = (values - np.mean(values)) ** 2
    return (np.var(values, ddof=1) - variance) / math.sqrt(np.var(centred, ddof=1) / len(values))


UPDATES = {
    "rank one": gaussian(24, 1, seed=1) @ gaussian(1, 20, seed=2),
    "decaying": with_spectrum(24, 20, 0.7 ** np.arange(20.0), seed=3),
    "flat": with_spectrum(24, 20, np.ones(20), seed=4),
    "one entry": np.eye(24, 20) * (np.arange(20) == 0),
}


# 1.3: the energy law and its variance.


@pytest.mark.parametrize("kind", ["gaussian", "haar"])
def test_captured_energy_has_the_mean_and_the_variance_of_the_law(kind):
    m, n, a, b = LAYER
    samples = shares([*UPDATES.values()], a, b, kind, 400)
    for (name, dW), sample in zip(UPDATES.items(), samples, strict=True):
        variance = laws.energy_variance(m, n, a, b, participation_ratio(dW))
        assert abs(z_of_mean(sample, laws.energy_law(m, n, a, b), variance)) < Z, name
        assert abs(z_of_variance(sample, variance)) < Z, name


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"gaussian", "haar"}))
def test_other_ensembles_capture_the_same_share_on_average(kind):
    # Powers of two, so that the rows of an SRHT are orthonormal and every factor has full rank.
    m, n, a, b = 32, 16, 9, 5
    decaying, one_entry = with_spectrum(m, n, 0.7 ** np.arange(16.0)), np.zeros((m, n))
    one_entry[3, 7] = 1.0
    options = {"density": 0.5} if kind == "very_sparse" else {}
    for sample in shares([decaying, one_entry], a, b, kind, 150, **options):
        if np.ptp(sample) < 1e-12:  # an SRHT spreads a single entry evenly: no variance at all
            assert sample[0] == pytest.approx(laws.energy_law(m, n, a, b), rel=1e-12)
        else:
            assert abs(z_of_mean(sample, laws.energy_law(m, n, a, b))) < Z


def test_the_share_of_a_rank_one_update_is_a_product_of_two_beta_variables():
    m, n, a, b = LAYER
    (sample,) = shares([UPDATES["rank one"]], a, b, "gaussian", 600)
    rng = np.random.default_rng(5)
    law = beta.rvs(a / 2, (m - a) / 2, size=300_000, random_state=rng) * beta.rvs(
        b / 2, (n - b) / 2, size=300_000, random_state=rng
    )
    assert ks_2samp(sample, law).pvalue > 1e-3
    for order in (1, 2, 3, 4):
        moment = laws.rank_one_energy_moment(m, n, a, b, order)
        assert abs(z_of_mean(law**order, moment)) < Z


def test_the_variance_law_of_rank_one_is_that_of_the_product_of_betas():
    m, n, a, b = LAYER
    second = laws.rank_one_energy_moment(m, n, a, b, 2)
    expected = second - laws.rank_one_energy_moment(m, n, a, b, 1) ** 2
    assert laws.energy_variance(m, n, a, b, 1) == pytest.approx(expected, rel=1e-12)


@given(*[st.integers(1, 40)] * 4, st.floats(0, 1))
def test_the_variance_law_is_its_textbook_form_without_the_cancellation(m, n, a, b, t):
    a, b = min(a, m), min(b, n)
    ratio = 1 + t * (min(m, n) - 1)
    tau, B, A = 1 / ratio, {}, {}
    for name, d, k in (("m", m, a), ("n", n, b)):
        B[name] = k * (d - k) / (d * (d - 1) * (d + 2)) if d > 1 else 0.0
        A[name] = k**2 / d**2 - 2 * B[name] / d
    textbook = A["m"] * A["n"] + 2 * B["m"] * B["n"] - (a * b / (m * n)) ** 2
    textbook += 2 * tau * (A["m"] * B["n"] + A["n"] * B["m"] + B["m"] * B["n"])
    variance = laws.energy_variance(m, n, a, b, ratio)
    assert variance == pytest.approx(textbook, abs=1e-14)
    assert 0 <= variance <= 0.25  # a share lies in [0, 1]


def test_there_is_no_variance_where_the_core_spans_everything():
    assert laws.energy_variance(8, 6, 8, 6, 2.5) == 0
    assert laws.energy_variance(8, 6, 8, 3, 6) == pytest.approx(0, abs=1e-18)  # flat, wide side
    assert laws.energy_variance(1, 1, 1, 1, 1) == 0


SPREADS = [("gaussian", {}, 0.0072, 5e-5), ("very_sparse", {"density": 0.1}, 0.016, 5e-4)]


@pytest.mark.parametrize(
    ("kind", "options", "sd", "rounding"), [*SPREADS, ("rademacher", {}, 0.003, 5e-4)]
)
def test_the_spread_over_draws_depends_on_how_an_update_meets_the_coordinates(
    kind, options, sd, rounding
):
    dW = np.zeros((384, 384))
    dW[100, 200] = 1.0
    (sample,) = shares([dW], 96, 48, kind, 100, **options)
    centred = (sample - sample.mean()) ** 2
    error_of_sd = np.std(centred, ddof=1) / math.sqrt(len(sample)) / (2 * np.std(sample, ddof=1))
    assert abs(np.std(sample, ddof=1) - sd) < rounding + Z * error_of_sd
    assert abs(z_of_mean(sample, laws.energy_law(384, 384, 96, 48))) < Z


def test_the_gaussian_spread_of_a_single_entry_is_exact():
    assert laws.energy_variance(384, 384, 96, 48, 1) ** 0.5 == pytest.approx(0.0072, abs=5e-5)


# 1.4: every oblivious linear parametrisation captures its dimension over mn, on average.


def fourier_atoms(m, n, frequencies):
    """Real parts of the inverse transforms of single coefficients, one row per frequency."""
    spectrum = np.zeros((len(frequencies), m, n))
    for atom, (j, k) in zip(spectrum, frequencies, strict=True):
        atom[j, k] = 1.0
    return fft.ifft2(spectrum).real.reshape(len(frequencies), -1)


def random_cells(m, n, count, rng):
    return [divmod(int(cell), n) for cell in rng.choice(m * n, count, replace=False)]


def test_random_fourier_coefficients_span_fewer_dimensions_than_there_are_of_them():
    m, count, draws = 32, 200, 200
    cells = [random_cells(m, m, count, np.random.default_rng(s)) for s in range(draws)]
    # (j, k) and (−j, −k) have the same real part, so what counts is how many such pairs are met.
    met = [len({min((j, k), (-j % m, -k % m)) for j, k in draw}) for draw in cells]
    for draw, dimension in list(zip(cells, met, strict=True))[:5]:
        assert np.linalg.matrix_rank(fourier_atoms(m, m, draw)) == dimension
    # 4 of the frequencies are their own partner; a pair is drawn whole with this probability.
    whole = count * (count - 1) / (m**2 * (m**2 - 1))
    mean = count - (m**2 - 4) / 2 * whole  # 180.6
    assert abs(z_of_mean(met, mean)) < Z
    assert 173 < mean < 184


@pytest.mark.parametrize("family", ["fourier", "cosine", "mask", "cosa"])
def test_an_oblivious_span_captures_its_share_of_dimensions_under_random_rotations(family):
    m, n, count, draws = 12, 10, 30, 800
    rng = np.random.default_rng(6)
    cells = random_cells(m, n, count, rng)
    units = np.zeros((count, m, n))
    for unit, cell in zip(units, cells, strict=True):
        unit[cell] = 1.0
    atoms = {
        "fourier": lambda: fourier_atoms(m, n, cells),
        "cosine": lambda: fft.idctn(units, axes=(1, 2), norm="ortho").reshape(count, -1),
        "mask": lambda: units.reshape(count, -1),
        "cosa": lambda: np.kron(gaussian(m, 6), gaussian(5, n).T).T,
    }[family]()
    _, values, basis = np.linalg.svd(atoms, full_matrices=False)
    basis = basis[values > 1e-10]
    dimension = len(basis)
    assert (dimension < count) == (family == "fourier")
    dW = 0.6 ** np.arange(n) * np.eye(m, n)
    dW /= np.linalg.norm(dW)
    sample = [
        np.sum((basis @ (haar(m, m, rng) @ dW @ haar(n, n, rng).T).ravel()) ** 2)
        for _ in range(draws)
    ]
    assert abs(z_of_mean(sample, dimension / (m * n))) < Z


# 1.5 and 1.7: crossover and the factor-two bound.


@pytest.mark.parametrize(("decay", "winner"), [(1.0, "core"), (0.97, "core"), (0.6, "low rank")])
def test_the_core_wins_exactly_when_the_top_share_is_below_the_law(decay, winner):
    m, n, a, b = 24, 16, 10, 8  # 80 parameters, as many as rank 2
    rank = laws.equal_budget_rank(m, n, a, b)
    assert rank == 2
    values = decay ** np.arange(16.0)
    top = (values[: int(rank)] ** 2).sum() / (values**2).sum()
    law = laws.energy_law(m, n, a, b)
    assert (top < law) == (winner == "core")
    dW = with_spectrum(m, n, values)
    variance = laws.energy_variance(m, n, a, b, participation_ratio(dW))
    (sample,) = shares([dW], a, b, "gaussian", 300)
    # The measured gap to the truncated SVD has the sign the law says, beyond doubt.
    gap = z_of_mean(sample, top, variance)
    assert gap > Z if winner == "core" else gap < -Z


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_no_spectrum_gives_the_core_more_than_the_bound(m, n, r, seed):
    r = min(r, m, n)
    energy = np.random.default_rng(seed).standard_gamma(0.5, min(m, n)) + 1e-9
    top = np.sort(energy)[::-1][:r].sum() / energy.sum()
    law = r * (m + n) / (m * n)
    bound = laws.advantage_bound(m, n)
    assert law / top <= bound * (1 + 1e-12)
    assert law / (r / min(m, n)) == pytest.approx(bound)  # reached on a flat spectrum
    assert 1 < bound <= 2
    assert (bound == 2) == (m == n)


# 1.8: shape.


def test_a_square_gaussian_factor_is_ill_conditioned_and_an_orthonormal_one_is_not():
    for seed in range(4):
        low, high = CosaBasis.sample(512, 1, 512, 1, seed=seed).singular_value_range()
        assert high / low > 100
    low, high = CosaBasis.sample(512, 1, 512, 1, kind="haar").singular_value_range()
    assert high / low == pytest.approx(1, abs=1e-12)


# 1.9: noise.


def test_noise_in_the_update_reaches_core_and_update_as_the_laws_say():
    (m, n, a, b), variance, draws = LAYER, 0.3, 500
    rng = np.random.default_rng(7)
    dW = gaussian(m, n, seed=8)
    in_core, in_update = [], []
    for s in range(draws):
        basis = CosaBasis.sample(m, n, a, b, seed=s)
        noise = math.sqrt(variance) * rng.standard_normal((m, n))
        error = basis.best_core(dW + noise) - basis.best_core(dW)
        in_core.append(np.sum(error**2))
        in_update.append(np.sum(basis.synthesize(error) ** 2))
    assert abs(z_of_mean(in_core, laws.best_core_noise(m, n, a, b, variance))) < Z
    # Divided by v it is a chi-squared variable of ab degrees of freedom.
    law = laws.update_noise(a, b, variance)
    assert abs(z_of_mean(in_update, law, 2 * variance**2 * a * b)) < Z
    assert abs(z_of_variance(np.array(in_update), 2 * variance**2 * a * b)) < Z


def test_the_core_of_an_isotropic_update_has_the_norm_of_the_law():
    m, n, a, b = LAYER
    rng = np.random.default_rng(9)
    ratios = []
    for s in range(500):
        dW = rng.standard_normal((m, n))
        core = CosaBasis.sample(m, n, a, b, seed=s).best_core(dW)
        ratios.append(np.sum(core**2) / (m * n))  # E‖ΔW‖² = mn, and is independent of the ratio
    assert abs(z_of_mean(ratios, laws.isotropic_core_norm(m, n, a, b))) < Z


def test_the_error_of_the_core_is_infinite_on_average_near_a_square_factor():
    with pytest.raises(InputError, match=r"a is 9.0: it must be below m - 1, .* infinite"):
        laws.best_core_noise(10, 20, 9, 5, 1.0)
    with pytest.raises(InputError, match=r"b is 10.0: it must be below n - 1, .* infinite"):
        laws.isotropic_core_norm(20, 10, 5, 10)
    with pytest.raises(InputError, match=r"a is 4.0: "):  # of several layers the one at fault
        laws.best_core_noise([100, 5], 100, [50, 4], 3, 1.0)


# 1.10: order of products.


def test_the_quoted_costs_of_a_step_are_reproduced():
    sizes, tokens = (2048, 2048, 1024, 256), 4096
    through = laws.product_flops(*sizes, tokens, "through", training=True) / tokens
    left = laws.product_flops(*sizes, tokens, "left", training=True) / tokens
    assert through == pytest.approx(12.1e6, abs=0.05e6)
    assert left == pytest.approx(5.8e6, abs=0.05e6)
    few = [laws.product_flops(*sizes, 16, order, training=True) for order in ("through", "left")]
    assert few[0] < few[1]  # with few tokens forming the product does not pay


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("order", ["through", "left", "right"])
def test_the_cost_of_a_step_is_what_torch_counts(order, training):
    from torch.utils.flop_counter import FlopCounterMode

    m, n, a, b, tokens = 24, 20, 9, 5, 7
    L, R = torch.randn(m, a, generator=torch.Generator().manual_seed(0)), torch.ones(b, n)
    Y, x = torch.ones(a, b, requires_grad=True), torch.ones(tokens, n, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        if order == "through":
            out = x @ R.T @ Y.T @ L.T
        elif order == "left":
            out = x @ R.T @ (L @ Y).T
        elif not training:
            out = x @ (Y @ R).T @ L.T
        else:  # the gradient of the core is taken from R x, by a term that is zero
            hidden = x @ (Y.detach() @ R).T + (x.detach() @ R.T) @ (Y - Y.detach()).T
            out = hidden @ L.T
        if training:
            out.sum().backward()
    expected = laws.product_flops(m, n, a, b, tokens, order, training=training)
    assert counter.get_total_flops() == expected


def test_the_right_order_mirrors_the_left():
    m, n, a, b, tokens = 24, 20, 9, 5, 7
    mirror = (n, m, b, a, tokens, "left")
    assert laws.product_flops(m, n, a, b, tokens, "right") == laws.product_flops(*mirror)
    # Keeping only R x for backward costs 2bn + 4ab − 2an a token, and saves the product per step.
    more = tokens * (2 * b * n + 4 * a * b - 2 * a * n) - 2 * a * b * n
    trained = laws.product_flops(m, n, a, b, tokens, "right", training=True)
    assert trained == laws.product_flops(*mirror, training=True) + more


# Scale, rank wall.


def test_the_gain_of_the_analysis_scale_at_the_released_shape_is_64():
    assert laws.scale_gain(4096, 4096, 1024, 256) == 64


def test_the_gain_of_the_analysis_scale_is_seen_in_updates():
    m, n, a, b = LAYER
    Y = gaussian(a, b, seed=10)
    Y /= np.linalg.norm(Y)
    norms = [
        np.sum(CosaBasis.sample(m, n, a, b, seed=s, scale="analysis").synthesize(Y) ** 2)
        for s in range(500)
    ]
    tau = 1 / participation_ratio(Y)
    gain = laws.scale_gain(m, n, a, b)
    variance = gain**2 * (2 / (m * n) + (2 / m + 2 / n + 2 / (m * n)) * tau)
    assert abs(z_of_mean(norms, gain, variance)) < Z


def test_the_rank_wall_is_the_smaller_side_of_the_core():
    assert laws.rank_wall(1024, 256) == 256
    np.testing.assert_array_equal(laws.rank_wall([3, 9], 5), [3, 5])


# 2.1 and 5.2: edges of random spectra.


def test_the_bai_yin_edges_give_the_quoted_range_of_the_dictionary():
    (low_L, high_L), (low_R, high_R) = laws.bai_yin_edges(4096, 1024), laws.bai_yin_edges(4096, 256)
    assert (low_L * low_R, high_L * high_R) == (0.375, 1.875)


def test_a_gaussian_factor_has_its_singular_values_at_the_bai_yin_edges():
    m, a = 1200, 300
    L = make_projection("gaussian", a, m, scale="synthesis").T
    values = np.linalg.svd(L, compute_uv=False)
    low, high = laws.bai_yin_edges(m, a)
    # Tracy-Widom fluctuations: of relative order m^(-2/3); the edges are approached from inside.
    assert abs(values[0] - high) < 4 * m ** (-2 / 3)
    assert abs(values[-1] - low) < 4 * m ** (-2 / 3)


@pytest.mark.parametrize("shape", [(600, 200), (200, 600), (300, 300)])
def test_noise_has_its_singular_values_within_the_marchenko_pastur_edges(shape):
    variance = 0.04
    noise = math.sqrt(variance) * gaussian(*shape, seed=11)
    values = np.linalg.svd(noise, compute_uv=False)
    low, high = laws.marchenko_pastur_edges(*shape, variance)
    width = math.sqrt(variance) * 4 * min(shape) ** (-1 / 6)  # of the Tracy-Widom fluctuation
    assert high - width < values[0] < high + width
    assert low - width < values[-1] < low + width
    assert low == pytest.approx(0.2 * abs(math.sqrt(shape[0]) - math.sqrt(shape[1])))


# 5.5: gradients.


def test_the_first_step_on_a_core_at_zero_moves_the_weight_along_the_doubled_factors():
    m, n, a, b = LAYER
    basis = CosaBasis.sample(m, n, a, b, seed=12)
    G = torch.from_numpy(gaussian(m, n, seed=13))  # the gradient with respect to the weight
    Y = torch.zeros(a, b, dtype=torch.float64, requires_grad=True)
    (G * basis.synthesize(Y)).sum().backward()
    move = basis.synthesize(-Y.grad.numpy())
    expected = -basis.L @ basis.L.T @ G.numpy() @ basis.R.T @ basis.R
    np.testing.assert_allclose(move, expected, atol=1e-12)


def squared_cosines(m, n, a, b, kind, draws):
    G = gaussian(m, n, seed=14)
    for s in range(draws):
        basis = CosaBasis.sample(m, n, a, b, kind=kind, seed=s)
        step = basis.synthesize(basis.encode(G))
        yield np.vdot(step, G) ** 2 / (np.vdot(step, step) * np.vdot(G, G))


def test_the_first_step_of_a_gaussian_core_has_the_cosine_of_the_law():
    m, n, a, b = 96, 80, 24, 10
    sample = np.fromiter(squared_cosines(m, n, a, b, "gaussian", 100), float)
    law = laws.gradient_step_squared_cosine(m, n, a, b)
    # The law is a quotient of means, right up to a relative 1/(ab) or so.
    assert abs(sample.mean() / law - 1) < 2 / (a * b) + Z * sample.std() / law / 10
    assert law < 0.8 * laws.energy_law(m, n, a, b)  # and it can be told from the projection's


def test_the_first_step_of_an_orthonormal_core_has_the_cosine_of_the_projection():
    m, n, a, b = LAYER
    sample = list(squared_cosines(m, n, a, b, "haar", 400))
    law = laws.gradient_step_squared_cosine(m, n, a, b, orthonormal=True)
    variance = laws.energy_variance(m, n, a, b, participation_ratio(gaussian(m, n, seed=14)))
    assert abs(z_of_mean(sample, law, variance)) < Z


# Arguments.


def test_laws_take_arrays_of_sizes():
    m, n = np.array([[100], [200]]), np.array([50, 60, 70])
    for law in (laws.energy_law, laws.equal_budget_rank, laws.scale_gain, laws.isotropic_core_norm):
        table = law(m, n, 8, 5)
        assert table.shape == (2, 3)
        assert table[1, 2] == law(200, 70, 8, 5)
    assert laws.energy_variance(m, n, 8, 5, 3.0).shape == (2, 3)
    assert laws.rank_one_energy_moment(m, n, 8, 5, 2).shape == (2, 3)
    assert laws.product_flops(m, n, 8, 5, np.array([1, 2, 3])).shape == (2, 3)
    assert laws.marchenko_pastur_edges(m, n, 1.0)[0].shape == (2, 3)


def test_sizes_too_large_for_an_integer_product_do_not_overflow():
    big = np.int32(2**20)
    assert laws.energy_law(big, big, big, big) == 1.0


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("a", lambda: laws.energy_law(10, 10, 11, 5)),
        ("b", lambda: laws.energy_law(10, [20, 4], 3, 5)),
        ("m", lambda: laws.energy_law(0, 10, 1, 5)),
        ("n", lambda: laws.energy_law(10, 10.5, 1, 5)),
        ("a", lambda: laws.rank_wall(-1, 5)),
        ("n", lambda: laws.advantage_bound(3, float("nan"))),
        ("participation_ratio", lambda: laws.energy_variance(9, 9, 3, 3, 0.5)),
        ("participation_ratio", lambda: laws.energy_variance(9, 9, 3, 3, 9.5)),
        ("participation_ratio", lambda: laws.energy_variance(9, 9, 3, 3, float("nan"))),
        ("variance", lambda: laws.best_core_noise(20, 20, 3, 3, -1)),
        ("variance", lambda: laws.marchenko_pastur_edges(9, 9, -1)),
        ("order", lambda: laws.product_flops(9, 9, 3, 3, 4, "middle")),
        ("a", lambda: laws.bai_yin_edges(4, 9)),
        ("order", lambda: laws.rank_one_energy_moment(9, 9, 3, 3, 0)),
    ],
)
def test_bad_arguments_are_named(argument, call):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.argument == argument
