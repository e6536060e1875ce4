"""Small finite ensembles, every outcome of them, and z-scores of a measured variance."""

import itertools
import math

import numpy as np
import pytest
from scipy.linalg import hadamard

Z = 4.0
DENSITY = 0.3


def unit(x):
    x = np.asarray(x, dtype=float)
    return x / np.linalg.norm(x)


def z_of_variance(ratios, law):
    """Standard errors between the mean of (q − 1)² and the law, by the sample's fourth moment."""
    squares = (np.asarray(ratios) - 1) ** 2
    return (squares.mean() - law) / (squares.std(ddof=1) / math.sqrt(squares.size))


def outcomes(kind, k, d):
    """Every k × d matrix of a finite ensemble, with its probability."""
    if kind == "rademacher":
        values, weights = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    else:
        q = 1 / 3 if kind == "achlioptas" else DENSITY
        size = 1 / math.sqrt(q)
        values, weights = np.array([-size, 0.0, size]), np.array([q / 2, 1 - q, q / 2])
    for places in itertools.product(range(len(values)), repeat=k * d):
        chosen = list(places)
        yield values[chosen].reshape(k, d) / math.sqrt(k), float(np.prod(weights[chosen]))


def sjlt_outcomes(k, d, zeta):
    columns = []
    for rows in itertools.combinations(range(k), zeta):
        for signs in itertools.product((-1, 1), repeat=zeta):
            column = np.zeros(k)
            column[list(rows)] = np.array(signs) / math.sqrt(zeta)
            columns.append(column)
    chosen = list(itertools.product(columns, repeat=d))
    for matrix in chosen:
        yield np.array(matrix).T, 1 / len(chosen)


def srht_outcomes(k, d, replacement):
    N = 1 << (d - 1).bit_length()
    H = hadamard(N)[:, :d] / math.sqrt(k)
    choose = itertools.product(range(N), repeat=k)
    rows = list(choose if replacement else itertools.combinations(range(N), k))
    signs = list(itertools.product((-1, 1), repeat=d))
    for chosen, flips in itertools.product(rows, signs):
        yield H[list(chosen)] * np.array(flips), 1 / (len(rows) * len(signs))


def variance_over(pairs, norm):
    """Exact variance of a squared norm over enumerated outcomes; its mean must be one."""
    values = np.array([[norm(A), p] for A, p in pairs])
    mean = float(values[:, 0] @ values[:, 1])
    assert mean == pytest.approx(1.0, abs=1e-12)
    return float(((values[:, 0] - 1) ** 2) @ values[:, 1])
