"""A problem is checked when it is made, and every basis keeps its operator in two factors."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import aslinearoperator

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.linear.transforms import DCT
from cosa_theory.recovery import BASES, RecoveryProblem, recover


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


BASIS = CosaBasis.sample(24, 40, 9, 14, seed=1, scale="analysis")
UPDATE, WEIGHT = gaussian(24, 40), gaussian(24, 40, seed=1)


def problem(**settings):
    settings = {"operator": BASIS.sensing(), "measurements": BASIS.encode(UPDATE), **settings}
    return RecoveryProblem(**settings)


def weight_for(basis):
    return WEIGHT if basis == "singular" else None


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("kind", ["gaussian", "very_sparse", "srht"])
def test_a_basis_is_folded_into_the_factors_of_the_operator(basis, kind):
    cosa = CosaBasis.sample(24, 40, 9, 14, kind=kind, seed=2, scale="analysis")
    posed = RecoveryProblem(
        cosa.sensing(), cosa.encode(UPDATE), basis=basis, weight=weight_for(basis)
    )
    C = posed.to_coefficients(UPDATE[None])
    np.testing.assert_allclose(posed.system.apply(C)[0], cosa.encode(UPDATE), atol=1e-12)
    np.testing.assert_allclose(posed.to_unknown(C)[0], UPDATE, atol=1e-12)
    assert isinstance(posed.system.operator, KroneckerOperator)
    np.testing.assert_allclose(posed.update_system.apply(UPDATE[None])[0], posed.Y[0], atol=1e-12)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize(
    "form",
    [np.asarray, sparse.csr_array, aslinearoperator, torch.from_numpy],
    ids=["dense", "sparse", "operator", "tensor"],
)
def test_an_unstructured_operator_takes_every_basis_and_form(basis, form):
    dense = gaussian(50, 96)
    dense[np.abs(dense) < 1] = 0.0
    X, W = gaussian(8, 12, seed=3), gaussian(8, 12, seed=4)
    posed = RecoveryProblem(
        form(dense),
        dense @ X.ravel(),
        basis=basis,
        shape=(8, 12),
        weight=W if basis == "singular" else None,
    )
    C = posed.to_coefficients(X[None])
    assert C.shape == (1, 1, 96)
    assert posed.system.plain
    np.testing.assert_allclose(posed.system.apply(C).ravel(), dense @ X.ravel(), atol=1e-12)
    np.testing.assert_allclose(posed.to_unknown(C)[0], X, atol=1e-12)


def test_without_a_shape_the_unknown_of_an_unstructured_operator_is_one_row():
    posed = RecoveryProblem(gaussian(5, 9), gaussian(5))
    assert posed.update_shape == (1, 9)
    assert (posed.unknown, posed.batched, posed.Y.shape) == ("update", False, (1, 1, 5))


def test_the_operator_says_what_is_unknown():
    assert problem().unknown == "update"
    core = RecoveryProblem(BASIS.dictionary(), UPDATE)
    assert (core.unknown, core.update_shape, core.system.matrix_shape) == (
        "core",
        (24, 40),
        (9, 14),
    )
    anonymous = KroneckerOperator(gaussian(9, 24), gaussian(14, 40))
    assert RecoveryProblem(anonymous, gaussian(9, 14)).unknown == "update"


def test_a_batch_has_one_axis_more_and_a_vector_counts_as_a_matrix():
    Y = BASIS.encode(gaussian(3, 24, 40))
    assert problem(measurements=Y).batched
    assert problem(measurements=Y).Y.shape == (3, 9, 14)
    flat = problem(measurements=Y[0].ravel())
    assert not flat.batched
    np.testing.assert_array_equal(flat.Y[0], Y[0])
    rows = RecoveryProblem(gaussian(5, 9), gaussian(4, 5))
    assert (rows.batched, rows.Y.shape) == (True, (4, 1, 5))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (np.float32, "float32"),
        (np.float64, "float64"),
        (np.int64, "float64"),
        (torch.float16, "torch.float32"),
        (torch.bfloat16, "torch.float32"),
        (torch.float64, "torch.float64"),
    ],
)
def test_measurements_keep_their_precision_and_halves_are_taken_in_single(given, taken):
    Y = np.round(3 * BASIS.encode(UPDATE))
    array = torch.from_numpy(Y).to(given) if "torch" in str(given) else Y.astype(given)
    assert str(problem(measurements=array).Y.dtype) == taken


def test_a_transform_of_ones_own_is_taken_as_a_basis():
    posed = problem(basis=DCT())
    named = problem(basis="dct")
    np.testing.assert_array_equal(posed.system.factors[0], named.system.factors[0])


NAN = BASIS.encode(UPDATE).copy()
NAN[2, 3] = np.nan


REFUSED = [
    ("shape", {"operator": gaussian(3, 4), "shape": (2.0, 2.0)}, "two whole numbers"),
    ("measurements", {"measurements": gaussian(9, 13)}, r"shape \(9, 13\).*\(9, 14\)"),
    ("measurements", {"measurements": gaussian(14, 9)}, r"shape \(14, 9\)"),
    ("measurements", {"measurements": gaussian(2, 2, 9, 14)}, "batch along a first axis"),
    ("measurements", {"measurements": np.zeros((0, 9, 14))}, r"shape \(0, 9, 14\)"),
    ("measurements", {"measurements": NAN}, r"NaN or infinite entry, first at \(2, 3\)"),
    ("measurements", {"measurements": np.zeros((9, 14))}, "only zeros.*nothing to recover"),
    ("measurements", {"measurements": gaussian(9, 14) * 1j}, "real numbers"),
    ("noise_level", {"noise_level": 1e6}, "is 1000000.0: .* norm of the measurements, .* zero"),
    ("noise_level", {"noise_level": -1.0}, r"is -1\.0: .* at least 0"),
    ("noise_level", {"noise_level": np.nan}, "is nan"),
    ("basis", {"basis": "fourier"}, "is 'fourier': .* coordinate, dct, wavelet, singular"),
    ("weight", {"basis": "singular"}, "is missing and the basis is 'singular'"),
    ("weight", {"weight": WEIGHT}, "is given and the basis is 'coordinate'"),
    ("weight", {"basis": "singular", "weight": WEIGHT.T}, r"shape \(40, 24\)"),
    ("truth", {"truth": UPDATE.T}, r"shape \(40, 24\).*update, \(24, 40\)"),
    ("shape", {"shape": (24, 41)}, "left out for a Kronecker operator"),
    (None, {"operator": np.ones(3)}, "operator must be a matrix"),
    ("shape", {"operator": gaussian(126, 12), "shape": (3, 5)}, r"is \(3, 5\): .* 12 entries"),
    ("operator", {"operator": np.full((126, 4), np.inf)}, r"infinite entry, first at \(0, 0\)"),
    (
        "operator",
        {"operator": KroneckerOperator(gaussian(9, 4), np.full((14, 3), np.nan))},
        "NaN or infinite entry",
    ),
    (
        "basis",
        {"operator": BASIS.dictionary(), "measurements": UPDATE, "basis": "dct"},
        "a core is sparse in its own entries",
    ),
]


@pytest.mark.parametrize(("argument", "settings", "message"), REFUSED)
def test_a_problem_that_makes_no_sense_is_refused_with_what_to_do(argument, settings, message):
    with pytest.raises(ValueError, match=message) as refused:
        problem(**settings)
    if argument is not None:
        assert str(refused.value).startswith(f"{argument} ")
        assert refused.value.argument == argument


def test_a_zero_item_of_a_batch_is_refused_and_a_tiny_one_is_not():
    Y = BASIS.encode(gaussian(2, 24, 40))
    with pytest.raises(ValueError, match="only zeros"):
        problem(measurements=Y * np.array([1.0, 0.0])[:, None, None])
    problem(measurements=Y * np.array([1.0, 1e-200])[:, None, None])


def test_problems_results_and_certificates_are_shown_in_a_line_each():
    basis = CosaBasis.sample(32, 24, 16, 12, seed=1)
    update = np.zeros((32, 24))
    update[3, 4] = 1.0
    single = RecoveryProblem(basis.sensing(), basis.encode(update), noise_level=1e-3)
    assert repr(single) == (
        "RecoveryProblem(16 × 12 measurements of an update of 32 × 24, unknown: the update, "
        "basis: coordinate, noise level: 0.001)"
    )
    batch = RecoveryProblem(np.ones((3, 8)), np.ones((5, 3)), shape=(4, 2), basis="dct")
    assert "(3 measurements, 5 times, of an update of 4 × 2, " in repr(batch)
    result = recover(single, "bpdn")
    assert repr(result).startswith("RecoveryResult(bpdn: optimal, estimate 32 × 24, relative resid")
    for shown in (single, batch, result, result.certificate):
        assert "array" not in repr(shown)
        assert "\n" not in repr(shown)


def test_a_basis_or_an_array_in_the_place_of_a_problem_is_told_what_to_do():
    basis = CosaBasis.sample(6, 5, 4, 3, seed=1)
    core = np.ones((4, 3))
    with pytest.raises(ValueError, match=r"a CosaBasis, which maps both ways: give basis\.sensing"):
        RecoveryProblem(basis, core)
    with pytest.raises(
        ValueError, match=r"problem is 'ndarray': it must be a RecoveryProblem, as in rec"
    ):
        recover(core)
    with pytest.raises(ValueError, match="measurements holds only zeros in item 1 of the batch"):
        RecoveryProblem(basis.sensing(), np.stack([core, 0 * core]))
