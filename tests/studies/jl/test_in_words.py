"""What the drawings of distortions say."""

import pandas as pd

from cosa_theory.studies.jl.figures import CURVES_FIGURE, FIGURES, VARIANCE_FIGURE


def curves():
    rows = [
        {"kind": kind, "eps": eps, "probability": p, "chi_square": law, "ci_low": p, "ci_high": p}
        for kind, part in (("gaussian", 1.0), ("sjlt", 2.0))
        for eps, law in ((0.1, 0.4), (0.3, 0.04), (0.6, 0.0))
        for p in (part * law,)
    ]
    return pd.DataFrame(rows).assign(vectors_of="unit vectors", k=64, d=256)


def test_failures_are_told_where_the_law_is_nearest_to_one_in_twenty():
    told = CURVES_FIGURE.alternative({"jl_curves": curves()})
    assert told == FIGURES["failures"].alternative({"curves": curves()})
    assert "off by more than ε = 0.3: of unit vectors (k = 64, d = 256) Gaussian 4.0 %" in told
    assert "8.0 %, where the χ² law gives 4.0 %." in told


def test_variances_are_told_beside_their_law_and_an_unstructured_map():
    table = pd.DataFrame(
        {
            "variance": [0.02, 0.04, 0.0],
            "law": [0.02, 0.02, 1e-12],
            "ci_low": [0.01, 0.03, 0.0],
            "ci_high": [0.03, 0.05, 0.0],
            "unstructured": [0.01, 0.01, 0.01],
        }
    )
    told = VARIANCE_FIGURE.alternative({"variance_law": table})
    assert "Of 2 measured variances 1 have their law in the 95 % interval" in told
    assert "measured over law is 1.50 in the median, from 1.00 to 2.00." in told
    assert "the variance is 3.00 in the median, from 2.00 to 4.00." in told
