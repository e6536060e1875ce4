"""Informed families of updates, and their nulls."""

import numpy as np
import pytest

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.laws import informed_shape, informed_share
from cosa_theory.projections import SecondMoments
from cosa_theory.spectrum import compare_families
from cosa_theory.spectrum.families.base import Draws, Size, Update
from cosa_theory.spectrum.families.informed import Informed

M, N = 24, 48
RNG = np.random.default_rng(0)


def moments(n, seed, decay=0.75):
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    return SecondMoments((basis * decay ** np.arange(n)) @ basis.T)


INPUTS, GRADIENTS = moments(N, 1), moments(M, 2)
# A sum of δ xᵀ, and something that no input led to.
DELTA = GRADIENTS.matrix @ RNG.standard_normal((M, N)) @ INPUTS.matrix
DELTA += 0.1 * np.linalg.norm(DELTA) / np.sqrt(M * N) * RNG.standard_normal((M, N))


def rows(table, family):
    return table[table["family"] == family].set_index("rank_budget")


def test_informed_families_have_rows_where_their_moments_are_given_and_none_otherwise():
    families = ["cosa_activation", "cosa_gradient"]
    for given, found in (
        ({}, set()),
        ({"moments": INPUTS}, {"cosa_activation"}),
        ({"gradients": GRADIENTS}, set()),
        ({"moments": INPUTS, "gradients": GRADIENTS}, set(families)),
    ):
        table = compare_families(DELTA, families=families, ranks=[1, 2, 3], **given)
        assert set(table["family"]) == found
        assert len(table) == 3 * len(found)
        assert table["law"].isna().all()  # what C says beforehand is no law


def test_the_share_of_a_one_sided_core_is_that_of_its_basis_and_beats_the_law():
    table = rows(compare_families(DELTA, moments=INPUTS, ranks=[2, 4]), "cosa_activation")
    for rank, row in table.iterrows():
        assert (row["a"], row["draws"]) == (M, 0)
        assert row["parameters"] <= rank * (M + N)
        basis = CosaBasis.sample(M, N, row["a"], row["b"], kind="activation", moments=INPUTS)
        assert row["captured"] == pytest.approx(basis.captured_energy(DELTA))
        assert row["captured"] > 3 * row["parameters"] / (M * N)


def test_both_sides_of_a_gradient_informed_core_are_those_of_its_basis():
    known = {"moments": INPUTS, "gradients": GRADIENTS}
    table = rows(compare_families(DELTA, **known, ranks=[1, 3]), "cosa_gradient")
    for rank, row in table.iterrows():
        shape = row["a"], row["b"]
        assert shape == informed_shape(M, N, rank * (M + N), INPUTS.shares(N), GRADIENTS.shares(M))
        basis = CosaBasis.sample(M, N, *shape, kind="gradient", **known)
        assert row["captured"] == pytest.approx(basis.captured_energy(DELTA))


def test_where_the_left_side_is_drawn_the_share_is_that_of_the_law_on_average():
    wide = np.random.default_rng(3).standard_normal((200, 6)) @ moments(6, 4).matrix
    update = Update(wide, None, np.linalg.svd(wide, compute_uv=False), inputs=moments(6, 4))
    size = Size(200, "a=100, b=2", a=100, b=2, rank=2)
    (found,) = Informed("activation").of(update).capture(update, [size], Draws(400))
    vectors = moments(6, 4).leading(6)[1]
    held = np.cumsum(np.sum((wide @ vectors) ** 2, axis=0)) / np.sum(wide**2)
    assert found.draws > 2
    law = informed_share(100, 200, 2, held)
    assert abs(found.mean - law) < 5 * found.sd / np.sqrt(found.draws)


def test_a_transposed_layer_captures_what_the_layer_does():
    known = {"moments": INPUTS, "gradients": GRADIENTS, "ranks": [2]}
    families = ["cosa_activation", "cosa_gradient"]
    plain = compare_families(DELTA, **known, families=families)
    turned = compare_families(DELTA.T.copy(), **known, families=families, transposed=True)
    assert plain.round(10).equals(turned.round(10))


def test_moments_of_few_directions_make_a_smaller_core():
    x = RNG.standard_normal((3, N))
    few = SecondMoments(x.T @ x / 3, count=3)
    row = compare_families(DELTA, moments=few, ranks=[4], families=["cosa_activation"]).iloc[0]
    assert (row["a"], row["b"], row["parameters"]) == (M, 3, 3 * M)


def test_moments_of_another_layer_are_refused():
    with pytest.raises(InputError, match=f"length {M}: the layer has {N}"):
        compare_families(DELTA, moments=GRADIENTS)
