"""What is measured of numbers of any size is what is measured of numbers near 1, in its units."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory import CosaBasis, isometry
from cosa_theory.deltas import LayerDelta
from cosa_theory.deltas.layers import storage_noise
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.scales import frobenius_norm, in_safe_range, unit_scale
from cosa_theory.recovery import relative_error
from cosa_theory.spectrum import compare_families, singular_values, sparsity_profile, summarize
from cosa_theory.studies.audit.pair import audit_pair
from cosa_theory.studies.spectrum.pair import survey_pair

DRAW = np.random.default_rng(0)
X, W, F = (DRAW.standard_normal(shape) for shape in ((8, 6), (8, 6), (3, 6)))
BASIS = CosaBasis.sample(8, 6, 3, 4, seed=0)


def tables(study, X, base, columns, **options):
    kind = str(X.dtype)
    one = LayerDelta("q", X, base.astype(X.dtype), base_dtype=kind, tuned_dtype=kind)
    return study([one], draws=4, **options).layers[columns].to_numpy(dtype=float)


# What is measured, and the power of the unit that it has.
MEASURED = {
    "norm": (frobenius_norm, 1),
    "storage noise": (lambda X: storage_noise(X, "bfloat16"), 1),
    "singular values": (singular_values, 1),
    "singular values, directly": (lambda X: singular_values(X, "svd"), 1),
    "noise": (lambda X: summarize(X).noise_sd, 1),
    "flatness": (lambda X: summarize(X).flatness, 0),
    "sparsity": (lambda X: sparsity_profile(X, W)["numerical_sparsity"], 0),
    "families": (lambda X: compare_families(X, W, ranks=[1], draws=4)["captured"], 0),
    "families of a base": (lambda X: compare_families(W, X, ranks=[1], draws=4)["captured"], 0),
    "best core": (BASIS.best_core, 1),
    "projection": (BASIS.project, 1),
    "captured energy": (BASIS.captured_energy, 0),
    "captured by a factor": (lambda L: CosaBasis(L, F).captured_energy(W), 0),
    "projected by a factor": (lambda L: CosaBasis(L, F).project(W), 0),
    "range of a factor": (lambda L: CosaBasis(L, F).singular_value_range(), 1),
    "range of a wide factor": (lambda L: CosaBasis(L.T, F).singular_value_range(), 1),
    "coherence": (isometry.mutual_coherence, 0),
    "spark": (lambda X: isometry.spark_bounds(X).upper, 0),
    "distortion": (lambda X: isometry.jl_distortion(F, X).ratios, 0),
    "distances": (lambda X: isometry.jl_distortion(F, X, differences=True).ratios, 0),
    "error": (lambda X: relative_error(X, W.astype(X.dtype) * np.abs(X).max()), 0),
    "survey": (lambda X: tables(survey_pair, X, W * np.abs(X).max(), ["relative_norm"]), 0),
    "audit": (lambda X: tables(audit_pair, X, W * np.abs(X).max(), ["relative_norm", "error"]), 0),
}


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_measures_are_equivariant_under_powers_of_two(name, dtype):
    measure, power = MEASURED[name]
    expected = np.asarray(measure(X.astype(dtype)), dtype=float)
    exponents = (-1000, -664, -300, 300, 664, 1000) if dtype == "float64" else (-120, -64, 64, 120)
    for exponent in exponents:
        found = np.asarray(measure(np.ldexp(X.astype(dtype), exponent)), dtype=float)
        found = np.ldexp(found, -power * exponent)
        np.testing.assert_allclose(found, expected, rtol=1e-9 if dtype == "float64" else 2e-5)


# Their numbers are no ratios: the constants of a matrix of such a size have no use.
REFUSED = {
    "lower": lambda A: isometry.rip_lower(A, 2),
    "upper": lambda A: isometry.rip_upper(A, 2),
    "exact": lambda A: isometry.rip_exact(A, 2),
    "factors": lambda A: isometry.kronecker_rip_bounds(A, F.T, [2]),
    "cores": lambda A: isometry.core_isometry(CosaBasis(A, F)),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("exponent", [-1000, -664, 664, 1000])
def test_isometry_constants_out_of_range_are_refused_with_a_remedy(name, exponent):
    with pytest.raises(InputError, match="power of two"):
        REFUSED[name](np.ldexp(X, exponent))


@pytest.mark.parametrize("size", [1e-6, 300.0, 3e4])
def test_half_precision_is_summed_in_single(size):
    stored = torch.from_numpy(X / np.abs(X).max() * size).half()
    wide = stored.double().numpy()
    assert BASIS.captured_energy(stored) == pytest.approx(BASIS.captured_energy(wide), rel=1e-5)
    assert summarize(stored).stable_rank == pytest.approx(summarize(wide).stable_rank)
    core = BASIS.best_core(stored).double().numpy()
    np.testing.assert_allclose(core, BASIS.best_core(wide), rtol=2e-3, atol=1e-7)


@given(st.floats(5e-324, 1.7e308), st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_unit_is_a_power_of_two_and_leaves_ordinary_matrices_alone(largest, negative):
    unit = unit_scale(largest)
    assert np.frexp(unit)[0] == 0.5
    assert largest * unit < 4
    assert largest * unit >= 0.5 or largest < 2.0**-1021
    matrix = np.array([[-largest if negative else largest]])
    scaled, power = in_safe_range(matrix)
    assert (scaled is matrix) == (power == 1)
    np.testing.assert_array_equal(scaled / power, matrix)
    assert frobenius_norm(matrix) == pytest.approx(largest, rel=1e-12, abs=0)
