"""Results that carry their proof: witnesses, bounds and brackets of sparse eigenvalues.

For a matrix A the sparse eigenvalues of order s are the least and the greatest value of
‖Ax‖²/‖x‖² over vectors with at most s nonzero entries; the restricted isometry constant is

    δ_s(A) = max(λ_max,s − 1, 1 − λ_min,s).

Whatever bounds both sparse eigenvalues bounds δ_s, and also the constant that the best rescaling
of A has, (κ² − 1)/(κ² + 1) with κ² = λ_max,s/λ_min,s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.errors import InputError
from cosa_theory.laws.isometry import scale_free_constant

__all__ = ["RipBound", "RipBracket", "Side", "Witness", "combine", "inward"]

Side = Literal["lower", "exact", "upper"]


def inward(least: float, greatest: float, slack: float) -> tuple[float, float]:
    """Return an inner bound made safe against rounding.

    Where the two are closer than rounding they change places: each remains a bound of its own
    eigenvalue, and together they prove nothing about the distance between them.
    """
    return least + slack, max(greatest - slack, 0.0)


@dataclass(frozen=True, eq=False)
class Witness:
    """A unit vector of length `columns`, by its entries on its support, with its `value` ‖Ax‖².

    The support is increasing; the coefficients are the entries there.
    """

    support: NDArray[np.int64]
    coefficients: NDArray[np.float64]
    value: float
    columns: int

    @property
    def vector(self) -> NDArray[np.float64]:
        """The whole vector, of length d, made at each access."""
        vector = np.zeros(self.columns)
        vector[self.support] = self.coefficients
        return vector


@dataclass(frozen=True, eq=False)
class RipBound:
    """A bound of the restricted isometry constant δ_s, with what proves it.

    Parameters
    ----------
    side : {"lower", "exact", "upper"}
        What `value` is for δ_s.
    s : int
        The order.
    least, greatest : float
        For a lower bound, values of ‖Ax‖² at s-sparse unit vectors, so the sparse eigenvalues lie
        outside them or at them; for an upper bound, numbers that enclose both.
    method : str
        How it was obtained.
    seconds : float
        Time spent.
    least_witness, greatest_witness : Witness, optional
        The vectors that attain `least` and `greatest`; absent from upper bounds.
    proof : mapping of str to ndarray
        Multipliers from which an upper bound can be recomputed, where the method has any.
    note : str
        What the reader should know, such as a solver that stopped early.
    evaluations : int
        Number of candidate supports whose bound was evaluated.
    """

    side: Side
    s: int
    least: float
    greatest: float
    method: str
    seconds: float
    least_witness: Witness | None = None
    greatest_witness: Witness | None = None
    proof: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    note: str = ""
    evaluations: int = 0

    @property
    def value(self) -> float:
        """The bound of δ_s: max(greatest − 1, 1 − least), and at least 0."""
        return max(self.greatest - 1.0, 1.0 - self.least, 0.0)

    @property
    def scale_free(self) -> float:
        """The same for the matrix at its best scale, (κ² − 1)/(κ² + 1), κ² = greatest/least."""
        return scale_free_constant(self.least, self.greatest)

    @property
    def witness(self) -> Witness | None:
        """The witness of the side that decides the value."""
        below = 1.0 - self.least > self.greatest - 1.0
        return self.least_witness if below else self.greatest_witness

    @property
    def support(self) -> NDArray[np.int64] | None:
        """The columns of the witness, increasing; None for an upper bound."""
        return None if self.witness is None else self.witness.support

    @cached_property
    def vector(self) -> NDArray[np.float64] | None:
        """The witness x, of unit norm and length d: | ‖Ax‖² − 1 | = value; None if upper."""
        return None if self.witness is None else self.witness.vector

    def recompute(self, A: Any) -> float:
        """Return the lower bound again from its witnesses alone: max | ‖Ax‖²/‖x‖² − 1 |.

        Parameters
        ----------
        A : array or operator, shape (k, d)
            The matrix the bound is about.

        Raises
        ------
        InputError
            If the bound has no witness, or one with more than s nonzero entries.
        """
        witnesses = [w for w in (self.least_witness, self.greatest_witness) if w is not None]
        if not witnesses:
            raise InputError(f"the {self.method} bound has no witness: it is an upper bound")
        values = []
        for witness in witnesses:
            x = witness.vector
            if np.count_nonzero(x) > self.s:
                raise InputError(f"the witness has more than s = {self.s} nonzero entries")
            image = A @ x
            values.append(abs(float(image @ image) / float(x @ x) - 1.0))
        return max(values)


@dataclass(frozen=True, eq=False)
class RipBracket:
    """Both ends of what is known about δ_s of one matrix.

    Parameters
    ----------
    s : int
        The order.
    lower_bound, upper_bound : RipBound
        The best of each, see `combine`; the same bound where the constant is known exactly.
    tried : tuple of RipBound
        All that they were combined from.
    about : str
        Which matrix this is about, such as "the tall dictionary Ψ = L ⊗ Rᵀ".
    """

    s: int
    lower_bound: RipBound
    upper_bound: RipBound
    tried: tuple[RipBound, ...] = ()
    about: str = "the matrix"

    @property
    def lower(self) -> float:
        """A proven lower bound of δ_s."""
        return self.lower_bound.value

    @property
    def upper(self) -> float:
        """A proven upper bound of δ_s."""
        return self.upper_bound.value

    @property
    def exact(self) -> bool:
        """Whether δ_s was found by enumeration."""
        return self.lower_bound.side == "exact"

    @property
    def vacuous(self) -> bool:
        """Whether the upper end reaches 1: then nothing is guaranteed for all s-sparse vectors."""
        return self.upper >= 1.0

    @property
    def method(self) -> str:
        """How each end was obtained, as "lower; upper"."""
        names = dict.fromkeys((self.lower_bound.method, self.upper_bound.method))
        return "; ".join(names)

    @property
    def support(self) -> NDArray[np.int64] | None:
        """The columns of the lower end's witness."""
        return self.lower_bound.support

    @property
    def vector(self) -> NDArray[np.float64] | None:
        """The lower end's witness, a unit vector of length d."""
        return self.lower_bound.vector

    @property
    def seconds(self) -> float:
        """Time spent on all that was tried."""
        return math.fsum(bound.seconds for bound in self.tried)

    @property
    def scale_free(self) -> tuple[float, float]:
        """The bracket of the constant that the best rescaling of the matrix has."""
        return self.lower_bound.scale_free, self.upper_bound.scale_free


def combine(bounds: Sequence[RipBound]) -> RipBound:
    """Return the tightest bound that several bounds of one matrix, order and side together prove.

    The two sparse eigenvalues are bounded independently: the best bound of the least one may come
    from another method than that of the greatest. `method` names the one or two that the ends are
    taken from, with their `proof` and witnesses; `seconds` and `evaluations` are summed. An exact
    bound is returned as it is.
    """
    exact = [bound for bound in bounds if bound.side == "exact"]
    if exact:
        return exact[0]
    if len({(bound.side, bound.s) for bound in bounds}) != 1:
        raise InputError("bounds can be combined when there are some, all of one order and side")
    tightest = min if bounds[0].side == "upper" else max
    high = tightest(bounds, key=lambda bound: bound.greatest)
    low = tightest(bounds, key=lambda bound: -bound.least)
    if high.least == low.least:  # one method rather than two that tie
        low = high
    elif low.greatest == high.greatest:
        high = low
    deciding = (low, high) if 1.0 - low.least > high.greatest - 1.0 else (high, low)
    return RipBound(
        side=bounds[0].side,
        s=bounds[0].s,
        least=low.least,
        greatest=high.greatest,
        method=", ".join(dict.fromkeys(bound.method for bound in deciding)),
        seconds=math.fsum(bound.seconds for bound in bounds),
        least_witness=low.least_witness,
        greatest_witness=high.greatest_witness,
        proof={**low.proof, **high.proof},
        note=" ".join(dict.fromkeys(bound.note for bound in bounds if bound.note)),
        evaluations=sum(bound.evaluations for bound in bounds),
    )
