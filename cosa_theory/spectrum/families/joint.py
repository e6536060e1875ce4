"""Families that share their numbers among layers: AdaLoRA, TuckA, Tied-LoRA."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.linalg import eigh

from cosa_theory.spectrum.families.base import Certainty, Cost, Draws, Fit, Size, Update
from cosa_theory.spectrum.families.fitted import ROUNDS, Matrix, add, climb, solved
from cosa_theory.spectrum.families.lora_xs import singular_sides
from cosa_theory.spectrum.families.truncated_svd import TruncatedSVD
from cosa_theory.spectrum.singular_values import singular_values

__all__ = ["JOINT", "Joint", "Together", "spread_ranks"]


@dataclass(frozen=True)
class Together:
    """What a joint family makes of some layers.

    Parameters
    ----------
    parameters : int
        Trained numbers, those that are shared counted once.
    rows : tuple of Size
        How large it is on each layer; its own parameters are those of this layer alone.
    fit : callable
        Maps the place of a layer and its `Update` to its `Fit`, of the shared numbers and its own.
    """

    parameters: int
    rows: tuple[Size, ...]
    fit: Callable[[int, Update], Fit]


@dataclass(frozen=True)
class Joint:
    """A family of updates of several layers at once.

    Parameters
    ----------
    name : str
        Key of `JOINT`, and of `FAMILIES` for one layer alone.
    one_shape : bool
        Whether the layers have to have one shape.
    best : callable
        (layers, P) to what is `Together`. The layers are an iterable of `Update` as outputs ×
        inputs in float64 that can be walked through again: no more than one is held at a time.
        Where their singular values are not known they are empty.
    """

    name: str
    one_shape: bool
    best: Callable[[Iterable[Update], int], Together | str]


_ENTRIES = 1 << 22  # of the matrices that are solved with at once

JOINT: dict[str, Joint] = {}
"""Every joint family by its name."""


def spread_ranks(
    spectra: Sequence[Matrix], shapes: Sequence[tuple[int, int]], parameters: int
) -> list[int]:
    """Spread a budget over layers by one spectrum of all: ranks r_l with Σ r_l(m_l + n_l) ≤ P.

    Directions are taken in the order of σ²/(m + n), energy for each number, as long as they fit.
    Of layers with one m + n the result holds the most energy there is; of others it may miss the
    best by less than one direction.
    """
    costs = [m + n for m, n in shapes]
    ranks, left = [0] * len(spectra), parameters
    heap = [(-(s[0] ** 2) / c, at) for at, (s, c) in enumerate(zip(spectra, costs, strict=True))]
    heapq.heapify(heap)
    while heap:
        worth, at = heapq.heappop(heap)
        if worth == 0 or costs[at] > left:
            continue
        ranks[at] += 1
        left -= costs[at]
        if ranks[at] < len(spectra[at]):
            heapq.heappush(heap, (-(spectra[at][ranks[at]] ** 2) / costs[at], at))
    return ranks


def _spread(layers: Iterable[Update], parameters: int) -> Together | str:
    """Return every layer's truncated SVD at the rank that one global spectrum gives it."""
    known = [
        (layer.sigma if layer.sigma.size else singular_values(layer.delta), layer.shape)
        for layer in layers
    ]
    shapes = [shape for _, shape in known]
    ranks = spread_ranks([sigma for sigma, _ in known], shapes, parameters)
    if not any(ranks):
        return f"rank 1 of the smallest layer takes {min(m + n for m, n in shapes):,} numbers"
    svd = TruncatedSVD()
    sizes = tuple(
        svd.size(m, n, rank * (m + n)) for rank, (m, n) in zip(ranks, shapes, strict=True)
    )

    def fit(place: int, layer: Update) -> Fit:
        return svd.fit(layer, sizes[place], Draws())

    return Together(sum(size.parameters for size in sizes), sizes, fit)


def tucker_ranks(count: int, m: int, n: int, parameters: int) -> tuple[int, int, int] | None:
    """Return (p, q, s): p of `count` layers, q of m, s of n directions, within P numbers.

    The core p × q × s, and the factors count × p, m × q and n × s. All layers are told apart, p =
    count, unless that leaves no room for a direction of each side; q and s are in the ratio of the
    sides, as large as fits.
    """

    def other(p: int, q: int) -> int:
        """Return s, no more and no fewer than p and q leave directions for."""
        return min(n, p * q, max(round(q * n / m), -(-q // p), 1))

    for p in range(count, 0, -1):
        low, high = 0, min(m, p * n)
        while low < high:  # the largest q that fits
            q = (low + high + 1) // 2
            s = other(p, q)
            if p <= q * s and p * q * s + count * p + m * q + n * s <= parameters:
                low = q
            else:
                high = q - 1
        if low:
            return p, low, other(p, low)
    return None


def _tucker(layers: Iterable[Update], parameters: int) -> Together | str:
    """Return the Tucker approximation of the layers' updates, stacked: HOSVD, then HOOI.

    L. De Lathauwer, B. De Moor, J. Vandewalle, SIAM J. Matrix Anal. Appl. 21 (2000), 1324-1342. It
    starts from the leading directions of the short side, and of the long one given those (N.
    Vannieuwenhoven, R. Vandebril, K. Meerbergen, SIAM J. Sci. Comput. 34 (2012), A1027-A1052).
    Every sweep walks through the layers twice and never lowers the energy that is held.
    """
    shapes = [layer.shape for layer in layers]
    count, (m, n) = len(shapes), shapes[0]
    ranks = tucker_ranks(count, m, n, parameters)
    if ranks is None:
        return f"one direction of each side takes {1 + count + m + n:,} numbers"
    p, q, s = ranks
    wide = m < n
    (few, many), walk = ((q, s) if wide else (s, q)), partial(_products, layers, wide)
    short = _top(_short_gram(layers, wide), few)
    seen = walk(short, turned=False)
    long = _side(np.eye(count), seen, many)
    held = -1.0
    for _ in range(ROUNDS):
        before = held
        cores = np.swapaxes(seen, 1, 2) @ long
        mixing = singular_sides(cores.reshape(count, -1), p)[0]
        long = _side(mixing, seen, many)
        short = _side(mixing, walk(long, turned=True), few)
        seen = walk(short, turned=False)
        core = np.tensordot(mixing.T, long.T @ seen, 1)
        held = float(np.vdot(core, core))
        if held - before <= 1e-4 * held:
            break
    left, right = (short, long) if wide else (long, short)
    core = core.swapaxes(1, 2) if wide else core

    def fit(place: int, layer: Update) -> Fit:
        return Fit(
            (core, mixing, left, right),
            lambda core, mixing, left, right: left @ np.tensordot(mixing[place], core, 1) @ right.T,
        )

    spent = p * q * s + count * p + m * q + n * s
    size = Size(0, f"{p} × {q} × {s}", None, None, min(q, s), ranks)
    return Together(spent, (size,) * count, fit)


def _top(gram: Matrix, count: int) -> Matrix:
    side = len(gram)
    vectors: Matrix = eigh(gram, subset_by_index=(side - count, side - 1))[1][:, ::-1]
    return vectors


def _short_gram(layers: Iterable[Update], wide: bool) -> Matrix:
    """Return Σ ΔW ΔWᵀ of wide layers, Σ ΔWᵀ ΔW of others."""
    total: Matrix | float = 0.0
    for layer in layers:
        total = total + (layer.delta @ layer.delta.T if wide else layer.delta.T @ layer.delta)
    return np.asarray(total)


def _products(layers: Iterable[Update], wide: bool, other: Matrix, *, turned: bool) -> Matrix:
    """Return ΔW_l other of all layers, or ΔW_lᵀ other if `turned`; of wide ones the reverse."""
    return np.stack([(x.delta.T if turned != wide else x.delta) @ other for x in layers])


def _side(mixing: Matrix, seen: Matrix, count: int) -> Matrix:
    """Return the leading directions of Σ_l mixing[l, k] seen[l], for all k."""
    mixed = np.tensordot(mixing.T, seen, 1)
    return singular_sides(mixed.transpose(1, 0, 2).reshape(seen.shape[1], -1), count)[0]


def tied_rank(count: int, m: int, n: int, parameters: int) -> int:
    """Return the largest r with r(m + n) + layers · (m + r) ≤ P, at most min(m, n)."""
    return max(0, min(m, n, (parameters - count * m) // (m + n + count)))


def _tied(layers: Iterable[Update], parameters: int) -> Together | str:
    """Return diag(u_l) B diag(v_l) A with B (m × r) and A (r × n) of all layers.

    Alternating least squares: u and v of every layer, then A, then the rows of B, each exact when
    the others are given. Starts from the directions that the layers have in common. Every step
    walks through the layers twice.
    """
    shapes = [layer.shape for layer in layers]
    count, (m, n) = len(shapes), shapes[0]
    rank = tied_rank(count, m, n, parameters)
    if not rank:
        return f"rank 1 takes {m + n + count * (m + 1):,} numbers"
    total = sum(float(np.vdot(layer.delta, layer.delta)) for layer in layers)
    wide = m < n
    short = _top(_short_gram(layers, wide), rank)
    other = _products(layers, wide, short, turned=False).mean(axis=0)
    State = tuple[Matrix, Matrix, Matrix, Matrix]
    sides = (short, other.T) if wide else (other, short.T)
    start: State = (np.ones((count, m)), np.ones((count, rank)), *sides)

    def better(state: State) -> tuple[State, float]:
        u, v, B, A = (part.copy() for part in state)
        outer = A @ A.T
        gram, right = np.zeros((rank, rank)), np.zeros((rank, n))
        for at, layer in enumerate(layers):
            seen = layer.delta @ A.T
            scaled = u[at][:, None] * B
            v[at] = solved((scaled.T @ scaled) * outer, np.sum(scaled * seen, axis=0))
            made = B * v[at]
            squares = np.sum((made @ outer) * made, axis=1)
            u[at] = np.sum(made * seen, axis=1) / np.where(squares > 0, squares, 1)
            scaled = u[at][:, None] * made
            gram += scaled.T @ scaled
            right += scaled.T @ layer.delta
        A = solved(gram, right)
        outer = A @ A.T
        rights = np.zeros((m, rank))
        for at, layer in enumerate(layers):
            rights += u[at][:, None] * (layer.delta @ A.T) * v[at]
        pairs = (v[:, :, None] * v[:, None] * outer).reshape(count, -1)
        step = max(1, _ENTRIES // rank**2)
        for first in range(0, m, step):
            rows = slice(first, first + step)
            grams = (u[:, rows].T ** 2 @ pairs).reshape(-1, rank, rank)
            B[rows] = solved(grams, rights[rows])
        return (u, v, B, A), float(np.sum(B * rights)) / total

    (u, v, B, A), _ = climb([start], better)

    def fit(place: int, layer: Update) -> Fit:
        return Fit((u, v, B, A), lambda u, v, B, A: (u[place][:, None] * B * v[place]) @ A)

    size = Size(m + rank, f"r={rank}", None, None, rank, (rank,))
    return Together(rank * (m + n) + count * (m + rank), (size,) * count, fit)


def _alone(joint: Joint, update: Update, size: Size, draws: Draws) -> Fit:
    found = joint.best([update], size.parameters)
    assert isinstance(found, Together)
    return found.fit(0, update)


def _tucker_size(m: int, n: int, parameters: int) -> Size:
    ranks = tucker_ranks(1, m, n, parameters)
    if ranks is None:
        return Size.unmet(f"one direction of each side takes {2 + m + n:,} numbers")
    _, q, s = ranks
    return Size(q * s + 1 + m * q + n * s, f"1 × {q} × {s}", None, None, min(q, s), ranks)


def _tied_size(m: int, n: int, parameters: int) -> Size:
    rank = tied_rank(1, m, n, parameters)
    if not rank:
        return Size.unmet(f"rank 1 takes {2 * m + n + 1:,} numbers")
    return Size(rank * (m + n + 1) + m, f"r={rank}", None, None, rank, (rank,))


def _add(
    place: int,
    name: str,
    label: str,
    reference: str,
    sizes: Callable[[int, int, int], Size],
    costs: Callable[[int, int, Size], Cost],
    best: Callable[[Iterable[Update], int], Together | str],
    certainty: Certainty,
    *,
    one_shape: bool = True,
) -> None:
    joint = JOINT[name] = Joint(name, one_shape, best)
    alone = partial(_alone, joint)
    add(place, name, label, reference, sizes, alone, costs, certainty, group="low rank")


_add(
    21,
    "adalora",
    "AdaLoRA (ranks spread over the layers)",
    "Q. Zhang et al., arXiv 2303.10512 (2023)",
    TruncatedSVD().size,
    TruncatedSVD().cost,
    _spread,
    "exact",
    one_shape=False,
)
_add(
    22,
    "tucka",
    "TuckA (Tucker over layers of one kind)",
    "TuckA: Hierarchical Compact Tensor Experts for Efficient Fine-Tuning (2025), without routing",
    _tucker_size,
    lambda m, n, size: Cost.of(
        size, 0, m * size.parts[1] + n * size.parts[2] + size.parts[1] * size.parts[2]
    ),
    _tucker,
    "lower bound",
)
_add(
    23,
    "tied_lora",
    "Tied-LoRA (factors shared by the layers)",
    "A. Renduchintala, T. Konuk, O. Kuchaiev, arXiv 2311.09578 (2023)",
    _tied_size,
    lambda m, n, size: Cost.of(size, 0, size.parts[0] * (m + n + 1) + m),
    _tied,
    "lower bound",
)
