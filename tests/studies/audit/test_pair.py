"""An audit's outcomes flip where they should; it resumes, streams, and speaks plainly."""

import dataclasses
import weakref

import numpy as np
import pandas as pd
import pytest

import cosa_theory.studies.audit.layer as layer_module
from cosa_theory.deltas import LayerDelta, open_pair
from cosa_theory.ground.errors import InputError
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.nn.moments import Moments
from cosa_theory.projections import INFORMED, SecondMoments, make_projection
from cosa_theory.spectrum import sparsity_profile, summarize
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS
from cosa_theory.studies.audit.pair import TABLES, audit_pair
from tests.studies.audit.layers import dense, layer, low_rank, sparse_in, weight

QUICK = {"draws": 4, "core": (12, 10)}


def outcomes(delta, **settings):
    rows = audit_pair([layer(delta)], **(QUICK | settings)).assumptions
    return dict(zip(rows["assumption"], rows["outcome"], strict=True))


def row(delta, **settings):
    return audit_pair([layer(delta)], **(QUICK | settings)).layers.iloc[0]


# Outcomes ----------------------------------------------------------------------------------------


def test_a_flat_update_meets_the_condition_of_the_kronecker_variance_law():
    # PR of a Gaussian 96 × 80 is about mn/(m + n) = 44, above 12 + 10 + 1.
    assert outcomes(dense())["flat_spectrum"] == "holds"


@pytest.mark.parametrize("rank", [1, 5])
def test_a_low_rank_update_does_not(rank):
    found = row(low_rank(rank))
    assert outcomes(low_rank(rank))["flat_spectrum"] == "fails"
    assert found["participation_ratio"] <= rank + 1e-6
    assert found["variance_factor"] >= 1 + 23 / rank - 1e-6


@pytest.mark.parametrize("basis", ["coordinate", "dct", "singular"])
def test_few_coefficients_in_one_basis_are_below_the_spark_wall(basis):
    few, many = sparse_in(basis, 4), sparse_in(basis, 8)
    assert row(few)["best_basis"] == basis
    assert row(few)["sparsity"] == 4
    assert outcomes(few)["spark_wall"] == "holds"  # min(12, 10)/2 = 5
    assert outcomes(many)["spark_wall"] == "fails"


def test_the_measurement_bound_asks_for_more_than_the_spark_wall():
    # min(a, b)/ln 96 = 2.19
    assert outcomes(sparse_in("coordinate", 2))["measurements"] == "holds"
    assert outcomes(sparse_in("coordinate", 4))["measurements"] == "fails"


def test_two_counts_of_the_same_sparsity_on_both_sides_of_the_wall_leave_it_undecided():
    delta = 1e-2 * dense(seed=3)
    delta[5, 7] = 40.0  # one entry holds 99 % of the energy, but the others much of the ℓ1 norm
    found = row(delta)
    assert found["sparsity"] == 1
    assert found["numerical_sparsity"] > 5
    assert outcomes(delta)["spark_wall"] == "undecided"


def test_a_compressible_update_has_an_exponent_below_one():
    generator = np.random.default_rng(0)
    decaying = np.arange(1, 96 * 80 + 1.0) ** -2.0
    delta = generator.permutation(decaying).reshape(96, 80)
    assert outcomes(delta)["compressible"] == "holds"
    assert row(delta)["compressible_basis"] == "coordinate"
    assert outcomes(dense())["compressible"] == "fails"


def test_near_isometry_holds_for_small_cores_and_for_orthonormal_factors_only():
    assert outcomes(dense(), core=(3, 2))["near_isometry"] == "holds"
    assert outcomes(dense(), core=(60, 50))["near_isometry"] == "fails"
    assert outcomes(dense(), core=(60, 50), kind="haar")["near_isometry"] == "holds"


def test_a_core_of_nearly_the_whole_layer_gives_the_update_back():
    assert outcomes(dense(), core=(95, 79))["decodable"] == "holds"
    assert outcomes(dense(), core=(90, 40))["decodable"] == "fails"


def test_a_core_of_the_whole_layer_meets_what_does_not_depend_on_the_update():
    found = outcomes(dense(), core=(96, 80))
    assert {name for name, outcome in found.items() if outcome == "holds"} == {
        *("admissible", "near_isometry", "flat_spectrum", "spark_wall", "decodable")
    } | ({"measurements"} if found["measurements"] == "holds" else set())
    assert row(dense(), core=(96, 80))["error"] == 0.0


def test_a_core_that_does_not_fit_fails_that_and_is_cut_for_the_rest():
    audit = audit_pair([layer(dense())], draws=4, core=(200, 10))
    rows = audit.assumptions.set_index("assumption")
    assert rows["outcome"]["admissible"] == "fails"
    assert rows["value"]["admissible"] == pytest.approx(200 / 96)
    one = audit.layers.iloc[0]
    assert (one["asked_a"], one["asked_b"], one["a"], one["b"]) == (200, 10, 96, 10)
    assert any("A core of 200 × 10 does not fit 1 of 1 matrix" in text for text in audit.notices)
    cut = audit_pair([layer(dense())], draws=4, core=(96, 10)).assumptions.set_index("assumption")
    pd.testing.assert_frame_equal(rows.drop("admissible"), cut.drop("admissible"))


# Numbers -----------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_functions_of_one_matrix():
    delta = layer(dense()).delta
    found = row(delta)
    summary = summarize(delta)
    assert found["norm"] == pytest.approx(summary.frobenius)
    assert found["participation_ratio"] == pytest.approx(summary.participation_ratio)
    assert found["relative_norm"] == pytest.approx(
        np.linalg.norm(delta) / np.linalg.norm(weight(96, 80))
    )
    profile = sparsity_profile(delta, weight(96, 80))
    table = audit_pair([layer(delta)], **QUICK).sparsity
    for column in ("numerical_sparsity", "gini", "weak_lp", "best_term_error_0.1"):
        assert table[column].to_numpy() == pytest.approx(profile[column].to_numpy(), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "scale", "core"),
    [
        ("gaussian", "synthesis", (12, 10)),
        ("rademacher", "analysis", (12, 10)),
        ("gaussian", "synthesis", (1, 1)),  # the greatest singular value may be below 1
    ],
)
def test_the_conditioning_is_that_of_the_bases_drawn(kind, scale, core):
    found = row(dense(), kind=kind, scale=scale, seed=5, core=core)
    ranges = [
        CosaBasis.sample(
            *(96, 80, *core),
            kind=kind,
            scale=scale,
            seed=5,
            key=("enc.layer.0.query.weight", "draw", index),
        ).singular_value_range()
        for index in range(4)
    ]
    low, high = np.array(ranges).T
    assert found["sigma_min"] == pytest.approx(low.mean())
    assert found["sigma_max"] == pytest.approx(high.mean())
    assert found["kappa"] == pytest.approx((high / low).mean())
    assert found["delta"] == pytest.approx(np.maximum(high**2 - 1, 1 - low**2).mean())
    constants = (high**2 - low**2) / (high**2 + low**2)
    assert found["scale_free"] == pytest.approx(constants.mean())
    assert (found["scale_free_low"], found["scale_free_high"]) == pytest.approx(
        (constants.min(), constants.max())
    )
    most, least = (
        (1 + sign * np.sqrt(core[0] / 96)) * (1 + sign * np.sqrt(core[1] / 80)) for sign in (1, -1)
    )
    assert found["bai_yin_scale_free"] == pytest.approx((most**2 - least**2) / (most**2 + least**2))


def test_a_whole_side_is_the_identity_and_leaves_the_conditioning_to_the_other():
    found = row(dense(), core=(96, 10))
    factors = [
        make_projection(
            *("gaussian", 10, 80),
            scale="synthesis",
            key=("enc.layer.0.query.weight", "draw", index, "R"),
        )
        for index in range(4)
    ]
    sigma = np.array([np.linalg.svd(R, compute_uv=False) for R in factors])
    assert found["sigma_min"] == pytest.approx(sigma[:, -1].mean())
    assert found["sigma_max"] == pytest.approx(sigma[:, 0].mean())
    low, high = 1 - np.sqrt(1 / 8), 1 + np.sqrt(1 / 8)
    assert found["bai_yin_scale_free"] == pytest.approx((high**2 - low**2) / (high**2 + low**2))


def test_the_predicted_error_lies_in_the_measured_interval_as_often_as_it_says():
    layers = [layer(low_rank(3, seed=seed), f"l.{seed}.q") for seed in range(60)]
    table = audit_pair(layers, draws=8, core=(12, 10)).layers
    assert table["predicted_error"].to_numpy() == pytest.approx(np.sqrt(1 - 120 / 7680))
    inside = (table["error_low"] <= table["predicted_error"]) & (
        table["predicted_error"] <= table["error_high"]
    )
    assert inside.sum() >= 50  # binomial(60, 0.95): fewer has probability 4e-4
    wrong = np.sqrt(1 - 140 / 7680)
    assert not ((table["error_low"] <= wrong) & (wrong <= table["error_high"])).sum() >= 50


def test_the_default_core_has_the_parameters_of_the_rank_asked_for():
    table = audit_pair([layer(dense())], draws=4, rank=4).layers
    assert table["rank_budget"].tolist() == [4]
    assert 0.97 * 4 * 176 < table["a"][0] * table["b"][0] <= 4 * 176


def test_a_tiny_layer_gets_the_nearest_smaller_budget_and_its_whole_side_is_free():
    audit = audit_pair([layer(dense()), layer(dense(2, 384), "types.weight")], draws=4)
    tiny = audit.layers.iloc[1]
    assert (tiny["a"], tiny["b"], tiny["rank_budget"]) == (2, 193, 1)
    rows = audit.assumptions.query("layer == 'types.weight'").set_index("assumption")
    assert rows["threshold"]["spark_wall"] == 96.5  # the two rows lose nothing
    assert rows["threshold"]["flat_spectrum"] == 1.0
    text = "\n".join(audit.notices)
    assert "A core of the budget of rank 8 would train more than half of 1 of 2 matrices" in text
    assert "In 1 of 2 matrices a = m or b = n" in text


def test_a_budget_that_no_matrix_has_is_named_as_it_was_asked_for():
    audit = audit_pair([layer(dense()), layer(dense(40, 32), "b")], draws=4, rank=64)
    assert audit.layers["rank_budget"].tolist() == [16, 8]
    (text,) = (text for text in audit.notices if "budget" in text)
    assert "rank 64 would train more than half of 2 of 2 matrices" in text
    assert "get that of rank 8 to 16 instead" in text
    same = audit_pair([layer(dense())], draws=4, rank=64)
    assert any("get that of rank 16 instead" in text for text in same.notices)
    assert not any("budget" in text for text in audit_pair([layer(dense())], draws=4).notices)


def test_extreme_scales_of_an_update_change_nothing_that_has_no_unit():
    audits = [audit_pair([layer(1e-25 * dense())], **QUICK), audit_pair([layer(dense())], **QUICK)]
    small, usual = (audit.assumptions for audit in audits)
    assert small["value"].to_numpy() == pytest.approx(usual["value"].to_numpy(), rel=1e-4)


# Zero updates, rounding --------------------------------------------------------------------------


def test_a_zero_update_is_undecided_and_said_once():
    zero = layer(np.zeros((96, 80)), "z.weight")
    audit = audit_pair([layer(dense()), zero], **QUICK)
    rows = audit.assumptions.query("layer == 'z.weight'").set_index("assumption")["outcome"]
    about = [name for name, one in ASSUMPTIONS.items() if one.of_update]
    assert set(rows[about]) == {"undecided"}
    assert (rows["admissible"], rows["near_isometry"]) == ("holds", "fails")
    assert sum("zero" in text for text in audit.notices) == 1
    assert "1 of 2 updates is zero" in "\n".join(audit.notices)
    assert audit.verdict.endswith("; 1 zero update is undecided.")
    assert set(audit.sparsity["layer"]) == {"enc.layer.0.query.weight"}


def test_rounding_as_large_as_the_update_decides_nothing_about_it():
    noisy = layer(dense(), rounding_rms=1.1)
    audit = audit_pair([noisy], **QUICK)
    rows = audit.assumptions.set_index("assumption")["outcome"]
    assert rows["flat_spectrum"] == rows["spark_wall"] == "undecided"
    assert "1 of 1 update is no larger than the rounding" in "\n".join(audit.notices)


def test_exact_zeros_are_noted():
    delta = dense()
    delta[: 96 * 3 // 4] = 0
    audit = audit_pair([layer(delta)], **QUICK)
    assert audit.layers["exact_zeros"].tolist() == [0.75]
    assert "exactly zero in more than half of the entries (median 75%)" in "\n".join(audit.notices)


def test_an_adapter_is_judged_by_its_factors():
    generator = np.random.default_rng(5)
    B, A = generator.standard_normal((96, 2)), generator.standard_normal((2, 80))
    one = layer(B @ A, factors=(B, A))
    assert audit_pair([one], **QUICK).layers["participation_ratio"][0] <= 2


# Gradients ---------------------------------------------------------------------------------------


def test_a_gradient_is_judged_beside_the_update():
    name = "enc.layer.0.query.weight"
    audit = audit_pair([layer(dense())], **QUICK, gradients={name: low_rank(1)})
    rows = audit.assumptions.set_index(["subject", "assumption"])["outcome"]
    assert rows["update", "flat_spectrum"] == "holds"
    assert rows["gradient", "flat_spectrum"] == "fails"
    assert "admissible" not in rows["gradient"]
    assert "; for the gradient of the first step, flat spectrum, " in audit.verdict
    assert audit.layers["subject"].tolist() == ["update", "gradient"]


def test_matrices_without_a_gradient_are_named():
    layers = [layer(dense(), "a.weight"), layer(dense(seed=1), "b.weight")]
    audit = audit_pair(layers, **QUICK, gradients={"b.weight": dense()})
    assert "1 of 2 matrices without a gradient" in "\n".join(audit.notices)
    assert audit.layers.query("subject == 'gradient'")["layer"].tolist() == ["b.weight"]


# Tables, streaming, resuming ---------------------------------------------------------------------


def test_columns_and_types_are_the_same_whatever_is_in_the_tables():
    zero = layer(np.zeros((96, 80)))
    for layers in ([layer(dense())], [zero], []):
        audit = audit_pair(layers, **QUICK)
        for name, columns in TABLES.items():
            found = audit.tables[name].dtypes.astype(str).to_dict()
            assert found == dict(columns), name
    assert audit_pair([], **QUICK).verdict == "No matrix was audited."


class Stream:
    """A sized stream that checks that nothing of a layer is held when the next one is read."""

    def __init__(self, count, fails_at=None):
        self.count, self.fails_at, self.held = count, fails_at, []

    def __len__(self):
        return self.count

    def __iter__(self):
        for index in range(self.count):
            assert not any(reference() is not None for reference in self.held)
            if index == self.fails_at:
                raise InputError(f"layer.{index}: 3 NaN")
            one = layer(dense(seed=index), f"layer.{index}.q.weight")
            self.held = [weakref.ref(one.delta), weakref.ref(one.base)]
            yield one
            del one


def test_one_matrix_is_held_at_a_time_and_progress_is_told():
    told = []
    audit_pair(Stream(3), **QUICK, progress=lambda *news: told.append(news))
    assert told == [(i + 1, 3, f"layer.{i}.q.weight") for i in range(3)]


def test_several_workers_find_the_same():
    one, three = (audit_pair(Stream2(5), **QUICK, workers=count) for count in (1, 3))
    for name in TABLES:
        pd.testing.assert_frame_equal(one.tables[name], three.tables[name])


class Stream2(list):
    def __init__(self, count):
        super().__init__(layer(dense(seed=i), f"l.{i}.q") for i in range(count))


@pytest.fixture
def computed(monkeypatch):
    """Names of the layers that were computed, not read from a cell."""
    names = []
    original = layer_module.measure_conditioning

    def counting(*args, **settings):
        names.append(settings["key"])
        return original(*args, **settings)

    monkeypatch.setattr(layer_module, "measure_conditioning", counting)
    return names


def test_an_interrupted_audit_resumes_and_a_second_one_computes_nothing(tmp_path, computed):
    with pytest.raises(InputError, match="NaN"):
        audit_pair(Stream(4, fails_at=2), **QUICK, cells=tmp_path)
    first = audit_pair(Stream(4), **QUICK, cells=tmp_path)
    assert computed == [f"layer.{i}.q.weight" for i in range(4)]
    again = audit_pair(Stream(4), **QUICK, cells=tmp_path)
    assert len(computed) == 4
    fresh = audit_pair(Stream(4), **QUICK)
    for name in TABLES:
        pd.testing.assert_frame_equal(first.tables[name], again.tables[name])
        pd.testing.assert_frame_equal(first.tables[name], fresh.tables[name])


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"draws": 5}, {"core": (12, 11)}, {"kind": "haar"}, {"scale": "analysis"}],
)
def test_other_settings_are_computed_anew(tmp_path, computed, change):
    audit_pair([layer(dense())], **QUICK, cells=tmp_path)
    audit_pair([layer(dense())], **(QUICK | change), cells=tmp_path)
    assert len(computed) == 2


@pytest.mark.parametrize("change", ["delta", "rounding", "gradient", "another gradient"])
def test_another_subject_is_computed_anew(tmp_path, computed, change):
    name = "enc.layer.0.query.weight"
    given = {"gradients": {name: -dense(seed=2)}} if change == "another gradient" else {}
    audit_pair([layer(dense())], **QUICK, cells=tmp_path, **given)
    one = layer(dense())
    if change == "delta":
        one = layer(dense(seed=1))
    elif change == "rounding":
        one = dataclasses.replace(one, rounding_rms=1e-3)
    else:
        given = {"gradients": {name: dense(seed=2)}}
    audit_pair([one], **QUICK, cells=tmp_path, **given)
    assert len(computed) == 2


def test_a_real_pair_of_checkpoints_is_audited_with_its_notices():
    base = {"a.weight": weight(20, 16), "norm.weight": np.ones(16, np.float32)}
    tuned = {"a.weight": base["a.weight"] + 0.1, "norm.weight": np.ones(16, np.float32)}
    pair = open_pair(base, tuned)
    audit = audit_pair(pair, draws=4, gradients={"a.weight": weight(20, 16, 3)})
    assert audit.notices[: len(pair.report.notices)] == pair.report.notices
    assert audit.layers["participation_ratio"][0] == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kind": "sparse"}, "kind is 'sparse'"),
        ({"scale": "paper"}, "scale is 'paper'"),
        ({"rank": 0}, "rank is 0"),
        ({"core": (0, 4)}, r"core is \(0, 4\)"),
        ({"draws": 1}, "draws is 1"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_read(settings, named):
    with pytest.raises(ValueError, match=named):
        audit_pair(Stream(3, fails_at=0), **(QUICK | settings))


def informed(names, m=96, n=80, turned=()):
    def second(d):
        x = np.random.default_rng(d).standard_normal((4 * d, d)) * 0.9 ** np.arange(d)
        return SecondMoments((x.T @ x / len(x)).astype(np.float32), count=len(x))

    sides = {name: second(n) for name in names}, {name: second(m) for name in names}
    return Moments(*sides, transposed=frozenset(turned))


@pytest.mark.parametrize("kind", INFORMED)
def test_an_informed_basis_is_an_isometry_whose_error_has_no_prediction(kind):
    delta = dense()
    known = informed(["layer.weight"])
    found = audit_pair([layer(delta, "layer.weight")], kind=kind, moments=known, draws=4)
    one = found.layers.iloc[0]
    assert (one["a"] == 96) == (kind == "activation")  # one-sided
    assert one["a"] * one["b"] <= 8 * (96 + 80)
    moments, gradients = known.inputs["layer.weight"], known.gradients["layer.weight"]
    settings = {"moments": moments} | ({"gradients": gradients} if kind == "gradient" else {})
    basis = CosaBasis.sample(96, 80, one["a"], one["b"], kind=kind, **settings)
    assert one["captured"] == pytest.approx(basis.captured_energy(delta), rel=1e-5)
    assert one["kappa"] == pytest.approx(1, abs=1e-5)
    assert np.isnan(one["predicted_error"])
    assert not any("predicted error" in notice for notice in found.notices)


def test_a_transposed_matrix_is_audited_as_its_layer():
    known = informed(["layer.weight"], turned=["layer.weight"])
    plain = informed(["layer.weight"])
    settings = {"kind": "activation", "draws": 4}
    one, base = dense().astype(np.float32), weight(96, 80)
    turned = LayerDelta("layer.weight", one.T.copy(), base.T.copy())
    audited = audit_pair([turned], moments=known, **settings).layers
    straight = audit_pair([LayerDelta("layer.weight", one, base)], moments=plain, **settings).layers
    assert audited["captured"].iloc[0] == pytest.approx(straight["captured"].iloc[0], rel=1e-6)
    assert (audited["m"].iloc[0], audited["n"].iloc[0]) == (96, 80)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kind": "activation"}, ("activation", "moments")),
        ({"moments": informed(["layer.weight"])}, ("gaussian", "leave them out", "activation")),
        (
            {"kind": "activation", "moments": informed(["layer.weight"])},
            ("1 of 2", "other.weight", "leave the layers out"),
        ),
        (
            {"kind": "gradient", "moments": Moments(informed(["layer.weight"]).inputs)},
            ("no layer", "layer.weight"),
        ),
        ({"kind": "magic"}, ("magic",)),
    ],
)
def test_informed_kinds_ask_for_moments_of_every_matrix(settings, named):
    pair = [layer(dense(), "layer.weight"), layer(dense(), "other.weight")]
    with pytest.raises(InputError) as caught:
        audit_pair(pair, draws=4, **settings)
    assert all(name in str(caught.value) for name in named)
    assert len(str(caught.value)) <= 300
