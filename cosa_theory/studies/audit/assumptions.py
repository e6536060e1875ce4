"""The assumptions of the theory as numbers with thresholds, stated before anything is measured."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from cosa_theory import laws

__all__ = [
    "ASSUMPTIONS",
    "ENERGY",
    "SUBJECTS",
    "Assumption",
    "Measured",
    "Outcome",
    "outcome_of",
    "variance_factor",
]

Outcome = Literal["holds", "fails", "undecided"]
SUBJECTS = {"update": "update ΔW", "gradient": "gradient of the first step"}
"""What is audited, as it is called."""

ENERGY = 0.9
"""The share of an update's energy that counts as the update."""


@dataclass(frozen=True)
class Measured:
    """A number with the interval it is known to lie in, both ends included."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> "Measured":
        """Return a number known without uncertainty."""
        return cls(value, value, value)


@dataclass(frozen=True)
class Assumption:
    """One condition that a result of the theory needs, or promises.

    Parameters
    ----------
    name : str
        Its key in tables.
    title : str
        A few words for a heading.
    meaning : str
        What it says about one matrix, in plain words.
    quantity : str
        What is measured.
    relation : {"at most", "at least"}
        On which side of the threshold the quantity has to lie; equality is allowed.
    bound : str
        The threshold as a formula.
    threshold : callable
        Maps (m, n, a, b), the layer and the core in use, to the threshold.
    reason : str
        Why this threshold, with its source.
    of_update : bool
        Whether it is about the update (and so about a gradient too), not about the layer and the
        core alone.
    """

    name: str
    title: str
    meaning: str
    quantity: str
    relation: Literal["at most", "at least"]
    bound: str
    threshold: Callable[[int, int, int, int], float]
    reason: str
    of_update: bool = True

    @property
    def sign(self) -> str:
        """The relation as a sign."""
        return "≤" if self.relation == "at most" else "≥"


def compressing_rows(m: int, n: int, a: int, b: int) -> float:
    """Return the rows of the smaller sensing factor that loses anything; infinite if none does.

    A factor with a = m or b = n is invertible: Φ is then as good as its other factor alone.
    """
    return min(a if a < m else math.inf, b if b < n else math.inf)


def variance_factor(m: int, n: int, a: int, b: int, ratio: float) -> float:
    """Return the variance of ‖ΦX‖² over that of an unstructured Gaussian map with ab rows.

    1 + (a + b + 1)/PR(X) for Gaussian factors, with PR(X) the participation `ratio`. A whole side
    is the identity: then only the other factor projects, Var‖AX‖² = (2/a) ‖X‖⁴/PR(X), and the
    quotient is n/PR (or m/PR); with both sides whole nothing varies.
    """
    if a < m and b < n:
        return float(laws.kronecker_inflation(a, b, ratio))
    return n / ratio if a < m else m / ratio if b < n else 0.0


def _flat_enough(m: int, n: int, a: int, b: int) -> float:
    """Return the participation ratio at which `variance_factor` is 2, at least 1."""
    if a < m and b < n:
        return a + b + 1.0
    return max(1.0, n / 2 if a < m else m / 2 if b < n else 1.0)


def _spark_wall(m: int, n: int, a: int, b: int) -> float:
    rows = compressing_rows(m, n, a, b)
    return float((laws.spark_wall(rows, rows) - 1) / 2 if rows < math.inf else m * n)


def _measurement_bound(m: int, n: int, a: int, b: int) -> float:
    rows_for_one = float(laws.measurement_bound(1, max(m, 2), n))
    return min(compressing_rows(m, n, a, b) / rows_for_one, float(m * n))


_ALL = (
    Assumption(
        name="admissible",
        title="core fits the layer",
        meaning="no row or column of the core is redundant",
        quantity="max(a/m, b/n) of the core asked for",
        relation="at most",
        bound="1",
        threshold=lambda m, n, a, b: 1.0,
        reason="L (m × a) has independent columns and R (b × n) independent rows only if a ≤ m and "
        "b ≤ n; otherwise the dictionary Ψ = L ⊗ Rᵀ is not injective and its least singular value "
        "is 0.",
        of_update=False,
    ),
    Assumption(
        name="near_isometry",
        title="near-isometry",
        meaning="the tall Ψ, from cores to updates, stretches no core much more than another",
        quantity="(κ² − 1)/(κ² + 1) with κ = σ_max/σ_min of the tall dictionary Ψ = L ⊗ Rᵀ: its "
        "isometry constant over all cores at the best scale",
        relation="at most",
        bound="1/√2",
        threshold=lambda m, n, a, b: 1 / math.sqrt(2),
        reason="A constant δ_2s below 1/√2 guarantees recovery of every s-sparse core (T. T. Cai, "
        "A. Zhang, IEEE Trans. Information Theory 60 (2014), sharp); the constant over all cores "
        "bounds δ_2s for every s. No choice of scale makes it smaller than this.",
        of_update=False,
    ),
    Assumption(
        name="flat_spectrum",
        title="flat spectrum",
        meaning="enough singular values share the energy for the wide Φ to keep its length",
        quantity="participation ratio PR = (Σσ²)²/Σσ⁴",
        relation="at least",
        bound="a + b + 1",
        threshold=_flat_enough,
        reason="For Gaussian factors Var‖ΦX‖²/‖X‖⁴ = (2/(ab))(1 + (a + b + 1)/PR(X)), exactly, "
        "where an unstructured Gaussian map of ab rows has 2/(ab): the variance is at most doubled "
        "when PR ≥ a + b + 1. (Fourth moments of Gaussian entries, by Isserlis' theorem.) Where "
        "b = n only L projects, and the same needs PR ≥ n/2; where a = m, PR ≥ m/2.",
    ),
    Assumption(
        name="compressible",
        title="compressible",
        meaning="sorted coefficients fall fast enough that a few stand for all, in some basis",
        quantity="weak-ℓp exponent p of the decay |x|_(k) ∝ k^(−1/p), in the best basis",
        relation="at most",
        bound="1",
        threshold=lambda m, n, a, b: 1.0,
        reason="In a weak-ℓp ball the best s-term error σ_s(x)₁ falls like s^(1 − 1/p): it goes to "
        "zero for p < 1 only (E. J. Candès, T. Tao, IEEE Trans. Information Theory 52 (2006); "
        "A. Cohen, W. Dahmen, R. DeVore, J. AMS 22 (2009)).",
    ),
    Assumption(
        name="spark_wall",
        title="below the spark wall",
        meaning="so few coefficients matter that Φ gives no other update as sparse the same core",
        quantity="effective sparsity s in the best basis: the coefficients that hold 90 % of the "
        "energy, and the numerical sparsity ‖x‖₁²/‖x‖₂²",
        relation="at most",
        bound="min(a, b)/2",
        threshold=_spark_wall,
        reason="spark(Lᵀ ⊗ R) = min(spark Lᵀ, spark R) ≤ min(a, b) + 1, and every s-sparse vector "
        "can be told apart only if 2s < spark (S. Jokar, V. Mehrmann, Linear Algebra Appl. 431 "
        "(2009); D. L. Donoho, M. Elad, PNAS 100 (2003)). It is the same in every basis that turns "
        "rows and columns separately, as all three here do. A factor with a = m or b = n loses "
        "nothing and does not count.",
    ),
    Assumption(
        name="measurements",
        title="enough measurements",
        meaning="the core is large enough for the restricted isometry of Φ at this sparsity",
        quantity="effective sparsity s in the best basis, as for the spark wall",
        relation="at most",
        bound="min(a, b)/ln max(m, n)",
        threshold=_measurement_bound,
        reason="For the Kronecker product of sub-Gaussian factors restricted isometry of order s "
        "holds with high probability once min(a, b) is of order s ln max(m, n) (He and Joseph, "
        "arXiv 2409.08699, 2024). The result gives the order; the constant here is 1, which is "
        "favourable: known proofs need a larger one.",
    ),
    Assumption(
        name="decodable",
        title="decodable",
        meaning="the core that fits the update best gives it back",
        quantity="relative error ‖ΔW − L Y* R‖/‖ΔW‖ of the best core, mean over draws of L and R",
        relation="at most",
        bound="√0.1 = 0.316",
        threshold=lambda m, n, a, b: math.sqrt(1 - ENERGY),
        reason="The usual 90 % of the energy. For random factors the law predicts √(1 − ab/(mn)) "
        "for every update, so that it is met only where the core has 90 % as many entries as the "
        "matrix.",
    ),
)

ASSUMPTIONS: Mapping[str, Assumption] = {one.name: one for one in _ALL}
"""Every assumption by its name, in the order of all tables."""


def outcome_of(assumption: Assumption, measured: Measured | None, threshold: float) -> Outcome:
    """Decide whether an assumption holds, by the whole interval and not by the value.

    "undecided" where the interval has the threshold inside, or there is no number, as for a zero
    update.
    """
    if measured is None:
        return "undecided"
    if assumption.relation == "at most":
        met, missed = measured.high <= threshold, measured.low > threshold
    else:
        met, missed = measured.low >= threshold, measured.high < threshold
    return "holds" if met else "fails" if missed else "undecided"
