"""What predicts function: an approximation's part along the update, and the rest of it."""

import numpy as np
import pandas as pd
import pytest

from cosa_theory.spectrum.approximations import APPROXIMATIONS
from cosa_theory.studies.function.compute import Trial
from cosa_theory.studies.function.tables import _pooled, _signal_and_noise, _stored


def layer(inner, norm, mapped):
    shares = {"inner": inner, "norm": norm, "weighted_inner": inner, "weighted_norm": norm}
    return {"energy": 1.0, "mapped": mapped, **shares}


def test_an_approximation_is_split_into_its_part_along_the_update_and_the_rest():
    # Twice the update plus something orthogonal of nine times its energy: c = 2, d = 9.
    found = _pooled([layer(2.0, 13.0, 5.0)], 1.0)
    assert found["signal"] == pytest.approx(2)
    assert found["noise"] == pytest.approx(9)
    halved = _pooled([layer(2.0, 13.0, 5.0)], 0.5)
    assert (halved["signal"], halved["noise"]) == (pytest.approx(1), pytest.approx(2.25))
    # Over layers each counts by how much its update does to its inputs.
    both = _pooled([layer(1.0, 1.0, 3.0), layer(0.0, 0.0, 1.0)], 1.0)
    assert both["signal"] == pytest.approx(0.75)


def test_noise_counts_as_much_as_the_control_was_measured_to_lose():
    table = pd.DataFrame(
        {
            "approximation": ["noisy", "adjoint_haar", "exact"],
            "signal": [1.0, 0.5, 1.0],
            "noise": [2.0, 1.0, 0.0],
        }
    )
    predicted = _signal_and_noise(table, np.array([0.9, 0.123, 0.456]))
    # λ = 0.1/2, and what was measured of the others is not looked at.
    assert predicted.tolist() == pytest.approx([0.9, 1 - 0.25 - 0.05, 1.0])


def test_without_the_control_nothing_is_predicted():
    table = pd.DataFrame({"approximation": ["svd"], "signal": [1.0], "noise": [0.0]})
    assert _signal_and_noise(table, np.array([1.0])).isna().all()


def test_a_transposed_matrix_stores_what_its_layer_does():
    trial = Trial(APPROXIMATIONS["one_sided_activation"], 2)
    assert _stored(trial, {"w": (12, 40)}, {"w"}) == _stored(trial, {"w": (40, 12)}, ())
    assert _stored(trial, {"w": (12, 40)}, ()) != _stored(trial, {"w": (40, 12)}, ())
