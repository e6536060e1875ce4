"""C1: an update L Y R is a vector of a Kronecker dictionary."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory import CosaBasis
from cosa_theory.deltas import LayerDelta
from cosa_theory.projections import KINDS, stream
from paper_checks.base import Case, Check, Claim, counts
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

# (m, n, a, b): tall, wide, and unequal on every side, so that no transposition goes unseen; haar
# and the sparse kinds need a ≤ m and b ≤ n.
SIZES = ((7, 5, 3, 2), (5, 9, 4, 6), (24, 17, 9, 8), (11, 30, 6, 13), (6, 8, 1, 3))

CLAIM = Claim(
    id="C1",
    claim="Every update L Y R is the core Y seen through one fixed dictionary, the Kronecker "
    "product of the two projections: vec(L Y R) = (Rᵀ ⊗ L) vec(Y).",
    source="abstract and released code",
    method="Both sides in double precision for every ensemble at rectangular, unequal sizes: the "
    "update and the measurements Lᵀ ΔW Rᵀ against an explicit Kronecker matrix, with stacked "
    "columns (Rᵀ ⊗ L) and with stacked rows (L ⊗ Rᵀ).",
    quantity=THRESHOLDS["c1_error"].quantity,
    criterion=str(THRESHOLDS["c1_error"]),
)


def kronecker(A: NDArray, B: NDArray) -> NDArray:
    """Return A ⊗ B from its definition, entry ((i, k), (j, l)) = A[i, j] B[k, l]."""
    product: NDArray = np.einsum("ij,kl->ikjl", A, B)
    return product.reshape(A.shape[0] * B.shape[0], A.shape[1] * B.shape[1])


def measure(
    layers: Iterable[LayerDelta] = (),
    seed: int = 0,
    *,
    kinds: Sequence[str] = KINDS,
    draw: Callable[..., Any] = CosaBasis.sample,
) -> list[Case]:
    """Return one case for each ensemble and size."""
    cases = []
    for kind in kinds:
        for m, n, a, b in SIZES:
            basis = draw(m, n, a, b, kind=kind, seed=seed, key="C1")
            core = stream(seed, "C1", "core", m, n).standard_normal((a, b))
            update = stream(seed, "C1", "update", m, n).standard_normal((m, n))
            error = _largest_difference(basis, core, update)
            name = f"{kind}, {m} × {n} with core {a} × {b}"
            cases.append(Case.exact(name, kind, error, "c1_error"))
    return cases


def _largest_difference(basis: Any, core: NDArray, update: NDArray) -> float:
    a, b = core.shape
    # Dense factors, whatever the ensemble stores them as.
    L, R = basis.L @ np.eye(a), (basis.R.T @ np.eye(b)).T
    made, measured = basis.synthesize(core), basis.encode(update)
    columns, rows = kronecker(R.T, L), kronecker(L, R.T)
    differences = (
        _difference(made.ravel(order="F"), columns @ core.ravel(order="F")),
        _difference(made.ravel(), rows @ core.ravel()),
        _difference(measured.ravel(order="F"), columns.T @ update.ravel(order="F")),
        _difference(measured.ravel(), rows.T @ update.ravel()),
        _difference(basis.dictionary() @ core.ravel(), rows @ core.ravel()),
        _difference(basis.sensing() @ update.ravel(), rows.T @ update.ravel()),
    )
    return float(np.max(differences))  # NaN where one is


def _difference(x: NDArray, y: NDArray) -> float:
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def describe(cases: Sequence[Case]) -> str:
    """Return the largest difference over all cases."""
    worst = max(cases, key=lambda case: (not case.known, case.value))
    return (
        f"The identity {counts(cases)} combinations of ensemble and size; the largest relative "
        f"difference is {worst.value:.1e} ({worst.name})."
    )


CHECK = Check(CLAIM, measure, describe, needs_pair=False)
