"""Search for supports with extreme sparse eigenvalues: random draws, greedy growth, swaps.

Both sides are one problem: with σ = +1 for the greatest and σ = −1 for the least eigenvalue, look
for the support S of size s on which λ_max(σ G_S) is greatest. All steps work on many supports at
once, as rows of an array of shape (N, s).

The steps score a new column from the eigenvector at hand. For a unit vector u on a support T and a
column j outside it, the greatest root of the 2 × 2 matrix

    [ uᵀHu     (Hu)_j ]
    [ (Hu)_j   H_jj   ],    H = σG,

is the greatest Rayleigh quotient of H in the plane of u and e_j, so at most λ_max(H_{T ∪ j}): one
product Hu bounds the gain of all columns at once, without an eigenvalue computation for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cosa_theory.linear.gram_protocol import Floats, Gram, Indices

__all__ = [
    "Found",
    "best_pairs",
    "climb",
    "exceeds",
    "exchange",
    "grow",
    "merged",
    "random_supports",
    "sample_best",
    "settle",
    "top_eigenpairs",
    "top_values",
]

_ENTRIES = 1 << 18  # entries of a work array, 2 MiB: a batch stays in cache, which is twice as fast
_LEADERS = 64  # supports of a sample whose eigenvalue is computed before the rest is screened
_PROMISING = 4  # columns to drop whose best swap gets its eigenvalue computed
_GAIN = 1e-12  # relative gain under which a step is rounding, not progress


@dataclass(frozen=True, eq=False)
class Found:
    """Supports with their eigenvalues, best first.

    `supports` (N, s) has the columns of each, increasing, and `values` (N,) their λ_max(σ G_S),
    decreasing; `evaluations` counts the supports whose bound was evaluated on the way.
    """

    supports: Indices
    values: Floats
    evaluations: int

    def head(self, count: int) -> Found:
        """Return the best `count` of them."""
        return Found(self.supports[:count], self.values[:count], self.evaluations)


def _ranked(supports: Indices, values: Floats, evaluations: int) -> Found:
    """Return supports sorted inside, without repetition, best first."""
    supports, first = np.unique(np.sort(supports, axis=1), axis=0, return_index=True)
    order = np.argsort(-values[first], kind="stable")
    return Found(supports[order], values[first][order], evaluations)


def merged(*parts: Found) -> Found:
    """Return the union of several finds of one order."""
    return _ranked(
        np.concatenate([part.supports for part in parts]),
        np.concatenate([part.values for part in parts]),
        sum(part.evaluations for part in parts),
    )


def random_supports(generator: np.random.Generator, count: int, s: int, columns: int) -> Indices:
    """Draw supports uniformly among all of size s, with repetition between them, shape (count, s).

    Floyd's method (J. Bentley, R. Floyd, "Programming pearls: a sample of brilliance",
    Communications of the ACM 30 (1987), 754-757): O(s²) a support, whatever `columns` is.
    """
    supports = np.empty((s, count), np.int64)
    for place, last in enumerate(range(columns - s, columns)):
        drawn = generator.integers(0, last + 1, count)
        taken = (supports[:place] == drawn).any(axis=0)
        supports[place] = np.where(taken, last, drawn)
    return supports.T


def top_eigenpairs(gram: Gram, supports: Indices, sign: int) -> tuple[Floats, Floats]:
    """Return λ_max(σ G_S), shape (N,), and its unit eigenvectors, shape (N, s)."""
    values, vectors = np.linalg.eigh(sign * gram.blocks(supports))
    return values[:, -1], vectors[:, :, -1]


def top_values(H: Floats) -> Floats:
    """Return λ_max of each matrix of a stack, shape (N,)."""
    return np.asarray(np.linalg.eigvalsh(H)[..., -1], dtype=np.float64)


def exceeds(H: Floats, level: float) -> np.ndarray:
    """Tell for each symmetric matrix of a stack (N, s, s) whether λ_max reaches `level`.

    It does not exactly where level·I − H is positive definite, which elimination without pivoting
    decides by the signs of its pivots, for all matrices at once.
    """
    K = -H
    size = K.shape[1]
    K[:, np.arange(size), np.arange(size)] += level
    reached = np.zeros(K.shape[0], bool)
    for t in range(size):
        pivot = K[:, t, t]
        reached |= pivot <= 0
        row = K[:, t, t + 1 :] / np.where(reached, np.inf, pivot)[:, None]
        K[:, t + 1 :, t + 1 :] -= K[:, t + 1 :, t, None] * row[:, None, :]
    return reached


def sample_best(gram: Gram, supports: Indices, sign: int) -> Found:
    """Return the best of given supports, and those that looked best on the way.

    The eigenvalues of a matrix with trace t and squared Frobenius norm f are at most
    t/s + √((s − 1)/s · (f − t²/s)) (H. Wolkowicz, G. P. H. Styan, "Bounds for eigenvalues using
    traces", Linear Algebra and its Applications 29 (1980), theorem 2.1). The leaders by this bound
    are computed; only what exceeds the best of them by the pivots of an elimination is computed
    too, so the best is the best.
    """
    count, s = supports.shape
    step = max(_LEADERS, _ENTRIES // (s * s))
    parts = [
        _best_of_chunk(sign * gram.blocks(supports[i : i + step]), supports[i : i + step])
        for i in range(0, count, step)
    ]
    return merged(*parts)


def _best_of_chunk(H: Floats, supports: Indices) -> Found:
    s = supports.shape[1]
    mean = np.einsum("nii->n", H) / s
    spread = np.einsum("nij,nij->n", H, H) - s * mean**2
    bound = mean + np.sqrt(np.maximum(spread, 0.0) * (s - 1) / s)
    leaders = np.argpartition(-bound, min(_LEADERS, bound.size) - 1)[:_LEADERS]
    values = top_values(H[leaders])
    rest = np.flatnonzero(bound > values.max())
    rest = rest[exceeds(H[rest], values.max())]
    chosen = np.concatenate([leaders, rest])
    values = np.concatenate([values, top_values(H[rest])])
    return _ranked(supports[chosen], values, supports.shape[0])


def _plane(inside: Floats, cross: Floats, outside: Floats) -> Floats:
    """Return the greatest eigenvalue of [[inside, cross], [cross, outside]], elementwise."""
    half = (inside - outside) / 2
    root = cross * cross
    root += half * half
    np.sqrt(root, out=root)
    root += half
    root += outside
    return root


def best_pairs(gram: Gram, columns: Indices, sign: int) -> Found:
    """Return each column with the partner that makes the greatest eigenvalue, best first."""
    diagonal = sign * gram.diagonal
    pairs: list[Indices] = []
    values: list[Floats] = []
    step = max(1, _ENTRIES // gram.columns)
    for start in range(0, columns.size, step):
        some = columns[start : start + step]
        score: Floats = _plane(diagonal[some, None], gram.rows(some), diagonal)
        score[np.arange(some.size), some] = -np.inf
        partner = score.argmax(axis=1)
        pairs.append(np.stack([some, partner], axis=1))
        values.append(score[np.arange(some.size), partner])
    return _ranked(np.concatenate(pairs), np.concatenate(values), columns.size * gram.columns)


def grow(gram: Gram, supports: Indices, s: int, sign: int) -> Found:
    """Add columns one at a time, each with the greatest bound, until the supports have size s."""
    evaluations = 0
    diagonal = sign * gram.diagonal
    while supports.shape[1] < s:
        values, vectors = top_eigenpairs(gram, supports, sign)
        added = np.empty(supports.shape[0], np.int64)
        for some in _batches(gram, *supports.shape):
            cross = np.einsum("nt,ntd->nd", vectors[some], gram.rows(supports[some]))
            score = _plane(values[some, None], cross, diagonal)
            np.put_along_axis(score, supports[some], -np.inf, axis=1)
            added[some] = score.argmax(axis=1)
        evaluations += supports.shape[0] * (gram.columns - supports.shape[1])
        supports = np.concatenate([supports, added[:, None]], axis=1)
    values, _ = top_eigenpairs(gram, supports, sign)
    return _ranked(supports, values, evaluations)


def climb(gram: Gram, supports: Indices, sign: int) -> Found:
    """Swap one column for another as long as that gains, for each support.

    Each step bounds all s (d − s) swaps of a support, and computes the eigenvalue of the best one
    for each of the four columns that are most promising to drop; the best is taken if it gains.
    """
    s = supports.shape[1]
    found = _ranked(supports, top_eigenpairs(gram, supports, sign)[0], 0)
    if s == gram.columns:
        return found
    threshold = _GAIN * gram.largest
    settled = []
    evaluations = 0
    while found.values.size:
        after = [
            _best_swap(gram, found.supports[some], sign)
            for some in _batches(gram, *found.supports.shape)
        ]
        swapped, values = (np.concatenate(part) for part in zip(*after, strict=True))
        evaluations += found.values.size * s * (gram.columns - s)
        gains = values > found.values + threshold
        settled.append(Found(found.supports[~gains], found.values[~gains], 0))
        found = _ranked(swapped[gains], values[gains], 0)
    return replace(merged(*settled), evaluations=evaluations)


def _batches(gram: Gram, count: int, s: int) -> list[slice]:
    """Cut a batch of supports so that the rows of G for one part fit a work array."""
    step = max(1, _ENTRIES // (s * gram.columns))
    return [slice(start, start + step) for start in range(0, count, step)]


def _best_swap(gram: Gram, supports: Indices, sign: int) -> tuple[Indices, Floats]:
    """Return for each support the best of the swaps with the best bounds, and its eigenvalue.

    Dropping i from an eigenvector x of value λ leaves u ∝ x − xᵢeᵢ, ‖x − xᵢeᵢ‖² = 1 − xᵢ², with
    uᵀHu = (λ(1 − 2xᵢ²) + xᵢ² Hᵢᵢ)/(1 − xᵢ²) and (Hu)ⱼ = ((Hx)ⱼ − xᵢ Hᵢⱼ)/√(1 − xᵢ²).
    """
    count, s = supports.shape
    values, x = top_eigenpairs(gram, supports, sign)
    rows = gram.rows(supports)
    image = np.einsum("nt,ntd->nd", x, rows)
    diagonal = sign * gram.diagonal
    kept = np.maximum(1.0 - x**2, 0.0)
    inside = values[:, None] * (1.0 - 2.0 * x**2) + x**2 * diagonal[supports]
    swaps = np.repeat(supports[:, None, :], s, axis=1)
    bounds = np.empty((count, s))
    for place in range(s):
        left = kept[:, place, None]
        whole = left < _GAIN  # x is e_i: without i nothing is left of it
        left = np.where(whole, 1.0, left)
        cross = (image - x[:, place, None] * rows[:, place]) / np.sqrt(left)
        remaining = np.where(whole, diagonal.min(), inside[:, place, None] / left)
        score = _plane(remaining, cross, diagonal)
        np.put_along_axis(score, supports, -np.inf, axis=1)
        added = score.argmax(axis=1)
        swaps[:, place, place] = added
        bounds[:, place] = score[np.arange(count), added]
    promising = np.argsort(-bounds, axis=1)[:, :_PROMISING]
    swaps = np.take_along_axis(swaps, promising[:, :, None], axis=1)
    values = top_values(sign * gram.blocks(swaps.reshape(-1, s))).reshape(promising.shape)
    best = values.argmax(axis=1)
    each = np.arange(count)
    return swaps[each, best], values[each, best]


def exchange(gram: Gram, support: Indices, sign: int) -> Found:
    """Return a support and those that share all but two columns with it and gain; best first.

    With λ the eigenvalue of the support S and K = λI − H, keeping Q ⊂ S and adding i and j gains
    exactly where the Schur complement R of K_Q in K has a pivot that is not positive, Rᵢᵢ ≤ 0 or
    RᵢᵢRⱼⱼ ≤ Rᵢⱼ². None is missed, up to rounding, and swaps of one column are among them.
    """
    s, d = support.size, gram.columns
    scale = gram.largest or 1.0
    H = (sign / scale) * gram.rows(np.arange(d))
    value = float(top_values(H[np.ix_(support, support)]))
    K = (value + _GAIN) * np.eye(d) - H
    gaining = [np.sort(support)[None]]
    for dropped in combinations(range(s), 2):
        kept = np.delete(support, dropped)
        left = K - K[:, kept] @ np.linalg.solve(K[np.ix_(kept, kept)], K[kept])
        pivots = left.diagonal()
        fine = (left * left < np.outer(pivots, pivots)) & (pivots > 0)
        fine |= np.tri(d, dtype=bool)
        fine[kept] = True
        fine[:, kept] = True
        added = np.argwhere(~fine)
        gaining.append(np.concatenate([np.tile(kept, (len(added), 1)), added], axis=1))
    supports = np.concatenate(gaining)
    values, _ = top_eigenpairs(gram, supports, sign)
    keep = values > values[0] + _GAIN * gram.largest
    keep[0] = True  # the support itself
    tried = math.comb(s, 2) * math.comb(d - s + 2, 2)
    return _ranked(supports[keep], values[keep], tried)


def settle(gram: Gram, support: Indices, sign: int) -> Found:
    """Climb by exchanges of two columns until none gains; see `exchange`."""
    evaluations = 0
    found = exchange(gram, support, sign)
    while found.values.size > 1:
        evaluations += found.evaluations
        best = climb(gram, found.supports[:1], sign)
        evaluations += best.evaluations
        found = exchange(gram, best.supports[0], sign)
    return Found(found.supports, found.values, evaluations + found.evaluations)
