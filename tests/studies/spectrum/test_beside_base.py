"""The survey places updates beside their weights: every number with its null, and what is not."""

import numpy as np
import pandas as pd
import torch

import cosa_theory.studies.spectrum.beside_base as beside_base
from cosa_theory.deltas import LayerDelta, open_pair
from cosa_theory.studies.spectrum.beside_base import base_notices, base_view
from cosa_theory.studies.spectrum.pair import survey_pair
from tests.studies.spectrum.survey_tables import toy_tables

QUICK = {"families": [], "matrices": ["delta"]}
ZERO = "encoder.layer.0.attention.self.query.weight"


def test_every_number_stands_beside_its_null_and_medians_come_last():
    layers = toy_tables(blocks=1, zero_layer=ZERO)["layers"]
    view = base_view(layers)
    shown = dict(zip([column.header for column in view.columns], view.rows[1], strict=True))
    assert [column.header for column in view.columns].count("random") == 4
    assert (shown["intruders"], shown["zeros"], shown["dense"]) == ("2", "0 %", "12.5 %")
    assert view.rows[1][2] == "0–1"
    assert view.rows[1][6] == "20.0 % ± 20.0"
    assert view.rows[0][1:9] == ("–",) * 8  # a zero update has no directions
    assert (len(view.rows), view.rows[-1][0]) == (len(layers) + 1, "median")
    assert view.rows[-1][1:] == view.rows[1][1:]
    assert base_view(layers[:0]).rows == ()


def test_more_intruders_than_at_random_are_noticed():
    layers = toy_tables(blocks=1, zero_layer=ZERO)["layers"]
    [text] = base_notices(layers)
    assert text.startswith("6 of 6 updates bring more intruder dimensions than random ones")
    assert list(base_notices(layers.assign(intruders=layers["intruders_null_high"]))) == []


def test_weights_stored_in_bfloat16_are_noticed_with_what_rounding_makes_of_a_dense_update():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(60, 50, generator=generator).bfloat16()
    tuned = (base + 1e-3 * torch.randn(60, 50, generator=generator)).bfloat16()
    survey = survey_pair(open_pair({"q.weight": base}, {"q.weight": tuned}), **QUICK)
    row = survey.layers.iloc[0]
    assert row["zero_share"] == row["bf16_lost_share"] == (base == tuned).double().mean().item()
    expected = f"{100 * row['bf16_lost_null']:.1f} % of a dense update of this size"
    [text] = [one for one in survey.notices if "bfloat16" in one]
    assert f"{100 * row['zero_share']:.1f} % of the update's entries are zero" in text
    assert expected in text


def test_large_matrices_are_not_decomposed_and_it_is_said(monkeypatch):
    monkeypatch.setattr(beside_base, "LARGEST_SIDE", 10)
    rng = np.random.default_rng(0)
    pair = [
        LayerDelta(name, *rng.standard_normal((2, *shape)).astype(np.float32))
        for name, shape in (("large", (12, 30)), ("small", (10, 30)))
    ]
    survey = survey_pair(pair, **QUICK)
    large, small = survey.layers.to_dict("records")
    assert pd.isna(large["intruders"])
    assert pd.isna(large["left_overlap"])
    assert small["intruders"] >= 0
    assert large["bf16_lost_null"] > 0
    assert any("No intruder dimensions or overlaps of 1 matrix" in one for one in survey.notices)
