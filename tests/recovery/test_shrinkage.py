"""Soft and hard thresholding, for arrays and tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.projections import stream
from cosa_theory.recovery.shrinkage import clipped, hard_threshold, largest_entries, soft_threshold

LIBRARIES = {"numpy": np.asarray, "torch": torch.as_tensor}


def draw(shape, seed=0):
    return stream(seed, "shrinkage").standard_normal(shape)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_soft_thresholding_is_the_proximal_map_of_the_l1_norm(library, dtype):
    X = draw((2, 5, 7)).astype(dtype)
    shrunk = soft_threshold(LIBRARIES[library](X), 0.6)
    assert type(shrunk) is type(LIBRARIES[library](X))
    wanted = np.sign(X) * np.maximum(np.abs(X) - np.float64(0.6).astype(dtype), 0)
    np.testing.assert_allclose(np.asarray(shrunk), wanted, atol=1e-6)
    assert str(shrunk.dtype).endswith(dtype)
    # Nothing near it does better: ½‖z − x‖² + t‖z‖₁.
    S = np.asarray(shrunk, dtype=np.float64)

    def value(Z):
        return 0.5 * np.sum((Z - X) ** 2) + 0.6 * np.abs(Z).sum()

    for seed in range(5):
        assert value(S) <= value(S + 1e-2 * draw(X.shape, seed)) + 1e-6


@pytest.mark.parametrize("library", LIBRARIES)
def test_soft_thresholding_is_exactly_zero_up_to_the_threshold(library):
    X = LIBRARIES[library](np.array([[-2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0]]))
    np.testing.assert_array_equal(np.asarray(soft_threshold(X, 1.0)), [[-1, 0, 0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(np.asarray(X)[0, 0], -2.0)


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_item_may_have_its_own_threshold(library):
    X, t = draw((2, 3, 4)), np.array([0.2, 0.9]).reshape(2, 1, 1)
    convert = LIBRARIES[library]
    both = np.asarray(soft_threshold(convert(X), convert(t)))
    for item in range(2):
        alone = soft_threshold(X[item], float(t[item, 0, 0]))
        np.testing.assert_allclose(both[item], alone, rtol=1e-14)


@given(seed=st.integers(0, 10**6), t=st.floats(0, 3))
def test_an_entry_is_what_is_taken_and_what_is_left(seed, t):
    X = draw((1, 4, 4), seed)
    taken = clipped(X, t)
    assert np.abs(taken).max() <= t
    np.testing.assert_allclose(taken + soft_threshold(X, t), X, atol=1e-15)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("count", [0, 1, 5, 12])
def test_hard_thresholding_keeps_the_largest_entries_of_each_item(library, count):
    X = draw((3, 3, 4))
    kept = np.asarray(hard_threshold(LIBRARIES[library](X), count))
    for item, part in zip(X, kept, strict=True):
        assert np.count_nonzero(part) == count
        np.testing.assert_array_equal(part[part != 0], item[part != 0])
        out = np.abs(item[part == 0]).max(initial=0)
        assert out <= np.abs(part[part != 0]).min(initial=np.inf)


@pytest.mark.parametrize("library", LIBRARIES)
def test_of_equal_entries_no_more_are_kept_than_asked_for(library):
    X = LIBRARIES[library](np.ones((2, 3, 3)))
    assert [np.count_nonzero(np.asarray(item)) for item in hard_threshold(X, 4)] == [4, 4]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_largest_entries_are_named_in_row_major_order(library):
    X = np.zeros((2, 3, 4))
    X[0, 2, 1], X[0, 0, 3], X[1, 1, 1], X[1, 1, 0] = -5, 3, 2, -2
    named = largest_entries(LIBRARIES[library](X), 2)
    np.testing.assert_array_equal(np.asarray(named), [[3, 9], [4, 5]])
    many = np.asarray(largest_entries(LIBRARIES[library](draw((2, 20, 20))), 150))
    assert (np.diff(many, axis=1) > 0).all()
