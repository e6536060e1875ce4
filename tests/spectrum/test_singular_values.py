"""Singular values are right to the stated resolution, on every route, layout and type."""

import importlib
import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.spectrum import resolution, singular_values, singular_values_of_product

# The package's attribute of this name is the function.
module = importlib.import_module("cosa_theory.spectrum.singular_values")

EXACT = ("gram", "svd")
SHAPES = [(5, 3), (3, 5), (1, 7), (7, 1), (1, 1), (40, 40), (64, 20)]


def reference(X):
    return np.linalg.svd(np.asarray(X, dtype=np.float64), compute_uv=False)


def with_spectrum(sigma, m, n, seed=0):
    """Return an m × n matrix with exactly these singular values (to rounding)."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((m, len(sigma))))[0]
    V = np.linalg.qr(rng.standard_normal((n, len(sigma))))[0]
    return (U * sigma) @ V.T


def low_rank_plus_noise(m, n, noise=2e-3):
    rng = np.random.default_rng(0)
    low_rank = rng.standard_normal((m, 16)) @ rng.standard_normal((16, n)) / np.sqrt(m)
    return (1e-3 * (low_rank + noise * rng.standard_normal((m, n)))).astype(np.float32)


@pytest.mark.parametrize("method", EXACT)
@given(m=st.integers(1, 12), n=st.integers(1, 12), seed=st.integers(0, 99))
def test_values_are_those_of_the_svd_and_the_same_for_the_transpose(method, m, n, seed):
    X = np.random.default_rng(seed).standard_normal((m, n))
    sigma = singular_values(X, method)
    assert sigma.shape == (min(m, n),)
    assert (np.diff(sigma) <= 0).all()
    # Absolute: a nearly singular square draw has a smallest value that the Gram route squares.
    np.testing.assert_allclose(sigma**2, reference(X) ** 2, atol=1e-13 * sigma[0] ** 2)
    np.testing.assert_allclose(singular_values(X.T, method) ** 2, sigma**2, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", [*EXACT, "randomized"])
def test_every_layout_type_and_library_gives_the_same_values(shape, method):
    X = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    double = X.astype(np.float64)
    wide = np.repeat(double, 2, axis=1)[:, ::2]  # strided, not contiguous either way
    variants = {
        "float32": X,
        "float64": double,
        "columns first": np.asfortranarray(double),
        "columns first, float32": np.asfortranarray(X),
        "strided": wide,
        "torch": torch.from_numpy(X),
        "torch float64 view": torch.from_numpy(double).T.contiguous().T,
        "list": double.tolist(),
    }
    k = min(shape)
    for name, variant in variants.items():
        sigma = singular_values(variant, method, k=k)
        np.testing.assert_allclose(np.asarray(sigma), reference(X), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "int8"])
@pytest.mark.parametrize("method", [*EXACT, "randomized"])
def test_a_tensor_of_any_type_gives_a_float64_tensor(dtype, method):
    X = (torch.arange(35).reshape(7, 5) % 11).to(getattr(torch, dtype))
    sigma = singular_values(X, method, k=4)
    assert isinstance(sigma, torch.Tensor)
    assert sigma.dtype == torch.float64
    assert sigma.device == X.device
    np.testing.assert_allclose(sigma.numpy(), reference(X.double().numpy())[:4], rtol=1e-9)


def test_a_parameter_that_requires_gradients_is_taken_as_it_is():
    X = torch.nn.Parameter(torch.eye(3))
    assert not singular_values(X).requires_grad


@pytest.mark.parametrize("method", [*EXACT, "randomized"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_route_for_other_devices_agrees_with_the_one_for_the_host(method, dtype, monkeypatch):
    X = torch.from_numpy(np.random.default_rng(2).standard_normal((30, 50))).to(dtype)
    host = singular_values(X, method, k=20)
    monkeypatch.setattr(module, "_on_host", lambda X: False)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 2048)  # several blocks
    other = singular_values(X, method, k=20)
    assert other.dtype == torch.float64
    torch.testing.assert_close(other, host, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(
        singular_values(X * torch.tensor(2.0**-60, dtype=dtype), method, k=20),
        host * 2.0**-60,
        rtol=1e-10,
        atol=0.0,
    )


def test_median_error_is_below_1e_9_on_low_rank_plus_noise():
    X = low_rank_plus_noise(600, 600)
    error = np.abs(singular_values(X) / reference(X) - 1.0)
    assert np.median(error) < 1e-9


def test_the_gram_route_loses_digits_with_the_square_and_resolution_marks_where_they_end():
    # A fifth of a decade apart, and none near 1e-7, where rounding decides on which side it is.
    exact = np.concatenate([[1.0], 10.0 ** -(0.1 + 0.2 * np.arange(45))])
    sigma = singular_values(with_spectrum(exact, 200, 46))
    error = np.abs(sigma / exact - 1.0)
    # A few u (σ₁/σ)²: u = 1e-16, and an eigenvalue is off by a small multiple of it.
    assert (error < 2e-15 * (exact[0] / exact) ** 2 + 1e-13).all()
    resolved = sigma > resolution(sigma, "gram")
    assert resolved.sum() == (exact > 1e-7).sum()
    assert error[resolved].max() < 0.05
    assert error[~resolved].max() > 0.5  # what is marked deserves it
    direct = singular_values(with_spectrum(exact, 200, 46), "svd")
    assert np.abs(direct / exact - 1.0).max() < 1e-6
    assert direct.min() > resolution(direct, "svd", (200, 46))


def test_a_float32_gram_would_be_wrong_by_over_one_per_cent_for_most_of_the_tail():
    X = low_rank_plus_noise(400, 400, noise=3e-4)  # σ₁ is 5,000 times the middle of the tail
    exact = reference(X)
    gram = np.linalg.eigvalsh((X.T @ X).astype(np.float64))[::-1]
    single = np.sqrt(np.maximum(gram, 0.0))
    assert np.mean(np.abs(single / exact - 1.0)[16:] > 0.01) > 0.5
    assert np.mean(np.abs(singular_values(X) / exact - 1.0)[16:] > 1e-6) < 0.05


@pytest.mark.parametrize("shape", [(301, 40), (40, 301)])
@pytest.mark.parametrize("method", ["gram", "randomized"])
def test_block_by_block_is_the_same_as_at_once(shape, method, monkeypatch):
    X = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    whole = singular_values(X, method, k=10)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 8 * 40 * 7)  # seven rows a block
    np.testing.assert_allclose(singular_values(X, method, k=10), whole, rtol=1e-11)


def test_upcasting_takes_the_memory_of_a_block_not_of_the_matrix(monkeypatch):
    X = np.ones((64, 40_000), dtype=np.float32)
    X[0] = 2.0
    monkeypatch.setattr(module, "_BLOCK_BYTES", 2**18)
    singular_values(X)
    tracemalloc.start()
    singular_values(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20  # a float64 copy is 20 MiB


@pytest.mark.parametrize("method", [*EXACT, "randomized"])
@given(exponent=st.integers(-900, 900))
def test_scaling_by_a_power_of_two_scales_the_values(method, exponent):
    X = np.random.default_rng(6).standard_normal((6, 4))
    expected = np.ldexp(singular_values(X, method, k=3), exponent)
    np.testing.assert_allclose(
        singular_values(np.ldexp(X, exponent), method, k=3), expected, rtol=1e-12
    )


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("size", [1e-20, 1e-300, 1e300])
def test_tiny_and_huge_entries_neither_vanish_nor_overflow(method, size):
    X = size * np.random.default_rng(7).standard_normal((8, 5))
    np.testing.assert_allclose(singular_values(X, method), reference(X / size) * size, rtol=1e-11)


@pytest.mark.parametrize("method", [*EXACT, "randomized"])
@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_a_singular_value_beyond_float64_is_refused(method, library):
    with pytest.raises(InputError, match="X has entries so large") as error:
        singular_values(library(np.full((6, 3), 1.7e308)), method, k=2)
    assert error.value.argument == "X"


@pytest.mark.parametrize("method", [*EXACT, "randomized"])
@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (3, 1), (5, 2)])
def test_a_single_nan_or_infinity_anywhere_is_refused(method, library, bad, place):
    X = np.ones((6, 3))
    X[place] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        singular_values(library(X), method, k=2)


@pytest.mark.parametrize("method", [*EXACT, "randomized"])
def test_a_zero_matrix_has_zero_values(method):
    np.testing.assert_array_equal(singular_values(np.zeros((3, 5)), method, k=3), np.zeros(3))


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("X", (np.ones(3),)),
        ("X", (np.ones((2, 2, 2)),)),
        ("X", (torch.ones((3, 0)),)),
        ("X", (np.ones((2, 2), complex),)),
        ("X", (torch.ones((2, 2), dtype=torch.complex64),)),
        ("X", (torch.eye(2).to_sparse(),)),
        ("X", (np.array([["a", "b"]]),)),
        ("method", (np.eye(2), "qr")),
        ("k", (np.eye(2), "gram", 0)),
        ("k", (np.eye(2), "svd", 3)),
        ("k", (np.eye(2), "randomized")),
    ],
)
def test_bad_arguments_are_named(argument, arguments):
    with pytest.raises(InputError) as error:
        singular_values(*arguments)
    assert error.value.argument == argument


def test_k_gives_the_largest_values():
    X = np.random.default_rng(8).standard_normal((9, 6))
    for method in EXACT:
        np.testing.assert_array_equal(
            singular_values(X, method, k=2), singular_values(X, method)[:2]
        )


def test_the_randomised_route_is_exact_on_low_rank_and_close_on_decay():
    low_rank = with_spectrum(np.linspace(3, 1, 12), 80, 60)
    np.testing.assert_allclose(
        singular_values(low_rank, "randomized", k=12), np.linspace(3, 1, 12), rtol=1e-12
    )
    decaying = with_spectrum(1.0 / np.arange(1, 61), 80, 60)
    np.testing.assert_allclose(
        singular_values(decaying, "randomized", k=10), 1.0 / np.arange(1, 11), rtol=1e-3
    )


@given(seed=st.integers(0, 1000))
def test_the_randomised_values_never_exceed_the_true_ones(seed):
    X = np.random.default_rng(9).standard_normal((60, 60))  # flat: the hard case
    found = singular_values(X, "randomized", k=20, seed=seed)
    exact = reference(X)[:20]
    assert (found <= exact * (1 + 1e-12)).all()
    assert (found > 0.8 * exact).all()


def test_the_randomised_route_depends_on_its_seed_alone():
    X = np.random.default_rng(10).standard_normal((50, 50))
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - that it is left alone is the point
    first = singular_values(X, "randomized", k=5, seed=1)
    np.testing.assert_array_equal(first, singular_values(X, "randomized", k=5, seed=1))
    assert (first != singular_values(X, "randomized", k=5, seed=2)).any()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@given(m=st.integers(1, 12), n=st.integers(1, 12), r=st.integers(1, 15), seed=st.integers(0, 99))
def test_the_values_of_a_product_come_from_its_factors(m, n, r, seed):
    rng = np.random.default_rng(seed)
    B, A = rng.standard_normal((m, r)), rng.standard_normal((r, n))
    sigma = singular_values_of_product(B, A)
    assert sigma.shape == (min(m, n, r),)
    np.testing.assert_allclose(sigma, reference(B @ A)[: sigma.size], atol=1e-12 * sigma[0])


def test_the_product_route_resolves_what_the_product_in_float32_would_blur():
    rng = np.random.default_rng(11)
    B = np.linalg.qr(rng.standard_normal((60, 4)))[0] * np.logspace(0, -9, 4)
    A = np.linalg.qr(rng.standard_normal((50, 4)))[0].T
    found = singular_values_of_product(B.astype(np.float32), A.astype(np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.logspace(0, -9, 4), rtol=1e-4)
    tensors = singular_values_of_product(torch.from_numpy(B).float(), torch.from_numpy(A).float())
    np.testing.assert_allclose(tensors.numpy(), found, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-250, 1.0, 1e250])
def test_the_product_route_is_in_range_wherever_the_values_are(size):
    B, A = np.random.default_rng(3).standard_normal((2, 4, 4))
    found = singular_values_of_product(size * B, A / size)
    np.testing.assert_allclose(found, singular_values_of_product(B, A), rtol=1e-12)
    zero = np.array([[1e300, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(singular_values_of_product(zero, zero[::-1]), [0.0, 0.0])


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("A", (np.ones((3, 2)), np.ones((3, 4)))),
        ("B", (np.full((3, 2), 1e300), np.full((2, 4), 1e300))),
        ("B", (np.ones((3, 0)), np.ones((0, 4)))),
        ("A", (np.ones((3, 2)), np.full((2, 4), np.nan))),
        ("B", (np.full((3, 2), np.inf), np.ones((2, 4)))),
    ],
)
def test_bad_factors_are_named(argument, arguments):
    with pytest.raises(InputError) as error:
        singular_values_of_product(*arguments)
    assert error.value.argument == argument


def test_resolution_is_relative_to_the_largest_value():
    sigma = np.array([4.0, 2.0, 0.0])
    assert resolution(sigma) == 4e-7
    assert resolution(sigma, "svd", (3, 100)) == pytest.approx(4 * 100 * 2.0**-52)
    assert resolution(sigma, "product") == pytest.approx(4 * 3 * 2.0**-52)
    assert resolution(np.zeros(3)) == 0.0
    with pytest.raises(ValueError, match="method is 'lanczos'"):
        resolution(sigma, "lanczos")


def test_a_shape_that_is_none_has_no_resolution():
    with pytest.raises(InputError, match="shape is 5: it must be two whole numbers"):
        resolution([1.0], "svd", shape=5)


def test_the_gram_route_is_faster_than_a_direct_svd():
    X = np.random.default_rng(12).standard_normal((900, 700))

    def best(call):
        times = []
        for _ in range(5):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        return min(times)

    # 2.5 to 6 times at the sizes of a layer; here only that squaring has not become the slow way.
    assert best(lambda: singular_values(X)) < best(lambda: reference(X))
