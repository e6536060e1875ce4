"""Upper bounds of the restricted isometry constant, each valid for columns of any norm."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

from cosa_theory.ground.checks import choice, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.isometry.certificates import RipBound
from cosa_theory.isometry.sdp import rip_sdp
from cosa_theory.linear.gram import as_gram
from cosa_theory.linear.gram_protocol import Gram, outward

__all__ = ["UPPER_METHODS", "rip_upper"]


def _coherence(gram: Gram, s: int) -> tuple[float, float]:
    reach = (s - 1) * gram.cross
    return outward(gram.shortest - reach, gram.largest + reach, gram.slack(s))


_ENCLOSURES: dict[str, Callable[[Gram, int], tuple[float, float]]] = {
    "coherence": _coherence,
    "babel": lambda gram, s: gram.discs(s),
    "spectrum": lambda gram, s: gram.spectrum_range,
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
    A, s
        As for `cosa_theory.isometry.rip_exact`, zero columns included. Of a Kronecker operator
        only the factors are used.
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
    InputError
        For an unknown method or option, or a bad matrix or order.

    References
    ----------
    docs/theory.md, 2.6. S. A. Gershgorin (1931); J. A. Tropp, "Greed is good: algorithmic results
    for sparse approximation", IEEE Trans. Information Theory 50 (2004), for coherence and Babel;
    see `rip_sdp` for the relaxation.
    """
    choice("method", method, UPPER_METHODS)
    if options and method != "sdp":
        raise InputError(f"option {next(iter(options))} belongs to sdp: {method} takes none")
    if method == "sdp":
        known = [name for name in inspect.signature(rip_sdp).parameters if name not in ("A", "s")]
        for option in options:
            choice("option", option, known)
        return rip_sdp(A, s, **options)
    start = time.perf_counter()
    gram = as_gram(A)
    s = whole("s", s, most=gram.columns)
    least, greatest = _ENCLOSURES[method](gram, s)
    return RipBound("upper", s, least, greatest, method, time.perf_counter() - start)
