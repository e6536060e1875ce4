"""Updates of which it is known which assumption they meet."""

import numpy as np

from cosa_theory.deltas import LayerDelta
from cosa_theory.linear.transforms import DCT, SingularBasis


def weight(m, n, seed=100):
    return np.random.default_rng(seed).standard_normal((m, n)).astype(np.float32)


def dense(m=96, n=80, seed=0):
    """Independent Gaussian entries: flat, and sparse in no basis."""
    return np.random.default_rng(seed).standard_normal((m, n))


def low_rank(rank, m=96, n=80, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((m, rank)) @ generator.standard_normal((rank, n))


def sparse_in(basis, count, m=96, n=80, seed=0):
    """An update with `count` equal coefficients in one basis; the base has the weight above."""
    generator = np.random.default_rng(seed)
    coefficients = np.zeros(m * n)
    coefficients[generator.permutation(m * n)[:count]] = generator.choice([-1.0, 1.0], count)
    coefficients = coefficients.reshape(m, n)
    if basis == "coordinate":
        return coefficients
    transform = DCT() if basis == "dct" else SingularBasis(weight(m, n).astype(np.float64))
    return transform.inverse(coefficients)


def layer(delta, name="enc.layer.0.query.weight", **fields):
    delta = np.asarray(delta, dtype=np.float32)
    return LayerDelta(name, delta, weight(*delta.shape), **fields)
