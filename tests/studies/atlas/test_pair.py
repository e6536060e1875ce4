"""An atlas: budgets of a whole model, every family's share of it, and what is said of them."""

import numpy as np
import pytest

from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.errors import InputError
from cosa_theory.page.views import percent
from cosa_theory.projections import stream
from cosa_theory.spectrum.families.base import FAMILIES
from cosa_theory.studies.atlas.explorer import explorer
from cosa_theory.studies.atlas.figures import FIGURES
from cosa_theory.studies.atlas.layer import Noise, allotted
from cosa_theory.studies.atlas.pair import atlas_pair
from cosa_theory.studies.atlas.verdict import trained
from cosa_theory.studies.atlas.views import PRESENTATION
from cosa_theory.studies.atlas.winners import winners
from tests.page.drawing import drawn

FEW = ["truncated_svd", "adalora", "tucka", "cosa_haar", "mask", "dora", "low_bits", "ia3"]


def layers(scale=1.0):
    rng = np.random.default_rng(0)
    found = []
    for block in range(3):
        for module in ("query", "value"):
            delta = rng.standard_normal((24, 2)) @ rng.standard_normal((2, 16))
            delta += 0.05 * rng.standard_normal((24, 16))
            delta *= scale * (1 + block)
            base = rng.standard_normal((24, 16))
            found.append(LayerDelta(f"layer.{block}.{module}.weight", delta, base))
    return found


@pytest.fixture(scope="module")
def atlas():
    return atlas_pair(layers(), budgets=(100, 600, 1500), families=FEW, draws=2)


def row(atlas, family, budget):
    pooled = atlas.pooled
    return pooled[(pooled["family"] == family) & (pooled["budget"] == budget)].iloc[0]


def test_budgets_are_spread_in_proportion_to_the_sides_and_never_exceeded():
    assert allotted([(24, 16), (8, 2)], 100) == [80, 16]  # the second is whole
    for budget in (1, 7, 1000):
        assert sum(allotted([(24, 16), (8, 12), (3, 3)], budget)) <= budget


def test_every_family_has_its_rows_within_the_budget_and_its_share_is_pooled_by_energy(atlas):
    assert set(atlas.pooled["family"]) == set(FEW)
    assert (atlas.pooled["parameters"] <= atlas.pooled["budget"]).all()
    assert len(atlas.families) == 6 * len(FEW) * 3
    rows = atlas.families[(atlas.families["family"] == "mask") & (atlas.families["budget"] == 600)]
    weights = atlas.layers.set_index("layer")["delta_norm"] ** 2
    weights /= weights.sum()
    expected = (rows["captured"] * rows["layer"].map(weights)).sum()
    found = row(atlas, "mask", 600)
    assert found["captured"] == pytest.approx(expected)
    assert found["law"] == pytest.approx(600 / (6 * 24 * 16))
    assert found["ci_low"] < found["captured"] < found["ci_high"]


def test_a_family_without_an_update_of_so_few_parameters_is_listed_with_the_reason(atlas):
    found = row(atlas, "dora", 100)
    assert np.isnan(found["captured"])
    assert found["parameters"] == found["met"] == 0
    assert "64 numbers" in found["reason"]
    assert (
        "3 families have no update"
        in atlas_pair(
            layers(), budgets=(100,), families=["mask", "dora", "ia3", "low_bits"], draws=2
        ).verdict
    )


def test_low_rank_holds_nearly_all_of_a_low_rank_update_and_spreading_helps_where_it_is_short(
    atlas,
):
    assert 0.99 < row(atlas, "truncated_svd", 600)["captured"] < 1
    assert 0.99 < row(atlas, "adalora", 600)["captured"] < 1
    # 300 numbers are a rank of one for every layer; larger updates deserve more.
    found = atlas_pair(layers(), budgets=(300,), families=FEW[:2], draws=2)
    assert row(found, "adalora", 300)["captured"] > row(found, "truncated_svd", 300)["captured"]


def test_the_verdict_names_the_best_its_null_and_how_far_a_core_is_behind(atlas):
    assert "600 trainable parameters" in atlas.verdict
    assert "low rank (truncated SVD) holds most" in atlas.verdict or "AdaLoRA" in atlas.verdict
    assert "of noise" in atlas.verdict
    core = row(atlas, "cosa_haar", 600)
    assert f"law {percent(core['law'])}" in atlas.verdict
    whole = atlas_pair(layers(), budgets=(3000,), families=FEW[3:5], draws=2)
    assert whole.verdict.startswith("2 families hold the whole update at 3,000")


def test_noise_is_drawn_once_for_all_families_and_sizes_and_not_again_where_shares_are_known(
    monkeypatch,
):
    drawn = []

    def counted(*key):
        drawn.append(key)
        return stream(*key)

    monkeypatch.setattr("cosa_theory.studies.atlas.layer.stream", counted)
    names = ("truncated_svd", "mask", "ia3")
    sizes = {name: [FAMILIES[name].size(31, 17, P) for P in (48, 100)] for name in names}
    for _ in range(2):  # as two layers of one shape do
        noise = Noise(5)
        shares = [noise.share(name, 31, 17, one) for name in names for one in sizes[name]]
        assert all(0 < share < 1 for share in shares)
    assert len(drawn) == 2  # of ΔW and of W


def test_noise_has_no_more_than_its_own_share(atlas):
    noise = atlas.pooled.dropna(subset=["noise"]).set_index(["family", "budget"])["noise"]
    assert abs(noise["mask", 600] - 600 / 2304) < 0.1
    assert 0.25 < noise["truncated_svd", 600] < 0.6
    assert noise["adalora", 600] == pytest.approx(noise["truncated_svd", 600])
    assert atlas.pooled.set_index(["family", "budget"]).loc[("truncated_svd", 600), "captured"] > (
        2 * noise["truncated_svd", 600]
    )


def test_finished_layers_are_taken_from_their_cells_and_other_settings_are_not(tmp_path):
    arguments = {"budgets": (600,), "families": FEW[3:5], "draws": 2, "cells": tmp_path}
    first = atlas_pair(layers(), **arguments)
    count = len(list(tmp_path.rglob("*.json")))
    assert count == 6
    again = atlas_pair(layers(), **arguments)
    assert again.pooled.equals(first.pooled)
    assert len(list(tmp_path.rglob("*.json"))) == count
    atlas_pair(layers(), **arguments | {"seed": 1})
    assert len(list(tmp_path.rglob("*.json"))) == 2 * count


def test_an_update_of_nothing_and_what_is_no_family_are_refused():
    with pytest.raises(InputError, match="every update is zero"):
        atlas_pair(layers(0.0), families=["mask"], draws=2)
    with pytest.raises(InputError) as caught:
        atlas_pair(layers(), families=["magic"])
    assert caught.value.argument == "families"
    for budgets in ((), (0,), (1.5,)):
        with pytest.raises(InputError) as caught:
            atlas_pair(layers(), budgets=budgets, families=["mask"])
        assert caught.value.argument == "budgets"


def test_the_verdict_counts_one_family_as_one():
    atlas = atlas_pair(layers(), budgets=(100,), families=["truncated_svd", "cosa_haar"], draws=2)
    assert atlas.verdict.startswith("Of 1 family ")
    assert atlas.verdict.endswith("; 1 family has no update of so few.")


def test_layers_without_an_update_count_for_nothing(atlas):
    some = layers()
    still = LayerDelta("layer.9.query.weight", np.zeros((24, 16)), np.ones((24, 16)))
    found = atlas_pair([*some, still], budgets=(700,), families=FEW[:3], draws=2)
    assert found.pooled["layers"].eq(6).all()
    assert found.pooled["captured"].notna().all()


def test_tables_and_figures_show_every_family_and_the_winner_of_every_layer(atlas):
    document = atlas.document({})
    families, budgets = PRESENTATION.views(document)
    labels = {FAMILIES[name].label for name in FEW}
    assert {line[0] for line in families.rows} == labels
    assert {line[0] for line in budgets.rows} == labels
    who = winners(document.tables)
    assert len(who) == 6
    assert set(who["family"]) <= {"truncated_svd", "adalora", "tucka", "dora"}
    assert trained(atlas.pooled)["group"].ne("stored").all()
    assert not FIGURES["atlas_function"].drawable(document.tables)  # without texts
    for name in ("atlas", "atlas_modules", "atlas_winners"):
        assert FIGURES[name].drawable(document.tables)
        assert FIGURES[name].draw(document.tables).axes


def test_each_module_has_its_panel_with_a_curve_per_family(atlas):
    tables = atlas.document({}).tables
    told = FIGURES["atlas_modules"].alternative(tables)
    assert "query " in told
    assert "; value " in told
    figure = FIGURES["atlas_modules"].draw(tables)
    assert [axes.get_title("left") for axes in figure.axes] == ["query", "value"]
    for axes in figure.axes:
        drawn = [line for line in axes.lines if line.get_marker() == "o"]
        assert len(drawn) == len(FEW) - 1  # low_bits only stores
        (mask,) = [line for line in axes.lines if line.get_label() == "law P/(mn)"]
        # Half of the parameters are in these three layers, and so is the law of their share.
        assert mask.get_xdata().max() == pytest.approx(1500 / 2, rel=0.01)
        assert mask.get_ydata().max() == pytest.approx(750 / (3 * 24 * 16), rel=0.01)


def test_a_mask_of_the_largest_gradients_joins_where_they_are_known(tmp_path):
    pair = layers()
    names = ["shira_gradient", "mask", "top_entries"]
    arguments = {"budgets": (600,), "families": names, "draws": 2, "cells": tmp_path}
    assert set(atlas_pair(pair, **arguments).pooled["family"]) == set(names[1:])
    # Gradients along the update choose the best mask, those against its size the worst.
    along = {layer.name: layer.delta.astype(np.float32) for layer in pair}
    against = {name: 1 / delta for name, delta in along.items()}
    first, last = (atlas_pair(pair, gradients=one, **arguments) for one in (along, against))
    best = row(first, "top_entries", 600)["captured"]
    assert row(first, "shira_gradient", 600)["captured"] == pytest.approx(best)
    assert row(last, "shira_gradient", 600)["captured"] < row(last, "mask", 600)["captured"] / 2
    some = dict(list(along.items())[:4])
    assert "2 of 6 matrices without a gradient" in " ".join(
        atlas_pair(pair, gradients=some, **arguments).notices
    )


def test_what_can_be_explored_is_every_family_of_all_matrices_and_of_each_type(atlas):
    tables = {name: getattr(atlas, name) for name in ("pooled", "families", "layers")}
    made = explorer(tables)
    places, budgets, families = (list(one.options) for one in made.choices)
    assert places == ["all matrices", "query", "value"]
    assert budgets == [100, 600, 1500]
    assert set(families) == {FAMILIES[name].label for name in FEW} - {FAMILIES["low_bits"].label}
    chosen = {one.name: one.chosen for one in made.choices}
    (told,) = [
        one for one in made.tables["shares"] if all(one[name] == chosen[name] for name in chosen)
    ]
    best = trained(atlas.pooled[atlas.pooled["budget"] == 600]).iloc[0]
    assert percent(best["captured"]) in told["says"]
    bars, curves, wins = drawn(made)
    shown = [one for one in made.tables["shares"] if one["place"] == "all matrices"]
    points = sum(one["budget"] == 600 for one in shown)
    noise = sum(one["budget"] == 600 and (one["noise"] or 0) > 1e-4 for one in shown)
    assert bars.count('aria-roledescription="point"') == points + noise
    assert curves.count('aria-roledescription="point"') == len(shown)
    assert wins.count('aria-roledescription="rect mark"') == 6


def test_an_atlas_without_an_update_of_any_family_has_nothing_to_explore(atlas):
    tables = {name: getattr(atlas, name) for name in ("pooled", "families", "layers")}
    tables["pooled"] = tables["pooled"].assign(captured=np.nan)
    tables["families"] = tables["families"].assign(captured=np.nan, parameters=0)
    assert explorer(tables) is None
