"""The figure of the atlas of real updates: a row per update, a column per family, leads beside."""

import pandas as pd
import pytest

from cosa_theory.spectrum.families.base import FAMILIES
from experiments.atlas import SHARES
from figures.atlas import DRAWING, shown_families

UPDATES = ("encoder_r8_gradient", "encoder_r8_100", "chgnet")


def toy():
    shares = {name: 0.02 + 0.004 * place for place, name in enumerate(FAMILIES)}
    pooled = pd.DataFrame(
        [
            {
                "update": update,
                "share": share,
                "family": name,
                "group": family.group,
                "captured": shares[name],
            }
            for update in UPDATES
            for share in SHARES
            for name, family in FAMILIES.items()
        ]
    )
    leads = pd.DataFrame(
        [
            {"update": update, "share": share, "lead": 3.0 + place, "noise": 1.8}
            for place, update in enumerate(UPDATES)
            for share in SHARES
        ]
    )
    return {"atlas": pooled, "atlas_leads": leads}


@pytest.fixture
def tables():
    return toy()


def test_of_each_kind_that_trains_the_families_that_hold_most_are_shown(tables):
    shown = shown_families(tables["atlas"])
    kinds = pd.Series({name: FAMILIES[name].group for name in shown})
    assert kinds.value_counts().max() == 4
    assert set(kinds) == {one.group for one in FAMILIES.values()} - {"stored"}
    cores = [name for name, one in FAMILIES.items() if one.group == "CoSA core"]
    assert [name for name in shown if name in cores] == cores[-4:]  # shares rise with the place


def test_each_update_has_a_row_with_its_shares_and_its_lead(tables):
    shares, leads = DRAWING.draw(tables).axes
    shown = shown_families(tables["atlas"])
    assert len(shares.get_yticks()) == len(UPDATES)
    assert len(shares.texts) == len(UPDATES) * len(shown)
    first = FAMILIES[shown[0]].name
    share = tables["atlas"].set_index("family").loc[first, "captured"].iloc[0]
    assert shares.texts[0].get_text() == f"{100 * share:.2g}"
    assert [line.get_xdata().tolist() for line in leads.lines[:3]] == [[3.0, 4.0, 5.0]] * 3


def test_without_leads_the_shares_are_drawn_alone(tables):
    figure = DRAWING.draw({"atlas": tables["atlas"]})
    assert not figure.axes[1].lines


def test_rows_without_a_number_or_a_known_update_are_left_out(tables):
    pooled = tables["atlas"]
    gone = pooled.assign(captured=pooled["captured"].where(pooled["update"] != "chgnet"))
    assert "interatomic" not in DRAWING.alternative(tables | {"atlas": gone})
    for nothing in (pooled.assign(captured=float("nan")), pooled.assign(update="mine"), pooled[:0]):
        assert not DRAWING.drawable({"atlas": nothing})
