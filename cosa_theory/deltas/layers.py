"""One matrix of a pair, and what was found when the pair was put together."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.scales import frobenius_norm

__all__ = [
    "FLOAT_DTYPES",
    "LayerDelta",
    "Matrix",
    "PairReport",
    "module_and_block",
    "shape_text",
    "storage_noise",
]

Matrix = NDArray[np.floating[Any]]

# Largest relative rounding error of each stored type: 2^-p for p significant bits.
_UNIT_ROUNDOFF = {
    "bfloat16": 2.0**-8,
    "float16": 2.0**-11,
    "float32": 2.0**-24,
    "float64": 2.0**-53,
}
FLOAT_DTYPES = tuple(_UNIT_ROUNDOFF)


@dataclass(frozen=True)
class LayerDelta:
    """The update of one weight matrix.

    Parameters
    ----------
    name : str
        The base's name of the tensor.
    delta : ndarray, shape (m, n)
        ΔW = W_tuned − W_base, or the product of an adapter's factors; float32, or float64 if
        either side is stored so. Both sides are converted before they are subtracted.
    base : ndarray, shape (m, n)
        W_base in the same type.
    factors : tuple of ndarray, optional
        Of shapes (m, r) and (r, n), with delta as their product: (scaling · B, A) of a LoRA layer,
        (alpha · L Y, R) or (alpha · L, Y R) of a CoSA layer.
    base_dtype, tuned_dtype : str
        The stored types.
    rounding_rms : float
        Root mean square, per entry, of the error that storing the weights in the coarser of the
        two types has put into ΔW; see `storage_noise`. Zero for an adapter's factors, whose ΔW is
        not a difference of stored weights.
    """

    name: str
    delta: Matrix
    base: Matrix
    factors: tuple[Matrix, Matrix] | None = None
    base_dtype: str = "float32"
    tuned_dtype: str = "float32"
    rounding_rms: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows m (out features) and columns n (in features)."""
        return self.delta.shape[0], self.delta.shape[1]

    @property
    def T(self) -> "LayerDelta":
        """The same with every matrix transposed."""
        factors = None if self.factors is None else (self.factors[1].T, self.factors[0].T)
        return replace(self, delta=self.delta.T, base=self.base.T, factors=factors)

    @property
    def tuned(self) -> Matrix:
        """The tuned weight W_base + ΔW, computed anew at each access."""
        return self.base + self.delta


@dataclass(frozen=True)
class PairReport:
    """What was found when two models were put side by side.

    Parameters
    ----------
    matched : tuple of str
        Base names of all tensors that both sides have, whether compared or skipped.
    only_in_base, only_in_tuned : tuple of str
        Tensors without a partner. Empty for the base of an adapter, which leaves the tensors it
        does not name as they are.
    renamed : tuple of (str, str)
        Renamed prefixes, as (in base, in tuned).
    tied : tuple of (str, str)
        (dropped, kept): matrices that are one matrix under two names.
    skipped : tuple of (str, str)
        (name, reason) of matched tensors that are not compared.
    left_out : int
        How many weight matrices of either side are not compared: without a partner, or skipped.
    notices : tuple of str
        The same, and anything else worth saying, as plain sentences.
    """

    matched: tuple[str, ...] = ()
    only_in_base: tuple[str, ...] = ()
    only_in_tuned: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    tied: tuple[tuple[str, str], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    left_out: int = 0
    notices: tuple[str, ...] = ()


_BLOCK_DIGITS = 9  # a longer run of digits numbers no block, and may be too long for an int


def module_and_block(name: str) -> tuple[str, int | None]:
    """Split a tensor's name into the kind of module it belongs to and the number of its block.

    Parameters
    ----------
    name : str
        As in "encoder.layer.3.attention.self.query.weight".

    Returns
    -------
    module : str
        What follows the first number, without a final ".weight": "attention.self.query". If
        nothing follows, what precedes the number; without a number, the whole name.
    block : int or None
        The first number of at most nine digits that is a part of the name: 3; None without one.
    """
    parts = name.removesuffix(".weight").split(".")
    for position, part in enumerate(parts):
        if part.isdecimal() and len(part) <= _BLOCK_DIGITS:
            around = parts[position + 1 :] or parts[:position]
            return ".".join(around) or name, int(part)
    return ".".join(parts), None


def shape_text(shape: tuple[int, ...]) -> str:
    """Return "m × n" as messages have it."""
    return " × ".join(map(str, shape)) or "a single number"


def coarser_dtype(first: str, second: str) -> str:
    """Return the stored type with the larger rounding error."""
    return max(first, second, key=_UNIT_ROUNDOFF.__getitem__)


def storage_noise(weight: Matrix, dtype: str) -> float:
    """Return the root mean square error per entry of storing a matrix in a floating-point type.

    √(1 / (8 ln 2)) · u · rms(W) ≈ 0.42 · u · rms(W) in the units of W, u the unit roundoff 2⁻ᵖ
    (bfloat16 2⁻⁸, float16 2⁻¹¹, float32 2⁻²⁴, float64 2⁻⁵³). See docs/theory.md, 5.2.

    An entry ± x · 2ᵉ with 1 ≤ x < 2 is stored with an error uniform in ± u · 2ᵉ, hence of relative
    mean square u² / (3 x²). The leading digits of numbers spread over several octaves follow the
    density 1 / (x ln 2) (Hamming, "On the distribution of numbers", Bell System Technical Journal,
    1970), under which the mean of x⁻² is 3 / (8 ln 2): relative mean square u² / (8 ln 2). Entries
    below the type's normal range (6e-5 in float16) have a larger relative error. The error is
    tied to the grid of the type, not independent noise: an update far below the spacing of the
    stored weights is lost in most entries.
    """
    with np.errstate(over="ignore", under="ignore"):
        mean_square = float(np.einsum("ij,ij->i", weight, weight).mean(dtype=np.float64))
    mean_square /= weight.shape[1]
    if not 1e-30 < mean_square < math.inf:  # squares left the range of float32, or nearly
        rms = frobenius_norm(weight) / math.sqrt(weight.size)
    else:
        rms = math.sqrt(mean_square)
    return rms / math.sqrt(8 * math.log(2)) * _UNIT_ROUNDOFF[dtype]
