"""The record of an ensemble: all that the rest of the library knows about one law of projections.

Each ensemble registers itself in a file of this package, which is found by lying here. Nothing
outside the package branches on the name of an ensemble: what differs is read from its record.

The record states the moments as functions of sizes and the law of a norm by its name, so that
`cosa_theory.laws`, which holds the general closed forms, and this package need not know each
other: ``GramMoments(*ensemble.moments(k, d))`` brings the two together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ENSEMBLES",
    "Ensemble",
    "Moments",
    "Streams",
    "independent_entries",
    "printed_name",
    "register",
]

Streams = Callable[[str], np.random.Generator]
"""From a role, such as "entries" or "signs", to the stream of one matrix for that role."""

Moments = tuple[float, float, float]
"""`pair`, `cross` and `excess` of `cosa_theory.laws.GramMoments`."""


@dataclass(frozen=True)
class Ensemble:
    """One law of random k × d matrices.

    Parameters
    ----------
    name : str
        Key of `ENSEMBLES`, lower-case.
    label : str
        The printed name.
    draw : callable
        (streams, k, d, variance, dtype, **options) to a matrix of shape (k, d): an ndarray, a
        csr_array or a LinearOperator. `streams` leads from a role to a stream, `variance` is the
        exact one of an entry (a `fractions.Fraction`: 1/k at analysis scale, 1/d at synthesis
        scale); float32 is the rounding of the float64 draw. The sizes are checked, the options
        are not, but for their names.
    moments : callable
        (k, d, **options) to the second moments of AᵀA at analysis scale (see `Moments`).
    order : int
        Place in lists, legends and their styles; a new ensemble comes last.
    options : tuple of str
        Names of the options that `draw` and `moments` take.
    most_rows : callable, optional
        From d to the largest k there is.
    norm_law : {"chi_square", "beta"}, optional
        The law of ‖Ax‖² for every fixed x, where it is known: χ²_k/k, or (d/k) times
        Beta(k/2, (d − k)/2).
    magnitude : callable, optional
        Where the entries are 0 and ± one number: (k, d, variance, **options) to that number. A
        layer then stores signs, which every dtype holds exactly.
    product : {"dense", "sparse", "transform", "identity"}
        How a layer multiplies: by all entries, by the places of the nonzero ones, by a fast
        transform, or not at all.
    source : callable, optional
        Where the last bits of `draw` depend on the linear algebra library: (streams, k, d, dtype)
        to the draw that it is computed from, which does not depend on it and spans the same rows.
    data_dependent : bool
        Whether it is drawn from second moments of the data, the option ``moments``. Such an
        ensemble has no law of its own.
    left : str, optional
        The ensemble that L is drawn from where another is of this one, unless a = m: L is then
        the identity, for every data-dependent ensemble.
    fixed : bool
        Whether there is one matrix of each size, which is no draw.
    """

    name: str
    label: str
    draw: Callable[..., Any]
    moments: Callable[..., Moments]
    order: int = 1000
    options: tuple[str, ...] = ()
    most_rows: Callable[[int], int] | None = None
    norm_law: Literal["chi_square", "beta"] | None = None
    magnitude: Callable[..., float] | None = None
    product: Literal["dense", "sparse", "transform", "identity"] = "dense"
    source: Callable[[Streams, int, int, np.dtype[Any]], NDArray[Any]] | None = None
    data_dependent: bool = False
    left: str | None = None
    fixed: bool = False

    @property
    def signs(self) -> bool:
        """Whether the entries are 0 and ± one number."""
        return self.magnitude is not None

    def has(self, k: int, d: int) -> bool:
        """Return whether there is a k × d matrix of this ensemble."""
        return self.most_rows is None or k <= self.most_rows(d)


ENSEMBLES: dict[str, Ensemble] = {}
"""Every ensemble by its name, in their order."""


def register(ensemble: Ensemble) -> Ensemble:
    """Add an ensemble to `ENSEMBLES`, at its place."""
    ENSEMBLES[ensemble.name] = ensemble
    ordered = sorted(ENSEMBLES.values(), key=lambda one: (one.order, one.name))
    ENSEMBLES.clear()
    ENSEMBLES.update({one.name: one for one in ordered})
    return ensemble


def printed_name(kind: str) -> str:
    """Return the label of an ensemble; for one of another version, in stored results, its name."""
    return ENSEMBLES[kind].label if kind in ENSEMBLES else kind.replace("_", " ")


def independent_entries(k: int, kurtosis: float) -> Moments:
    """Return the moments for independent symmetric entries of kurtosis E z⁴/(E z²)².

    pair 1, cross 1/k, excess (κ − 3)/k, so that Var‖Ax‖² = (2 + (κ − 3)‖x‖₄⁴)/k. See
    docs/theory.md, 3.2.
    """
    return 1.0, 1 / k, (kurtosis - 3) / k
