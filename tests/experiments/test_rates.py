"""A grid of rates grows on the side of its best."""

import pandas as pd
import pytest

from experiments.rates import best_quarter, grown


def test_a_grid_grows_beyond_a_best_at_its_edge_alone():
    assert grown([-11, -10, -9], -9) == [-11, -10, -9, -8]
    assert grown([-11, -10, -9], -11) == [-11, -10, -9, -12]
    assert grown([-11, -10, -9], -10) is None


@pytest.mark.parametrize("diverged", [float("nan"), None])
def test_a_training_that_diverged_is_never_the_best(diverged):
    table = pd.DataFrame({"quarter": [-10, -9, -8], "loss": [0.3, 0.2, diverged]}, dtype=object)
    assert best_quarter(table) == -9
