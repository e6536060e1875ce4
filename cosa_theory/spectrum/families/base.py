"""What every update family shares: the update it is measured on, its size, its result, its table.

A family registers itself in a file of this package, which is found by lying here.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import real, whole
from cosa_theory.ground.estimates import student_quantile
from cosa_theory.laws import participation_ratio
from cosa_theory.projections import SecondMoments, stream

__all__ = [
    "FAMILIES",
    "GROUPS",
    "VALUE_BITS",
    "Captured",
    "Certainty",
    "Cost",
    "Draws",
    "Family",
    "Fit",
    "Size",
    "Update",
    "log2_choices",
    "plan_draws",
    "register",
    "t_interval",
]

Made = TypeVar("Made")

VALUE_BITS = 16
"""Bits of a stored number; functions of a model are measured with numbers of so many."""

Certainty = Literal["exact", "lower bound"]
"""Whether a fit is the best update of its family, or the best that was found."""

GROUPS = (
    "low rank",
    "frozen factors",
    "CoSA core",
    "informed core",
    "entries",
    "structured",
    "rescaled W",
    "stored",
)
"""Kinds of families, each with its colour in figures; what is only stored trains nothing."""

# Aim of the Monte Carlo: half the width of the interval, as a share of the expected value.
_RELATIVE_HALF_WIDTH = 0.01
_FEWEST_DRAWS = 4
# Multiply-adds for all draws of one size, a second or two of one core: a vocabulary of 30,000 rows
# would otherwise take minutes for a precision that its few draws nearly have.
_WORK = 5e10


@dataclass(frozen=True)
class Update:
    """One weight update, with what several families need of it.

    `delta` is ΔW (m × n, float32 or float64), `base` the weight W it is added to, if there is one,
    `sigma` the min(m, n) singular values of ΔW, descending, in float64. `inputs` and `gradients`
    are second moments of the layer's inputs and of the gradients of its outputs, as far as they
    are known, `transposed` tells whether ΔW is stored as inputs × outputs, and `slope` is the
    gradient of a loss by the weight (m × n), if it is known.
    """

    delta: NDArray
    base: NDArray | None
    sigma: NDArray[np.float64]
    inputs: SecondMoments | None = None
    gradients: SecondMoments | None = None
    transposed: bool = False
    slope: NDArray | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False, init=False)

    def once(self, what: Hashable, make: Callable[[], Made]) -> Made:
        """Return what `make` gives, made at the first call with this name, kept with the update."""
        if what not in self._made:
            self._made[what] = make()
        made: Made = self._made[what]
        return made

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (m, n) of the update."""
        rows, columns = self.delta.shape
        return rows, columns

    @property
    def is_zero(self) -> bool:
        """Whether the update is exactly zero; every share of its energy is then undefined."""
        return not bool(self.sigma[0] > 0)

    @cached_property
    def energy_shares(self) -> NDArray[np.float64]:
        """Cumulative share of ‖ΔW‖² in the leading 1, 2, … singular values."""
        cumulative = np.cumsum((self.sigma / self.sigma[0]) ** 2)
        return cumulative / cumulative[-1]

    @cached_property
    def participation_ratio(self) -> float:
        """(Σσ²)² / Σσ⁴ of the update, from 1 (rank one) to min(m, n) (flat)."""
        return participation_ratio(self.sigma)


@dataclass(frozen=True)
class Size:
    """How large one family is on one layer.

    `parameters` are trained, at most the budget, and `text` says the size in words, such as "r=8"
    or "a=110, b=110"; a × b is the trained core, None for families without one; no update of this
    size has a rank above `rank`. `parts` are what else a family has to remember of its size. Where
    a family has no update of so few parameters, they are 0 and `text` says why.
    """

    parameters: int
    text: str
    a: int | None
    b: int | None
    rank: int
    parts: tuple[int, ...] = ()

    @classmethod
    def unmet(cls, reason: str) -> "Size":
        """Return the size of a family that has none within the budget."""
        return cls(0, reason, None, None, 0)


@dataclass(frozen=True)
class Fit:
    """The best update that a family has, or the best that was found.

    Parameters
    ----------
    trained : tuple of arrays
        The numbers that training would set; together as many as `Size.parameters`.
    build : callable
        Maps such arrays to Â, shape (m, n), in the type of ΔW.
    held : float or None
        ‖ΔW‖² − ‖ΔW − Â‖², where it is known without forming Â.
    """

    trained: tuple[NDArray, ...]
    build: Callable[..., NDArray] = field(compare=False)
    held: float | None = None

    def update(self, stored: Callable[[NDArray], NDArray] | None = None) -> NDArray:
        """Return Â, of the numbers as `stored` gives them back where it is given."""
        return self.build(*(self.trained if stored is None else map(stored, self.trained)))


@dataclass(frozen=True)
class Cost:
    """What an update of one size costs, beside the frozen weight.

    Parameters
    ----------
    frozen : int
        Numbers that are not trained, and that an unmerged forward pass has to hold: projections
        from a seed, singular vectors of W.
    multiply_adds : int
        Of an unmerged forward pass, for each token; of a dense update that is mn.
    bits : float
        Of what is stored: `VALUE_BITS` for each trained number, and what it takes to tell places
        that were chosen. What a seed or W gives back is free.
    """

    frozen: int
    multiply_adds: int
    bits: float

    @classmethod
    def of(cls, size: Size, frozen: int, multiply_adds: int, places: float = 0.0) -> "Cost":
        """Return the cost of a size whose numbers are stored with `VALUE_BITS` each."""
        return cls(frozen, multiply_adds, VALUE_BITS * size.parameters + places)


@dataclass(frozen=True)
class Captured:
    """Share of ‖ΔW‖² that a family's best update captures.

    Parameters
    ----------
    mean, low, high : float
        The share, at most 1, and its confidence interval; the interval of an exact value is the
        value. Negative where zero is nearer to ΔW, as it may be for what is only stored. NaN for a
        zero update.
    sd : float
        Standard deviation over draws (of one draw, not of the mean).
    draws : int
        Number of random draws; 0 for an exact value.
    law : float or None
        The expected share ab/(mn) of an oblivious family; None where it depends on the data.
    """

    mean: float
    low: float
    high: float
    sd: float
    draws: int
    law: float | None = None

    @classmethod
    def exact(cls, share: float, law: float | None = None) -> "Captured":
        """Return a value known without drawing."""
        return cls(mean=share, low=share, high=share, sd=0.0, draws=0, law=law)


@dataclass(frozen=True)
class Draws:
    """How random families are drawn.

    Parameters
    ----------
    most : int
        The largest number of draws for one layer and budget, at least 2.
    seed : int
        Seed of the projections, not negative.
    key : tuple of str or int
        Name of the layer, part of every projection's key.
    confidence : float
        Coverage of the intervals, in (0, 1).
    """

    most: int = 20
    seed: int = 0
    key: tuple[str | int, ...] = ()
    confidence: float = 0.95

    def __post_init__(self) -> None:
        whole("draws", self.most, 2)  # an interval needs two
        whole("seed", self.seed, 0)
        real("confidence", self.confidence, above=0, below=1)

    def stream(self, role: str) -> np.random.Generator:
        """Return the stream of what is drawn for a role."""
        return stream(self.seed, *self.key, role)


class Family(Protocol):
    """A set of updates that an adapter of a given size can express.

    A family whose span depends on neither W nor ΔW is oblivious: it captures the share
    (dimension of its span)/(mn) on average over rotations of the update.
    """

    @property
    def name(self) -> str:
        """Lower-case key of `FAMILIES`."""
        ...

    @property
    def label(self) -> str:
        """Name in figures and tables."""
        ...

    @property
    def data_dependent(self) -> bool:
        """Whether the span depends on W or ΔW."""
        ...

    @property
    def needs_base(self) -> bool:
        """Whether it cannot be measured without W."""
        ...

    @property
    def sided(self) -> bool:
        """Whether m is the number of outputs in its sizes, however the layer is stored."""
        ...

    @property
    def certainty(self) -> Certainty:
        """What `fit` is."""
        ...

    @property
    def group(self) -> str:
        """Its kind, one of `GROUPS`."""
        ...

    @property
    def reference(self) -> str:
        """Who proposed it, and where."""
        ...

    def of(self, update: Update) -> "Family | None":
        """Return the family with what is known of an update, None if too little is known."""
        ...

    def size(self, m: int, n: int, parameters: int) -> Size:
        """Return the largest size on an m × n layer with at most `parameters` trained numbers."""
        ...

    def capture(self, update: Update, sizes: Sequence[Size], draws: Draws) -> list[Captured]:
        """Measure the share of a non-zero update's energy that each size (from `size`) captures.

        Exact families ignore `draws`, which says how random ones are drawn.
        """
        ...

    def fit(self, update: Update, size: Size, draws: Draws) -> Fit:
        """Return the best update of one size for a non-zero ΔW, under one draw with this key."""
        ...

    def cost(self, m: int, n: int, size: Size) -> Cost:
        """Return what an update of one size costs on an m × n layer."""
        ...


FAMILIES: dict[str, Family] = {}
"""Every update family by its name, in their order."""

_PLACES: dict[str, int] = {}


def register(family: Family, place: int = 10_000) -> None:
    """Add a family to `FAMILIES`, at its place in lists and legends: by default the last."""
    FAMILIES[family.name], _PLACES[family.name] = family, place
    ordered = sorted(FAMILIES.values(), key=lambda one: (_PLACES[one.name], one.name))
    FAMILIES.clear()
    FAMILIES.update({one.name: one for one in ordered})


def log2_choices(total: int, count: int) -> float:
    """Return log₂ of the number of ways to choose `count` of `total`: bits that tell the places."""
    parts = math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)
    return parts / math.log(2)


def plan_draws(law: float, variance: float, work: float, draws: Draws) -> int:
    """Choose the number of draws before drawing, from the law of the share and its variance.

    The least number at which half the width of the t interval is at most 1 % of the law, if it lies
    between 4 and `draws.most`, and the nearer of the two if not. A draw of long `work` (in
    multiply-adds) lowers the upper limit, to 5·10¹⁰ multiply-adds in all, but not below 4.

    Choosing it beforehand keeps the interval honest: a rule that looked at the draws and stopped
    when they agree would stop too early too often.
    """
    deviation = max(variance, 0.0) ** 0.5
    fewest = min(_FEWEST_DRAWS, draws.most)
    most = min(draws.most, max(fewest, int(_WORK / work)))
    for count in range(fewest, most):
        half_width = student_quantile(count, draws.confidence) * deviation / count**0.5
        if half_width <= _RELATIVE_HALF_WIDTH * law:
            return count
    return most


def t_interval(shares: NDArray[np.float64], confidence: float, law: float | None) -> Captured:
    """Summarise two or more independent draws by mean and Student t interval.

    The interval is cut at 1, and at 0 unless a draw is negative, as no projection of ΔW is.
    """
    count = len(shares)
    mean, deviation = float(shares.mean()), float(shares.std(ddof=1))
    half_width = student_quantile(count, confidence) * deviation / count**0.5
    least = 0.0 if shares.min() >= 0 else -math.inf
    return Captured(
        mean=mean,
        low=max(least, mean - half_width),
        high=min(1.0, mean + half_width),
        sd=deviation,
        draws=count,
        law=law,
    )
