"""Phase figures draw what is in the table, and the theory beside it."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cosa_theory.laws.recovery import l1_weak_threshold, packed_l1_threshold
from cosa_theory.page.document import Document
from cosa_theory.page.views import number
from cosa_theory.studies import presentation
from cosa_theory.studies.recovery.phase_figures import (
    PHASE_FIGURE,
    phase_figure,
    plot_ensembles,
    plot_packed_lines,
    plot_success_map,
)
from experiments.phase_lines import crossings

CORES = ((4, 5), (8, 10), (12, 15))
NO_RECOVERY = pd.DataFrame({"sweep": [], "status": []})
PACKINGS = ("random", "column", "row", "block")
CENTRES = {"random": 0.3, "column": 0.05, "row": 0.04, "block": 0.12}


def toy_table():
    """Logistic success curves of two ensembles on 16 × 20 updates."""
    rows = []
    for kind, shift in (("gaussian", 1.0), ("haar", 0.9)):
        for a, b in CORES if kind == "gaussian" else CORES[1:2]:
            for structure, factor in (("plain", 1.0), ("kronecker", 0.7)):
                for packing in PACKINGS:
                    d = a * b / 320
                    centre = CENTRES[packing] * factor * shift * (0.5 + d)
                    for rho in centre * np.array([0.5, 0.8, 1.0, 1.2, 1.6]):
                        share = 1 / (1 + np.exp((rho / centre - 1) * 8))
                        hits = round(10 * share)
                        rows.append(
                            {
                                **{"structure": structure, "kind": kind, "packing": packing},
                                **{"m": 16, "n": 20, "a": a, "b": b, "d": d, "rho": rho},
                                **{"share": hits / 10, "draws": 2, "trials": 20},
                                "successes_by_draw": json.dumps([hits, hits]),
                                **{"undecided": 0, "status": "done", "expected_rho": centre},
                                "weak_threshold": float(l1_weak_threshold(d)),
                            }
                        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def table():
    return toy_table()


@pytest.fixture(scope="module")
def lines(table):
    return crossings(table)


@pytest.fixture
def ax():
    return Figure().subplots()


def of(frame, **names):
    for name, value in names.items():
        frame = frame[frame[name] == value]
    return frame


def bars(ax):
    """Return the containers of error bars by label."""
    return {container.get_label(): container for container in ax.containers}


def test_a_map_colours_each_measured_point_and_draws_line_and_law(ax, table, lines):
    chosen = {"structure": "plain", "kind": "gaussian", "packing": "random"}
    cells, line = of(table, **chosen), of(lines, **chosen).sort_values("d")
    plot_success_map(ax, cells, line)
    meshes = [part for part in ax.collections if hasattr(part, "get_coordinates")]
    assert len(meshes) == 3
    for mesh, d in zip(meshes, sorted(cells["d"].unique()), strict=True):
        column = cells[cells["d"] == d].sort_values("rho")
        np.testing.assert_array_equal(mesh.get_array().ravel(), column["share"])
        corners = mesh.get_coordinates()
        assert corners[0, 0, 0] < d < corners[0, 1, 0]
        heights = corners[:, 0, 1]
        assert np.all(heights[:-1] < column["rho"])
        assert np.all(column["rho"] < heights[1:])
        assert mesh.get_clim() == (0.0, 1.0)
    drawn, _, (spread,) = bars(ax)["50 % of trials, with 95 % interval"]
    np.testing.assert_array_equal(drawn.get_xdata(), line["d"])
    np.testing.assert_array_equal(drawn.get_ydata(), line["rho50"])
    ends = np.array(spread.get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, line[["rho50_low", "rho50_high"]])
    law = next(one for one in ax.lines if one.get_label() == "weak threshold (theory)")
    np.testing.assert_allclose(law.get_ydata(), l1_weak_threshold(law.get_xdata()))


def test_cores_that_share_a_d_are_drawn_as_their_mean(ax, table, lines):
    chosen = {"structure": "plain", "kind": "gaussian", "packing": "random"}
    cells = of(table, **chosen)
    cells = cells[cells["d"] == cells["d"].max()]
    twice = pd.concat([cells, cells.assign(share=0.0)])
    mesh = plot_success_map(ax, twice, of(lines, **chosen))
    half = cells.sort_values("rho")["share"].to_numpy() / 2
    np.testing.assert_allclose(mesh.get_array().ravel(), half)


def test_a_line_without_a_crossing_is_left_out_of_the_map(ax, table, lines):
    chosen = {"structure": "plain", "kind": "gaussian", "packing": "random"}
    line = of(lines, **chosen).copy()
    line.loc[line.index[0], "rho50"] = np.nan
    plot_success_map(ax, of(table, **chosen), line)
    assert len(bars(ax)["50 % of trials, with 95 % interval"][0].get_xdata()) == 2


def test_a_single_depth_and_a_single_sparsity_can_be_drawn(ax, table, lines):
    one = of(table, structure="plain", kind="haar", packing="random").iloc[:1]
    mesh = plot_success_map(ax, one, of(lines, structure="plain", kind="haar", packing="random"))
    assert mesh.get_array().size == 1


def test_packed_lines_stand_beside_their_theory(ax, lines):
    rows = of(lines, kind="gaussian")
    assert plot_packed_lines(ax, rows) is ax
    assert ax.get_yscale() == "log"
    drawn = bars(ax)
    assert set(drawn) == {
        *("plain, random support", "Kronecker, random support"),
        *("Kronecker, block", "Kronecker, one column", "Kronecker, one row"),
    }
    column = of(rows, structure="kronecker", packing="column").sort_values("d")
    np.testing.assert_array_equal(drawn["Kronecker, one column"][0].get_ydata(), column["rho50"])
    colour = drawn["Kronecker, one column"][0].get_color()
    law = next(one for one in ax.lines if one.get_color() == colour and one.get_marker() == "None")
    a, b = CORES[1]
    at = np.interp(a * b / 320, law.get_xdata(), law.get_ydata())
    assert at == pytest.approx(packed_l1_threshold(16, 20, a, b, "column"), rel=1e-3)


def test_ensembles_are_drawn_with_triangles_where_the_crossing_is_beyond(ax, lines):
    shared = of(lines, a=8).copy()
    beyond = (shared["kind"] == "haar") & (shared["packing"] == "random")
    shared.loc[beyond & (shared["structure"] == "plain"), ["rho50", "rho50_low", "rho50_high"]] = (
        *(np.nan, 0.2),
        np.inf,
    )
    shared.loc[
        beyond & (shared["structure"] == "kronecker"), ["rho50", "rho50_low", "rho50_high"]
    ] = (*(np.nan, -np.inf), 0.1)
    plot_ensembles(ax, shared)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["Gaussian", "orthonormal"]
    marks = {one.get_marker(): one for one in ax.lines if len(one.get_xdata())}
    assert list(marks[">"].get_xdata()) == [0.2]
    assert list(marks["<"].get_xdata()) == [0.1]
    assert marks[">"].get_ydata()[0] < 1 < marks[">"].get_ydata()[0] + 0.5
    dashed = [
        one for one in ax.lines if list(one.get_xdata()) == [shared["weak_threshold"].iloc[0]] * 2
    ]
    assert len(dashed) == 1


def test_an_interval_that_reaches_zero_can_be_drawn_on_a_log_axis(ax, lines):
    shared = of(lines, a=8).copy()
    shared["rho50_low"] = -0.01
    shared["rho50_high"] = np.inf
    plot_ensembles(ax, shared)
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert 0 < low < shared["rho50"].min()
    assert np.isfinite(high)


def test_the_figure_has_two_maps_the_packed_supports_and_every_ensemble(table, lines):
    late = pd.DataFrame([{**table.iloc[0].to_dict(), "status": "timed out", "share": np.nan}])
    figure = phase_figure(pd.concat([table, late]), lines)
    upper, lower = figure.subfigs
    titles = [ax.get_title(loc="left") for part in (upper, lower) for ax in part.axes]
    assert titles[0] == "one plain Gaussian projection"
    assert titles[1].endswith("Gaussian")
    assert "packed supports, Gaussian" in titles
    assert "every ensemble, a = 8, b = 10, d = 0.25" in titles
    labels = [text.get_text() for text in lower.legends[0].get_texts()]
    assert "Kronecker, one column" in labels
    assert "theory of the same colour" in labels


def test_cores_with_as_many_numbers_are_told_and_drawn_apart(table, lines):
    tall = crossings(table[table["a"] == 8].assign(a=16, b=5))
    both = pd.concat([lines, tall], ignore_index=True)
    document = Document("experiments", "", (), {"phase_lines": both, "recovery": NO_RECOVERY}, {})
    view = presentation("experiments").views(document)[0]
    cores = [row[:3] for row in view.rows]
    assert ("CoSA, Gaussian", "8 × 10", "0.250") in cores
    assert ("CoSA, Gaussian", "16 × 5", "0.250") in cores
    right = phase_figure(table, both).subfigs[1].axes[1]
    assert max(len(one.get_xdata()) for one in right.lines) == both["kind"].nunique()


def test_the_half_way_points_are_told_beside_the_weak_threshold(lines):
    told = PHASE_FIGURE.alternative({"phase_lines": lines})
    for (structure, packing), rows in lines.groupby(["structure", "packing"]):
        known = rows["rho50"].dropna()
        expected = f"ρ from {number(known.min())} to" if len(known) else "nowhere"
        assert f"{structure}, {packing}: {expected}" in told


def test_a_table_without_finished_cells_has_no_figure(table):
    assert PHASE_FIGURE.drawable({"phase_transition": table})
    late = table.assign(status="timed out")
    assert not PHASE_FIGURE.drawable({"phase_transition": late})
