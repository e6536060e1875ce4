"""Frozen random projections as torch modules: drawn from a seed, in the form that multiplies fast.

The forms are `cosa_theory.nn.dense_form`, `sparse_form`, `hadamard_form` and `identity_form`; what
they share is in `cosa_theory.nn.frozen`.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from cosa_theory.ground.threads import one_thread
from cosa_theory.nn.dense_form import DenseProjection, GivenProjection
from cosa_theory.nn.frozen import SIGN_KINDS, FrozenProjection, ProjectionSpec
from cosa_theory.nn.hadamard_form import HadamardProjection, hadamard_pays
from cosa_theory.nn.identity_form import IdentityProjection
from cosa_theory.nn.sparse_form import SparseProjection
from cosa_theory.projections import ENSEMBLES

__all__ = [
    "SIGN_KINDS",
    "DenseProjection",
    "FrozenProjection",
    "HadamardProjection",
    "IdentityProjection",
    "ProjectionSpec",
    "SparseProjection",
    "draw_projections",
    "frozen_projection",
    "given_projection",
]


def frozen_projection(
    spec: ProjectionSpec, *, dtype: torch.dtype = torch.float32
) -> FrozenProjection:
    """Draw a projection, on the CPU, and put it into the form that multiplies fastest.

    Nothing for the identity, a transform where the ensemble has one and `hadamard_pays`, places of
    signs where it is sparse and `SparseProjection.pays`; all else is dense, a rounding to `dtype`
    of the float32 draw, or float64. Errors as of `make_projection`.
    """
    product = ENSEMBLES[spec.kind].product
    if product == "identity" and spec.k == spec.d:
        return IdentityProjection.drawn(spec)
    if product == "transform" and hadamard_pays(spec.k, spec.d):
        return HadamardProjection.drawn(spec, dtype=dtype)
    if product == "sparse":
        sparse = SparseProjection.drawn(spec, dtype=dtype)
        if sparse.pays:
            return sparse
    return DenseProjection.drawn(spec, dtype=dtype)


def given_projection(A: Tensor) -> FrozenProjection:
    """Return a projection with given values A (k × d), such as those stored with an adapter.

    Dense, factor 1, without a seed; its fingerprint is that of its values in float32.
    """
    return GivenProjection.of(A)


def draw_projections(
    specs: Iterable[ProjectionSpec],
    *,
    dtype: torch.dtype = torch.float32,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> dict[ProjectionSpec, FrozenProjection]:
    """Draw many projections, by their specifications, as `frozen_projection` does; equal ones once.

    `threads` are drawn at a time, which the values do not depend on: no more draws than that exist
    in another type than `dtype` at once. `progress` is called with the number drawn and the number
    in all after each draw. The result is in the order of first appearance.
    """
    wanted = list(dict.fromkeys(specs))
    drawn: dict[ProjectionSpec, FrozenProjection] = {}
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        made = pool.map(lambda spec: frozen_projection(spec, dtype=dtype), wanted)
        for spec, projection in zip(wanted, made, strict=True):
            drawn[spec] = projection
            if progress is not None:
                progress(len(drawn), len(wanted))
    return drawn
