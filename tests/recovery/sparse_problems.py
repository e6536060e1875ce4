"""Sparse updates and cores with their measurements, shared by the tests of the solvers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cosa_theory import CosaBasis
from cosa_theory.projections import stream
from cosa_theory.recovery import RecoveryProblem


@dataclass(frozen=True)
class Known:
    """An operator, the unknown behind the measurements, and the measurements."""

    operator: Any
    truth: np.ndarray
    measurements: np.ndarray

    def problem(self, **settings):
        return RecoveryProblem(self.operator, self.measurements, **settings)


def sparse_matrix(shape, count, seed=0):
    draw = stream(seed, "sparse matrix", *shape, count)
    entries = np.zeros(shape[0] * shape[1])
    support = draw.choice(entries.size, count, replace=False)
    # Away from zero, so that a wrong support shows.
    entries[support] = draw.choice([-1.0, 1.0], count) * (0.5 + draw.random(count))
    return entries.reshape(shape)


def kronecker(m, n, a, b, count, seed=0, kind="gaussian", scale="analysis"):
    operator = CosaBasis.sample(m, n, a, b, kind=kind, seed=seed, scale=scale).sensing()
    truth = sparse_matrix((m, n), count, seed)
    return Known(operator, truth, operator.apply(truth))


def plain(rows, columns, count, seed=0):
    matrix = stream(seed, "matrix", rows, columns).standard_normal((rows, columns))
    truth = sparse_matrix((1, columns), count, seed)
    return Known(matrix, truth, matrix @ truth[0])


def dictionary(m, n, a, b, count, seed=0):
    """The best sparse core of an update that has one; the truth is the core."""
    operator = CosaBasis.sample(m, n, a, b, seed=seed).dictionary()
    core = sparse_matrix((a, b), count, seed)
    return Known(operator, core, operator.apply(core))


def noise_like(array, norm, seed=0):
    draw = stream(seed, "noise", *array.shape).standard_normal(array.shape)
    return draw * norm / np.linalg.norm(draw)
