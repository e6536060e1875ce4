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
    assert "proven to be below 1 in 2 of them, up to order 8" in told
    assert "tall kronecker: 0 of 1 are exact to a hundredth" in told
    assert "proven to be below 1 in none." in told


def test_an_order_at_which_some_shapes_alone_are_proven_is_not_told_of_all():
    table = pd.DataFrame(
        {"s": [8, 8, 8], "lower": [0.9, 1.2, 1.3], "upper": [0.95, 1.4, 1.5], "status": "done"}
    ).assign(about="tall", structure="plain", scale="unit-norm")
    told = BRACKETS_FIGURE.alternative({"rip_brackets": table})
    assert "proven to be below 1 in 1 of them, up to order 8" in told
    assert "0 of 3" in told


def test_an_exact_isometry_is_told_as_zero_and_not_by_its_rounding():
    table = pd.DataFrame({"about": "matrix", "s": [2], "lower": [2.2e-16], "upper": [4.4e-15]})
    assert "δ_2 from 0 to 0." in FIGURES["brackets"].alternative({"brackets": table})
