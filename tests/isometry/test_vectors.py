"""Vectors to measure on: synthetic extremes with a known fourth power, fair samples of rows."""

import numpy as np
import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.isometry.vectors import SYNTHETIC, sample_rows, synthetic_vectors
from cosa_theory.laws.norms import fourth_power


def test_synthetic_vectors_have_the_fourth_powers_they_stand_for():
    assert fourth_power(synthetic_vectors("flat", 5, 30)) == pytest.approx(1 / 30)
    assert fourth_power(synthetic_vectors("spike", 5, 30)) == pytest.approx(1.0)
    gaussian = fourth_power(synthetic_vectors("gaussian", 300, 400))
    assert np.mean(gaussian) == pytest.approx(3 / 402, rel=0.02)  # exactly 3/(d + 2) in the mean


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_vectors_follow_from_the_seed(name):
    assert np.array_equal(synthetic_vectors(name, 4, 9), synthetic_vectors(name, 4, 9))
    assert not np.array_equal(synthetic_vectors(name, 4, 9), synthetic_vectors(name, 4, 9, seed=1))


def numbered(rows, width, first):
    """Rows that tell where they come from."""
    return np.arange(first, first + rows)[:, None] * np.ones(width)


def test_samples_are_different_nonzero_rows_of_the_commonest_length():
    matrices = [numbered(6, 4, 0), numbered(9, 5, 100), numbered(5, 4, 200)]
    rows = sample_rows(matrices, 100)  # five rows of length 4 are left out, and one is zero
    assert sorted(rows[:, 0]) == [*range(1, 6), *range(200, 205)]
    assert sample_rows(matrices, 100, width=5).shape == (9, 5)
    assert sample_rows(matrices, 7).shape == (7, 4)
    assert np.array_equal(sample_rows(matrices, 7), sample_rows(matrices, 7))


def test_every_row_is_equally_likely_whatever_the_size_of_its_matrix():
    matrices = [numbered(4, 2, 1), numbered(12, 2, 101)]
    draws, taken = 600, np.zeros(2)
    for seed in range(draws):
        rows = sample_rows(matrices, 2, seed=seed)
        assert len(set(rows[:, 0])) == 2
        taken += [np.sum(rows[:, 0] < 100), np.sum(rows[:, 0] > 100)]
    # Hypergeometric: mean 2·4/16 a draw, variance 2·(1/4)(3/4)·14/15.
    z = (taken[0] - draws * 0.5) / np.sqrt(draws * 2 * 0.1875 * 14 / 15)
    assert abs(z) < 4


def test_what_cannot_be_sampled_is_named():
    with pytest.raises(ValueError, match="no matrix has a non-zero row of length 3"):
        sample_rows([np.ones((2, 2))], 4, width=3)
    with pytest.raises(ValueError, match=r"no matrix has a non-zero row$"):
        sample_rows([np.zeros((2, 2))], 4)
    with pytest.raises(ValueError, match="count is 0"):
        sample_rows([np.ones((2, 2))], 0)
    for matrices in ([np.ones(2)], np.ones((2, 2)), [["a"]]):
        with pytest.raises(InputError, match=r"^matrices\[0\] has "):
            sample_rows(matrices, 4)
    with pytest.raises(ValueError, match="name is 'round'"):
        synthetic_vectors("round", 1, 1)
    with pytest.raises(ValueError, match=r"(count|d) is .*: it must be"):
        synthetic_vectors("flat", 1, 0)
