"""What can be explored of an audit: outcomes, and margins to the thresholds."""

import numpy as np

from cosa_theory.studies.audit.assumptions import ASSUMPTIONS
from cosa_theory.studies.audit.explorer import explorer
from cosa_theory.studies.audit.pair import audit_pair
from tests.page.drawing import drawn
from tests.studies.audit.layers import dense, layer, low_rank


def audited(gradients=True):
    layers = [layer(dense(40, 30, seed=i), f"enc.layer.{i}.q.weight") for i in range(2)]
    layers.append(layer(low_rank(1, 40, 30, seed=9), "embed.weight"))
    given = {one.name: low_rank(2, 40, 30, seed=3) for one in layers} if gradients else None
    return audit_pair(layers, draws=4, gradients=given).tables


def test_margins_are_on_the_side_of_one_that_the_outcome_says():
    tables = audited()
    made = explorer(tables)
    rows = made.tables["outcomes"]
    assert len(rows) == tables["assumptions"]["value"].notna().sum()
    for row in rows:
        if row["outcome"] == "holds":
            assert min(row["margin_low"], row["margin_high"]) >= 0.999
        elif row["outcome"] == "fails":
            assert max(row["margin_low"], row["margin_high"]) <= 1.001
        assert ASSUMPTIONS[row["assumption"]].title in row["says"]
    assert [one.name for one in made.choices] == ["subject", "assumption", "module", "layer"]


def test_every_chart_shows_the_chosen_assumption_and_layer():
    tables = audited(gradients=False)
    made = explorer(tables)
    assert [one.name for one in made.choices] == ["assumption", "module", "layer"]
    chosen = {one.name: one.chosen for one in made.choices}
    rows = made.tables["outcomes"]
    of_layer = sum(one["layer"] == chosen["layer"] for one in rows)
    of_assumption = sum(one["assumption"] == chosen["assumption"] for one in rows)
    cells, margins, strip = drawn(made)
    assert cells.count('aria-roledescription="rect mark"') == of_assumption
    assert margins.count('aria-roledescription="point"') == of_layer
    assert strip.count('aria-roledescription="point"') == of_assumption


def test_zero_updates_leave_nothing_to_explore():
    zero = audit_pair([layer(np.zeros((40, 30)))], draws=4).tables
    judged = explorer(zero)
    assert judged is None or all(row["value"] is not None for row in judged.tables["outcomes"])
