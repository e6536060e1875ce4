"""A sparse core for a given update, by the lasso on the dictionary."""

import numpy as np
import pytest

from cosa_theory import CosaBasis
from cosa_theory.projections import stream
from cosa_theory.recovery import RecoveryProblem, recover


@pytest.fixture
def basis():
    return CosaBasis.sample(40, 33, 14, 9, seed=3)


def sparse_core(basis, count, seed=0):
    draw = stream(seed, "core")
    Y = np.zeros(basis.a * basis.b)
    Y[draw.choice(Y.size, count, replace=False)] = draw.standard_normal(count)
    return Y.reshape(basis.a, basis.b)


def test_a_sparse_core_comes_back_from_its_update(basis):
    core = sparse_core(basis, 12)
    result = recover(RecoveryProblem(basis.dictionary(), basis.synthesize(core)), "fista")
    assert result.status == "optimal"
    assert np.linalg.norm(result.core - core) < 1e-5 * np.linalg.norm(core)
    np.testing.assert_array_equal(result.support, core != 0)
    np.testing.assert_allclose(result.estimate, basis.synthesize(result.core), atol=1e-12)


def test_the_core_of_any_update_tends_to_the_best_one_as_the_penalty_vanishes(basis):
    update = stream(1, "update").standard_normal((basis.m, basis.n))  # outside the range
    best = basis.best_core(update)
    problem = RecoveryProblem(basis.dictionary(), update)
    distances = []
    for ratio in (1e-1, 1e-3, 1e-5, 1e-7):
        result = recover(problem, "fista", lam_ratio=ratio)
        assert result.status == "optimal"
        distances.append(np.linalg.norm(result.core - best) / np.linalg.norm(best))
    assert distances[0] > 0.05
    assert (np.diff(distances) < 0).all()
    assert distances[-1] == pytest.approx(1e-2 * distances[-2], rel=0.02)  # linear in λ


def test_a_larger_penalty_gives_a_sparser_core_and_a_larger_residual(basis):
    update = stream(2, "update").standard_normal((basis.m, basis.n))
    problem = RecoveryProblem(basis.dictionary(), update)
    found = [recover(problem, "fista", lam_ratio=ratio) for ratio in (0.01, 0.2, 0.6)]
    counts = [np.count_nonzero(result.core) for result in found]
    assert counts[0] > counts[1] > counts[2] > 0
    residuals = [result.residual for result in found]
    assert residuals[0] < residuals[1] < residuals[2]


def test_the_steps_alone_find_the_core_of_an_update_far_from_the_range(basis, monkeypatch):
    monkeypatch.setattr("cosa_theory.recovery.solvers.fista.polish_lasso", lambda *args, **_: None)
    update = stream(3, "update").standard_normal((basis.m, basis.n))
    result = recover(RecoveryProblem(basis.dictionary(), update), "fista", lam_ratio=1e-6)
    best = basis.best_core(update)
    assert result.status == "optimal"
    assert np.linalg.norm(result.core - best) < 1e-4 * np.linalg.norm(best)


def test_a_rank_deficient_dictionary_still_gets_a_certified_core():
    basis = CosaBasis.sample(10, 12, 16, 5, seed=3)  # 16 rows of the core for 10 of the update
    update = basis.synthesize(sparse_core(basis, 3))
    result = recover(RecoveryProblem(basis.dictionary(), update), "fista")
    assert result.status == "optimal"
    assert result.residual < 1e-4
