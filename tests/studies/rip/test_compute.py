"""The isometry of a layer and of a matrix: brackets that hold, and figures that show them."""

import numpy as np
import pytest

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.isometry.rip import rip_exact
from cosa_theory.studies.rip.compute import layer_isometry, matrix_isometry
from cosa_theory.studies.rip.figures import FIGURES
from cosa_theory.studies.rip.verdict import verdict


def test_the_same_seed_prints_the_same_and_another_seed_other_brackets():
    first, again, other = (
        layer_isometry((12, 10), (6, 5), [2], about=("sensing",), seed=seed)["brackets"]["lower"]
        for seed in (0, 0, 1)
    )
    assert list(first) == list(again)
    assert list(first) != list(other)


def test_the_brackets_of_a_layer_hold_for_the_operators_formed():
    kinds = ("gaussian", "very_sparse", "haar")
    table = layer_isometry((5, 4), (3, 2), [1, 2, 3], kinds=kinds, seed=1)["brackets"]
    for row in table.to_dict("records"):
        basis = CosaBasis.sample(5, 4, 3, 2, kind=row["kind"], scale=row["scale"], seed=1)
        tall = row["about"] == "dictionary"
        operator = basis.dictionary() if tall else basis.sensing()
        assert operator.shape == (row["rows"], row["columns"])
        exact = rip_exact(operator @ np.eye(operator.shape[1]), row["s"]).value
        assert row["lower"] - 1e-9 <= exact <= row["upper"] + 1e-9


def test_figures_are_drawn_from_the_tables_of_a_layer_and_of_a_matrix():
    layer = layer_isometry((12, 10), (6, 5), [1, 2], kinds=("gaussian", "haar"))
    axes = FIGURES["brackets"].draw(layer).axes
    assert [ax.get_title(loc="left") for ax in axes] == [
        "tall Ψ: s-sparse cores, 120 × 30",
        "wide Φ: s-sparse updates, 30 × 120",
    ]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[0].get_ylim()[1] > layer["brackets"]["upper"].max()
    assert {"Gaussian", "orthonormal"} < set(axes[0].get_legend_handles_labels()[1])
    assert len(FIGURES["cores"].draw(layer).axes) == 2
    single = matrix_isometry(np.eye(4), [1, 2])
    assert len(FIGURES["brackets"].draw(single).axes) == 1
    assert FIGURES["brackets"].drawable(single)
    assert not FIGURES["cores"].drawable(single)
    assert verdict(single).startswith("A is proven to have δ_s < 1 on vectors with up to 2")


def test_a_range_that_begins_at_zero_is_an_arrow_at_the_left_edge():
    cores = layer_isometry((12, 10), (6, 5), [1])  # very sparse factors are singular there
    first = FIGURES["cores"].draw(cores).axes[0]
    (arrow,) = (line for line in first.lines if line.get_marker() == r"$\leftarrow$")
    assert arrow.get_xdata()[0] == min(np.min(line.get_xdata()) for line in first.lines)


def test_orders_are_those_that_both_operators_have_though_the_core_is_the_larger():
    assert list(layer_isometry((1, 1), (2, 2))["brackets"]["s"]) == [1, 1]
    with pytest.raises(InputError, match="sparsity is 2: it must be a whole number from 1 to 1"):
        layer_isometry((1, 1), (2, 2), [2])
    with pytest.raises(InputError, match="about is 'matrix': it must be one of dictionary"):
        layer_isometry((2, 2), (1, 1), about=("matrix",))


def test_what_is_guaranteed_of_cores_is_not_told_of_updates():
    # A core that is larger than its update makes the dictionary the wide one of the two.
    text = verdict(layer_isometry((4, 4), (6, 6), [2]))
    assert "All cores with at most 1 nonzero entry are guaranteed" in text
    assert "no method recovers all cores with more than" in text
    assert "ll updates with at most" not in text
