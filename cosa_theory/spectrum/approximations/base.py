"""What every approximation of an update shares: what it is given, what it stores, its record.

An approximation registers itself in a file of this package, which is found by lying here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import several
from cosa_theory.ground.errors import InputError
from cosa_theory.laws import InputMoments
from cosa_theory.projections import SecondMoments, stream
from cosa_theory.spectrum.budget import CosaShape, cosa_shape
from cosa_theory.spectrum.families.base import VALUE_BITS

__all__ = [
    "APPROXIMATIONS",
    "VALUE_BITS",
    "Approximation",
    "Given",
    "Stored",
    "register",
    "rounded",
    "select_approximations",
]

Matrix = NDArray[Any]
Singular = tuple[Matrix, NDArray[Any], Matrix]

Law = Callable[[int, int, int, InputMoments], float]


@dataclass(frozen=True)
class Stored:
    """What an approximation stores of one matrix; see docs/theory.md, 6.4.

    Parameters
    ----------
    numbers : int
        Values that depend on ΔW.
    bits : float
        For the values and for what it takes to know their places. Places and projections that are
        drawn from a seed are free.
    """

    numbers: int
    bits: float

    @classmethod
    def of(cls, numbers: int, places: float = 0.0) -> "Stored":
        """Return the size of values of `VALUE_BITS` bits and of the bits of their places."""
        return cls(numbers, VALUE_BITS * numbers + places)


def _decomposed(delta: Matrix) -> Singular:
    left, sigma, right = np.linalg.svd(delta, full_matrices=False)
    return left, sigma, right


@dataclass(frozen=True)
class Given:
    """One update, and all that an approximation of it may depend on.

    Parameters
    ----------
    delta : array, shape (m, n)
        ΔW, float32 or float64.
    rank : int
        The budget, as the rank of a LoRA with as many numbers: P = r(m + n).
    base : array, shape (m, n), optional
        W.
    seed : int
        Of what is drawn.
    key : tuple of str or int
        Names the layer and the draw.
    moments : SecondMoments, optional
        Of the layer's inputs.
    transposed : bool
        Whether the matrices are stored as inputs × outputs, as those of Conv1D.
    decompose : callable
        Maps the update to its thin singular value decomposition, which may be truncated beyond what
        is asked for; by default it is computed at every call.
    """

    delta: Matrix
    rank: int
    base: Matrix | None = None
    seed: int = 0
    key: tuple[str | int, ...] = ()
    moments: SecondMoments | None = None
    transposed: bool = False
    decompose: Callable[[Matrix], Singular] = field(default=_decomposed, compare=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (m, n) of the update."""
        rows, columns = self.delta.shape
        return rows, columns

    @property
    def singular(self) -> Singular:
        """U, σ and Vᵀ of the update, σ descending."""
        return self.decompose(self.delta)

    def stream(self, *role: str | int) -> np.random.Generator:
        """Return the stream of what is drawn for this layer."""
        return stream(self.seed, *self.key, *role)


def budget(m: int, n: int, rank: int) -> int:
    """Return P = r(m + n), at most mn."""
    return min(rank * (m + n), m * n)


def core_shape(m: int, n: int, rank: int) -> CosaShape:
    """Return the core that has the budget of a rank."""
    return cosa_shape(m, n, budget(m, n, rank))


@dataclass(frozen=True)
class Approximation:
    """One way to stand in for an update.

    Parameters
    ----------
    name : str
        Key of `APPROXIMATIONS`.
    label : str
        Printed name.
    group : str
        Its kind, which has one colour in figures: "low rank", "CoSA core", "informed core",
        "entries", "rounding" or "control".
    make : callable
        Maps what is `Given` to Â, shape (m, n).
    stored : callable
        (m, n, rank) to what is `Stored`; m is the number of outputs where it needs moments.
    budgeted : bool
        Whether it depends on the budget; what does not is measured once.
    unbiased : bool
        Whether its mean over draws is ΔW, so that a factor below 1 lowers its error.
    directions : callable, optional
        For what cannot be made without the moments of the layer's inputs: (m, n, rank) to the
        number of leading directions of them that it takes.
    law : callable, optional
        (m, n, rank, `cosa_theory.laws.InputMoments`) to the expected E‖(Â − ΔW)x‖²/E‖ΔW x‖², where
        it is known for every ΔW.
    estimate : callable, optional
        Maps what is given and Â to what the approximation itself tells of ‖Â − ΔW‖²: an estimate
        without bias, and one of its variance.
    """

    name: str
    label: str
    group: str
    make: Callable[[Given], Matrix]
    stored: Callable[[int, int, int], Stored]
    budgeted: bool = True
    unbiased: bool = False
    directions: Callable[[int, int, int], int] | None = None
    law: Law | None = None
    estimate: Callable[[Given, Matrix], tuple[float, float]] | None = None

    @property
    def needs_moments(self) -> bool:
        """Whether it cannot be made without the moments of the layer's inputs."""
        return self.directions is not None


APPROXIMATIONS: dict[str, Approximation] = {}
"""Every approximation by its name, in the order of the tables."""

_PLACES: dict[str, int] = {}


def register(place: int, **fields: Any) -> None:
    """Add the `Approximation` with these fields, at its place in tables and legends."""
    APPROXIMATIONS[fields["name"]], _PLACES[fields["name"]] = Approximation(**fields), place
    ordered = sorted(APPROXIMATIONS.values(), key=lambda other: _PLACES[other.name])
    APPROXIMATIONS.clear()
    APPROXIMATIONS.update({other.name: other for other in ordered})


def select_approximations(
    names: Iterable[str | Approximation] | None,
) -> tuple[Approximation, ...]:
    """Return approximations by their names, all of them by default, in the order of the tables.

    Sketches that identify low rank are among them; see docs/theory.md, 6.5. What is an
    approximation already follows those that have a place there.

    Raises
    ------
    InputError
        If a name is none of `APPROXIMATIONS`.
    """
    if names is None:
        return tuple(APPROXIMATIONS.values())
    given = several("approximations", names)
    chosen = {one for one in given if isinstance(one, str)}
    unknown = sorted(chosen - set(APPROXIMATIONS))
    if unknown:
        raise InputError(
            f"approximations: there is no {unknown[0]!r}: choose from {', '.join(APPROXIMATIONS)}",
            argument="approximations",
        )
    own = (one for one in given if not isinstance(one, str))
    return (*(one for name, one in APPROXIMATIONS.items() if name in chosen), *own)


def rounded(values: Matrix) -> Matrix:
    """Return values as they come back from storage, with `VALUE_BITS` bits each.

    Half precision of the values over their largest, which is one more number for all of them.
    """
    unit = float(np.max(np.abs(values), initial=0.0))
    if unit == 0:
        return values
    return (values / unit).astype(np.float16).astype(values.dtype) * values.dtype.type(unit)
