"""Least squares on a given support, from the columns of the two factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from cosa_theory.ground.threads import one_thread
from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.system import Floats, Indices, System, like_array

__all__ = ["GramFactor", "debias", "gram_block", "solve_on_support", "support_of"]

_DEPENDENT = 1e-12
_DIRECT = 3000  # entries of a support up to which its Gram block is formed (72 MB)


def support_of(X: Any, relative: float = 1e-6) -> Indices:
    """Return where |X| exceeds a share of its largest entry, as row-major indices.

    A share of 0 gives all that is not zero.
    """
    size = np.abs(to_host(X)).ravel()
    return np.flatnonzero(size > relative * size.max(initial=0.0))


def gram_block(system: System, support: Indices) -> Floats:
    """Return the Gram matrix of the columns of Φ on a support, (s, s) in float64.

    Column i·n + j of A ⊗ B is aᵢ ⊗ bⱼ, so an entry is ⟨aᵢ, aₖ⟩⟨bⱼ, bₗ⟩; only the chosen columns
    of the factors are multiplied.
    """
    A, B = system.factors
    i, j = np.divmod(support, B.shape[1])
    block = _chosen_gram(A, i)
    block *= _chosen_gram(B, j)
    return block


def _chosen_gram(factor: Floats, chosen: Indices) -> Floats:
    different, places = np.unique(chosen, return_inverse=True)
    columns = factor[:, different]
    gram = columns.T @ columns
    return gram[places[:, None], places]


@dataclass(frozen=True)
class GramFactor:
    """The Gram matrix of the columns of Φ on a support, and its lower Cholesky factor."""

    gram: Floats
    factor: Any

    @classmethod
    def of(cls, system: System, support: Indices) -> GramFactor | None:
        """Factorise; None where the matrix is not positive definite to working precision."""
        gram = gram_block(system, support)
        with one_thread():
            try:
                return cls(gram, cho_factor(gram, lower=True, check_finite=False))
            except LinAlgError:
                return None

    @property
    def pivots(self) -> Floats:
        """The diagonal of the factor."""
        return np.diag(self.factor[0])

    def solve(self, wanted: Floats) -> Floats:
        """Return the solution of the Gram system, refined once."""
        with one_thread():
            found: Floats = cho_solve(self.factor, wanted, check_finite=False)
            found += cho_solve(self.factor, wanted - self.gram @ found, check_finite=False)
        return found


def solve_on_support(system: System, correlations: NDArray[Any], support: Indices) -> Floats | None:
    """Solve G_SS x = c_S, with G_SS the Gram matrix of the columns of Φ on the support S.

    With c = Φᵀy this is least squares on the support; with c = Φᵀy − λ sign(x), the lasso's
    stationarity there. The support has row-major indices; of the correlations c, of mn entries,
    only those on it are used. None where the columns are dependent to working precision.
    """
    wanted = np.asarray(correlations).ravel()[support].astype(np.float64)
    if support.size == 0:
        return wanted
    factor = GramFactor.of(system, support)
    # What a column adds to those before it, as a share of its own energy: rounding alone
    # leaves some 1e-16 of it, and a solution from less than 1e-12 has few correct digits.
    if factor is None or (factor.pivots**2 <= _DEPENDENT * np.diag(factor.gram)).any():
        return None
    return factor.solve(wanted)


def debias(system: System, Y: Any, X: Any) -> Any:
    """Return the least-squares fit on the support of each item's coefficients, shape (B, m, n).

    argmin ‖Φz − y‖ over z that vanish where x does (up to 1e-6 of its largest entry). None if the
    support of some item is empty, has more than M or 3,000 entries, or carries dependent columns.
    """
    supports = [support_of(item) for item in X]
    largest = max(support.size for support in supports)
    if min(support.size for support in supports) == 0 or largest > min(
        system.measurements, _DIRECT
    ):
        return None
    correlations = to_host(system.apply_adjoint(Y))
    fitted = np.zeros((len(supports), system.size))
    for item, support in enumerate(supports):
        values = solve_on_support(system, correlations[item], support)
        if values is None:
            return None
        fitted[item, support] = values
    return like_array(fitted.reshape(correlations.shape), X)
