"""Accelerated proximal gradient steps: what they cost and what they guarantee."""

import numpy as np
import pytest

import cosa_theory.recovery.accelerated as accelerated
from cosa_theory import KroneckerOperator
from cosa_theory.projections import stream
from cosa_theory.recovery import System
from cosa_theory.recovery.accelerated import AcceleratedSteps


class Counting(System):
    """A system that counts its products."""

    products = 0

    def apply(self, X):
        self.products += 1
        return super().apply(X)

    def apply_adjoint(self, Y):
        self.products += 1
        return super().apply_adjoint(Y)


def steps_of(m=24, n=20, p=14, q=12, items=1, seed=0):
    draw = stream(seed, "accelerated")
    A, B = draw.standard_normal((p, m)) / p**0.5, draw.standard_normal((q, n)) / q**0.5
    system = Counting(KroneckerOperator(A, B), (m, n))
    return system, AcceleratedSteps(system, draw.standard_normal((items, p, q)))


def objective(steps, lam):
    R, X = (array.reshape(len(array), -1) for array in (steps.residual, steps.X))
    return 0.5 * np.sum(R**2, axis=1) + lam * np.abs(X).sum(axis=1)


def test_a_step_costs_two_products_and_a_rejected_one_only_one():
    system, steps = steps_of()
    for _ in range(40):
        before = system.products
        moved = steps.step(np.array([0.05]))
        assert system.products - before == (2 if moved[0] else 1)


def test_residuals_and_correlations_stay_those_of_the_points():
    system, steps = steps_of(items=3)
    lam = np.array([0.5, 0.1, 0.02])
    for _ in range(30):
        steps.step(lam)
        np.testing.assert_allclose(steps.residual, system.apply(steps.X) - steps.Y, atol=1e-12)
        largest = np.abs(system.apply_adjoint(steps.ahead)).max(axis=(1, 2))
        np.testing.assert_allclose(steps.correlation, largest, rtol=1e-12)
        np.testing.assert_allclose(steps.norm1, np.abs(steps.X).sum(axis=(1, 2)), rtol=1e-9)


def test_the_residual_ahead_is_that_of_the_extrapolated_point():
    system, steps = steps_of()
    for _ in range(30):
        steps.step(np.array([0.05]))
        np.testing.assert_allclose(steps.ahead, system.apply(steps._Z) - steps.Y, atol=1e-11)


def test_a_step_from_rest_never_raises_the_objective():
    _, steps = steps_of(items=2)
    lam = np.array([0.3, 0.03])
    for _ in range(60):
        steps._t[:] = 1.0
        resting = np.allclose(steps._Z, steps.X)
        before = objective(steps, lam)
        steps.step(lam)
        if resting:
            assert (objective(steps, lam) <= before * (1 + 1e-12)).all()


def test_the_curvature_stays_below_the_lipschitz_constant_and_is_local():
    system, steps = steps_of(m=80, n=80, p=30, q=30)
    largest = np.abs(steps.correlation[0])
    curvatures = []
    for _ in range(60):
        steps.step(np.array([0.05 * largest]))
        curvatures.append(steps._curvature[0])
    assert max(curvatures) <= system.lipschitz
    assert np.median(curvatures) < system.lipschitz / 3


def test_blocks_give_what_whole_arrays_give(monkeypatch):
    _, whole = steps_of(items=2)
    monkeypatch.setattr(accelerated, "_WHOLE", 100)
    monkeypatch.setattr(accelerated, "_BLOCK", 37)
    _, parts = steps_of(items=2)
    lam = np.array([0.2, 0.05])
    for _ in range(25):
        assert (whole.step(lam) == parts.step(lam)).all()
    np.testing.assert_allclose(parts.X, whole.X, atol=1e-12)
    np.testing.assert_allclose(parts.norm1, whole.norm1, rtol=1e-9)


def test_items_that_leave_do_not_disturb_the_others():
    _, all_three = steps_of(items=3)
    _, two = steps_of(items=3)
    lam = np.array([0.2, 0.1, 0.05])
    for _ in range(10):
        all_three.step(lam), two.step(lam)
    stay = np.array([True, False, True])
    two.keep(stay)
    for _ in range(10):
        all_three.step(lam), two.step(lam[stay])
    np.testing.assert_allclose(two.X, all_three.X[stay], atol=1e-12)
    assert two.norm1 == pytest.approx(all_three.norm1[stay])
