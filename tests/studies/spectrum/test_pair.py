"""A survey covers every matrix, holds one at a time, resumes on equal hashes, judges by numbers."""

import dataclasses
import json
import tempfile
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import cosa_theory.studies.spectrum.layer as layer_module
from cosa_theory.deltas import LayerDelta, open_pair
from cosa_theory.deltas.layers import module_and_block
from cosa_theory.ground.errors import InputError
from cosa_theory.page.document import records
from cosa_theory.projections import INFORMED
from cosa_theory.spectrum import SpectrumSummary, summarize
from cosa_theory.spectrum.families import compare_families, crossover
from cosa_theory.studies.audit.pair import audit_pair
from cosa_theory.studies.spectrum.pair import SURVEYED, Survey, survey_pair
from cosa_theory.studies.spectrum.views import layer_view

QUICK = {"draws": 4, "families": ["truncated_svd", "cosa_gaussian"]}
TABLES = ("layers", "spectra", "families", "crossover")


def layer(name, m=20, n=14, seed=0, *, decay=1.0, **fields):
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((d, min(m, n))))[0] for d in (m, n))
    sigma = np.arange(1, min(m, n) + 1.0) ** -decay
    delta = ((U * sigma) @ V.T).astype(np.float32)
    return LayerDelta(name, delta, rng.standard_normal((m, n)).astype(np.float32), **fields)


NAMES = ("enc.layer.0.query.weight", "enc.layer.1.query.weight", "embeddings.weight")


@pytest.fixture
def layers():
    return [layer(name, seed=seed) for seed, name in enumerate(NAMES)]


def assert_same(one, other):
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table))
    assert one.verdict == other.verdict


# Tables ----------------------------------------------------------------------------------------


def test_every_layer_has_its_row_its_spectra_and_three_budgets_for_every_family(layers):
    survey = survey_pair(layers, draws=4)
    assert survey.layers["layer"].tolist() == list(NAMES)
    assert survey.layers["module"].tolist() == ["query", "query", "embeddings"]
    assert survey.layers["block"].tolist() == [0, 1, pd.NA]
    informed = {f"cosa_{kind}" for kind in INFORMED}
    assert set(survey.families["family"]) == set(SURVEYED) - informed
    per_layer = survey.families.groupby(["layer", "family"])["rank_budget"].nunique()
    assert (per_layer == 3).all()
    assert len(survey.crossover) == 3 * 3
    counts = survey.spectra.groupby(["layer", "matrix"])["index"].agg(["min", "max", "size"])
    assert (counts == [1, 14, 14]).all(axis=None)
    assert len(counts) == 9


def test_the_columns_are_those_other_rooms_read(layers):
    survey = survey_pair(layers[:1], **QUICK)
    named, sized = ["layer", "module", "block"], ["m", "n"]
    summary = [field.name for field in dataclasses.fields(SpectrumSummary)]
    assert list(survey.layers.columns) == [
        *(*named, *sized, "base_dtype", "tuned_dtype", "delta_norm", "relative_norm"),
        *(*summary, "rounding_rms", "rounding_edge"),
    ]
    assert list(survey.spectra.columns) == [*named, "matrix", "index", "sigma", "resolved"]
    families = compare_families(layers[0].delta, layers[0].base, **QUICK)
    assert list(survey.families.columns) == [*named, *sized, *families.columns]
    crossed = crossover(np.ones(14), 20, 14)
    assert list(survey.crossover.columns) == [*named, *sized, *crossed.columns]


def test_the_tables_hold_what_the_functions_of_one_matrix_return(layers):
    survey = survey_pair(layers, **QUICK, seed=3)
    for one in layers:
        mine = {
            name: table[table["layer"] == one.name]
            for name, table in vars(survey).items()
            if name in TABLES
        }
        families = compare_families(one.delta, one.base, **QUICK, seed=3, key=one.name)
        columns = list(families.columns)
        pd.testing.assert_frame_equal(mine["families"][columns].reset_index(drop=True), families)
        row = mine["layers"].iloc[0]
        for field, value in summarize(one.delta, base=one.base).as_dict().items():
            assert row[field] == value, field
        assert row["relative_norm"] == pytest.approx(
            np.linalg.norm(one.delta) / np.linalg.norm(one.base)
        )
        for kind in ("base", "tuned", "delta"):
            listed = mine["spectra"].query("matrix == @kind")["sigma"].to_numpy()
            exact = np.linalg.svd(getattr(one, kind).astype(float), compute_uv=False)
            assert listed == pytest.approx(exact, rel=1e-6)


def test_column_types_are_the_same_for_a_zero_update_and_for_no_layer_at_all(layers):
    full = survey_pair(layers, **QUICK)
    zero = dataclasses.replace(layers[0], delta=np.zeros((20, 14), np.float32))
    for other in (survey_pair([zero], **QUICK), survey_pair([], **QUICK)):
        for table in TABLES:
            assert getattr(other, table).dtypes.equals(getattr(full, table).dtypes), table


def test_the_tables_survive_parquet(layers, tmp_path):
    survey = survey_pair(layers, **QUICK)
    for table in TABLES:
        frame = getattr(survey, table)
        frame.to_parquet(tmp_path / "t.parquet")
        back = pd.read_parquet(tmp_path / "t.parquet")
        pd.testing.assert_frame_equal(back, frame, check_dtype=False)


def test_only_the_spectra_asked_for_are_listed(layers):
    survey = survey_pair(layers, matrices=["delta"], families=[])
    assert set(survey.spectra["matrix"]) == {"delta"}
    assert survey.families.empty
    assert len(survey.crossover) == 9
    assert "in expectation" in survey.verdict


def test_an_adapter_takes_its_spectrum_from_its_factors():
    rng = np.random.default_rng(5)
    B, A = rng.standard_normal((20, 3)), rng.standard_normal((3, 14))
    # The product's own Gram matrix would show rounding noise in place of the eleven zeros.
    one = LayerDelta("q", (B @ A).astype(np.float32), np.ones((20, 14), np.float32), factors=(B, A))
    survey = survey_pair([one], matrices=["delta"], families=[])
    exact = np.linalg.svd(B @ A, compute_uv=False)[:3]
    assert survey.spectra["sigma"][:3].to_numpy() == pytest.approx(exact, rel=1e-12)
    assert (survey.spectra["sigma"][3:] == 0).all()
    assert survey.spectra["resolved"].tolist() == [True] * 3 + [False] * 11
    assert survey.layers["rank"].tolist() == [3]


@pytest.mark.parametrize("stored", ["float32", "float64", "bfloat16", "factors"])
def test_an_update_of_low_rank_shows_its_rank_and_no_flatness(stored):
    rng = np.random.default_rng(6)
    B, A = 1e-3 * rng.standard_normal((60, 4)), rng.standard_normal((4, 50))
    base = torch.from_numpy(0.02 * rng.standard_normal((60, 50)))
    if stored == "factors":
        one = LayerDelta("q", (B @ A).astype(np.float32), base.numpy(), factors=(B, A))
    else:
        kept = base.to(getattr(torch, stored))
        merged = (kept.double() + torch.from_numpy(B @ A)).to(kept.dtype)
        with tempfile.TemporaryDirectory() as folder:
            for name, weight in (("base", kept), ("tuned", merged)):
                save_file({"q.weight": weight}, f"{folder}/{name}.safetensors")
            [one] = open_pair(f"{folder}/base.safetensors", f"{folder}/tuned.safetensors")
    for found in (survey_pair([one], **QUICK), audit_pair([one], draws=4)):
        row = found.layers.iloc[0]
        assert (row["rank"], pd.isna(row["flatness"])) == (4, True)
        assert any("rank 4, flatness not defined" in text for text in found.notices)
        json.dumps(records(found.layers), allow_nan=False)
    survey = survey_pair([one], **QUICK)
    assert survey.spectra.query("matrix == 'delta'")["resolved"].sum() == 4
    cells = layer_view({name: getattr(survey, name) for name in TABLES}).rows[0]
    assert "– (rank 4)" in cells


def test_the_rounding_edge_is_the_largest_singular_value_of_such_noise():
    one = layer("q", m=300, n=200, rounding_rms=2e-3)
    survey = survey_pair([one], matrices=["delta"], families=[])
    noise = 2e-3 * np.random.default_rng(0).standard_normal((300, 200))
    largest = np.linalg.svd(noise, compute_uv=False)[0]
    assert survey.layers["rounding_edge"][0] == pytest.approx(largest, rel=0.03)


@pytest.mark.parametrize(
    ("name", "module", "block"),
    [
        ("encoder.layer.3.attention.self.query.weight", "attention.self.query", 3),
        ("model.layers.11.mlp.experts.2.w1.weight", "mlp.experts.2.w1", 11),
        ("embeddings.word_embeddings.weight", "embeddings.word_embeddings", None),
        ("classifier.0.weight", "classifier", 0),
        ("0.weight", "0.weight", 0),
        ("h2o.proj", "h2o.proj", None),
        ("hash." + "9" * 5000 + ".2.q", "q", 2),
        ("9" * 5000, "9" * 5000, None),
    ],
)
def test_a_name_splits_into_module_and_block(name, module, block):
    assert module_and_block(name) == (module, block)


# One matrix at a time, and resuming --------------------------------------------------------------


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
            one = layer(f"layer.{index}.q.weight", seed=index)
            self.held = [weakref.ref(one.delta), weakref.ref(one.base)]
            yield one
            del one


def test_one_layer_is_held_at_a_time_and_progress_is_told():
    told = []
    survey_pair(Stream(3), **QUICK, progress=lambda *news: told.append(news))
    assert told == [(i + 1, 3, f"layer.{i}.q.weight") for i in range(3)]


@pytest.fixture
def computed(monkeypatch):
    """Names of the layers that were computed, not read from a cell."""
    names = []
    original = layer_module.compare_families

    def counting(*args, **settings):
        names.append(settings["key"])
        return original(*args, **settings)

    monkeypatch.setattr(layer_module, "compare_families", counting)
    return names


def test_a_second_survey_computes_nothing_and_is_the_same(layers, tmp_path, computed):
    first = survey_pair(layers, **QUICK, cells=tmp_path)
    assert computed == list(NAMES)
    again = survey_pair(layers, **QUICK, cells=tmp_path)
    assert computed == list(NAMES)
    assert_same(first, again)
    assert_same(first, survey_pair(layers, **QUICK))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_cell_is_computed_again_and_mended(layers, tmp_path, computed):
    first = survey_pair(layers[:1], **QUICK, cells=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert_same(first, survey_pair(layers[:1], **QUICK, cells=tmp_path))
    assert computed == [NAMES[0]] * 2
    assert path.read_bytes() == whole


def test_a_zero_layer_is_read_back_with_its_nulls(tmp_path, computed):
    zero = LayerDelta("z", np.zeros((9, 9), np.float32), np.zeros((9, 9), np.float32))
    first = survey_pair([zero], cells=tmp_path, draws=4)
    assert_same(first, survey_pair([zero], cells=tmp_path, draws=4))
    assert computed == ["z"]
    assert first.layers["relative_norm"].isna().all()


def test_an_interrupted_survey_keeps_what_was_finished(tmp_path, computed):
    with pytest.raises(InputError, match="NaN"):
        survey_pair(Stream(4, fails_at=2), **QUICK, cells=tmp_path)
    survey = survey_pair(Stream(4), **QUICK, cells=tmp_path)
    assert computed == [f"layer.{i}.q.weight" for i in range(4)]
    assert len(survey.layers) == 4
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"draws": 5},
        {"ranks": [1, 2]},
        {"families": ["cosa_haar"]},
        {"matrices": ["delta"]},
    ],
)
def test_other_settings_are_computed_anew(layers, tmp_path, computed, change):
    survey_pair(layers[:1], **QUICK, cells=tmp_path)
    survey_pair(layers[:1], **(QUICK | change), cells=tmp_path)
    assert len(computed) == 2


@pytest.mark.parametrize(
    "field", ["delta", "base", "name", "tuned_dtype", "rounding_rms", "version"]
)
def test_another_layer_or_version_is_computed_anew(layers, tmp_path, computed, field, monkeypatch):
    survey_pair(layers[:1], **QUICK, cells=tmp_path)
    other = layers[0]
    if field == "version":
        monkeypatch.setattr(layer_module, "__version__", "0.0.0")
    elif field in ("delta", "base"):
        changed = getattr(other, field).copy()
        changed[-1, -1] = np.nextafter(changed[-1, -1], np.float32(9))
        other = dataclasses.replace(other, **{field: changed})
    else:
        other = dataclasses.replace(other, **{field: {"rounding_rms": 0.5}.get(field, "bfloat16")})
    survey_pair([other], **QUICK, cells=tmp_path)
    assert len(computed) == 2


def test_a_transposed_layout_of_the_same_values_is_the_same_layer(layers, tmp_path, computed):
    survey_pair(layers[:1], **QUICK, cells=tmp_path)
    other = dataclasses.replace(layers[0], delta=np.asfortranarray(layers[0].delta))
    survey_pair([other], **QUICK, cells=tmp_path)
    assert len(computed) == 1


# Settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"matrices": ["weights"]}, "matrices is 'weights'"),
        ({"families": ["lora"]}, "families is 'lora'"),
        ({"ranks": [0]}, "ranks is 0"),
        ({"draws": 1}, "draws is 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_read(settings, named):
    with pytest.raises(ValueError, match=named):
        survey_pair(Stream(3, fails_at=0), **settings)


# Notices -----------------------------------------------------------------------------------------


def test_notices_of_the_pair_come_first():
    base = {"a.weight": np.ones((8, 8), np.float32), "b.weight": np.full((8, 8), 2, np.float32)}
    tuned = {"a.weight": np.eye(8, dtype=np.float32)}
    pair = open_pair(base, tuned)
    survey = survey_pair(pair, **QUICK)
    assert survey.notices[: len(pair.report.notices)] == tuple(pair.report.notices)
    assert any("only in base" in notice for notice in survey.notices)


def test_zero_updates_rounding_floors_and_small_layers_are_noticed():
    zero = layer("zero")
    zero = dataclasses.replace(zero, delta=0 * zero.delta)
    survey = survey_pair(
        [zero, layer("fine"), layer("coarse", rounding_rms=1.0), layer("small", m=2)], **QUICK
    )
    text = "\n".join(survey.notices)
    assert "1 update is zero: their ratios are null (zero)." in text
    assert "no larger than the rounding of the stored type" in text
    assert "(coarse)." in text
    assert "1 matrix is compared at fewer than three budgets" in text
    assert "(small)." in text
    assert survey_pair([layer("fine")], **QUICK).notices == ()


# Verdict -----------------------------------------------------------------------------------------


def flat(name, seed=0, n=40):
    """A square update with a flat spectrum, where CoSA wins."""
    return layer(name, n, n, seed, decay=0.0)


def steep(name, seed=0, n=40):
    return layer(name, n, n, seed, decay=2.0)


def verdict(layers, **settings):
    return survey_pair(layers, **(QUICK | settings)).verdict


def test_low_rank_wins_where_spectra_decay():
    layers = [steep(f"l.{i}.q", seed=i) for i in range(3)]
    survey = survey_pair(layers, **QUICK, ranks=[2, 4, 8])
    text = survey.verdict
    assert text.startswith(
        "Low rank wins in 3 of 3 matrices at equal trainable parameters (rank 4): the truncated "
        "SVD holds 100 % of the update's energy, a Gaussian CoSA core of the same size "
    )
    ratio, noise, excess = (
        f"{survey.crossover.query('rank_budget == 4')[name].median():.2g}"
        for name in ("crossover_ratio", "noise_ratio", "excess")
    )
    assert text.endswith(
        f"a median factor of {ratio} for low rank, where noise of the same shape gives {noise} "
        f"(median excess {excess})."
    )


def test_cosa_wins_where_spectra_are_flat():
    text = verdict([flat("l.0.q"), flat("l.1.q", 1)], ranks=[5])
    assert text.startswith("CoSA wins in 2 of 2 matrices at equal trainable parameters (rank 5)")
    assert "a median factor of 2 for CoSA, where noise of the same shape gives 1.5 for" in text


def test_noise_itself_has_no_excess_and_low_rank_wins_all_the_same():
    drawn = np.random.default_rng(0).standard_normal((3, 60, 40)).astype(np.float32)
    layers = [dataclasses.replace(layer(f"l.{i}.q", 60, 40), delta=drawn[i]) for i in range(3)]
    text = verdict(layers, ranks=[4])
    assert text.startswith("Low rank wins in 3 of 3")
    excess = float(text.rsplit("(median excess ", 1)[1].removesuffix(")."))
    assert 0.9 <= excess <= 1.1  # printed with two digits


def test_a_mixed_outcome_names_both_counts():
    text = verdict([flat("a"), steep("b"), steep("c", 1)], ranks=[5])
    assert text.startswith("Low rank wins in 2 of 3 matrices and CoSA in 1 at equal")
    assert "(median; range " in text


def test_budgets_with_another_outcome_are_named():
    # Two values of 40 hold half of the energy: rank 1 holds 25 %, above its law of 5 %, while
    # the twenty ranks that reach a full core hold less than everything.
    one = layer("l", 40, 40)
    U, _, Vt = np.linalg.svd(one.delta)
    sigma = np.ones(40)
    sigma[:2] = np.sqrt(19)
    one = dataclasses.replace(one, delta=((U * sigma) @ Vt).astype(np.float32))
    text = verdict([one], ranks=[1, 2, 15])
    assert text.startswith("Low rank wins in 1 of 1 matrix at equal trainable parameters (rank 2)")
    assert text.endswith("; low rank wins in 0 at rank 15.")


def test_zero_updates_are_left_out_and_said():
    zero = LayerDelta("z", np.zeros((40, 40), np.float32), np.ones((40, 40), np.float32))
    text = verdict([steep("a"), zero])
    assert text.startswith("Low rank wins in 1 of 1 matrix")
    assert text.endswith("; 1 zero update is left out.")
    two = dataclasses.replace(zero, name="y")
    assert verdict([zero]) == "Nothing to compare: the only update is zero."
    assert verdict([zero, two]) == "Nothing to compare: all 2 updates are zero."


def test_matrices_without_the_common_budget_take_their_nearest():
    text = verdict([steep("a"), steep("b", 1), layer("small", 2, 40)])
    assert "Low rank wins in 3 of 3" in text
    assert "(rank 5, or the nearest that a small matrix has)" in text


def test_a_budget_of_everything_is_a_tie():
    text = verdict([layer("row", 1, 9)])
    assert text.startswith("Low rank and CoSA tie in 1 of 1 matrix at equal")


def test_no_layer_is_no_verdict():
    assert survey_pair([], **QUICK).verdict == "No matrix was compared."


def test_a_verdict_follows_from_the_stored_tables_alone(layers):
    survey = survey_pair(layers, **QUICK)
    tables = {name: getattr(survey, name).copy() for name in TABLES}
    assert Survey(**tables).verdict == survey.verdict
    tables["crossover"]["winner"] = "cosa"
    assert Survey(**tables).verdict.startswith("CoSA wins in 3 of 3")
