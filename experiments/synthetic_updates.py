"""Synthetic weight updates of unit Frobenius norm, keyed draws: from very sparse to flat."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import choice, refuse
from cosa_theory.linear.transforms import DCT, Coordinate, SingularBasis, Transform, Wavelet
from cosa_theory.projections import make_projection, stream
from experiments.supports import sparse_updates

__all__ = ["UPDATES", "check_parameter", "synthetic_update", "synthetic_weight", "transform"]

UPDATES = {
    "sparse": "s nonzero coefficients at random places, Gaussian values",
    "low rank": "rank r, equal singular values",
    "power law": "σ_i = i^−α",
    "flat": "all singular values equal",
    "noise": "independent Gaussian entries",
    "low rank + sparse": "half the energy in rank s, half in s nonzero coefficients",
}
"""Kinds of updates; s, r and α are the parameter of a draw, and the last two but one have none."""


def transform(name: str, weight: NDArray[Any] | None = None) -> Transform:
    """Return a sparsifying basis by its name: coordinate, dct, wavelet, or singular (of W).

    Raises
    ------
    ValueError
        If there is no basis of this name, or no weight for "singular".
    """
    if name == "singular":
        if weight is None:
            raise ValueError("the singular basis needs a weight W")
        return SingularBasis(weight)
    named: dict[str, Callable[[], Transform]] = {
        "coordinate": Coordinate,
        "dct": DCT,
        "wavelet": Wavelet,
    }
    return named[choice("basis", name, (*named, "singular"))]()


def synthetic_weight(m: int, n: int, *, seed: int, key: tuple[Any, ...] = ()) -> NDArray[Any]:
    """Return a weight W with independent standard Gaussian entries, shape (m, n)."""
    return stream(seed, *key, "weight").standard_normal((m, n))


def synthetic_update(
    kind: str,
    m: int,
    n: int,
    parameter: float,
    *,
    seed: int,
    key: tuple[Any, ...] = (),
    basis: Transform | None = None,
) -> NDArray[np.float64]:
    """Draw an update ΔW with ‖ΔW‖_F = 1.

    Parameters
    ----------
    kind : str
        Among `UPDATES`. Singular vectors are Haar distributed, and supports uniform.
    m, n : int
        Shape of ΔW.
    parameter : float
        The number s of nonzero coefficients of "sparse"; the rank r of "low rank"; α ≥ 0 of
        "power law"; for "low rank + sparse" r = s. "flat" and "noise" take 0.
    seed : int
        Of the draw.
    key : tuple of str and int
        Which draw it is: different keys give independent updates.
    basis : Transform, optional
        In which the sparse part has its nonzero coefficients; the coordinates by default.

    Returns
    -------
    ndarray of float64, shape (m, n)

    Raises
    ------
    ValueError
        An unknown kind, or a parameter that the kind or the shape does not admit.
    """
    choice("kind", kind, UPDATES)
    check_parameter(kind, m, n, parameter)
    if kind == "noise":
        return _unit(stream(seed, *key, kind).standard_normal((m, n)))
    parts = []
    if "sparse" in kind:
        coefficients = sparse_updates(
            (m, n), int(parameter), "random", 1, seed=seed, key=(*key, kind)
        )[0]
        parts.append(coefficients if basis is None else basis.inverse(coefficients))
    if kind != "sparse":
        parts.append(
            _with_spectrum(m, n, _spectrum(kind, min(m, n), parameter), seed, (*key, kind))
        )
    return _unit(sum(_unit(part) for part in parts))


def check_parameter(kind: str, m: int, n: int, parameter: float) -> None:
    """Refuse a parameter that a kind of update of this shape does not admit.

    Raises
    ------
    ValueError
        Which says what it must be.
    """
    if kind in ("flat", "noise"):
        valid, meaning = parameter == 0, "0, as it has none"
    elif kind == "power law":
        valid, meaning = 0 <= parameter < math.inf, "an exponent of at least 0"
    else:
        most = m * n if kind == "sparse" else min(m, n)
        valid = 1 <= parameter <= most and parameter == int(parameter)
        meaning = f"a whole number from 1 to {most}"
    if not valid:
        raise refuse(f"the parameter of a {kind} update", parameter, meaning)


def _spectrum(kind: str, size: int, parameter: float) -> NDArray[np.float64]:
    if kind == "power law":
        return np.arange(1.0, size + 1) ** -parameter
    return np.ones(size if kind == "flat" else int(parameter))


def _with_spectrum(
    m: int, n: int, sigma: NDArray[np.float64], seed: int, key: tuple[Any, ...]
) -> NDArray[np.float64]:
    """Return U diag(σ) Vᵀ with orthonormal U (m × r) and V (n × r) of Haar distribution."""
    left, right = (
        make_projection("haar", len(sigma), d, seed=seed, scale="synthesis", key=(*key, side))
        for d, side in ((m, "left"), (n, "right"))
    )
    return (left.T * sigma) @ right


def _unit(X: Any) -> NDArray[np.float64]:
    return np.asarray(X / np.linalg.norm(X))
