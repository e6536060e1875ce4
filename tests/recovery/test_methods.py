"""`recover` is one door: it checks options, never looks at the truth, and recomputes claims."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.sparse.linalg import aslinearoperator

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.ground.checks import whole
from cosa_theory.ground.errors import InputError
from cosa_theory.recovery import (
    METHODS,
    STATUSES,
    Certificate,
    Method,
    RecoveryProblem,
    Solution,
    SparsityWarning,
    options_of,
    recover,
    relative_error,
)

BASIS = CosaBasis.sample(20, 16, 12, 10, seed=1, scale="analysis")
UPDATE = np.zeros((20, 16))
UPDATE[[3, 8, 15], [1, 1, 14]] = 1.0, -2.0, 0.5


def problem(**settings):
    return RecoveryProblem(BASIS.sensing(), BASIS.encode(UPDATE), **settings)


def stub(answer, status="optimal", claim=0.0):
    """A solver that returns a fixed answer, whatever it is asked, and claims a residual."""

    def solve(system, Y, *, noise_level=0.0, depth=1, start=None, sparsity=None):
        seen.append({"noise_level": noise_level, "start": start, "sparsity": sparsity})
        count = len(Y)
        return Solution(
            coefficients=np.stack([answer] * count),
            objective=np.full(count, 7.0),
            formula="a stub",
            certificate=Certificate("residual", np.full(count, claim), np.full(count, claim), 1.0),
            status=(status,) * count,
            iterations=np.full(count, depth),
        )

    seen: list[dict] = []
    return solve, seen


@pytest.fixture
def stubbed(monkeypatch):
    solve, seen = stub(UPDATE)
    monkeypatch.setitem(METHODS, "stub", Method("stub", solve))
    return seen


def test_an_unknown_method_or_option_is_refused_with_what_there_is(stubbed):
    with pytest.raises(ValueError, match=r"method is 'lasso': .* least_norm, best_core, fista"):
        recover(problem(), "lasso")
    with pytest.raises(ValueError, match="lam is no option of stub, which takes depth, start, sp"):
        recover(problem(), "stub", lam=1.0)
    with pytest.raises(ValueError, match="start is no option of least_norm, which takes tolerance"):
        recover(problem(), "least_norm", start=UPDATE)
    assert list(options_of("stub")) == ["depth", "start", "sparsity"]


def test_an_option_that_is_none_counts_as_not_given(stubbed):
    assert recover(problem(), "stub", depth=None).iterations == 1
    recover(problem(), "least_norm", lam=None)
    with pytest.raises(ValueError, match="lam is no option"):
        recover(problem(), "least_norm", lam=0.1)


def test_the_truth_is_never_looked_at(stubbed):
    other = recover(problem(truth=np.full((20, 16), 9.0)), "least_norm")
    np.testing.assert_array_equal(other.estimate, recover(problem(), "least_norm").estimate)


def test_the_residual_is_recomputed_whatever_a_solver_claims(monkeypatch):
    solve, _ = stub(np.zeros((20, 16)), claim=1e-9)
    monkeypatch.setitem(METHODS, "liar", Method("stub", solve))
    result = recover(problem(), "liar")
    assert result.certificate.relative == 1e-9
    assert result.residual == 1.0


def test_noise_level_start_and_sparsity_reach_the_solver(stubbed):
    recover(problem(noise_level=0.01), "stub", start=UPDATE, sparsity=4)
    assert stubbed[0]["noise_level"] == 0.01
    assert stubbed[0]["sparsity"] == 4
    np.testing.assert_array_equal(stubbed[0]["start"], UPDATE[None])
    recover(problem(basis="dct"), "stub", start=UPDATE)
    np.testing.assert_allclose(
        stubbed[1]["start"], problem(basis="dct").to_coefficients(UPDATE[None])
    )


def test_methods_without_need_of_a_sparsity_take_none_but_let_it_be_said(stubbed):
    assert recover(problem(), "least_norm", sparsity=3).status == "optimal"
    for wrong in (0, -1, 2.5, True, 321):
        with pytest.raises(ValueError, match=f"sparsity is {wrong!r}: .* from 1 to 320"):
            recover(problem(), "least_norm", sparsity=wrong)


def test_a_sparsity_above_the_spark_wall_warns_with_the_number(stubbed):
    with pytest.warns(SparsityWarning, match=r"sparsity is 6: .* at most 5 nonzero entries"):
        recover(problem(), "stub", sparsity=6)
    wall = CosaBasis.sample(20, 16, 12, 16, kind="haar", scale="analysis")  # R is square
    one_sided = RecoveryProblem(wall.sensing(), wall.encode(UPDATE))
    with pytest.warns(SparsityWarning, match="at most 6 nonzero"):
        recover(one_sided, "stub", sparsity=7)
    plain = RecoveryProblem(np.eye(5, 9), np.ones(5))
    with pytest.warns(SparsityWarning, match="the matrix Φ .* at most 2 nonzero"):
        recover(plain, "least_norm", sparsity=3)
    with pytest.warns(SparsityWarning, match="at most 1 nonzero entry, half"):
        recover(RecoveryProblem(np.eye(2, 9), np.ones(2)), "least_norm", sparsity=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recover(problem(), "stub", sparsity=5)
        recover(RecoveryProblem(BASIS.dictionary(), UPDATE), "best_core", sparsity=60)


def test_a_warm_start_of_another_shape_or_with_a_hole_is_refused(stubbed):
    with pytest.raises(ValueError, match=r"start has shape \(16, 20\)"):
        recover(problem(), "stub", start=UPDATE.T)
    with pytest.raises(ValueError, match="start has a NaN or infinite entry"):
        recover(problem(), "stub", start=np.full((20, 16), np.inf))


def test_a_batch_has_arrays_where_a_single_problem_has_numbers(stubbed):
    updates = np.stack([UPDATE, 2 * UPDATE])
    batch = RecoveryProblem(BASIS.sensing(), BASIS.encode(updates))
    result = recover(batch, "stub")
    assert result.estimate.shape == (2, 20, 16)
    assert result.core.shape == (2, 12, 10)
    assert result.residual == pytest.approx([0, 0.5])
    assert result.relative_error(updates) == pytest.approx([0, 0.5])
    single = recover(problem(), "stub")
    assert isinstance(single.residual, float)
    assert (single.objective, single.iterations) == (7.0, 1)
    assert single.relative_error(UPDATE) == 0.0


def test_the_status_of_a_batch_is_the_worst_of_its_items():
    assert next(iter(STATUSES)) == "optimal"
    result = recover(problem(), "least_norm")
    assert result.converged


def test_the_core_of_an_estimate_is_its_best_core_and_an_unstructured_operator_has_none(stubbed):
    np.testing.assert_allclose(recover(problem(), "stub").core, BASIS.best_core(UPDATE), atol=1e-12)
    plain = RecoveryProblem(np.eye(5, 9), np.ones(5), shape=(3, 3))
    result = recover(plain, "least_norm")
    assert result.core is None
    assert result.estimate.shape == (3, 3)


def test_the_debiased_estimate_fits_by_least_squares_on_the_support(monkeypatch):
    solve, _ = stub(0.5 * UPDATE)
    monkeypatch.setitem(METHODS, "shrinking", Method("stub", solve))
    result = recover(problem(), "shrinking")
    assert result.relative_error(UPDATE) == pytest.approx(0.5)
    assert result.relative_error(UPDATE, debiased=True) < 1e-10
    assert result.support.sum() == 3
    assert recover(problem(), "shrinking", debiasing=False).debiased is None
    dense = recover(problem(), "least_norm")
    with pytest.raises(ValueError, match="there is no debiased estimate"):
        dense.relative_error(UPDATE, debiased=True)


def test_a_relative_error_needs_a_truth_of_its_shape_that_is_not_zero():
    with pytest.raises(ValueError, match=r"truth has shape \(2, 3\): .* \(2, 2\)"):
        relative_error(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="truth is zero"):
        relative_error(np.ones((2, 2)), np.zeros((2, 2)))


def test_a_success_that_the_certificate_does_not_bear_out_is_none(monkeypatch):
    for status, claim, expected in (("fitted", 2.0, "stalled"), ("optimal", np.nan, "stalled")):
        solve, _ = stub(UPDATE, status, claim)
        monkeypatch.setitem(METHODS, "stub", Method("stub", solve))
        assert recover(problem(), "stub").status == expected
    solve, _ = stub(UPDATE, "iteration limit", 2.0)
    monkeypatch.setitem(METHODS, "stub", Method("stub", solve))
    assert recover(problem(), "stub").status == "iteration limit"


@pytest.mark.parametrize("method", ["least_norm", "fista", "bpdn", "omp", "iht", "amp", "nuclear"])
@pytest.mark.parametrize(
    ("single", "left", "size"),
    [
        (False, 1e130, 1.0),
        (False, 1e-130, 1.0),
        (False, 1.0, 1e-130),
        (False, 1e80, 1e60),
        (True, 1e-13, 1.0),
        (True, 1e8, 1e8),
    ],
)
def test_numbers_whose_squares_leave_the_range_of_their_type_are_refused(
    method, single, left, size
):
    A, B = BASIS.sensing().factors
    operator = KroneckerOperator(left * A, B)
    Y = operator.apply(size * UPDATE)
    given = RecoveryProblem(operator, Y.astype(np.float32) if single else Y)
    with pytest.raises(ValueError, match=r"leave the range of the numbers: .*powers of two"):
        recover(given, method)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("method", ["fista", "basis_pursuit", "bpdn", "omp", "iht"])
def test_answers_scale_with_operator_and_measurements(method, single):
    A, B = BASIS.sensing().factors
    limit = 2.0**19 if single else 2.0**150
    for left, size in ((limit, 1.0), (1 / limit, 1.0), (1.0, limit), (1.0, 1 / limit)):
        operator = KroneckerOperator(left * A, B)
        Y = operator.apply(size * UPDATE)
        given = RecoveryProblem(operator, Y.astype(np.float32) if single else Y)
        result = recover(given, method)
        assert result.converged
        assert result.relative_error(size * UPDATE) < (1e-3 if single else 1e-4)


def test_an_operator_that_measures_nothing_is_refused():
    Y = np.ones((2, 3))
    for zero in (np.zeros((2, 4)), aslinearoperator(np.zeros((2, 4)))):
        given = RecoveryProblem(KroneckerOperator(zero, np.ones((3, 3))), Y)
        for method in ("least_norm", "fista", "bpdn", "omp", "amp", "analysis"):
            with pytest.raises(ValueError, match="zero, so it measures nothing"):
                recover(given, method)
    with pytest.raises(ValueError, match="not finite"):
        RecoveryProblem(aslinearoperator(np.full((2, 4), np.nan)), np.ones(2))


REFUSED = {
    "max_iterations": (2.5, "9", 0, -1, True),
    "tolerance": (np.array([1e-3, 1e-4]), -1.0, 1.0, 2.0, np.nan),
    "lam": ("x", 0.0, -1.0, np.nan),
    "lam_ratio": (-1.0, np.inf),
    "threshold": (0.0,),
    "damping": (0.0, 1.5),
    "sparsity": (0, 121, 2.5),
}


@pytest.mark.parametrize("method", METHODS)
def test_an_option_out_of_range_or_of_another_type_is_named(method):
    tried = {name: values for name, values in REFUSED.items() if name in options_of(method)}
    for argument, values in tried.items():
        for value in values:
            with pytest.raises(InputError, match=f"^{argument} is ") as refused:
                recover(problem(), method, **{argument: value})
            assert refused.value.argument == argument
    assert tried


@pytest.mark.parametrize("method", METHODS)
def test_a_tolerance_of_zero_is_for_solvers_that_prove_a_gap_of_rounding(method):
    if METHODS[method].exact:
        assert recover(problem(), method, tolerance=0.0).certificate.tolerance == 0
    else:
        with pytest.raises(InputError, match=r"tolerance is 0\.0"):
            recover(problem(), method, tolerance=0.0)


@pytest.mark.parametrize("method", ["fista", "reference"])
def test_one_of_two_penalties_is_given(method):
    with pytest.raises(InputError, match=r"lam is 1\.0.*lam_ratio"):
        recover(problem(), method, lam=1.0, lam_ratio=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {"noise_level": "a"},
        {"noise_level": np.array([0.1, 0.2])},
        {"basis": 3},
    ],
)
def test_a_setting_of_the_wrong_type_is_named(settings):
    (argument,) = settings
    with pytest.raises(InputError, match=f"^{argument} is ") as refused:
        problem(**settings)
    assert refused.value.argument == argument
    with pytest.raises(InputError, match=r"shape is 4: .*\(m, n\)"):
        RecoveryProblem(np.ones((3, 4)), np.ones(3), shape=4)


def test_the_gap_of_a_single_precision_answer_recomputes_from_its_dual_point():
    Y = BASIS.encode(UPDATE).astype(np.float32)
    result = recover(RecoveryProblem(BASIS.sensing(), Y), "basis_pursuit")
    assert result.status == "optimal"
    dual = result.certificate.dual
    assert dual.dtype == np.float64
    assert np.abs(BASIS.sensing().apply_adjoint(dual)).max() <= 1 + 1e-12
    least = np.vdot(Y.astype(np.float64), dual)
    objective = np.abs(result.coefficients.astype(np.float64)).sum()
    assert objective - least <= result.certificate.tolerance * objective
    tensor = recover(RecoveryProblem(BASIS.sensing(), torch.from_numpy(Y)), "basis_pursuit")
    assert tensor.certificate.dual.dtype == torch.float64


def test_a_solver_that_registers_itself_is_known_everywhere(capsys):
    from cosa_theory.cli import main
    from cosa_theory.recovery.methods import solver
    from cosa_theory.studies.recovery.error_figures import plot_curves

    known = dict(METHODS)
    try:

        @solver(4, look=("orange", ":", "h"), checks={"depth": partial(whole, "depth", most=9)})
        def new_one(system, Y, *, noise_level=0.0, depth=1, tolerance=None):
            return stub(UPDATE)[0](system, Y, noise_level=noise_level, depth=depth)

        assert list(METHODS).index("new_one") == list(known).index("basis_pursuit") + 1
        assert recover(problem(), "new_one", depth=2).iterations == 2
        with pytest.raises(InputError, match="depth is 10"):
            recover(problem(), "new_one", depth=10)
        with pytest.raises(ValueError, match="new_one"):
            recover(problem(), "no such")
        assert main(["recover", "--help"]) == 0
        assert "new_one, " in capsys.readouterr().out
        table = pd.DataFrame({"method": ["new_one"], "x": [1.0], "relative_error": [0.5]})
        (line,) = plot_curves(Figure().subplots(), table, "x", "method").lines
        assert (line.get_label(), line.get_linestyle(), line.get_marker()) == ("new one", ":", "h")
    finally:
        METHODS.clear()
        METHODS.update(known)
