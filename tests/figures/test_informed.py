"""The figure of informed projections: its curves for every pair that is measured."""

import itertools

import pandas as pd

from cosa_theory.studies.informed.figures import INFORMED_FIGURE
from figures.command import draw_table


def pooled(pair):
    kinds = (("top", "one_sided"), ("top", "two_sided"), ("block", "one_sided"))
    rows = [
        {"calibration": calibration, "basis": basis, "shape": shape, "texts": 128, "rank": rank}
        for calibration in ("random", "other", "same")
        for (basis, shape), rank in itertools.product(kinds, (2, 8, 32))
    ]
    table = pd.DataFrame(rows).assign(
        pair=pair, matrices=36, law=lambda one: one["rank"] / 256, svd=0.5
    )
    share = 4 * table["law"]
    return table.assign(share=share, share_low=0.8 * share, share_high=1.2 * share)


def test_every_pair_has_a_panel_with_its_law_low_rank_and_informed_curves():
    figure = INFORMED_FIGURE.draw({"informed": pd.concat(map(pooled, ("sre_encoder", "other")))})
    (ax,) = figure.axes
    labels = ax.get_legend_handles_labels()[1]
    assert {"law ab/(mn)", "low rank (SVD)", "random tokens", "texts of its kind"} <= set(labels)
    assert not INFORMED_FIGURE.drawable({"informed": pooled("other")})
    told = INFORMED_FIGURE.alternative({"informed": pooled("sre_encoder")})
    assert "budget of rank 8: low rank 50.0 %" in told
    assert "random tokens 12.5 %" in told
    assert "law 3.1 %" in told


def test_law_and_low_rank_are_those_of_the_most_matrices():
    table = pooled("sre_encoder")
    few = table.assign(texts=8, matrices=3, svd=0.1, law=0.9)
    none = table.assign(texts=4, matrices=0, svd=float("nan"), law=float("nan"))
    tables = {"informed": pd.concat([none, few, table], ignore_index=True)}
    assert "budget of rank 8: low rank 50.0 %" in INFORMED_FIGURE.alternative(tables)
    drawn = {
        line.get_label(): list(line.get_ydata())
        for line in INFORMED_FIGURE.draw(tables).axes[0].lines
    }
    assert drawn["low rank (SVD)"] == [0.5] * 3
    assert drawn["law ab/(mn)"] == [2 / 256, 8 / 256, 32 / 256]


def test_the_figure_is_drawn_from_the_stored_table(tmp_path):
    pooled("encoder_r8_100").to_parquet(tmp_path / "informed.parquet")
    out = tmp_path / "out"
    assert (
        draw_table("informed", INFORMED_FIGURE, "informed", [str(tmp_path), "--out", str(out)]) == 0
    )
    assert (out / "informed.png").stat().st_size > 10_000
