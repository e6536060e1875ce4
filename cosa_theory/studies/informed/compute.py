"""The shares of one layer's update in informed row spaces, in baselines and in nulls."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from cosa_theory.deltas import LayerDelta
from cosa_theory.projections import SecondMoments, make_projection, stream
from cosa_theory.spectrum import singular_values
from cosa_theory.spectrum.budget import cosa_shape, lora_parameters, one_sided_shape

__all__ = ["BASELINES", "NULLS", "SHAPES", "layer_shares"]

SHAPES = ("one_sided", "two_sided")
"""a = m, L the identity and b = P/m; and the a × b of a random core, L Haar or informed too."""

BASELINES = ("svd", "weights", "block")
"""The truncated SVD of the update; singular vectors of W; inputs of another layer."""

NULLS = ("shuffled", "rotated")
"""The update's entries shuffled, under the leading directions; the update, under random ones."""

Matrix = NDArray[np.floating[Any]]
Rows = Callable[[int], Matrix]


@dataclass(frozen=True)
class _Layer:
    """An update (m × n), and what draws for it start from."""

    delta: Matrix
    seed: int
    key: tuple[str | int, ...]

    def projected(self, rows: Matrix) -> Matrix:
        """Return ΔW Qᵀ, for orthonormal rows Q."""
        return self.delta @ rows.T.astype(self.delta.dtype)

    def drawn(self, kind: str, k: int, d: int, *role: str | int, **options: Any) -> Matrix:
        """Return k × d orthonormal rows of an ensemble."""
        settings: dict[str, Any] = {"seed": self.seed, "key": (*self.key, *role)}
        rows: Matrix = make_projection(kind, k, d, scale="synthesis", **settings, **options)
        return rows


def layer_shares(
    layer: LayerDelta,
    moments: SecondMoments,
    ranks: Sequence[int],
    *,
    gradients: SecondMoments | None = None,
    other: SecondMoments | None = None,
    beside: bool = False,
    draws: int = 4,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yield what row spaces of each budget hold of an update, as shares of ‖ΔW‖².

    See docs/theory.md, 7.1 and 7.5.

    Parameters
    ----------
    layer : LayerDelta
        An update that is not zero, m × n, with its base where `beside` is asked for.
    moments : SecondMoments
        Of the layer's inputs (n × n).
    ranks : sequence of int
        The budgets P = r(m + n).
    gradients : SecondMoments, optional
        Of the gradients of its outputs (m × m): adds the basis "gradient", which is two-sided.
    other : SecondMoments, optional
        Of another layer's inputs: adds the baseline "block".
    beside : bool
        Whether combinations C g, the other baselines and the nulls are measured too.
    draws, seed : int
        Of L, of combinations and of nulls.

    Yields
    ------
    dict
        `rank`, `basis` ("top", "combinations", "gradient", or one of `BASELINES` and `NULLS`),
        `shape`, `a`, `b`, `law` ab/(mn) and `share`, the mean over draws where there are any; not
        a number where the moments do not have b independent directions.
    """
    one = _Layer(layer.delta / np.abs(layer.delta).max(), seed, (layer.name, "informed"))
    m, n = one.delta.shape
    energy = float(np.vdot(one.delta, one.delta))
    by_rank = {rank: _sizes(m, n, rank) for rank in ranks}
    widest = max(b for sizes in by_rank.values() for _, b in sizes.values())
    moments.shares(widest)  # decomposed once, for all
    if beside:
        assert layer.base is not None
        of_base = _right(layer.base, widest)
        spectrum = np.cumsum(singular_values(one.delta) ** 2)
    for rank, sizes in by_rank.items():
        measured = {
            ("top", shape): _informed(one, moments, *sizes[shape], draws) for shape in sizes
        }
        if gradients is not None:
            shared = _both(one, moments, gradients, *sizes["two_sided"])
            measured["gradient", "two_sided"] = shared
        if other is not None:
            measured["block", "one_sided"] = _informed(one, other, *sizes["one_sided"], draws)
        if beside:
            measured |= {
                ("combinations", shape): _combined(one, moments, *sizes[shape], draws)
                for shape in sizes
            }
            a, b = sizes["one_sided"]
            measured["weights", "one_sided"] = _energy(one.projected(of_base[:b]))
            measured["shuffled", "one_sided"] = _shuffled(one, moments, b, draws)
            measured["rotated", "one_sided"] = _mean(
                _energy(one.projected(one.drawn("haar", b, n, "rotated", draw)))
                for draw in range(draws)
            )
            measured["svd", "two_sided"] = float(spectrum[min(rank, len(spectrum)) - 1])
        for (basis, shape), held in measured.items():
            a, b = sizes[shape]
            known = {"a": a, "b": b, "law": a * b / (m * n), "share": held / energy}
            yield {"rank": rank, "basis": basis, "shape": shape} | known


def _sizes(m: int, n: int, rank: int) -> dict[str, tuple[int, int]]:
    """Return (a, b) of each of `SHAPES`."""
    budget = lora_parameters(m, n, rank)
    cores = one_sided_shape(m, n, budget), cosa_shape(m, n, budget)
    return {shape: (core.a, core.b) for shape, core in zip(SHAPES, cores, strict=True)}


def _energy(part: Matrix) -> float:
    return float(np.vdot(part, part))


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))


def _leading(moments: SecondMoments, k: int) -> Matrix | None:
    """Return the k leading directions as rows, None where there are not so many."""
    return moments.leading(k)[1].T if moments.independent(k) == k else None


def _informed(one: _Layer, moments: SecondMoments, a: int, b: int, draws: int) -> float:
    rows = _leading(moments, b)
    return np.nan if rows is None else _two_sided(one, one.projected(rows), a, draws)


def _two_sided(one: _Layer, part: Matrix, a: int, draws: int) -> float:
    """Return the mean energy of L ΔW Qᵀ over draws of a × m orthonormal rows L; all of it at m."""
    m = len(part)
    if a == m:
        return _energy(part)
    return _mean(_energy(one.drawn("haar", a, m, "L", draw) @ part) for draw in range(draws))


def _both(one: _Layer, moments: SecondMoments, gradients: SecondMoments, a: int, b: int) -> float:
    rows, columns = _leading(moments, b), _leading(gradients, a)
    if rows is None or columns is None:
        return np.nan
    return _energy(columns.astype(one.delta.dtype) @ one.projected(rows))


def _combined(one: _Layer, moments: SecondMoments, a: int, b: int, draws: int) -> float:
    if _leading(moments, b) is None:
        return np.nan
    options = {"moments": moments, "power": 1.0}
    parts = (
        one.projected(one.drawn("activation", b, moments.n, "R", draw, **options))
        for draw in range(draws)
    )
    return _mean(_two_sided(one, part, a, 1) for part in parts)


def _shuffled(one: _Layer, moments: SecondMoments, b: int, draws: int) -> float:
    rows = _leading(moments, b)
    if rows is None:
        return np.nan
    entries = one.delta.ravel()
    orders = (stream(one.seed, *one.key, "shuffled", draw) for draw in range(draws))
    shuffled = (order.permutation(entries).reshape(one.delta.shape) for order in orders)
    return _mean(_energy(each @ rows.T.astype(each.dtype)) for each in shuffled)


def _right(base: Matrix, k: int) -> Matrix:
    """Return the k leading right singular vectors of W as rows, the first one first."""
    gram = base.T @ base
    n = len(gram)
    vectors: Matrix = scipy.linalg.eigh(gram, subset_by_index=[n - k, n - 1])[1]
    return vectors.T[::-1]
