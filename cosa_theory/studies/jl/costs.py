"""What multiplying by a projection costs: time for a vector, and memory."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array
from scipy import sparse

from cosa_theory.ground.threads import one_thread
from cosa_theory.isometry.jl import as_vectors
from cosa_theory.linear.operators import Factor

__all__ = ["application_seconds", "projection_bytes"]

_TIMED = 0.03  # seconds over which a product is repeated
_ROUNDS = 5  # and how often at least


def application_seconds(projections: Sequence[Any], X: Any) -> list[float]:
    """Return the time of one product A x for each of several projections, in seconds per vector.

    The vectors (rows of X) are projected together, X Aᵀ as the library computes it (`Factor`), in
    their type and on one thread. The projections take turns, so that a busy machine slows all
    alike, and the best of at least five warm rounds counts.
    """
    vectors, factors = as_vectors(X), [Factor(A) for A in projections]
    best, spent, rounds = [math.inf] * len(factors), 0.0, 0
    with one_thread():
        for factor in factors:
            factor.right(vectors)
        while rounds < _ROUNDS or spent < _TIMED * len(factors):
            for place, factor in enumerate(factors):
                start = time.perf_counter()
                factor.right(vectors)
                taken = time.perf_counter() - start
                best[place] = min(best[place], taken)
                spent += taken
            rounds += 1
    return [seconds / len(vectors) for seconds in best]


def projection_bytes(A: Any, dtype: Any = "float64") -> int:
    """Return the memory of a projection in the form it is multiplied in, with vectors of that type.

    A dense array, the three arrays of a sparse one, the signs, rows and scale of an SRHT. A sparse
    array with more than one entry in eight counts as dense, because it is multiplied as such.
    """
    if hasattr(A, "fingerprint_arrays"):
        return sum(array.nbytes for array in A.fingerprint_arrays()[1].values())
    form = Factor(A).like(np.empty(0, dtype))
    if sparse.issparse(form):
        return int(form.data.nbytes + form.indices.nbytes + form.indptr.nbytes)
    return int(form.nbytes) if is_numpy_array(form) else int(form.element_size() * form.numel())
