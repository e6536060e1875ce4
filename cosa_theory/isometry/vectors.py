"""Vectors to measure distortion on: synthetic extremes, and samples of the rows of matrices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import choice, real_matrix, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.projections import stream

__all__ = ["SYNTHETIC", "sample_rows", "synthetic_vectors"]

SYNTHETIC: tuple[str, ...] = ("gaussian", "flat", "spike")
"""Names that `synthetic_vectors` knows."""


def synthetic_vectors(name: str, count: int, d: int, *, seed: int = 0) -> NDArray[np.float64]:
    """Draw vectors of a kind whose ‖x‖₄⁴, all that the variance of most ensembles reads, is known.

    "gaussian": independent normal entries, ‖x‖₄⁴/‖x‖⁴ about 3/d. "flat": random signs, exactly
    1/d, the least there is. "spike": one nonzero entry at a random place, exactly 1, the most.

    Parameters
    ----------
    name : {"gaussian", "flat", "spike"}
        The kind.
    count, d : int
        Number and length of the vectors.
    seed : int
        Of the draw, keyed by the name.

    Returns
    -------
    ndarray, shape (count, d)
        Vectors as rows.

    Raises
    ------
    InputError
        If the name is unknown or a number is not positive.
    """
    choice("name", name, SYNTHETIC)
    count, d = whole("count", count), whole("d", d)
    draw = stream(seed, "synthetic vectors", name, count, d)
    if name == "gaussian":
        return draw.standard_normal((count, d))
    if name == "flat":
        return np.where(draw.random((count, d)) < 0.5, -1.0, 1.0)
    vectors = np.zeros((count, d))
    vectors[np.arange(count), draw.integers(d, size=count)] = 1.0
    return vectors


def sample_rows(
    matrices: Iterable[NDArray[np.floating]], count: int, *, width: int | None = None, seed: int = 0
) -> NDArray[np.floating]:
    """Draw non-zero rows of several matrices, without replacement and without scaling.

    Rows of one length are drawn, from every matrix that has it, each by its share of the rows.
    One matrix is held at a time, next to at most `count` rows of each.

    Parameters
    ----------
    matrices : iterable of ndarray, shape (m_i, n_i)
        Such as weight updates, activations (tokens × features) or gradients.
    count : int
        How many rows at most; fewer where there are fewer.
    width : int, optional
        Their length; by default the one that most non-zero rows have.
    seed : int
        Of the choice.

    Returns
    -------
    ndarray, shape (≤ count, width)

    Raises
    ------
    InputError
        If `count` is not positive, one is no matrix of real numbers, or none has a non-zero row
        (of that length).
    """
    count = whole("count", count)
    available: Counter[int] = Counter()
    kept: dict[int, list[tuple[int, NDArray[np.floating]]]] = {}
    for number, given in enumerate(matrices):
        matrix = real_matrix(f"matrices[{number}]", given)
        if width is not None and matrix.shape[1] != width:
            continue
        places = np.flatnonzero(np.any(matrix != 0, axis=1))
        draw = stream(seed, "sample rows", number)
        chosen = draw.permutation(places)[:count]
        available[matrix.shape[1]] += places.size
        kept.setdefault(matrix.shape[1], []).append((places.size, matrix[chosen]))
    if not available.total():
        wanted = "" if width is None else f" of length {width}"
        raise InputError(f"no matrix has a non-zero row{wanted}", argument="matrices")
    groups = kept[available.most_common(1)[0][0]]
    # How many of the sample fall to each matrix: a draw without replacement from all their rows.
    draw = stream(seed, "sample rows", "shares")
    sizes = [size for size, _ in groups]
    shares = draw.multivariate_hypergeometric(sizes, min(count, sum(sizes)))
    return np.concatenate([rows[:share] for share, (_, rows) in zip(shares, groups, strict=True)])
