"""Intruder dimensions: leading directions of W + ΔW that W did not have."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import finite, matrix, real, whole
from cosa_theory.linear.operators import to_host
from cosa_theory.projections import stream
from cosa_theory.spectrum.singular_values import resolution, singular_values
from cosa_theory.spectrum.singular_vectors import gram_vectors, leading_vectors

__all__ = ["DRAWS", "EXAMINED", "THRESHOLD", "Intruders", "intruder_dimensions"]

EXAMINED = 10
"""How many of the leading singular vectors of W + ΔW are looked at."""

THRESHOLD = 0.5
"""The cosine below which a vector has no counterpart in W."""

DRAWS = 5
"""How often the directions of ΔW are drawn anew for the null."""

Matrix = NDArray[Any]


class Intruders(NamedTuple):
    """Intruder dimensions of one update, and of updates of its singular values at random.

    Attributes
    ----------
    intruders : int or None
        How many of the leading left singular vectors of W + ΔW have an absolute cosine below the
        threshold with every left singular vector of W.
    lowest_cosine : float or None
        The least, over those leading vectors, of the largest such cosine.
    intruders_null_low, intruders_null_high : int or None
        Fewest and most intruders over the draws of the null.
    lowest_cosine_null_low, lowest_cosine_null_high : float or None
        Least and largest `lowest_cosine` over the draws.
    """

    intruders: int | None = None
    lowest_cosine: float | None = None
    intruders_null_low: int | None = None
    intruders_null_high: int | None = None
    lowest_cosine_null_low: float | None = None
    lowest_cosine_null_high: float | None = None


def intruder_dimensions(
    delta: Any,
    base: Any,
    k: int = EXAMINED,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> Intruders:
    """Count the intruder dimensions of an update, beside those of random updates of its size.

    An intruder dimension is one of the k leading left singular vectors y of W + ΔW with
    max_i |⟨y, u_i⟩| < threshold over all left singular vectors u_i of W [1]_; k = 10 and 0.5 are
    the choices of that paper. Large updates have them whatever they are: the null is W + Q ΔW P
    with independent Haar-random orthogonal Q and P, an update of the same singular values. See
    docs/theory.md, 5.6.

    Parameters
    ----------
    delta, base : array of shape (m, n)
        ΔW and W, numpy arrays or torch tensors.
    k : int
        How many vectors of W + ΔW to look at; fewer where it has fewer resolved singular values.
    threshold : float in (0, 1]
        The cosine below which a vector has no counterpart.
    seed : int
        Of the draws of the null.

    Returns
    -------
    Intruders
        All None where W or W + ΔW is zero.

    Raises
    ------
    InputError
        If a matrix is empty or not finite, the shapes differ, or an argument is out of range.

    References
    ----------
    .. [1] R. Shuttleworth, J. Andreas, A. Torralba, P. Sharma, "LoRA vs full fine-tuning: an
       illusion of equivalence", 2024, arXiv 2410.21228, definition 1.
    """
    delta = matrix("delta", to_host(delta))
    base = matrix("base", to_host(base), delta.shape)
    k, threshold = whole("k", k), real("threshold", threshold, above=0, most=1)
    changes = singular_values(delta)
    values, vectors = gram_vectors(base)
    with np.errstate(over="ignore"):  # refused below, by its name
        tuned = base + delta
    finite("base + delta", tuned)
    leading = leading_vectors(tuned, min(k, *base.shape))[0]
    if not values.size or not leading.size:
        return Intruders()
    if base.shape[0] < base.shape[1]:
        cosines = vectors.T @ leading
    else:  # u_i = W v_i / σ_i, without forming them
        scale = values[0]  # so that no quotient leaves the range
        cosines = vectors.T @ ((base / scale).T @ leading) / (values[:, None] / scale)
    count, lowest = _judged(cosines, threshold)
    drawn = [
        _judged(_random_cosines(values, changes, base.shape, k, seed, draw), threshold)
        for draw in range(DRAWS)
    ]
    counts, lows = zip(*drawn, strict=True)
    return Intruders(count, lowest, min(counts), max(counts), min(lows), max(lows))


def _judged(cosines: Matrix, threshold: float) -> tuple[int, float]:
    """Return the number of intruders and the least best cosine, from one column for each vector.

    Without a vector, as where W and a draw of ΔW cancel, they are 0 and 1.
    """
    best = np.abs(cosines).max(axis=0)
    return int(np.count_nonzero(best < threshold)), float(best.min(initial=1.0))


def _random_cosines(
    values: Matrix, changes: Matrix, shape: tuple[int, ...], k: int, seed: int, draw: int
) -> Matrix:
    """Return the cosines for one update with singular values `changes` in random directions.

    The law of W + Q ΔW P depends on the singular values alone, so W is taken as diagonal: in the
    coordinates of its singular vectors, which come first, and of any basis of the rest.
    """
    generator = stream(seed, "intruders", draw)
    changes = changes[changes > resolution(changes, "gram")]
    most = max(values[0], changes.max(initial=0.0))
    left, right = (_random_directions(generator, side, values.size, changes.size) for side in shape)
    tuned = left * (changes / most) @ right.T
    where = np.arange(values.size)
    tuned[where, where] += values / most
    return leading_vectors(tuned, min(k, *tuned.shape))[0][: values.size]


def _random_directions(generator: np.random.Generator, side: int, first: int, count: int) -> Matrix:
    """Return Haar-random orthonormal vectors, in coordinates of which the `first` matter.

    They are those of a Gaussian matrix, side × count, of which the rows beyond the first are
    replaced by their triangular factor, at most count × count: other coordinates of the space that
    they span. Its entries are independent, normal above the diagonal and chi on it [1]_.

    References
    ----------
    .. [1] M. S. Bartlett, Proc. Royal Society of Edinburgh 53 (1933).
    """
    gaussian = generator.standard_normal((min(side, first + count), count))
    if side - first > count:
        triangle = np.triu(gaussian[first:])
        freedom = side - first - np.arange(count)
        np.fill_diagonal(triangle, np.sqrt(generator.chisquare(freedom)))
        gaussian[first:] = triangle
    basis, factor = np.linalg.qr(gaussian)
    return basis * np.copysign(1.0, factor.diagonal())
