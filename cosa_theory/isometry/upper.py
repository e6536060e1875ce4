"""Upper bounds of the restricted isometry constant, each valid for columns of any norm."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cosa_theory.isometry.certificates import (
    RipBound,
    checked_order,
    outward,
    rounding_slack,
)
from cosa_theory.isometry.coherence import off_diagonal_blocks
from cosa_theory.isometry.sdp import rip_sdp
from cosa_theory.linear.gram import DenseGram, KroneckerGram, as_gram

__all__ = ["UPPER_METHODS", "rip_upper", "spectrum_range"]


def _coherence(gram: DenseGram, s: int) -> tuple[float, float, float]:
    """Return min diag − (s − 1) max |offdiag|, max diag + (s − 1) max |offdiag|, and the slack."""
    blocks = off_diagonal_blocks(gram, min(1, gram.columns - 1))
    reach = (s - 1) * max(float(kept.max(initial=0.0)) for _, kept in blocks)
    least, greatest = float(gram.diagonal.min()), float(gram.diagonal.max())
    return least - reach, greatest + reach, rounding_slack(gram.rows_of_A, s, greatest)


def _babel(gram: DenseGram, s: int) -> tuple[float, float, float]:
    """Return the ends of Gershgorin's discs, row by row, and the slack of rounding."""
    least, greatest = np.inf, 0.0
    for diagonal, kept in off_diagonal_blocks(gram, s - 1):
        reach = kept.sum(axis=1)
        least = min(least, float((diagonal - reach).min()))
        greatest = max(greatest, float((diagonal + reach).max()))
    return least, greatest, rounding_slack(gram.rows_of_A, s, float(gram.diagonal.max()))


def spectrum_range(gram: DenseGram) -> tuple[float, float, float]:
    """Return the extreme eigenvalues of AᵀA, and the slack of rounding.

    From the Gram matrix of the shorter side; the least is 0 where there are more columns than rows.

    Parameters
    ----------
    gram : DenseGram
        Of the matrix A.

    Returns
    -------
    least, greatest, slack : float
        Neither eigenvalue is wrong by more than the slack.
    """
    wide = gram.rows_of_A < gram.columns
    short = gram.A @ gram.A.T if wide else gram.full
    values = np.linalg.eigvalsh(short)
    slack = rounding_slack(max(gram.A.shape), len(short), float(short.diagonal().max()))
    return 0.0 if wide else float(values[0]), float(values[-1]), slack


def _spectrum(gram: DenseGram, s: int) -> tuple[float, float, float]:
    return spectrum_range(gram)


_ENCLOSURES: dict[str, Callable[[DenseGram, int], tuple[float, float, float]]] = {
    "coherence": _coherence,
    "babel": _babel,
    "spectrum": _spectrum,
}

UPPER_METHODS: tuple[str, ...] = (*_ENCLOSURES, "sdp")
"""Names of the methods that `rip_upper` knows, from the cheapest to the tightest."""


def rip_upper(A: Any, s: int, method: str = "coherence", **options: Any) -> RipBound:
    """Bound the restricted isometry constant δ_s(A) from above.

    With G = AᵀA, both sparse eigenvalues of order s lie in

    - ``"coherence"``: [min G_jj − (s−1) max |G_ij|, max G_jj + (s−1) max |G_ij|], i ≠ j;
    - ``"babel"``: [min_j (G_jj − t_j), max_j (G_jj + t_j)], t_j the sum of the s − 1 largest
      |G_ij|, i ≠ j, which is Gershgorin's theorem on every support at once;
    - ``"spectrum"``: [λ_min(G), λ_max(G)], the same for every order;
    - ``"sdp"``: a semidefinite relaxation, never wider than the others, see
      `cosa_theory.isometry.sdp.rip_sdp`, for some 150 columns at most.

    Parameters
    ----------
    A : array, operator or Gram, shape (k, d)
        Columns of any norm, zero included. Of a Kronecker operator only the factors are used.
    s : int
        The order, from 1 to d.
    method : {"coherence", "babel", "spectrum", "sdp"}
        For unit columns "coherence" is (s − 1)μ and "babel" is μ₁(s − 1).
    **options
        Of `cosa_theory.isometry.sdp.rip_sdp` when the method is "sdp".

    Returns
    -------
    RipBound
        side "upper"; `least` and `greatest` enclose ‖Ax‖² of every s-sparse unit x, rounding
        included.

    Raises
    ------
    ValueError
        For an unknown method or option, or a bad matrix or order.

    References
    ----------
    S. A. Gershgorin (1931); J. A. Tropp, "Greed is good: algorithmic results for sparse
    approximation", IEEE Trans. Information Theory 50 (2004), for coherence and Babel; see `rip_sdp`
    for the relaxation.
    """
    if method not in UPPER_METHODS:
        raise ValueError(f"method is {method!r}: it must be one of {', '.join(UPPER_METHODS)}")
    if options and method != "sdp":
        raise ValueError(f"option {next(iter(options))} belongs to sdp: {method} takes none")
    if method == "sdp":
        known = [name for name in inspect.signature(rip_sdp).parameters if name not in ("A", "s")]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ValueError(f"option {unknown[0]} is unknown: sdp has {', '.join(known)}")
        return rip_sdp(A, s, **options)
    start = time.perf_counter()
    gram = as_gram(A)
    if isinstance(gram, KroneckerGram):
        from cosa_theory.isometry.kronecker import kronecker_upper

        return kronecker_upper(gram.left, gram.right, s, method)
    s = checked_order(s, gram.columns)
    least, greatest = outward(*_ENCLOSURES[method](gram, s))
    return RipBound(
        side="upper",
        s=s,
        least=least,
        greatest=greatest,
        method=method,
        seconds=time.perf_counter() - start,
    )
