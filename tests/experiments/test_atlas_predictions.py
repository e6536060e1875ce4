"""What was expected of the atlas: every expectation can hold and fail."""

import pandas as pd
import pytest

from experiments.atlas_predictions import judge
from experiments.command import REFERENCE


def lead_of(**given):
    """Leads of some updates at the stated budget, as `leads` returns them."""
    rows = [
        {
            "update": name,
            "share": 0.01,
            "svd": 0.1,
            "core": 0.1 / value,
            "lead": value,
            "noise": 1.8,
            "matrices": 36,
            "crossed": 0,
            "least": 2.0,
            "best": "adalora",
            "cores_win": 0,
        }
        for name, value in given.items()
    ]
    return pd.DataFrame(rows)


GOOD = {
    "encoder_r8_100": 17.0,
    "encoder_r8_1000": 12.0,
    "encoder_r8_gradient": 30.0,
    "encoder_r8_adam": 8.0,
}


def outcomes(lead, **held):
    shares = {"mask": 0.01, "shira_gradient": 0.015, "top_entries": 0.08} | held
    pooled = pd.DataFrame(
        [
            {"update": "encoder_r8_100", "share": 0.01, "family": name, "captured": share}
            for name, share in shares.items()
        ]
    )
    return judge(lead, pooled)["outcome"].tolist()


@pytest.mark.parametrize(
    ("leading", "held"),
    [
        ({"encoder_r8_1000": 18.0}, {}),
        ({"encoder_r8_gradient": 16.0}, {}),
        ({"encoder_r8_adam": 18.0}, {}),
        ({"encoder_r8_adam": 3.0}, {}),
        ({}, {"shira_gradient": 0.011}),
        ({}, {"shira_gradient": 0.05}),
    ],
)
def test_each_expectation_can_fail_and_holds_where_it_was_right(leading, held):
    assert set(outcomes(lead_of(**GOOD))) == {"holds"}
    assert outcomes(lead_of(**GOOD | leading), **held).count("fails") == 1


@pytest.mark.parametrize(("column", "value"), [("crossed", 1), ("best", "mask")])
def test_a_crossing_and_another_winner_are_seen(column, value):
    lead = lead_of(**GOOD)
    lead.loc[0, column] = value
    assert outcomes(lead).count("fails") == 1


def function_of(**recovered):
    """Shares of energy and function of some families; intervals are 0.02 wide."""
    group = {"cosa_haar": "CoSA core", "adjoint_haar": "stored"}
    rows = [
        {
            "update": "sre_encoder",
            "share": 0.01,
            "family": family,
            "group": group.get(family, "other"),
            "captured": energy,
            "recovered": value,
            "recovered_low": value - 0.01,
            "recovered_high": value + 0.01,
        }
        for family, (energy, value) in recovered.items()
    ]
    return pd.DataFrame(rows)


AS_EXPECTED = {
    "truncated_svd": (0.23, 0.9),
    "dct": (0.11, 0.5),
    "waveft": (0.12, 0.5),
    "fourierft": (0.1, 0.4),
    "top_entries": (0.08, 0.3),
    "cosa_haar": (0.01, 0.03),
    "adjoint_haar": (-90.0, 0.8),
}


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"dct": (0.11, 0.95)}, "fails"),
        ({"dct": (0.11, 0.9)}, "undecided"),
        ({"cosa_haar": (0.01, 0.2)}, "fails"),
        ({"cosa_haar": (0.01, 0.1)}, "undecided"),
        ({"truncated_svd": (0.01, 0.9)}, "fails"),
    ],
)
def test_what_is_expected_of_function_can_hold_fail_and_stay_undecided(changed, outcome):
    lead = lead_of(sre_encoder=20.0)
    pooled = pd.DataFrame({"update": [], "share": [], "family": [], "captured": []})
    held = judge(lead, pooled, function_of(**AS_EXPECTED))
    assert set(held["outcome"]) == {"holds"}
    found = judge(lead, pooled, function_of(**AS_EXPECTED | changed))
    assert outcome in set(found["outcome"])


def test_what_is_committed_of_expectations_follows_from_the_committed_tables():
    tables = {
        name: pd.read_csv(REFERENCE / f"{name}.csv")
        for name in ("atlas", "atlas_leads", "atlas_function")
    }
    judged = judge(*(tables[name] for name in ("atlas_leads", "atlas", "atlas_function")))
    committed = pd.read_csv(REFERENCE / "atlas_judged.csv", dtype=str)
    pd.testing.assert_frame_equal(judged, committed)
