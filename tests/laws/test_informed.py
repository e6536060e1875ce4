"""Laws of informed projections, by brute force and by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.laws import (
    explained_share,
    informed_budget,
    informed_shape,
    informed_share,
    prior_error,
)
from cosa_theory.projections import SecondMoments, make_projection

M, N, A, B = 18, 14, 6, 4


def _moments(n, decay=0.6, seed=0):
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    return (Q * decay ** np.arange(n)) @ Q.T


def _shares(gains):
    """Return the cumulative shares of descending gains."""
    ordered = np.sort(np.asarray(gains, float))[::-1]
    return np.cumsum(ordered) / ordered.sum()


_gains = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9)


def test_a_core_with_an_invariant_left_side_captures_its_share_of_the_row_energy():
    delta = np.random.default_rng(1).standard_normal((M, N)) @ _moments(N, 0.8, seed=5)
    vectors = SecondMoments(_moments(N)).leading(N)[1]
    held = np.cumsum(np.sum((delta @ vectors) ** 2, axis=0)) / np.sum(delta**2)
    draws = []
    for seed in range(400):
        L = make_projection("haar", A, M, seed=seed, scale="analysis") * np.sqrt(A / M)
        draws.append(np.sum((L @ delta @ vectors[:, :B]) ** 2) / np.sum(delta**2))
    law = informed_share(A, M, B, held)
    assert abs(np.mean(draws) - law) < 4 * np.std(draws) / 20
    assert abs(law - A * B / (M * N)) > 10 * np.std(draws) / 20  # it is not the oblivious law


def test_two_fixed_sides_capture_the_product_on_average_over_updates_of_their_covariances():
    C, D = _moments(N), _moments(M, 0.7, seed=2)
    right, left = SecondMoments(C), SecondMoments(D)
    R, L = right.leading(B)[1], left.leading(A)[1]
    roots = [np.linalg.cholesky(one + 1e-12 * np.eye(len(one))) for one in (D, C)]
    entries = np.random.default_rng(3).standard_normal((2000, M, N))
    updates = roots[0] @ entries @ roots[1].T
    captured = (
        np.sum((L.T @ updates @ R) ** 2, axis=(1, 2)) / np.sum(updates**2, axis=(1, 2)).mean()
    )
    law = informed_share(A, M, B, right.shares(N), left.shares(M))
    assert abs(captured.mean() - law) < 4 * captured.std() / np.sqrt(2000)


@settings(max_examples=60, deadline=None)
@given(_gains, st.integers(1, 12), st.integers(1, 130), st.none() | _gains)
def test_no_shape_within_the_budget_is_expected_to_capture_more(gains, m, parameters, left):
    s, n = _shares(gains), len(gains)
    t = None if left is None else _shares(left)[:m]
    most = m if t is None else len(t)
    a, b = informed_shape(m, n, parameters, s, t)
    assert 1 <= a <= most
    assert 1 <= b <= n
    assert a * b <= parameters
    shapes = itertools.product(range(1, most + 1), range(1, n + 1))
    best = max(informed_share(i, m, j, s, t) for i, j in shapes if i * j <= parameters)
    assert informed_share(a, m, b, s, t) == pytest.approx(best, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(_gains, st.integers(1, 12), st.integers(1, 130))
def test_with_an_invariant_left_side_one_sided_cores_lose_no_more_than_rounding(
    gains, m, parameters
):
    s, n = _shares(gains), len(gains)
    a, b = informed_shape(m, n, parameters, s)
    found, columns = informed_share(a, m, b, s), min(n, parameters // m)
    if columns == 0:
        assert (a, b) == (parameters, 1)
    elif columns == n or parameters % m == 0:
        assert (a, b) == (m, columns)
    else:
        assert found < (1 + 1 / columns) * informed_share(m, m, columns, s)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.lists(st.floats(0.01, 10), min_size=1, max_size=4)),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 25),
    st.randoms(use_true_random=False),
)
def test_a_budget_over_layers_is_within_one_row_of_the_best_and_below_its_bound(
    sizes, spare, random
):
    layers = {f"l{i}": (m, _shares(gains)) for i, (m, gains) in enumerate(sizes)}
    weights = {name: random.uniform(0.1, 2) for name in layers}
    total = sum(m for m, _ in layers.values()) + spare
    found = informed_budget(layers, total, weights)
    spent = sum(layers[name][0] * b for name, b in found.columns.items())
    assert found.parameters == spent <= total

    def value(columns):
        held = [
            weights[name] * s[b - 1]
            for (name, (_, s)), b in zip(layers.items(), columns, strict=True)
        ]
        return sum(held) / sum(weights.values())

    choices = itertools.product(*(range(1, len(s) + 1) for _, s in layers.values()))
    affordable = [
        one for one in choices if sum(layers[f"l{i}"][0] * b for i, b in enumerate(one)) <= total
    ]
    best = max(value(one) for one in affordable)
    largest = max(
        weights[name] * np.diff(s, prepend=0).max() for name, (_, s) in layers.items()
    ) / sum(weights.values())
    assert found.share == pytest.approx(value(found.columns.values()), abs=1e-12)
    assert found.share <= best + 1e-12
    assert best <= found.bound + 1e-12
    assert found.bound <= found.share + largest + 1e-12
    if len({m for m, _ in layers.values()}) == 1:  # equal rows: nothing to gain by a worse order
        assert found.share == pytest.approx(best, abs=1e-12)


def test_the_bound_says_how_far_whole_rows_in_this_order_may_be_from_the_best():
    layers = {"tall": (3, [0.5, 0.81]), "one": (2, [0.5, 0.7]), "other": (2, [0.5, 0.7])}
    found = informed_budget(layers, 11)
    assert found.columns == {"tall": 2, "one": 1, "other": 1}
    assert found.share == pytest.approx((0.81 + 1.0) / 3)
    # A second row for each of the others would be better, and half of one is what is left.
    assert found.share < (0.5 + 1.4) / 3 < found.bound == pytest.approx((0.81 + 1.1) / 3)


@pytest.mark.parametrize("decoder", ["least_squares", "adjoint"])
def test_the_error_of_a_decoder_with_a_prior_is_that_of_updates_drawn_from_it(decoder):
    C = _moments(N, 0.75)
    R = make_projection("gaussian", B, N, seed=1)
    L = make_projection("haar", A, M, seed=2).T
    e = explained_share(R, C)
    right = np.linalg.inv(R @ C @ R.T) @ R @ C
    left = L @ (np.linalg.inv(L.T @ L) if decoder == "least_squares" else np.eye(A))
    root = np.linalg.cholesky(C + 1e-12 * np.eye(N))
    updates = np.random.default_rng(4).standard_normal((2000, M, N)) @ root.T
    gaps = np.sum((left @ (L.T @ updates @ R.T) @ right - updates) ** 2, axis=(1, 2))
    errors = gaps / (M * np.trace(C))
    assert abs(errors.mean() - prior_error(A, M, e, decoder)) < 4 * errors.std() / np.sqrt(2000)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_the_explained_share_does_not_depend_on_scale_and_is_none_of_nothing(scale):
    C, R = _moments(N), make_projection("gaussian", B, N)
    assert explained_share(scale * R, C / scale) == pytest.approx(explained_share(R, C))
    assert math.isnan(explained_share(R, 0 * C))
    assert explained_share(0 * R, C) == 0


def test_leading_eigenvectors_explain_most():
    C = SecondMoments(_moments(N))
    best = explained_share(C.leading(B)[1].T, C.matrix)
    assert best == pytest.approx(C.share(B))
    for seed in range(20):
        R = make_projection("gaussian", B, N, seed=seed)
        assert B / N < explained_share(R, C.matrix) < best


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: informed_share(2, 4, 3, [0.5, 0.9]), ("b is 3", "at most 2")),
        (lambda: informed_share(5, 4, 1, [0.5]), ("a is 5", "from 1 to 4")),
        (lambda: informed_shape(4, 4, 8, [0.9, 0.5]), ("shares falls", "cumulative")),
        (lambda: informed_shape(4, 4, 8, [0.5, 1.5]), ("shares", "1.5")),
        (lambda: informed_budget({"q": (4, [0.5]), "k": (4, [0.5])}, 7), ("7 parameters", "8")),
        (lambda: informed_budget({"q": (4, [0.1, 0.9])}, 9), ("q", "not concave")),
        (lambda: informed_budget({"q": (4, [0.5])}, 9, {"k": 1.0}), ("weights", "q")),
        (lambda: prior_error(2, 4, 0.5, "median"), ("median", "adjoint")),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(call, names):
    with pytest.raises(InputError) as caught:
        call()
    assert all(name in str(caught.value) for name in names)
    assert len(str(caught.value)) <= 300
