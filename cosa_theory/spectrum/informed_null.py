"""What informed directions hold of an update, beside what they hold where nothing is known."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cosa_theory.ground.checks import matrix, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.projections import SecondMoments, stream
from cosa_theory.spectrum.families.base import Captured, Draws, t_interval
from cosa_theory.spectrum.families.compare import typed_frame

__all__ = ["informed_null"]

_COLUMNS = {
    "case": "object",
    "b": "int64",
    "captured": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "sd": "float64",
    "draws": "int64",
    "law": "float64",
}


def informed_null(
    delta: ArrayLike,
    moments: Any,
    b: int | Iterable[int],
    *,
    draws: int = 20,
    seed: int = 0,
    key: str | tuple[str | int, ...] = "",
    confidence: float = 0.95,
    transposed: bool = False,
) -> pd.DataFrame:
    """Measure the share of ‖ΔW‖² in the leading b directions of the inputs, and its two nulls.

    See docs/theory.md, 7.5.

    Parameters
    ----------
    delta : array of shape (m, n)
        ΔW, not zero.
    moments : SecondMoments or array (n × n)
        Of the layer's inputs.
    b : int or iterable of int
        Numbers of directions.
    draws : int
        Of each null, at least 2.
    seed : int
        Of the draws.
    key : str or tuple
        Name of the layer.
    confidence : float
        Coverage of the intervals.
    transposed : bool
        Whether delta is stored as inputs × outputs.

    Returns
    -------
    pandas.DataFrame
        For each b a row for each `case`: "informed", which is exact; "random basis", the same
        update under directions drawn uniformly, and "shuffled", its entries in another order under
        the informed directions, with the mean over draws, its t interval and the standard deviation
        of a draw. `law` is what the nulls are on average: b/n, and for the shuffled update that of
        its mean entry besides.

    Raises
    ------
    InputError
        If the update is zero or does not fit the moments, or these have fewer directions.
    """
    dW = matrix("delta", delta).astype(np.float64)
    dW = dW.T if transposed else dW
    m, n = dW.shape
    if not dW.any():
        raise InputError("delta is zero: no share of its energy is defined", argument="delta")
    dW /= np.abs(dW).max()
    C = SecondMoments.of(moments, n)
    counts = [whole("b", one, 1, n) for one in ([b] if isinstance(b, int) else b)]
    random = Draws(draws, seed, (key,) if isinstance(key, str) else tuple(key), confidence)
    vectors = C.leading(max(counts))[1]
    exact = _shares(dW, vectors, counts)
    found: dict[str, list[Captured]] = {"informed": [Captured.exact(one) for one in exact]}
    nulls: dict[str, list[NDArray[np.float64]]] = {"random basis": [], "shuffled": []}
    for draw in range(random.most):
        generator = stream(seed, *random.key, "informed null", draw)
        basis = np.linalg.qr(generator.standard_normal((n, max(counts))))[0]
        nulls["random basis"].append(_shares(dW, basis, counts))
        shuffled = generator.permutation(dW.ravel()).reshape(m, n)
        nulls["shuffled"].append(_shares(shuffled, vectors, counts))
    laws = {"random basis": np.array(counts) / n, "shuffled": _shuffled_law(dW, vectors, counts)}
    for case, shares in nulls.items():
        columns = zip(np.array(shares).T, laws[case], strict=True)
        found[case] = [t_interval(one, confidence, float(law)) for one, law in columns]
    records = [
        {
            "case": case,
            "b": count,
            "captured": one.mean,
            "ci_low": one.low,
            "ci_high": one.high,
            "sd": one.sd,
            "draws": one.draws,
            "law": one.law,
        }
        for place, count in enumerate(counts)
        for case, one in ((case, values[place]) for case, values in found.items())
    ]
    return typed_frame(records, _COLUMNS)


def _shares(
    dW: NDArray[np.float64], vectors: NDArray[np.float64], counts: list[int]
) -> NDArray[np.float64]:
    """Return the share of energy in the first b of orthonormal columns, for each b."""
    held = np.cumsum(np.sum((dW @ vectors) ** 2, axis=0))[np.array(counts) - 1]
    shares: NDArray[np.float64] = np.minimum(held / np.vdot(dW, dW), 1.0)
    return shares


def _shuffled_law(
    dW: NDArray[np.float64], vectors: NDArray[np.float64], counts: list[int]
) -> NDArray[np.float64]:
    """Return the mean share of a uniformly permuted ΔW.

    With q the mean square of its N entries and c the mean product of two of them, E[ΔWᵀΔW] is
    m ((q − c) I + c 11ᵀ).
    """
    size, n = dW.size, dW.shape[1]
    square = float(np.vdot(dW, dW)) / size
    product = (float(dW.sum()) ** 2 - size * square) / (size * max(size - 1, 1))
    along = np.cumsum(vectors.sum(axis=0) ** 2)[np.array(counts) - 1]
    law: NDArray[np.float64] = ((square - product) * np.array(counts) + product * along) / (
        n * square
    )
    return law
