"""Moments for tests of projections that are made from data."""

import numpy as np

from cosa_theory.nn.moments import Moments
from cosa_theory.projections import SecondMoments


def second_moments(n, seed=0, count=400):
    """Moments of vectors of length n whose variances fall."""
    rows = np.random.default_rng(seed).standard_normal((count, n)) / np.arange(1, n + 1)
    matrix = (rows.T @ rows / count).astype(np.float32)
    mean = rows.mean(0).astype(np.float32)
    return SecondMoments(matrix, mean=mean, count=count)


def moments_for(sizes, seed=0, count=400, **given):
    """Moments of inputs and output gradients of layers, (m, n) by name."""
    sides = (
        {
            f"{name}.weight": second_moments(size[side], seed + 10 * i + side, count)
            for i, (name, size) in enumerate(sizes.items())
        }
        for side in (1, 0)
    )
    return Moments(*sides, **given)
