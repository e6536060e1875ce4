"""Random projections: seven ensembles, two scales, one keyed source of randomness.

Normalisations
--------------
``analysis``
    E‖Ax‖² = ‖x‖² for every fixed x: entries of variance 1/k (Johnson-Lindenstrauss).
``synthesis``
    √(k/d) times the analysis scale: entries of variance 1/d, so that the columns of Aᵀ have unit
    norm in expectation (exactly for ``haar``) and E‖Aᵀy‖² = ‖y‖².
"""

import operator
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from cosa_theory.projections.dense import Draw, gaussian, haar, haar_draw, rademacher
from cosa_theory.projections.sparse import achlioptas, sjlt, very_sparse
from cosa_theory.projections.streams import content_hash, fingerprint, stream
from cosa_theory.projections.structured import SRHT, srht

__all__ = ["KINDS", "SRHT", "draw_fingerprint", "fingerprint", "make_projection", "stream"]

_ENSEMBLES: dict[str, Callable[..., Any]] = {
    "gaussian": gaussian,
    "rademacher": rademacher,
    "achlioptas": achlioptas,
    "very_sparse": very_sparse,
    "sjlt": sjlt,
    "haar": haar,
    "srht": srht,
}
_OPTIONS: dict[str, tuple[str, ...]] = {"very_sparse": ("density",), "sjlt": ("nonzeros",)}

KINDS: tuple[str, ...] = tuple(_ENSEMBLES)
"""Names of the ensembles that `make_projection` knows."""


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


def _size(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < 1:
        raise ValueError(f"{name} is {value!r}; it must be a positive integer")
    return operator.index(value)


def _dtype(value: Any) -> np.dtype[Any]:
    try:
        name = "" if value is None else np.dtype(value).name  # numpy reads None as float64
    except (TypeError, ValueError):
        name = ""
    if name not in ("float32", "float64"):
        raise ValueError(f"dtype is {value!r}; it must be float32 or float64")
    return np.dtype(name)


def _checked(
    kind: str,
    k: int,
    d: int,
    seed: int,
    scale: str,
    key: str | tuple[Any, ...],
    dtype: Any,
    options: dict[str, Any],
) -> tuple[Draw, int, int, Fraction, np.dtype[Any]]:
    """Check the arguments; return streams by role, sizes, variance of an entry and dtype."""
    _choice("kind", kind, KINDS)
    _choice("scale", scale, ("analysis", "synthesis"))
    k, d = _size("k", k), _size("d", d)
    if not isinstance(key, (str, tuple)):
        raise ValueError(f"key is {key!r}; it must be a str or a tuple of str and int")
    allowed = _OPTIONS.get(kind, ())
    for name, value in options.items():
        if name not in allowed:
            known = f"only {allowed[0]}" if allowed else "no option"
            raise ValueError(f"option {name} is {value!r}; {kind} takes {known}")
    # The key stays one part of its own, so that no key can imitate the parts that follow it.
    key = (key,) if isinstance(key, str) else key
    draw = partial(stream, seed, key, kind, k, d)
    draw("")  # a bad seed or key is an error before any work
    return draw, k, d, Fraction(1, k if scale == "analysis" else d), _dtype(dtype)


def make_projection(
    kind: str,
    k: int,
    d: int,
    *,
    seed: int = 0,
    scale: str = "analysis",
    key: str | tuple[Any, ...] = (),
    dtype: Any = "float64",
    **options: Any,
) -> Any:
    """Draw a k × d random projection A.

    ============  ===================================================  ============
    kind          law (v = 1/k at analysis, 1/d at synthesis scale)    type
    ============  ===================================================  ============
    gaussian      independent N(0, v)                                  ndarray
    rademacher    independent ±√v                                      ndarray
    achlioptas    independent, ±√(3v) with probability 1/6 each        csr_array
    very_sparse   independent, ±√(v/q) with probability q/2 each       csr_array
    sjlt          ζ nonzeros ±√(kv/ζ) in distinct rows of a column     csr_array
    haar          √(dv) times uniform orthonormal rows, k ≤ d          ndarray
    srht          ±√v, random rows and signs of a Hadamard matrix      SRHT
    ============  ===================================================  ============

    Every type supports ``A @ X`` and ``A.T @ X``. Values depend on (kind, k, d, seed, key) and the
    option alone: not on the process, the order of draws, the number of threads or any global
    generator; `scale` and `dtype` only scale and round the same draw.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    k, d : int
        Number of rows and of columns, positive.
    seed : int, default 0
        Non-negative, of any size.
    scale : {"analysis", "synthesis"}, default "analysis"
        E‖Ax‖² = ‖x‖², or √(k/d) times that.
    key : str or tuple, default ()
        What the matrix is for, such as ``("model.layers.0.q_proj", "L")``: different keys draw
        independent matrices.
    dtype : {"float64", "float32"}, default "float64"
        Of the entries.
    **options
        ``density`` for very_sparse, q in (0, 1], by default 1/√d. ``nonzeros`` for sjlt, ζ from 1
        to k, by default min(8, k).

    Returns
    -------
    ndarray, csr_array or SRHT, shape (k, d)
        The projection.

    Raises
    ------
    ValueError
        For an argument outside what is listed above; k > d for haar; k > 2^⌈log₂ d⌉ for srht.

    Examples
    --------
    >>> A = make_projection("sjlt", 64, 1000, seed=7, key=("layer", "L"))
    >>> A.shape, A.nnz
    ((64, 1000), 8000)
    """
    draw, k, d, variance, data_type = _checked(kind, k, d, seed, scale, key, dtype, options)
    return _ENSEMBLES[kind](draw, k, d, variance, data_type, **options)


def draw_fingerprint(
    kind: str,
    k: int,
    d: int,
    *,
    seed: int = 0,
    scale: str = "analysis",
    key: str | tuple[Any, ...] = (),
    dtype: Any = "float64",
    **options: Any,
) -> str:
    """Return the fingerprint of what `make_projection` would draw, free of the BLAS's rounding.

    It is ``fingerprint(make_projection(...))``, except for haar, whose last bits depend on the
    linear algebra library: there it is the hash of the normal draw that is orthonormalised,
    together with the scale and the dtype. To be compared before reusing a seed on another machine
    or with another version of the library.

    Parameters
    ----------
    kind, k, d, seed, scale, key, dtype, **options
        As for `make_projection`.

    Returns
    -------
    str
        32 hexadecimal characters.

    Raises
    ------
    ValueError
        As for `make_projection`.
    """
    draw, k, d, variance, data_type = _checked(kind, k, d, seed, scale, key, dtype, options)
    if kind == "haar":
        container = f"haar draw, {scale} scale, {data_type.name}"
        return content_hash(container, (k, d), {"values": haar_draw(draw, k, d)})
    return fingerprint(_ENSEMBLES[kind](draw, k, d, variance, data_type, **options))
