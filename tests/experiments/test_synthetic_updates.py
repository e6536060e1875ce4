"""Synthetic updates have the norm, the spectrum and the sparsity that their names say."""

import numpy as np
import pytest

from cosa_theory.spectrum import singular_values
from experiments.synthetic_updates import (
    UPDATES,
    synthetic_update,
    synthetic_weight,
    transform,
)

PARAMETERS = {"sparse": 7, "low rank": 3, "power law": 1.5, "low rank + sparse": 4}


def draw(kind, m=16, n=12, *, seed=0, key=(), **changes):
    parameter = changes.pop("parameter", PARAMETERS.get(kind, 0))
    return synthetic_update(kind, m, n, parameter, seed=seed, key=key, **changes)


@pytest.mark.parametrize("kind", UPDATES)
def test_an_update_has_unit_norm_and_follows_from_seed_and_key(kind):
    update = draw(kind)
    assert update.shape == (16, 12)
    assert np.linalg.norm(update) == pytest.approx(1.0)
    np.testing.assert_array_equal(update, draw(kind))
    for other in (draw(kind, seed=1), draw(kind, key=(1,))):
        assert abs(np.vdot(update, other)) < 0.9


@pytest.mark.parametrize(
    ("kind", "spectrum"),
    [
        ("flat", np.ones(12)),
        ("low rank", np.repeat([1.0, 0.0], [3, 9])),
        ("power law", np.arange(1.0, 13) ** -1.5),
    ],
)
@pytest.mark.parametrize("shape", [(16, 12), (12, 16)])
def test_singular_values_are_those_of_the_kind(kind, spectrum, shape):
    found = singular_values(draw(kind, *shape))
    np.testing.assert_allclose(found, spectrum / np.linalg.norm(spectrum), atol=1e-7)


@pytest.mark.parametrize("name", ["coordinate", "dct", "wavelet", "singular"])
def test_a_sparse_update_has_as_many_coefficients_in_its_basis(name):
    basis = transform(name, synthetic_weight(16, 12, seed=0))
    coefficients = basis.forward(draw("sparse", basis=basis))
    assert np.count_nonzero(np.abs(coefficients) > 1e-12) == 7


def test_low_rank_plus_sparse_has_half_of_its_energy_in_each():
    assert (singular_values(draw("low rank + sparse", 64, 48)) > 1e-6).sum() == 8  # 4 and 4 apart
    for i in range(5):
        update = draw("low rank + sparse", 64, 48, parameter=1, key=(i,))
        assert np.max(update**2) == pytest.approx(0.5, abs=0.06)


def test_noise_has_gaussian_entries():
    update = draw("noise", 64, 48) * np.sqrt(64 * 48)
    fourth = np.mean(update**4)
    assert abs(fourth - 3) < 4 * np.sqrt(96 / update.size)  # Var z⁴ = 105 − 9 for standard normal z


@pytest.mark.parametrize(
    ("kind", "parameter", "words"),
    [
        ("round", 0, "kind is 'round'"),
        ("flat", 1, "of a flat update is 1: it must be 0, as it has none"),
        ("sparse", 0, "a whole number from 1 to 192"),
        ("sparse", 2.5, "of a sparse update is 2.5"),
        ("low rank", 13, "a whole number from 1 to 12"),
        ("power law", -1, "an exponent of at least 0"),
        ("low rank + sparse", 13, "from 1 to 12"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(kind, parameter, words):
    with pytest.raises(ValueError, match=words):
        draw(kind, parameter=parameter)


def test_a_basis_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="basis is 'fourier'"):
        transform("fourier")
    with pytest.raises(ValueError, match="needs a weight"):
        transform("singular")
