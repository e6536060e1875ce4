"""What holds for every greedy solver: they find sparse unknowns exactly and respect symmetries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory import KroneckerOperator
from cosa_theory.recovery import RecoveryProblem, recover
from cosa_theory.recovery.greedy import search_sparsity, sparsities
from cosa_theory.recovery.items import Answer
from tests.recovery.sparse_problems import dictionary, kronecker, noise_like, plain

METHODS = ["omp", "cosamp", "htp", "iht"]
every = pytest.mark.parametrize("method", METHODS)

EASY = {
    "plain": plain(60, 150, 8),
    "kronecker": kronecker(30, 20, 14, 12, 6),
    "one row": kronecker(1, 120, 1, 50, 6),
    "synthesis scale": kronecker(30, 20, 14, 12, 6, scale="synthesis"),
    "rademacher": kronecker(24, 32, 14, 16, 6, kind="rademacher"),
    "srht": kronecker(24, 32, 14, 16, 6, kind="srht"),
    "sparse core": dictionary(24, 30, 10, 9, 12),
}


def unknown(result):
    return result.coefficients


@every
@pytest.mark.parametrize("name", EASY)
def test_an_easily_recoverable_unknown_is_found_exactly_without_options(method, name):
    known = EASY[name]
    result = recover(known.problem(), method)
    assert result.status == "fitted"
    assert result.certificate.kind == "residual"
    np.testing.assert_allclose(unknown(result), known.truth, atol=1e-7)
    np.testing.assert_array_equal(result.support, known.truth != 0)


@every
@pytest.mark.parametrize("name", ["plain", "kronecker", "sparse core"])
@pytest.mark.filterwarnings("ignore::cosa_theory.recovery.SparsityWarning")
def test_an_answer_has_no_more_nonzero_entries_than_asked_for(method, name):
    known = EASY[name]
    count = int((known.truth != 0).sum())
    for sparsity in (1, count // 2, count, count + 3):
        result = recover(known.problem(), method, sparsity=sparsity)
        assert 0 < result.support.sum() <= sparsity
        assert (result.status == "fitted") == (sparsity >= count)
        assert result.certificate.holds == (result.status == "fitted")


@every
def test_least_squares_holds_on_the_support(method):
    known = EASY["kronecker"]
    problem = known.problem()
    result = recover(problem, method, sparsity=4)  # too few: there is a residual
    residual = problem.Y - problem.system.apply(result.coefficients[None])
    normal = problem.system.apply_adjoint(residual)[0]
    assert result.residual > 0.1
    assert np.abs(normal[result.support]).max() < 1e-10 * np.abs(normal).max()


@every
@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_units_do_not_matter(method, scale):
    known = EASY["kronecker"]
    result = recover(RecoveryProblem(known.operator, known.measurements * scale), method)
    np.testing.assert_allclose(result.estimate / scale, known.truth, atol=1e-7)


@every
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_scales_and_signs_of_factors_and_order_of_columns_carry_over(method, data):
    known = EASY["kronecker"]
    A, B = (np.asarray(factor) for factor in known.operator.factors)
    m, n = known.truth.shape
    rows, columns = data.draw(st.permutations(range(m))), data.draw(st.permutations(range(n)))
    seed = data.draw(st.integers(0, 10**6))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (2, max(m, n)))
    scales = [data.draw(st.floats(0.01, 100.0)) for _ in range(2)]
    left = scales[0] * A[:, rows] * signs[0, :m]
    right = scales[1] * B[:, columns] * signs[1, :n]
    moved = known.truth[np.ix_(rows, columns)] * np.outer(signs[0, :m], signs[1, :n])
    # 4 entries are too few, so that the choice of the support matters.
    first = recover(known.problem(), method, sparsity=4)
    wanted = first.estimate[np.ix_(rows, columns)] * np.outer(signs[0, :m], signs[1, :n])
    Y = known.operator.apply(known.truth)
    result = recover(RecoveryProblem(KroneckerOperator(left, right), Y), method, sparsity=4)
    np.testing.assert_allclose(result.estimate * scales[0] * scales[1], wanted, atol=1e-8)
    result = recover(RecoveryProblem(KroneckerOperator(left, right), Y), method)
    np.testing.assert_allclose(result.estimate * scales[0] * scales[1], moved, atol=1e-7)


@every
def test_columns_of_any_length_are_chosen_by_direction(method):
    known = EASY["plain"]
    lengths = 10.0 ** np.random.default_rng(1).uniform(-3, 3, known.truth.size)
    problem = RecoveryProblem(known.operator * lengths, known.measurements)
    result = recover(problem, method)
    np.testing.assert_allclose(result.estimate * lengths, known.truth, atol=1e-6)


@every
def test_zero_columns_are_never_chosen(method):
    known = kronecker(30, 20, 14, 12, 4)
    A, B = (np.array(factor) for factor in known.operator.factors)
    A[:, ::3], B[:, 1::4] = 0.0, 0.0
    truth = known.truth * np.outer(A.any(axis=0), B.any(axis=0))
    operator = KroneckerOperator(A, B)
    result = recover(RecoveryProblem(operator, operator.apply(truth)), method)
    assert truth.any()
    np.testing.assert_allclose(result.estimate, truth, atol=1e-7)
    wrong = recover(RecoveryProblem(operator, noise_like(known.measurements, 1.0)), method)
    assert not wrong.estimate[~A.any(axis=0)].any()
    assert not wrong.estimate[:, ~B.any(axis=0)].any()


@every
def test_with_noise_the_residual_ends_within_the_noise_level(method):
    known = EASY["kronecker"]
    noise = noise_like(known.measurements, 0.02 * np.linalg.norm(known.measurements))
    sigma = float(np.linalg.norm(noise))
    problem = RecoveryProblem(known.operator, known.measurements + noise, noise_level=sigma)
    result = recover(problem, method)
    assert result.status == "fitted"
    assert result.certificate.value <= sigma * (1 + 1e-12)
    assert result.relative_error(known.truth) < 0.1
    tight = recover(RecoveryProblem(known.operator, known.measurements + noise), method)
    assert tight.support.sum() > result.support.sum()  # noise is not explained by few entries


@every
def test_single_precision_is_kept_and_its_answer_is_accurate(method):
    known = EASY["kronecker"]
    problem = RecoveryProblem(known.operator, known.measurements.astype(np.float32))
    result = recover(problem, method)
    assert result.estimate.dtype == np.float32
    assert result.status == "fitted"
    np.testing.assert_allclose(result.estimate, known.truth, atol=1e-4)


@every
def test_a_batch_gives_what_its_items_give(method):
    known = EASY["kronecker"]
    others = [sparse.truth for sparse in (kronecker(30, 20, 14, 12, s, seed=s) for s in (2, 5, 9))]
    stack = known.operator.apply(np.stack([known.truth, *others]))
    batch = recover(RecoveryProblem(known.operator, stack), method)
    for item, Y in enumerate(stack):
        single = recover(RecoveryProblem(known.operator, Y), method)
        np.testing.assert_allclose(batch.estimate[item], single.estimate, atol=1e-12)
        assert batch.statuses[item] == single.status
        assert batch.iterations[item] == single.iterations
        history = batch.history["residual"][batch.history["item"] == item]
        np.testing.assert_allclose(history, single.history["residual"], atol=1e-12)


@every
def test_a_tensor_comes_back_as_a_tensor_with_the_same_answer(method):
    known = EASY["kronecker"]
    Y = torch.from_numpy(known.measurements)
    result = recover(RecoveryProblem(known.operator, Y), method)
    assert isinstance(result.estimate, torch.Tensor)
    np.testing.assert_allclose(result.estimate.numpy(), known.truth, atol=1e-7)


@every
@pytest.mark.filterwarnings("ignore::cosa_theory.recovery.SparsityWarning")
def test_entries_packed_in_one_column_beyond_the_spark_are_not_found(method):
    # 12 measurements of each column of 30 entries cannot tell 16 of them, however many columns.
    truth = np.zeros((30, 20))
    for seed in range(5):
        known = kronecker(30, 20, 12, 18, 1, seed=seed)
        truth[:, 7] = 0.0
        truth[:16, 7] = np.random.default_rng(seed).standard_normal(16)
        problem = RecoveryProblem(known.operator, known.operator.apply(truth))
        for options in ({}, {"sparsity": 16}):
            assert recover(problem, method, **options).relative_error(truth) > 0.1


@every
def test_noise_that_no_sparse_unknown_explains_is_said_to_be_unexplained(method):
    known = EASY["sparse core"]  # an update outside the span of all cores
    update = noise_like(known.measurements, 1.0)
    result = recover(RecoveryProblem(known.operator, update), method)
    assert result.status in {"stalled", "iteration limit"}
    assert not result.certificate.holds
    assert result.residual > 0.5


@every
def test_the_monitor_sees_the_residuals_of_its_iterates(method):
    known = EASY["kronecker"]
    problem = known.problem()
    seen = []

    def watch(iteration, residual, coefficients):
        direct = np.linalg.norm(problem.Y - problem.system.apply(coefficients))
        seen.append((iteration, residual, direct))

    recover(problem, method, monitor=watch)
    assert seen
    size = np.linalg.norm(known.measurements)
    for _, residual, direct in seen:
        assert residual == pytest.approx(direct, abs=1e-7 * size)


@pytest.mark.parametrize("method", ["cosamp", "htp", "iht"])
def test_a_warm_start_at_the_answer_ends_at_once(method):
    known = EASY["kronecker"]
    cold = recover(known.problem(), method, sparsity=6)
    warm = recover(known.problem(), method, sparsity=6, start=known.truth)
    assert warm.iterations < cold.iterations or cold.iterations == 1
    np.testing.assert_allclose(warm.estimate, known.truth, atol=1e-7)


@pytest.mark.parametrize("method", ["cosamp", "htp", "iht"])
def test_the_sparsity_found_is_in_the_message(method):
    result = recover(EASY["plain"].problem(), method)
    assert "no sparsity was given" in result.message
    assert ": 9 is the least" in result.message  # of 1, 2, 3, 4, 6, 9, where 8 are needed
    assert recover(EASY["plain"].problem(), method, sparsity=8).message == ""


def test_the_sparsities_tried_grow_by_half_up_to_the_limit():
    assert list(sparsities(30)) == [1, 2, 3, 4, 6, 9, 13, 19, 28, 30]
    assert list(sparsities(1)) == [1]


@pytest.mark.parametrize(("goal", "tried", "chosen"), [(4.0, [1, 2, 3], 3), (0.5, None, 4)])
def test_the_first_sparsity_within_the_goal_is_taken_else_the_one_of_least_residual(
    goal, tried, chosen
):
    residuals = {1: 9.0, 2: 5.0, 3: 3.0, 4: 1.0, 6: 2.0, 9: 2.0, 13: 1.5, 15: 7.0}
    calls = []

    def attempt(count, before):
        calls.append((count, None if before is None else before.iterations))
        return Answer(np.full((1, 1, 1), count), residuals[count], "stalled", count)

    found = search_sparsity(None, 15, goal, attempt)
    counts = [count for count, _ in calls]
    assert counts == (tried or list(residuals))
    assert [before for _, before in calls] == [None, *counts[:-1]]  # each from the one before
    assert found.value == residuals[chosen]
    assert found.iterations == sum(counts)
    assert f" {chosen} is the least" in found.message or found.message.endswith(f"with {chosen}")
