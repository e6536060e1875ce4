"""The informed ensembles: their algebra, and the energy that they capture."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg

from cosa_theory.ground.errors import InputError
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.projections import INFORMED, SecondMoments, make_projection
from tests.projections.test_second_moments import N, eigenpairs, moments_of, rows

C = moments_of(rows())
K = 6
WAYS = [{}, {"power": 1}, {"power": 2.5}, {"centre": True}, {"power": 2, "centre": True}]


def drawn(k=K, kind="activation", **options):
    return make_projection(kind, k, N, **{"moments": C, "scale": "synthesis"} | options)


def projector(A):
    Q = scipy.linalg.orth(A.T)
    return Q @ Q.T


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("kind", INFORMED)
def test_rows_are_orthonormal_at_synthesis_scale_and_longer_at_the_other(kind, options):
    A = drawn(kind=kind, **options)
    np.testing.assert_allclose(A @ A.T, np.eye(K), atol=1e-13)
    longer = drawn(kind=kind, scale="analysis", **options)
    np.testing.assert_allclose(longer, A * (N / K) ** 0.5, rtol=1e-12)
    np.testing.assert_array_equal(drawn(kind=kind, dtype="float32", **options), A.astype("float32"))


def test_without_a_power_they_are_the_leading_eigenvectors_and_no_seed_matters():
    np.testing.assert_array_equal(drawn(seed=1), drawn(seed=2))
    np.testing.assert_allclose(drawn(), C.leading(K)[1].T, atol=1e-14)
    np.testing.assert_allclose(drawn(moments=C.matrix), drawn(), atol=1e-14)
    np.testing.assert_allclose(drawn(moments=eigenpairs(C, K)), drawn(), atol=1e-10)


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_a_multiple_of_the_moments_gives_the_same_rows(options):
    scaled = SecondMoments(7.0 * C.matrix, mean=7**0.5 * C.mean, count=C.count)
    np.testing.assert_allclose(drawn(moments=scaled, **options), drawn(**options), atol=1e-10)


def test_rotated_moments_give_rotated_leading_directions():
    Q = np.linalg.qr(np.random.default_rng(3).standard_normal((N, N)))[0]
    rotated = drawn(moments=Q @ C.matrix @ Q.T)
    np.testing.assert_allclose(projector(rotated), Q @ projector(drawn()) @ Q.T, atol=1e-9)


def test_with_a_power_they_span_combinations_of_the_inputs_and_of_no_other():
    x = rows(10)
    few = moments_of(x)
    A = drawn(moments=few, power=1)
    np.testing.assert_allclose(A @ projector(x), A, atol=1e-10)
    assert np.abs(A - drawn(moments=few, power=1, seed=1)).max() > 0.01


def test_higher_powers_come_nearer_to_the_leading_eigenvectors():
    leading = projector(drawn())
    away = [np.linalg.norm(projector(drawn(power=p)) - leading) for p in (1, 4, 16, 64)]
    assert all(later < earlier for earlier, later in pairwise(away))
    assert away[0] > 0.3
    assert away[-1] < 1e-6


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_whitened_inputs_are_uncorrelated_and_of_one_size_and_the_span_is_the_same(options):
    A, plain = drawn(whiten=True, **options), drawn(**options)
    of = C.centred() if options.get("centre") else C
    covariance = A @ of.matrix @ A.T
    np.testing.assert_allclose(covariance, covariance[0, 0] * np.eye(K), atol=1e-9)
    np.testing.assert_allclose(projector(A), projector(plain), atol=1e-9)
    assert np.linalg.norm(A) == pytest.approx(np.linalg.norm(plain))
    update = np.random.default_rng(5).standard_normal((8, N))
    energies = [CosaBasis(np.eye(8), R).captured_energy(update) for R in (A, plain)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-9)


def test_inputs_are_whitened_beside_one_that_is_far_larger_than_the_others():
    x = rows()
    x[::20, 4] += 1e5
    A = drawn(whiten=True, moments=moments_of(x))
    covariance = A @ (x.T @ x / len(x)) @ A.T
    np.testing.assert_allclose(
        covariance, covariance[0, 0] * np.eye(K), atol=1e-4 * covariance[0, 0]
    )


def test_with_a_left_factor_that_knows_nothing_a_share_a_over_m_of_the_row_energy_is_captured():
    # E = (a/m) ‖ΔW P_S‖²/‖ΔW‖², see docs/theory.md, 7.1.
    m, a, draws = 12, 5, 200
    update = np.random.default_rng(7).standard_normal((m, N)) @ rows(N, seed=0)
    share = np.linalg.norm(update @ projector(drawn())) ** 2 / np.linalg.norm(update) ** 2
    assert share > 2 * K / N
    found = [
        CosaBasis.sample(
            m, N, a, K, kind="activation", moments=C, seed=seed, scale="analysis"
        ).captured_energy(update)
        for seed in range(draws)
    ]
    error = np.mean(found) - a / m * share
    assert abs(error) <= 4.5 * np.std(found) / draws**0.5
    assert np.std(found) < 0.3 * share


def test_one_sided_they_capture_the_row_energy_in_their_span():
    update = np.random.default_rng(7).standard_normal((12, N))
    basis = CosaBasis.sample(12, N, 12, K, kind="activation", moments=C)
    share = np.linalg.norm(update @ projector(drawn())) ** 2 / np.linalg.norm(update) ** 2
    assert basis.captured_energy(update) == pytest.approx(share)


def test_gradients_lead_on_the_left():
    D = moments_of(rows(n=12, seed=3))
    basis = CosaBasis.sample(12, N, 5, K, kind="gradient", moments=C, gradients=D)
    np.testing.assert_allclose(basis.L, D.leading(5)[1], atol=1e-12)
    np.testing.assert_allclose(basis.R, C.leading(K)[1].T, atol=1e-12)
    with pytest.raises(InputError, match=r"moments is missing.*gradients.*layer_moments"):
        CosaBasis.sample(12, N, 5, K, kind="gradient", moments=C)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moments": None}, r"moments is missing.*layer_moments"),
        ({"moments": np.eye(4)}, r"length 4: the layer has 30"),
        ({"power": 0}, r"power is 0"),
        ({"moments": SecondMoments(C.matrix), "centre": True}, "cannot be centred"),
        ({"moments": moments_of(rows(4), where="up_proj")}, r"up_proj have 4 .* 6 are asked for"),
        ({"moments": moments_of(rows(4)), "power": 1}, r"have 4 .* 6 are asked for"),
        ({"density": 0.5}, "density"),
    ],
)
def test_what_they_cannot_be_drawn_from_is_told(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        drawn(**changes)
    assert len(str(caught.value)) <= 300
