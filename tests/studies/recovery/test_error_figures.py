"""The drawings of what comes back show the numbers of their table, and which law they obey."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cosa_theory.page.views import percent
from cosa_theory.studies.recovery.error_figures import (
    RECOVERY_FIGURE,
    plot_bases,
    plot_compression,
    plot_curves,
    plot_real,
    recovery_figure,
)

CENTRE = {
    **{"update": "sparse", "parameter": 6.0, "sparse_in": "coordinate", "m": 8, "n": 8, "a": 4},
    **{"b": 4, "kind": "gaussian", "noise": 0.0, "basis": "coordinate", "method": "fista"},
    **{"status": "done"},
}


def rows(sweep, changes, errors):
    """Return a row of a sweep for each change of the centre, with its error."""
    made = [
        {**CENTRE, "sweep": sweep, **change, "relative_error": error}
        for change, error in zip(changes, errors, strict=True)
    ]
    return pd.DataFrame(made).assign(
        share=lambda table: 1 - table["relative_error"] ** 2, least_norm_share=0.25
    )


@pytest.fixture
def ax():
    return Figure().add_subplot()


def curves(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


REAL = rows(
    "real",
    [
        *({"update": name, "method": "least_norm", "a": a} for name in "xyz" for a in (4, 8)),
        *({"update": "x", "basis": basis} for basis in ("coordinate", "dct")),
        *({"update": "y", "basis": basis} for basis in ("coordinate", "dct")),
        *({"update": "z", "basis": basis} for basis in ("coordinate", "dct")),
        {"update": "x", "basis": "dct", "method": "basis_pursuit"},
    ],
    [math.sqrt(0.75)] * 6 + [0.5, 1.2, 1.0, 1.1, 1.0, 1.1, 1.15],
)


def test_curves_are_medians_and_stop_at_the_floor(ax):
    table = rows(
        "sparsity",
        [{"parameter": s} for s in (2, 2, 2, 4)] + [{"parameter": 2, "method": "omp"}],
        [0.1, 0.2, 0.9, 0.5, 1e-15],
    )
    plot_curves(ax, table, "parameter", "method")
    found = curves(ax)
    np.testing.assert_array_equal(found["fista"].get_xdata(), [2, 4])
    np.testing.assert_allclose(found["fista"].get_ydata(), [0.2, 0.5])
    low = ax.get_ylim()[0]
    assert low < found["omp"].get_ydata()[0] < 2 * low
    assert ax.get_yscale() == "log"


def test_ensembles_have_their_labels_and_unknown_methods_are_drawn(ax):
    table = rows("ensemble", [{"kind": "haar"}, {"kind": "sjlt"}], [0.1, 0.2])
    plot_curves(ax, table, "parameter", "kind")
    assert set(curves(ax)) == {"orthonormal", "sparse JL"}
    plot_curves(ax, table.assign(method="brand_new"), "parameter", "method")
    assert "brand new" in curves(ax)


def test_compression_draws_solvers_least_norm_and_the_law(ax):
    changes = [{"a": a, "method": method} for a in (2, 8) for method in ("fista", "least_norm")]
    nuclear = [{"a": 2, "method": "nuclear"}]
    table = rows("compression", changes + nuclear, [0.3, 0.9, 0.1, 0.7, 5.0])
    plot_compression(ax, table)
    found = curves(ax)
    np.testing.assert_allclose(found["sparse, s = 6"].get_ydata(), [0.3, 0.1])
    np.testing.assert_allclose(found["sparse, s = 6"].get_xdata(), [8 / 64, 32 / 64])
    (hollow,) = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(hollow.get_ydata(), [0.9, 0.7])
    law = found["√(1 − ab/(mn))"]
    np.testing.assert_allclose(law.get_ydata() ** 2, 1 - law.get_xdata())


def test_real_updates_show_the_best_solver_and_fill_what_beats_least_norm(ax):
    plot_real(ax, REAL)
    found = curves(ax)
    np.testing.assert_allclose(found["coordinates"].get_ydata(), [0.0], atol=1e-12)  # of ¾, 0, 0
    np.testing.assert_allclose(found["cosines"].get_ydata(), [1 - 1.1**2])
    filled = [
        line
        for line in ax.lines
        if line.get_markerfacecolor() not in ("white", "none")
        and line.get_linestyle() == "None"
        and line.get_marker() != "_"
        and len(line.get_xdata())
    ]
    assert [list(line.get_ydata()) for line in filled] == [[0.75]]
    drawn = np.concatenate([line.get_ydata() for line in ax.lines])
    assert not np.isclose(drawn, 1 - 1.2**2).any()  # the other solver of x was better
    law = found["ab/(mn)"]
    np.testing.assert_allclose(law.get_ydata(), law.get_xdata())
    np.testing.assert_allclose(found["least norm"].get_ydata(), [0.25] * 6)


def test_bases_are_a_table_of_median_errors(ax):
    changes = [
        {"sparse_in": truth, "basis": basis}
        for truth in ("coordinate", "dct")
        for basis in ("coordinate", "dct")
    ]
    table = rows("basis", changes + changes[:1] * 2, [1e-15, 0.9, 1.02, 0.2, 1e-15, 0.5])
    plot_bases(ax, table)
    assert [text.get_text() for text in ax.texts] == ["1e-15", "0.90", "1.02", "0.20"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[1e-15, 0.9], [1.02, 0.2]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["coord.", "dct"]


def whole():
    two = [{"method": "fista"}, {"method": "least_norm"}]
    return pd.concat(
        [
            rows("compression", two, [0.1, 0.9]),
            rows("sparsity", two, [0.1, 0.9]),
            rows("noise", [{"noise": 0.01}, {"noise": 0.1}], [0.02, 0.2]),
            rows("ensemble", [{"kind": "haar"}], [0.1]),
            rows("basis", [{}], [0.1]),
            REAL,
        ],
        ignore_index=True,
    )


def test_the_figure_has_a_panel_for_every_sweep_of_its_table():
    titles = [ax.get_title(loc="left") for ax in recovery_figure(whole()).axes]
    assert titles[0] == "synthetic, m = 8, n = 8: fista; hollow, least norm"
    assert titles[1] == r"3 real updates, $\ell_1$ in each basis"
    assert titles[3] == "sparse, s = 6, with noise"
    table = whole()
    figure = recovery_figure(table[table["sweep"].isin(["noise", "sparsity", "basis"])])
    assert [bool(ax.get_title(loc="left")) for ax in figure.axes] == [True, True, True, False]
    assert figure.axes[0].get_title(loc="left").startswith("sparse, m = 8, n = 8, a = 4, b = 4")


def test_only_finished_cells_are_drawn():
    late = whole().assign(status="timed out")
    assert not RECOVERY_FIGURE.drawable({"recovery": late})
    assert RECOVERY_FIGURE.drawable({"recovery": whole()})


def test_what_comes_back_is_told_in_words():
    table = whole()
    told = RECOVERY_FIGURE.alternative({"recovery": table})
    real = table[(table["sweep"] == "real") & (table["method"] == "least_norm")]
    assert f"least norm {percent(real['share'].median())}." in told
    assert "Of 3 real updates" in told
    assert "by least norm" in told
    sparse = RECOVERY_FIGURE.alternative({"recovery": table[table["sweep"] == "noise"]})
    assert sparse == "Sparse updates by solver, noise, ensemble and basis."
