"""What is drawn is what is in the table."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cosa_theory.studies.spectrum.curves import plot_cumulative_energy, plot_spectrum
from cosa_theory.studies.spectrum.family_curves import (
    plot_captured_energy,
    plot_law_ratio,
)
from cosa_theory.studies.spectrum.maps import plot_excess_map, plot_flatness_map
from cosa_theory.studies.spectrum.pooling import pool_families
from tests.studies.spectrum.survey_tables import toy_tables

LAYER = "encoder.layer.1.intermediate.dense.weight"


@pytest.fixture
def ax():
    return Figure().subplots()


def labelled(ax, label):
    return next(line for line in ax.lines if line.get_label() == label)


def test_the_spectrum_is_drawn_as_stored_and_unresolved_values_are_shaded(ax):
    tables = toy_tables()
    rows = tables["spectra"][tables["spectra"]["layer"] == LAYER]
    plot_spectrum(ax, rows, tables["layers"][tables["layers"]["layer"] == LAYER])
    delta = rows[rows["matrix"] == "delta"]
    drawn = labelled(ax, "update ΔW").get_ydata()
    expected = np.where(delta["resolved"], delta["sigma"], np.nan)
    np.testing.assert_array_equal(drawn, expected)
    assert ax.get_yscale() == "log"
    shade = next(patch for patch in ax.patches if "resolution" in patch.get_label())
    first, last = delta.loc[~delta["resolved"], "index"].agg(["min", "max"])
    assert shade.get_x() == first - 0.5
    assert shade.get_x() + shade.get_width() == last + 0.5


def test_several_layers_are_drawn_as_their_median(ax):
    tables = toy_tables()
    rows = tables["spectra"][tables["spectra"]["module"] == "output.dense"]
    plot_spectrum(ax, rows)
    base = rows[rows["matrix"] == "base"].groupby("index")["sigma"].median()
    np.testing.assert_array_equal(labelled(ax, "base W").get_ydata(), base)


def test_a_zero_update_leaves_the_other_spectra_drawable(ax):
    tables = toy_tables(zero_layer=LAYER)
    rows = tables["spectra"][tables["spectra"]["layer"] == LAYER]
    plot_spectrum(ax, rows, tables["layers"][tables["layers"]["layer"] == LAYER])
    assert np.isnan(labelled(ax, "update ΔW").get_ydata()).all()
    ax.figure.canvas.draw()


def test_cumulative_energy_ends_at_one_beside_the_line_of_equal_parameters(ax):
    tables = toy_tables()
    rows = tables["spectra"][tables["spectra"]["layer"] == LAYER]
    plot_cumulative_energy(ax, rows, 96, 24)
    sigma = rows.loc[rows["matrix"] == "delta", "sigma"].to_numpy()
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.cumsum(sigma**2) / (sigma**2).sum())
    index, share = labelled(ax, "CoSA, equal size").get_data()
    np.testing.assert_allclose(share, index * (96 + 24) / (96 * 24))
    assert share.max() <= 1
    index, noise = labelled(ax, "noise").get_data()
    assert (index[0], index[-1], noise[-1]) == (1, 24, 1)
    # What the table gives noise, without the law of a core that it is divided by there.
    row = tables["crossover"].query("layer == @LAYER and rank_budget == 4").iloc[0]
    assert noise[list(index).index(4)] == pytest.approx(row["noise_ratio"] * row["law"])


def test_a_zero_update_has_no_cumulative_curve(ax):
    tables = toy_tables(zero_layer=LAYER)
    plot_cumulative_energy(ax, tables["spectra"][tables["spectra"]["layer"] == LAYER], 96, 24)
    assert {line.get_label() for line in ax.lines} == {
        "flat spectrum",
        "noise",
        "CoSA, equal size",
    }


def test_pooled_shares_weigh_layers_by_energy_and_their_half_widths_add_in_squares():
    families = pd.DataFrame(
        {
            "layer": ["p", "q"],
            "family": "cosa_haar",
            "rank_budget": [4, 2],
            "parameters": [40, 10],
            "captured": [0.2, 0.6],
            "ci_low": [0.1, 0.3],
            "ci_high": [0.3, 0.9],
            "law": [0.25, 0.5],
        }
    )
    layers = pd.DataFrame({"layer": ["p", "q", "zero"], "delta_norm": [3.0, 1.0, 0.0]})
    (row,) = pool_families(families, layers, [4]).to_dict("records")
    assert row["parameters"] == 50  # the layer without rank 4 enters at its nearest budget
    assert row["captured"] == pytest.approx(0.9 * 0.2 + 0.1 * 0.6)
    assert row["law"] == pytest.approx(0.9 * 0.25 + 0.1 * 0.5)
    half = np.hypot(0.9 * 0.1, 0.1 * 0.3)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.24 - half, 0.24 + half))


def test_a_family_that_misses_a_layer_is_not_pooled():
    tables = toy_tables()
    families = tables["families"][
        (tables["families"]["family"] != "lora_xs") | (tables["families"]["layer"] != LAYER)
    ]
    pooled = pool_families(families, tables["layers"], [2])
    assert "lora_xs" not in set(pooled["family"])
    assert {"truncated_svd", "cosa_gaussian"} <= set(pooled["family"])


def test_every_family_has_one_curve_and_the_law_its_own(ax):
    tables = toy_tables()
    shares = pool_families(tables["families"], tables["layers"], [1, 2, 4])
    plot_captured_energy(ax, shares)
    assert len(ax.containers) == shares["family"].nunique() + 1
    curve = ax.containers[0].lines[0]
    svd = shares[shares["family"] == "truncated_svd"]
    np.testing.assert_allclose(curve.get_ydata().astype(float), svd["captured"])


def test_measured_over_law_leaves_out_families_without_a_law(ax):
    tables = toy_tables()
    shares = pool_families(tables["families"], tables["layers"], [1, 2, 4])
    plot_law_ratio(ax, shares)
    assert len(ax.containers) == shares.dropna(subset=["law"])["family"].nunique() == 7
    places = np.concatenate([bars.lines[0].get_xdata() for bars in ax.containers])
    assert len(set(np.round(places, 6))) == len(places)  # side by side, never on top


@pytest.mark.parametrize("worst", [0.6, 1.3, 40.0])
def test_the_colours_of_the_excess_are_neutral_exactly_at_one(ax, worst):
    crossover = toy_tables()["crossover"]
    rows = crossover[crossover["rank_budget"] == 2].copy()
    rows["excess"] = np.linspace(min(worst, 1.1), max(worst, 1.1), len(rows))
    plot_excess_map(ax, rows)
    drawn = ax.collections[0]
    assert drawn.norm(1.0) == pytest.approx(0.5)
    assert sorted(drawn.get_array().compressed()) == pytest.approx(rows["excess"])


def test_heat_map_cells_hold_their_layer_and_gaps_stay_empty(ax):
    tables = toy_tables(zero_layer=LAYER)
    plot_flatness_map(ax, tables["layers"])
    modules = [label.get_text() for label in ax.get_yticklabels()]
    blocks = [label.get_text() for label in ax.get_xticklabels()]
    assert blocks == ["0", "1", "2", "3", "–"]
    cells = ax.collections[0].get_array().reshape(len(modules), len(blocks))
    first = tables["layers"].set_index("layer")["flatness"]["encoder.layer.2.output.dense.weight"]
    assert cells[modules.index("output.dense"), 2] == first
    assert cells.mask[modules.index("intermediate.dense"), 1]  # the zero update
    assert cells.mask[modules.index("pooler.dense"), 0]  # outside the blocks
