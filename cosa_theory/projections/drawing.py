"""Drawing a projection of any ensemble, from its name, its size, a seed and a key."""

from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import choice, refuse, whole
from cosa_theory.projections.ensembles import ENSEMBLES, Ensemble, Streams
from cosa_theory.projections.streams import content_hash, fingerprint, key_parts, stream

__all__ = ["draw_fingerprint", "entry_variance", "make_projection", "spanning_rows"]

_DTYPES = {np.dtype(name): name for name in ("float32", "float64")}


def _dtype(value: Any) -> np.dtype[Any]:
    try:
        dtype = None if value is None else np.dtype(value)  # numpy reads None as float64
    except (TypeError, ValueError):
        dtype = None
    if dtype not in _DTYPES:
        raise refuse("dtype", value, "float32 or float64")
    return np.dtype(_DTYPES[dtype])


def _checked(
    kind: str, k: int, d: int, seed: int, key: str | tuple[Any, ...], options: dict[str, Any]
) -> tuple[Ensemble, Streams, int, int]:
    """Check the arguments; return the ensemble, the streams by role and the sizes."""
    ensemble = ENSEMBLES[choice("kind", kind, ENSEMBLES)]
    k, d = whole("k", k), whole("d", d)
    if not ensemble.has(k, d):
        most = ensemble.most_rows(d) if ensemble.most_rows else k
        raise refuse("k", k, f"at most {most}, the rows that {kind} has with d = {d}")
    for name, value in options.items():
        if name not in ensemble.options:
            known = f"only {', '.join(ensemble.options)}" if ensemble.options else "no option"
            raise refuse(name, value, f"left out: {kind} takes {known}")
    # The key stays one part of its own, so that no key can imitate the parts that follow it.
    return ensemble, partial(stream, seed, key_parts(key), kind, k, d), k, d


def entry_variance(k: int, d: int, scale: str) -> Fraction:
    """Return the variance of an entry: 1/k at scale "analysis", 1/d at "synthesis".

    `InputError` if the scale is another, or that size no whole number of at least 1.
    """
    analysis = choice("scale", scale, ("analysis", "synthesis")) == "analysis"
    return Fraction(1, whole("k", k) if analysis else whole("d", d))


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
    activation    √(dv) times leading directions of C = E[x xᵀ]        ndarray
    gradient      the same, of output gradients on the side of L       ndarray
    identity      √(dv) times the first k unit vectors                 csr_array
    ============  ===================================================  ============

    Every type supports ``A @ X`` and ``A.T @ X``. Values depend on (kind, k, d, seed, key) and the
    option alone: not on the process, the order of draws, the number of threads or any global
    generator; `scale` and `dtype` only scale and round the same draw.

    Parameters
    ----------
    kind : str
        One of `KINDS`, `INFORMED`, or "identity".
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
        to k, by default min(8, k). For activation and gradient: ``moments``, C as an array (d × d)
        or as `SecondMoments`; ``power``, ``whiten`` and ``centre`` as in `informed`.

    Returns
    -------
    ndarray, csr_array or SRHT, shape (k, d)
        The projection.

    Raises
    ------
    InputError
        For an argument outside what is listed above; k > d for haar; k > 2^⌈log₂ d⌉ for srht.

    Examples
    --------
    >>> A = make_projection("sjlt", 64, 1000, seed=7, key=("layer", "L"))
    >>> A.shape, A.nnz
    ((64, 1000), 8000)
    """
    data_type = _dtype(dtype)
    ensemble, streams, k, d = _checked(kind, k, d, seed, key, options)
    return ensemble.draw(streams, k, d, entry_variance(k, d, scale), data_type, **options)


def left_projection(
    kind: str, a: int, m: int, options: dict[str, Any], left: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the ensemble that L (its transpose, a × m) is drawn from, and its options.

    Parameters
    ----------
    kind : str
        The ensemble of R.
    a, m : int
        Rows of L's transpose, and the length of what it projects.
    options : dict
        Those of `kind`; ``gradients`` holds the moments of L's side, where they are used.
    left : str, optional
        Another ensemble for L, such as "identity" with a = m.

    Raises
    ------
    InputError
        If `left` is no ensemble, or is the identity with a < m.
    """
    ensemble = ENSEMBLES[choice("kind", kind, ENSEMBLES)]
    if left is None and ensemble.data_dependent:
        left = "identity" if a == m else ensemble.left
    if left is None:
        own = {name: value for name, value in options.items() if name != "moments"}
        if ensemble.data_dependent:
            own["moments"] = own.pop("gradients", None)
        return kind, own
    if ENSEMBLES[choice("left", left, ENSEMBLES)].fixed and a != m:
        raise refuse("a", a, f"m = {m}, where L is the {left}")
    return left, {}


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

    It is ``fingerprint(make_projection(...))``, 32 hexadecimal characters, except for ensembles
    with a `source`, such as haar, whose last bits depend on the linear algebra library: there it
    is the hash of the draw that is orthonormalised, together with the scale and the dtype. To be
    compared before reusing a seed on another machine or with another version of the library.

    Parameters and errors are those of `make_projection`.
    """
    settings = {"seed": seed, "scale": scale, "key": key, "dtype": dtype, **options}
    choice("kind", kind, ENSEMBLES)
    source = ENSEMBLES[kind].source
    if source is None:
        return fingerprint(make_projection(kind, k, d, **settings))
    choice("scale", scale, ("analysis", "synthesis"))
    _, streams, k, d = _checked(kind, k, d, seed, key, options)
    container = f"{kind} draw, {scale} scale, {_dtype(dtype).name}"
    values = source(streams, k, d, np.dtype(np.float64))
    return content_hash(container, (k, d), {"values": values})


def spanning_rows(
    kind: str, k: int, d: int, *, seed: int, key: tuple[Any, ...], dtype: Any
) -> NDArray[Any] | Any:
    """Return a matrix with the row space of what `make_projection` would draw, the cheapest one.

    Orthonormalising a draw costs more than what is then done with its span, and does not change
    it: an ensemble's `source` stands for it.

    Parameters are those of `make_projection`.
    """
    ensemble, streams, k, d = _checked(kind, k, d, seed, key, {})
    if ensemble.source is None:
        return make_projection(kind, k, d, seed=seed, key=key, dtype=dtype)
    return ensemble.source(streams, k, d, _dtype(dtype))
