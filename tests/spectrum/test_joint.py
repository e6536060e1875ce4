"""Families of several layers: budgets that are spread, factors that are shared."""

from itertools import product

import numpy as np
import pytest

from cosa_theory.spectrum.families.base import Update
from cosa_theory.spectrum.families.joint import JOINT, Together, spread_ranks, tucker_ranks
from cosa_theory.spectrum.singular_values import singular_values


class Walked:
    """Layers that are made anew at each walk, as those of a pair on disk are."""

    def __init__(self, deltas):
        self.deltas = deltas

    def __iter__(self):
        for delta in self.deltas:
            yield Update(delta, None, np.empty(0))


def updates(count, m, n, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((m, 4)) @ rng.standard_normal((4, n)) for _ in range(count)]


def residual(found, deltas):
    assert isinstance(found, Together)
    layers = list(Walked(deltas))
    made = [found.fit(place, layer).update() for place, layer in enumerate(layers)]
    return sum(np.sum((one - two) ** 2) for one, two in zip(deltas, made, strict=True))


@pytest.mark.parametrize("parameters", [9, 20, 47])
def test_one_spectrum_for_all_layers_spreads_the_ranks_as_trying_all_does(parameters):
    rng = np.random.default_rng(2)
    spectra = [np.sort(rng.exponential(size=3))[::-1] for _ in range(4)]
    ranks = spread_ranks(spectra, [(5, 4)] * 4, parameters)
    held = sum(np.sum(s[:r] ** 2) for s, r in zip(spectra, ranks, strict=True))
    best = max(
        sum(np.sum(s[:r] ** 2) for s, r in zip(spectra, some, strict=True))
        for some in product(range(4), repeat=4)
        if 9 * sum(some) <= parameters
    )
    assert held == pytest.approx(best)
    assert 9 * sum(ranks) <= parameters


def test_layers_of_other_sizes_pay_for_their_directions():
    spectra = [np.array([2.0, 1.0]), np.array([2.1, 1.0])]
    # The second layer's first direction holds more, but costs ten times as much.
    assert spread_ranks(spectra, [(2, 2), (20, 20)], 8) == [2, 0]
    assert spread_ranks(spectra, [(2, 2), (20, 20)], 48) == [2, 1]
    assert spread_ranks([np.zeros(2)], [(2, 2)], 100) == [0]


@pytest.mark.parametrize("name", sorted(JOINT))
def test_joint_families_keep_to_the_budget_and_count_shared_numbers_once(name):
    deltas = updates(5, 12, 8)
    for parameters in (160, 300):
        found = JOINT[name].best(Walked(deltas), parameters)
        assert found.parameters <= parameters
        fits = [found.fit(at, layer) for at, layer in enumerate(Walked(deltas))]
        if name == "adalora":
            assert sum(part.size for fit in fits for part in fit.trained) == found.parameters
        else:
            assert all(sum(p.size for p in fit.trained) == found.parameters for fit in fits)


@pytest.mark.parametrize("name", sorted(JOINT))
def test_a_budget_below_one_direction_is_told_with_the_reason(name):
    assert "numbers" in JOINT[name].best(Walked(updates(5, 12, 8)), 10)


def test_adalora_is_the_truncated_svd_of_every_layer_at_its_rank():
    deltas = updates(3, 12, 8)
    deltas[1] *= 5
    found = JOINT["adalora"].best(Walked(deltas), 140)
    ranks = [size.rank for size in found.rows]
    assert sum(ranks) == 7
    assert ranks[1] == 4
    expected = sum(np.sum(singular_values(d)[r:] ** 2) for d, r in zip(deltas, ranks, strict=True))
    assert residual(found, deltas) == pytest.approx(expected)


def test_tucker_finds_updates_that_share_their_sides_and_improves_on_its_start():
    rng = np.random.default_rng(4)
    left, right = rng.standard_normal((12, 3)), rng.standard_normal((8, 2))
    shared = [left @ rng.standard_normal((3, 2)) @ right.T for _ in range(5)]
    p, q, s = tucker_ranks(5, 12, 8, 140)
    assert q >= 3
    assert s >= 2
    assert residual(JOINT["tucka"].best(Walked(shared), 140), shared) < 1e-18 * 1e4

    deltas = updates(5, 12, 8)
    found = JOINT["tucka"].best(Walked(deltas), 140)
    stacked = np.stack(deltas)
    sides = [
        np.linalg.svd(np.moveaxis(stacked, axis, 0).reshape(size, -1))[0][:, :k]
        for axis, size, k in ((0, 5, p), (1, 12, q), (2, 8, s))
    ]
    core = np.einsum("lmn,lp,mq,ns->pqs", stacked, *sides)
    truncated = np.sum(stacked**2) - np.sum(core**2)  # HOSVD, where the search begins
    assert residual(found, deltas) <= truncated * (1 + 1e-12)
    # No truncation of one side alone leaves less.
    assert residual(found, deltas) >= np.sum(
        np.linalg.svd(stacked.transpose(1, 0, 2).reshape(12, -1))[1][q:] ** 2
    ) * (1 - 1e-12)


def test_tied_factors_find_updates_of_their_kind():
    rng = np.random.default_rng(6)
    B, A = rng.standard_normal((12, 2)), rng.standard_normal((2, 8))
    tied = [
        (1 + 0.2 * rng.standard_normal((12, 1))) * B * (1 + 0.2 * rng.standard_normal(2)) @ A
        for _ in range(5)
    ]
    found = JOINT["tied_lora"].best(Walked(tied), 2 * 20 + 5 * 14)
    assert residual(found, tied) < 0.01 * sum(np.sum(one**2) for one in tied)
    alone = [np.sum(singular_values(one)[2:] ** 2) for one in updates(5, 12, 8)]
    other = JOINT["tied_lora"].best(Walked(updates(5, 12, 8)), 2 * 20 + 5 * 14)
    assert residual(other, updates(5, 12, 8)) >= sum(alone)
