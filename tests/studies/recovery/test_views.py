"""The document of a recovery says what its tables hold, whatever became of the solver."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cosa_theory import CosaBasis
from cosa_theory.page.document import Document
from cosa_theory.page.views import number
from cosa_theory.recovery import RecoveryProblem, recover
from cosa_theory.studies.recovery.figures import (
    CONVERGENCE_FIGURE,
    ESTIMATE_FIGURE,
    plot_certificate,
    plot_magnitudes,
    plot_objective,
    plot_singular_values,
)
from cosa_theory.studies.recovery.tables import recovery_tables
from cosa_theory.studies.recovery.verdict import recover_verdict
from cosa_theory.studies.shown import document_page, document_text

DESCRIBED = {"projections": "--seed 0", "dtype": "float64", "resumed_from": 0}


def tables(method="basis_pursuit", sizes=(20, 16, 14, 12), truth=True, **options):
    basis = CosaBasis.sample(*sizes, seed=2)
    update = np.zeros(sizes[:2])
    update[2, 3], update[9, 11], update[17, 5] = 1.0, -2.0, 0.5
    scored = update if truth else None
    problem = RecoveryProblem(basis.sensing(), basis.encode(update), truth=scored)
    result = recover(problem, method, **options)
    return recovery_tables(problem, result, DESCRIBED, 0.5 * update if truth else None)


def changed(found, **values):
    return found | {"result": found["result"].assign(**values)}


@pytest.fixture(scope="module")
def found():
    return tables()


def document(found):
    return Document("recover", recover_verdict(found), (), found, {"seed": 0})


def test_the_verdict_names_fit_objective_certificate_expectation_and_error(found):
    verdict = recover_verdict(found)
    first, second, third, fourth = verdict.split(". ")
    assert first.startswith("basis_pursuit found an update that fits the core to a relative")
    assert first.endswith("with 3 of 320 entries nonzero")
    assert second.startswith("It minimised ‖x‖₁ subject to Φx = y, to a duality gap of ")
    assert third == (
        "No two updates with at most 6 nonzero entries share a core, if the factors are in general "
        "position, as Gaussian ones are"
    )
    assert fourth.startswith("Against the truth the relative error is ")
    assert fourth.endswith("100 % of ‖ΔW‖² comes back; least norm has 0.500.")
    assert "\n" not in verdict


@pytest.mark.parametrize(
    ("status", "beginning", "remedy"),
    [
        ("iteration limit", "basis_pursuit did not converge: after ", "; raise --max-iterations."),
        ("stalled", "basis_pursuit stalled: after ", ", and it makes no more progress"),
        ("diverged", "basis_pursuit diverged: after ", "; try another method."),
    ],
)
def test_a_failure_is_the_first_thing_said(found, status, beginning, remedy):
    verdict = recover_verdict(changed(found, status=status, relative=0.25, tolerance=1e-8))
    assert verdict.startswith(beginning)
    assert "its duality gap is 0.250 (relative), above the tolerance of 1.0e-8" in verdict
    assert remedy in verdict
    assert "found an update" not in verdict
    assert "It was to minimise ‖x‖₁" in verdict


def test_a_fit_without_a_proof_does_not_claim_to_be_the_best(found):
    verdict = recover_verdict(changed(found, status="fitted", certificate="residual"))
    assert "It sought to minimise ‖x‖₁ subject to Φx = y, and came to a residual of " in verdict
    assert "; that no better update exists is not proved." in verdict


def test_a_residual_that_may_be_noise_is_measured_in_it(found):
    noisy = {"certificate": "residual", "noise_level": 0.1, "relative": 0.5, "tolerance": 1.0}
    verdict = recover_verdict(changed(found, status="fitted", **noisy))
    assert "(0.500 times the noise level, tolerance 1.00)" in verdict
    verdict = recover_verdict(changed(found, status="stalled", **noisy | {"relative": 2.0}))
    assert "its residual is 2.00 times the noise level, above the tolerance of 1.00," in verdict


def test_what_theory_expects_depends_on_the_nonzeros(found):
    limits = {"limit_every": 6.0, "limit_random": 50.0, "limit_column": 4.0, "limit_row": math.inf}
    between = recover_verdict(changed(found, nonzeros=7, **limits))
    assert "Beyond 6 nonzero entries some updates share their core" in between
    assert "up to at most about 50 (packed in one column 4, in one row any number)." in between
    beyond = recover_verdict(changed(found, nonzeros=51, **limits))
    assert "nonzero entries are more than the about 50 up to which ℓ1 can be expected" in beyond
    few = recover_verdict(changed(found, nonzeros=1, **limits | {"limit_random": 0.6}))
    assert "nonzero entries are more than the about 0 up to which ℓ1 can be expected" in few
    below = recover_verdict(changed(found, nonzeros=6, **limits))
    assert "No two updates with at most 6 nonzero entries share a core" in below
    for doubt in ({"noise_level": 0.1}, {"residual": 0.01}):
        assert "share a core" not in recover_verdict(changed(found, nonzeros=6, **limits, **doubt))
    tall = dict.fromkeys(limits, math.inf)
    assert "share" not in recover_verdict(changed(found, **tall))


def test_a_zero_update_is_blamed_on_λ_only_where_it_is_the_best(found):
    lost = recover_verdict(changed(found, nonzeros=0, status="stalled"))
    assert "λ" not in lost
    assert "With so large a λ no other update is as good" in recover_verdict(tables("fista", lam=9))


def test_a_dense_answer_is_told_the_share_it_can_expect():
    verdict = recover_verdict(tables("least_norm"))
    assert "nonzero" not in verdict
    assert "A core of 14 × 12 keeps on average 52.5 % of ‖ΔW‖², the share ab/(mn)." in verdict
    assert ", up to an error of " in verdict
    assert " in the normal equations (" in verdict


def test_an_error_above_one_brings_nothing_back(found):
    scores = pd.DataFrame([{"answer": "estimate", "relative_error": 1.5, "share": -1.25}])
    verdict = recover_verdict(found | {"scores": scores})
    assert verdict.endswith("the relative error is 1.50, nothing of ‖ΔW‖² comes back.")


def test_errors_and_shares_of_the_scores_are_those_of_the_answers(found):
    scores = found["scores"].set_index("answer")
    assert list(scores.index) == ["estimate", "debiased", "least norm"]
    assert scores.loc["least norm", "relative_error"] == 0.5  # half of the truth stood in for it
    assert scores.loc["least norm", "share"] == 0.75
    assert scores.loc["estimate", "relative_error"] < 1e-8
    assert scores.loc["debiased", "share"] == pytest.approx(1)


def test_spectrum_and_magnitudes_are_those_of_estimate_truth_and_error(found):
    spectrum, magnitudes = found["spectrum"], found["magnitudes"]
    for table, column in ((spectrum, "sigma"), (magnitudes, "magnitude")):
        assert list(dict.fromkeys(table["of"])) == ["estimate", "truth", "error"]
        top = table[table["of"] == "truth"][column].iloc[:4]
        assert list(top) == pytest.approx([2, 1, 0.5, 0], abs=1e-7)
        assert table[table["of"] == "error"][column].max() < 1e-7
    assert spectrum[spectrum["of"] == "truth"]["resolved"].sum() == 3
    assert magnitudes[magnitudes["of"] == "truth"]["rank"].iloc[-1] == 320
    alone = tables(truth=False)
    assert set(alone["spectrum"]["of"]) == {"estimate"}
    assert "scores" not in alone


def test_text_and_page_show_every_table():
    found = tables("fista")  # which checks its certificate often enough for a curve
    text, page = document_text(document(found)), document_page(document(found))
    for shown in (text, page):
        assert "Against the truth, which the method did not see" in shown
        assert "How sparse an update must be for its core to tell" in shown
        assert "update 20 × 16, core 14 × 12: 52.5 % of the numbers" in shown
        assert "optimal: the duality gap" in shown
    assert page.count("data:image/svg+xml") == 2
    resumed = document_text(document(changed(found, resumed_from=1200)))
    assert "from iteration 1,200 of an interrupted run" in resumed
    plain = document_text(document(tables("least_norm", truth=False)))
    assert "in closed form" in plain
    assert "How sparse" not in plain
    assert "Against the truth" not in plain


def curves(ax):
    return {line.get_label(): line.get_ydata() for line in ax.lines}


def test_the_certificate_is_drawn_with_its_tolerance():
    history = pd.DataFrame({"iteration": [0, 10], "certificate": [4.0, 1e-5]})
    judged = {"certificate": "duality gap", "tolerance": 1e-4}
    ax = plot_certificate(Figure().subplots(), history, judged)
    assert curves(ax)["tolerance"][0] == pytest.approx(1e-4)
    assert ax.get_title() == "duality gap, relative"
    assert ax.get_yscale() == "log"
    history["certificate"] = [4.0, 0.0]
    ax = plot_certificate(Figure().subplots(), history, judged)
    assert np.isnan(ax.lines[0].get_ydata()[1])  # zero has no place on a log axis


def test_an_objective_that_spans_decades_is_on_a_log_axis():
    history = pd.DataFrame({"iteration": [0, 1], "objective": [100.0, 1.0]})
    assert plot_objective(Figure().subplots(), history).get_yscale() == "log"
    history["objective"] = [3.0, 2.0]
    assert plot_objective(Figure().subplots(), history).get_yscale() == "linear"


def test_curves_leave_out_what_is_rounding_and_limits_that_do_not_exist(found):
    ax = plot_singular_values(Figure().subplots(), found["spectrum"])
    truth = curves(ax)["truth"]
    assert np.isfinite(truth).sum() == 3
    limits = {"limit_every": 6.0, "limit_random": math.inf}
    ax = plot_magnitudes(Figure().subplots(), found["magnitudes"], limits)
    assert "half of the spark" in curves(ax)
    assert len(ax.get_legend_handles_labels()[1]) == 3  # no threshold, and no difference to see
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_figures_are_drawn_where_there_is_something_to_draw():
    found = tables("fista")
    assert CONVERGENCE_FIGURE.drawable(found)
    assert len(CONVERGENCE_FIGURE.draw(found).axes) == 2
    last = found["history"].iloc[-1]
    told = CONVERGENCE_FIGURE.alternative(found)
    assert told.startswith(f"From iteration 0 to {int(last['iteration']):,}, the objective goes")
    assert f"to {last['certificate']:.2g}, with a tolerance of" in told
    largest = found["spectrum"].query("of == 'truth'")["sigma"].max()
    assert f"the truth has a largest singular value of {number(largest)}; 90 % of" in (
        ESTIMATE_FIGURE.alternative(found)
    )
    closed = tables("least_norm")
    assert not CONVERGENCE_FIGURE.drawable(closed)
    assert ESTIMATE_FIGURE.drawable(closed)
    without = found | {"history": found["history"].drop(columns="objective")}
    assert len(CONVERGENCE_FIGURE.draw(without).axes) == 1
    zero = found | {"magnitudes": found["magnitudes"].assign(magnitude=0.0)}
    assert not ESTIMATE_FIGURE.drawable(zero)
    assert ESTIMATE_FIGURE.alternative(zero) == "Every coefficient is zero."


def test_the_coefficients_with_most_of_the_energy_are_counted_though_some_ranks_alone_are_kept():
    update = np.random.default_rng(0).standard_normal((80, 90)) ** 3
    basis = CosaBasis.sample(80, 90, 4, 5, seed=0)
    problem = RecoveryProblem(basis.sensing(), basis.encode(update), truth=update)
    found = recovery_tables(problem, recover(problem, "least_norm"), DESCRIBED)
    held = np.cumsum(np.sort(update.ravel() ** 2)[::-1])
    entries = int(np.searchsorted(held, 0.9 * held[-1])) + 1
    told = ESTIMATE_FIGURE.alternative(found).split("the truth has")[1].split("; the error")[0]
    assert len(found["magnitudes"].query("of == 'truth'")) < update.size
    assert int(told.split()[-2].replace(",", "")) == pytest.approx(entries, rel=0.01)
