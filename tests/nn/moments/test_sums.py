"""Sums over tokens: of double precision, and sketches beside all of C."""

import numpy as np
import pytest
import torch

from cosa_theory.nn.moments import sums
from cosa_theory.nn.moments.sums import ExactSum, SketchedSum, Thinning, sketch_width

ALL = Thinning(10**9, 1.0)


def summed(one, rows, parts=3):
    for part in torch.from_numpy(rows).chunk(parts):
        one.add(part, None)
    return one


def decaying(decay, count=3000, width=300, seed=0):
    """Draw rows whose second moments have eigenvalues about i^−decay, in random directions."""
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.standard_normal((width, width)))[0]
    scales = np.arange(1, width + 1) ** (-decay / 2)
    return ((generator.standard_normal((count, width)) * scales) @ basis.T).astype(np.float32)


def test_sums_are_of_double_precision(monkeypatch):
    monkeypatch.setattr(sums, "_BLOCK", 1)
    one = summed(ExactSum(1, ALL), np.array([[4096.0], [1.0]], np.float32), parts=2)
    assert one.arrays()["total"] == 2**24 + 1  # which is no single number


def test_blocks_make_up_all_of_a_wide_symmetric_matrix():
    rows = decaying(0.0, 50, 1000)
    found = summed(ExactSum(1000, ALL), rows).moments("x").matrix
    exact = rows.astype(np.float64).T @ rows / 50
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found, exact, atol=2e-6)


@pytest.mark.parametrize("decay", [1.0, 2.0, 4.0])
def test_a_sketch_has_an_error_near_that_of_the_best_approximation_of_its_rank(decay):
    rows, k = decaying(decay), 20
    exact = rows.astype(np.float64).T @ rows / len(rows)
    found = summed(SketchedSum(300, ALL, k, 0, "layer"), rows).moments("layer")
    values = np.linalg.eigvalsh(exact)[::-1]
    rest = values[k:].sum()
    error = exact - (found.vectors * found.values) @ found.vectors.T
    # E of the nuclear error ≤ (1 + k/(l − k − 1)) Σ_{i>k} λ_i before truncation, twice after.
    columns = sketch_width(300, k)
    bound = (2 + k / (columns - k - 1)) * rest
    assert rest * 0.999 <= np.abs(np.linalg.eigvalsh(error)).sum() <= bound
    assert found.trace == pytest.approx(np.trace(exact), rel=1e-6)
    assert np.all(found.values[:5] <= values[:5] * (1 + 1e-4))
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(k), atol=1e-5)
    captured = np.trace(found.vectors.T @ exact @ found.vectors)
    assert values[:k].sum() - captured <= 0.5 * rest


def test_a_sketch_of_few_directions_is_exact():
    generator = np.random.default_rng(0)
    rows = (generator.standard_normal((500, 6)) @ generator.standard_normal((6, 80))) * 1e-3
    exact = rows.T @ rows / 500
    found = summed(SketchedSum(80, ALL, 10, 0, "layer"), rows.astype(np.float32)).moments("layer")
    error = exact - (found.vectors * found.values) @ found.vectors.T
    assert np.linalg.norm(error) <= 1e-5 * np.linalg.norm(exact)
    with pytest.raises(ValueError, match=r"6 (independent|directions)"):
        found.leading(7)


@pytest.mark.parametrize("size", [0.0, 1e3, 1e5])
def test_a_sketch_finds_what_is_beside_an_input_far_larger_than_the_others(size):
    rows, k = decaying(1.0), 60
    rows[::50, 7] += size
    exact = rows.T.astype(np.float64) @ rows / len(rows)
    first = np.linalg.eigh(exact)[1][:, -1:]
    others = rows - (rows @ first) @ first.T
    found = summed(SketchedSum(300, ALL, k, 0, "layer"), rows).moments("layer").leading(k)[1]
    best = np.linalg.eigvalsh(others.T @ others / len(rows))[::-1][: k - 1].sum()
    assert np.linalg.norm(others @ found) ** 2 / len(rows) >= 0.93 * best
    few = summed(SketchedSum(300, ALL, k, 0, "layer"), rows[:20].repeat(5, 0)).moments("layer")
    assert few.independent(k) == 20


def test_a_sketch_holds_columns_and_no_square():
    one = SketchedSum(5000, ALL, 16, 0, "layer")
    held = sum(array.nbytes for array in one.arrays().values()) + one.test.numpy().nbytes
    assert held <= SketchedSum.bytes(5000, 16) + 8 * 5003 <= 0.12 * ExactSum.bytes(5000)


def test_the_directions_of_a_sketch_are_those_of_the_seed_and_the_layer():
    drawn = SketchedSum(20, ALL, 3, 5, "layer").test
    assert torch.equal(drawn, SketchedSum(20, ALL, 3, 5, "layer").test)
    assert not torch.equal(drawn, SketchedSum(20, ALL, 3, 5, "other").test)
    assert not torch.equal(drawn, SketchedSum(20, ALL, 3, 6, "layer").test)


def test_thinned_tokens_stand_for_all():
    rows = decaying(1.0, 6000, 12)
    found = summed(ExactSum(12, Thinning(100, 0.25)), rows, parts=20).moments("x")
    assert found.count == 100 + (6000 - 100) / 4
    exact = rows.T @ rows / 6000
    # Variance of a mean over 1575 tokens, the rest of which are weighted by 4: some 3 % each.
    assert np.abs(found.matrix - exact).max() <= 5 * 1.5 / 1575**0.5 * exact.max()
    assert found.trace == pytest.approx(np.trace(exact), rel=0.1)


@pytest.mark.parametrize("rows", [24, 40, 271])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_every_token_of_a_batch_is_taken_as_often_as_the_others(rows, place):
    one, batches = ExactSum(2, Thinning(0, 0.1)), 300
    batch = torch.ones(rows, 2)
    batch[place, 1] = 0.0  # the second column counts all others
    for _ in range(batches):
        one.add(batch, None)
    assert rows * batches - one.arrays()["total"][1, 1] == pytest.approx(batches, rel=0.1)
