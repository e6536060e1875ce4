"""What the drawings of isometry say."""

import pandas as pd

from cosa_theory.studies.rip.brackets import BRACKETS_FIGURE
from cosa_theory.studies.rip.figures import FIGURES
from cosa_theory.studies.rip.operators import OPERATORS


def test_the_first_and_the_last_order_are_told_with_their_proven_ends():
    about = next(iter(OPERATORS))
    table = pd.DataFrame(
        {"about": about, "s": [1, 2, 4], "lower": [0.1, 0.2, 0.3], "upper": [0.1, 0.4, 1.2]}
    )
    told = FIGURES["brackets"].alternative({"brackets": table})
    assert f"{OPERATORS[about].title}: δ_1 from 0.100 to 0.100, δ_4 from 0.300 to 1.20." in told
    both = pd.concat([table.assign(kind=kind) for kind in ("gaussian", "haar")])
    told = FIGURES["brackets"].alternative({"brackets": both})
    assert told.count("δ_4 from 0.300 to 1.20") == 2


def test_the_range_of_cores_is_told_for_every_ensemble():
    table = pd.DataFrame(
        {"scale": "synthesis", "kind": ["haar", "sjlt"], "least": [1, 0.2], "greatest": [1, 3.0]}
    )
    told = FIGURES["cores"].alternative({"cores": table})
    assert "at synthesis scale" in told
    assert "0.200 to 3.00" in told


def test_brackets_are_told_by_how_many_are_exact_and_to_which_order_they_promise():
    table = pd.DataFrame(
        {
            "about": "tall",
            "structure": ["plain", "plain", "kronecker"],
            "scale": "unit-norm",
            "status": "done",
            "s": [2, 8, 2],
            "lower": [0.5, 0.9, 1.5],
            "upper": [0.5, 0.95, 2.0],
        }
    )
    told = BRACKETS_FIGURE.alternative({"rip_brackets": table})
    assert "tall plain: 1 of 2 are exact to a hundredth" in told
    assert "below 1 up to order 8" in told
    assert "tall kronecker: 0 of 1 are exact to a hundredth" in told
    assert "below 1 at no order" in told
