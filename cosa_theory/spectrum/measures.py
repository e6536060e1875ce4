"""What a spectrum says in a few numbers: ranks, flatness, noise floor, spikes above it."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import choice, numbers, pair, real, refuse
from cosa_theory.ground.errors import InputError
from cosa_theory.laws import marchenko_pastur_edges, participation_ratio
from cosa_theory.spectrum.intruders import intruder_dimensions
from cosa_theory.spectrum.noise import (
    beyond_rounding,
    noise_misfit,
    noise_sd,
    relative_rounding,
    spike_level,
)
from cosa_theory.spectrum.overlap import DIRECTIONS, subspace_overlap
from cosa_theory.spectrum.singular_values import resolution, singular_values
from cosa_theory.spectrum.storage import bf16_sparsity

__all__ = ["SpectrumSummary", "beside_base", "summarize"]


@dataclass(frozen=True)
class SpectrumSummary:
    """The measures of one spectrum; ratios are None where the numerical rank is 0.

    Attributes
    ----------
    rank : int
        The numerical rank: singular values that are not rounding (`summarize`). All others count as
        zero in the ratios below.
    resolved : bool
        Whether the rank is min(m, n).
    sigma_max : float
        Largest singular value σ₁, in the units of the entries.
    frobenius : float
        Frobenius norm √Σσ², in the same units.
    stable_rank : float or None
        Σσ² / σ₁², from 1 to min(m, n).
    effective_rank_entropy_sigma2 : float or None
        exp(−Σ p ln p) with p = σ² / Σσ², the shares of energy.
    effective_rank_entropy_sigma : float or None
        The same with p = σ / Σσ, the definition of Roy and Vetterli (2007).
    participation_ratio : float or None
        (Σσ²)² / Σσ⁴, from 1 (rank one) to min(m, n) (flat).
    flatness : float or None
        Geometric over arithmetic mean of all min(m, n) values of σ², from 0 to 1 (flat). None
        below full rank, as of a LoRA or CoSA adapter: the mean of logarithms is then one of
        rounding errors.
    rank_90, rank_95, rank_99 : int or None
        Fewest singular values that hold 90, 95 and 99 % of Σσ².
    noise_sd : float or None
        Standard deviation per entry of the independent noise whose median singular value is the
        measured one (Gavish and Donoho 2014); of the rounding itself, where that is the tail. None
        where the median is below the resolution of the method.
    mp_edge : float or None
        noise_sd · (√m + √n), the largest singular value of such noise (Marchenko and Pastur
        1967), up to fluctuations: noise alone exceeds it slightly in about one draw of six.
    spikes : int or None
        Singular values above that edge by more than such fluctuations: above the level that the
        largest value of noise alone exceeds in 1 % of draws (`noise.spike_level`).
    noise_misfit : float or None
        Kolmogorov-Smirnov distance between the values up to `mp_edge` and the fitted
        Marchenko-Pastur law: of the order of 1 / min(m, n) for true noise, and above about 0.1
        the floor is no such noise, and `noise_sd` only the scale of the bulk.
    intruders, lowest_cosine, and their null
        Those of `Intruders`; like all that follow None without the weight W that was updated.
    left_overlap, right_overlap, and their null
        Those of `Overlap`.
    zero_share, bf16_lost_share, and its null
        Those of `StoredShares`.
    """

    rank: int
    resolved: bool
    sigma_max: float
    frobenius: float
    stable_rank: float | None
    effective_rank_entropy_sigma2: float | None
    effective_rank_entropy_sigma: float | None
    participation_ratio: float | None
    flatness: float | None
    rank_90: int | None
    rank_95: int | None
    rank_99: int | None
    noise_sd: float | None
    mp_edge: float | None
    spikes: int | None
    noise_misfit: float | None
    intruders: int | None = None
    intruders_null_low: int | None = None
    intruders_null_high: int | None = None
    lowest_cosine: float | None = None
    lowest_cosine_null_low: float | None = None
    lowest_cosine_null_high: float | None = None
    left_overlap: float | None = None
    left_overlap_null: float | None = None
    left_overlap_null_sd: float | None = None
    right_overlap: float | None = None
    right_overlap_null: float | None = None
    right_overlap_null_sd: float | None = None
    zero_share: float | None = None
    bf16_lost_share: float | None = None
    bf16_lost_null: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, in the order above."""
        return dataclasses.asdict(self)


def summarize(
    X: Any,
    shape: tuple[int, int] | None = None,
    method: str = "gram",
    rounding_rms: float | None = None,
    base: Any = None,
) -> SpectrumSummary:
    """Summarise the spectrum of a matrix, or singular values computed before.

    Parameters
    ----------
    X : array of shape (m, n) or (k,)
        A matrix, or the singular values of one in any order (k ≤ min(m, n); those not given are
        taken as zero, as `singular_values_of_product` leaves them out).
    shape : (int, int), optional
        (m, n); required with singular values, which do not tell it, and no other than that of a
        matrix X.
    method : {"gram", "svd", "product"}
        How to compute the singular values of a matrix, or how they were computed: it sets the
        level below which they are noise (`resolution`).
    rounding_rms : float, optional
        Root mean square, per entry, of the error that storing the matrix has put into it, such as
        `LayerDelta.rounding_rms`; by default what the type of a matrix X implies, and 0 with
        singular values. Values that such errors explain are no part of the rank.
    base : array of shape (m, n), optional
        The weight W, where the matrix X is its update: adds what `beside_base` measures.

    Returns
    -------
    SpectrumSummary
        All fields in units of the entries of X, or pure numbers.

    Raises
    ------
    InputError
        If the method does not give the whole spectrum, the shape is missing or contradicts X, the
        values are negative or not numbers, or W is no finite matrix of X's shape.

    References
    ----------
    docs/theory.md, 5.1. O. Roy, M. Vetterli, "The effective rank: a measure of effective
    dimensionality", EUSIPCO 2007. M. Gavish, D. L. Donoho, "The optimal hard threshold for singular
    values is 4/√3", IEEE Trans. Information Theory 60 (2014).
    """
    X = X if hasattr(X, "ndim") else np.asarray(X)
    is_matrix = X.ndim == 2
    choice("method", method, ("gram", "svd") if is_matrix else ("gram", "svd", "product"))
    stored, update = 0.0, X
    if base is not None and not is_matrix:
        text = "base is given beside singular values: give the matrix X, or leave base out"
        raise InputError(text, argument="base")
    if is_matrix:
        own, stored = (int(X.shape[0]), int(X.shape[1])), relative_rounding(X.dtype)
        if shape is not None and pair("shape", shape) != own:
            raise refuse("shape", shape, f"{own}, the shape of X, or left out")
        shape, X = own, singular_values(X, method=method)
    if shape is None:
        raise refuse("shape", shape, "(m, n), the shape of the matrix of these singular values")
    shape = pair("shape", shape)
    sigma = _full_spectrum(X, shape)
    if rounding_rms is None:
        rounding_rms = stored * _norm(sigma) / math.sqrt(shape[0] * shape[1])
    rounding_rms = real("rounding_rms", rounding_rms, least=0.0)
    computed = int(np.count_nonzero(sigma > resolution(sigma, method, shape)))
    rank = min(computed, beyond_rounding(sigma, shape, rounding_rms))
    noise = noise_sd(sigma, shape) if 2 * computed > sigma.size else None
    # Unit variance, scaled afterwards: the square of a tiny noise would underflow.
    edge = None if noise is None else noise * float(marchenko_pastur_edges(*shape, 1.0)[1])
    kept = sigma[:rank]
    summary = SpectrumSummary(
        rank=rank,
        resolved=rank == sigma.size,
        sigma_max=float(sigma[0]),
        frobenius=_norm(sigma),
        stable_rank=_stable_rank(kept) if rank else None,
        effective_rank_entropy_sigma2=_effective_rank(kept, power=2) if rank else None,
        effective_rank_entropy_sigma=_effective_rank(kept, power=1) if rank else None,
        participation_ratio=participation_ratio(kept) if rank else None,
        flatness=_flatness(kept) if rank == sigma.size else None,
        rank_90=_energy_rank(kept, 0.90) if rank else None,
        rank_95=_energy_rank(kept, 0.95) if rank else None,
        rank_99=_energy_rank(kept, 0.99) if rank else None,
        noise_sd=noise,
        mp_edge=edge,
        spikes=None if noise is None else int(np.count_nonzero(sigma > spike_level(shape, noise))),
        noise_misfit=None if noise is None else noise_misfit(sigma, shape, noise),
    )
    return summary if base is None else beside_base(summary, update, base)


def beside_base(
    summary: SpectrumSummary, delta: Any, base: Any, *, vectors: bool = True
) -> SpectrumSummary:
    """Return the summary of an update, with what only its base weight tells.

    Adds `intruder_dimensions`, `subspace_overlap` (of directions within the rank) and
    `bf16_sparsity`; without `vectors` the last one alone, which needs no decomposition.
    """
    found = bf16_sparsity(delta, base)._asdict()
    if vectors and summary.sigma_max > 0:
        found |= intruder_dimensions(delta, base)._asdict()
    if vectors and summary.rank > 0:
        found |= subspace_overlap(delta, base, r=min(DIRECTIONS, summary.rank))._asdict()
    return dataclasses.replace(summary, **found)


def _norm(sigma: NDArray[np.float64]) -> float:
    """Return √Σσ² without overflow or underflow."""
    return float(np.linalg.norm(sigma / (sigma[0] or 1.0)) * sigma[0])


def _full_spectrum(values: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return all min(m, n) singular values, largest first, on the host."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    sigma = np.asarray(values, dtype=np.float64)
    limit = min(shape)
    if sigma.ndim != 1 or not 1 <= sigma.size <= limit:
        raise InputError(
            f"X has shape {sigma.shape}: it must be the {limit} singular values of a matrix of "
            f"shape {tuple(shape)}, or the largest of them",
            argument="X",
        )
    numbers("X", sigma, least=0.0, most=np.finfo(float).max)
    full = np.zeros(limit)
    full[: sigma.size] = np.sort(sigma)[::-1]
    return full


def _shares(sigma: NDArray[np.float64], power: int) -> NDArray[np.float64]:
    """Return p = σ^power / Σσ^power, without overflow or underflow."""
    weights = (sigma / sigma.max()) ** power
    return weights / weights.sum()


def _stable_rank(sigma: NDArray[np.float64]) -> float:
    """Return Σσ² / σ₁² of a non-zero spectrum."""
    return float(1.0 / _shares(sigma, 2).max())


def _effective_rank(sigma: NDArray[np.float64], power: int) -> float:
    """Return exp(−Σ p ln p) of a non-zero spectrum, p = σ^power / Σσ^power."""
    shares = _shares(sigma, power)
    shares = shares[shares > 0.0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _flatness(sigma: NDArray[np.float64]) -> float:
    """Return the geometric over the arithmetic mean of σ², none of which is zero."""
    shares = _shares(sigma, 2)
    return float(np.exp(np.mean(np.log(shares))) * shares.size)


def _energy_rank(sigma: NDArray[np.float64], share: float) -> int:
    """Return the fewest values of a non-zero spectrum that hold `share` of Σσ²."""
    held = np.cumsum(np.sort(_shares(sigma, 2))[::-1])
    # The slack is rounding's: nine of ten equal values do hold 90 %.
    return min(int(np.searchsorted(held, share - 1e-12)) + 1, sigma.size)
