"""Closed forms of informed projections: what they capture, their best shapes, their decoder.

R spans a subspace S of dimension b that is chosen by what is known of the inputs x of a layer, such
as the leading eigenvectors of C = E[x xᵀ]; its captured energy is not ab/(mn). Shares of energy by
number of directions are given as arrays: ``shares[b − 1]`` belongs to b. An argument out of its
range raises `InputError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosa_theory.ground.checks import MOST_SIZE, matrix, numbers, real, refuse, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.scales import in_safe_range

__all__ = [
    "InformedBudget",
    "explained_share",
    "informed_budget",
    "informed_shape",
    "informed_share",
    "prior_error",
]

Shares = NDArray[np.float64]
_ROUNDING = 1e-6  # shares computed in single precision may leave their range by so much


def _checked_shares(name: str, shares: ArrayLike, most: int) -> Shares:
    """Return the shares of 1, 2, … directions, at most so many, after looking at them."""
    given: Shares = np.asarray(numbers(name, shares, least=0, most=1 + _ROUNDING))
    if given.ndim != 1 or not len(given):
        raise refuse(name, given.shape, "a sequence of the shares of 1, 2, … directions")
    if np.any(np.diff(given) < -_ROUNDING):
        raise InputError(
            f"{name} falls: it must be cumulative, the share held by 1, 2, … directions",
            argument=name,
        )
    return given[:most]


def _left(m: int, shares: ArrayLike | None) -> Shares:
    """Return the share of column energy that a columns of L hold: a/m where L is invariant."""
    if shares is None:
        return np.arange(1, m + 1) / m
    return _checked_shares("left_shares", shares, m)


def informed_share(
    a: int, m: int, b: int, shares: ArrayLike, left_shares: ArrayLike | None = None
) -> float:
    """Return (a/m) s(b), the mean share of ‖ΔW‖² that a core with an informed R captures.

    Exact for every fixed ΔW and R with s(b) = ‖ΔW P_S‖²/‖ΔW‖², if the range of L is rotation
    invariant and independent of R (Haar, Gaussian), or all of the space (a = m). With the share of
    tr C that the leading b eigenvectors hold in the place of s(b) it is an estimate, exact on
    average over updates with E[ΔWᵀΔW] ∝ C.

    With `left_shares` t, of the columns of ΔW in the range of a fixed L, it is t(a) s(b): exact on
    average over updates with covariance D ⊗ C on both sides; for one ΔW the share is between
    t + s − 1 and min(t, s).

    Parameters
    ----------
    a, m, b : int
        Columns and rows of L, rows of R.
    shares : array of shape (b or more,)
        s(1), s(2), …
    left_shares : array of shape (a or more,), optional
        t(1), t(2), …

    References
    ----------
    docs/theory.md, 7.1.
    """
    m = whole("m", m)
    a = whole("a", a, 1, m)
    s, t = _checked_shares("shares", shares, whole("b", b)), _left(m, left_shares)
    for name, size, known in (("a", a, t), ("b", b, s)):
        if len(known) < size:
            raise refuse(
                name, size, f"at most {len(known)}, as many directions as shares are given"
            )
    return float(min(1.0, t[a - 1] * s[b - 1]))


def informed_shape(
    m: int,
    n: int,
    parameters: int,
    shares: ArrayLike,
    left_shares: ArrayLike | None = None,
) -> tuple[int, int]:
    """Return the (a, b) with ab ≤ P, a ≤ m and b ≤ n of the largest `informed_share`.

    Both shares grow with their size, so for each b the best a is the largest, min(m, ⌊P/b⌋), and
    the best b of those is found by trying all; of equal ones the largest a is taken.

    With an invariant L that is a = m up to rounding, whatever C is: eigenvalues descend, so s is
    concave, s(b)/b falls, and (a/m) s(b) ≤ (P/m) s(b)/b is largest at the least b, P/m. For whole
    numbers a core with a < m wins over the one-sided core of b₀ = ⌊P/m⌋ columns by a factor below
    1 + 1/b₀, by spending what rounding leaves of P. At a = m, L is the identity: it costs neither a
    product nor storage. With spectra on both sides the better known side gets fewer directions.

    Parameters
    ----------
    m, n : int
        Shape of the layer.
    parameters : int
        The budget P.
    shares, left_shares : array
        As in `informed_share`; of at most as many directions as they have shares of.

    References
    ----------
    docs/theory.md, 7.3.
    """
    m, n, parameters = whole("m", m), whole("n", n), whole("parameters", parameters)
    s = _checked_shares("shares", shares, min(n, parameters))
    b = np.arange(1, len(s) + 1)
    t = _left(m, left_shares)
    a = np.minimum(len(t), parameters // b)
    best = int(np.argmax(t[a - 1] * s))
    return int(a[best]), best + 1


@dataclass(frozen=True)
class InformedBudget:
    """One budget shared out over layers with a = m.

    Parameters
    ----------
    columns : mapping of str to int
        b of every layer.
    parameters : int
        Σ m b, spent.
    share : float
        Expected share of all energy that is captured.
    bound : float
        That no whole numbers of columns exceed: the best of real-valued ones.
    """

    columns: Mapping[str, int]
    parameters: int
    share: float
    bound: float


def informed_budget(
    layers: Mapping[str, tuple[int, ArrayLike]],
    parameters: int,
    weights: Mapping[str, float] | None = None,
) -> InformedBudget:
    """Share out one budget over layers whose L is the identity: the rows b of each R.

    Every layer has at least one row. Further ones are added by what they bring for each number,
    w λ_{b+1}/(m tr C), as long as they fit. Shares are concave, so real-valued numbers of rows
    added in this order are optimal, and their value bounds that of whole ones; the two differ by at
    most the gain of one row.

    Parameters
    ----------
    layers : mapping of str to (int, array)
        From a layer's name to m, and to its shares s(1), s(2), … of at most n directions.
    parameters : int
        The budget P: Σ m b ≤ P.
    weights : mapping of str to float, optional
        Energy of each layer's update, known or supposed; by default all alike.

    Raises
    ------
    InputError
        If the budget leaves a layer without any.

    References
    ----------
    docs/theory.md, 7.3. Greedy filling of a continuous knapsack: G. Dantzig, "Discrete-variable
    extremum problems", Operations Research 5 (1957).
    """
    rows = {name: whole(f"m of {name}", m) for name, (m, _) in layers.items()}
    least = sum(rows.values())
    if not rows or whole("parameters", parameters) < least:
        raise InputError(
            f"a budget of {parameters:,} parameters leaves some of the {len(rows):,} layers none: "
            f"give at least {least:,}, or name fewer layers",
            argument="parameters",
        )
    gains = _gains(layers, dict.fromkeys(rows, 1.0) if weights is None else weights)
    share = sum(float(gain[0]) for gain in gains.values())
    order = sorted(
        ((gain / rows[name], name) for name in rows for gain in gains[name][1:].tolist()),
        key=lambda one: -one[0],
    )
    columns, left, bound = dict.fromkeys(rows, 1), parameters - least, None
    for density, name in order:
        m = rows[name]
        if m > left:
            # Real-valued columns spend here what is left, and nothing after.
            bound = share + density * left if bound is None else bound
            continue
        columns[name] += 1
        left -= m
        share += density * m
    return InformedBudget(columns, parameters - left, share, share if bound is None else bound)


def _gains(
    layers: Mapping[str, tuple[int, ArrayLike]], weights: Mapping[str, float]
) -> dict[str, Shares]:
    """Return what each direction of each layer adds to the share of all energy."""
    if missing := [name for name in layers if name not in weights]:
        raise refuse("weights", f"without {missing[0]}", "those of every layer")
    weight = {name: real(f"weight of {name}", weights[name], least=0) for name in layers}
    total = sum(weight.values())
    if not total > 0:
        raise refuse("weights", 0, "positive for some layer")
    gains = {}
    for name, (_, shares) in layers.items():
        held = _checked_shares(f"shares of {name}", shares, MOST_SIZE)
        gains[name] = weight[name] / total * np.diff(held, prepend=0.0)
        if np.any(np.diff(gains[name]) > _ROUNDING):
            raise InputError(
                f"the shares of {name} are not concave: give those of its leading directions, in "
                "descending order",
                argument="layers",
            )
    return gains


def explained_share(R: ArrayLike, C: ArrayLike) -> float:
    """Return tr((R C Rᵀ)⁻¹ R C² Rᵀ)/tr C, the share of E‖x‖² that the projections R x explain.

    It is tr(P C)/tr C, with P the projection on the range of C^(1/2) Rᵀ: at most the share of the
    leading b eigenvalues, which the leading eigenvectors as rows of R reach. Directions of R that
    no x has are left out.

    Parameters
    ----------
    R : array, shape (b, n)
        At any scale.
    C : array, shape (n, n)
        E[x xᵀ], symmetric without negative eigenvalues.

    Returns
    -------
    float
        In [0, 1]; NaN if C is zero.

    Raises
    ------
    InputError
        If R or C is not a finite real matrix, or C is of vectors of another length.

    References
    ----------
    docs/theory.md, 7.4.
    """
    projection, _ = in_safe_range(matrix("R", R).astype(np.float64))  # the share is free of scale
    n = projection.shape[1]
    moments, _ = in_safe_range(matrix("C", C, (n, n)).astype(np.float64))
    trace = float(np.trace(moments))
    if trace == 0:
        return math.nan
    seen = projection @ moments
    core = np.linalg.pinv(seen @ projection.T, hermitian=True)
    return float(np.sum((core @ seen) * seen) / trace)


def prior_error(a: int, m: int, explained: float, decoder: str = "least_squares") -> float:
    """Return E‖Â − ΔW‖²/E‖ΔW‖² of a core decoded with a prior of covariance C on the right.

    The core is Y = Lᵀ ΔW Rᵀ with rows of ΔW that are independent N(0, C), and Â = Z (R C Rᵀ)⁻¹ R C,
    where Z is L(LᵀL)⁻¹Y ("least_squares") or L Y at analysis scale ("adjoint"). With e the
    `explained_share` of R: least squares on the left is the posterior mean, of error 1 − (a/m) e,
    for every L of full rank. With the adjoint of a Haar L it is 1 − (2 − m/a) e, which is more by
    e (1 − a/m)(m/a − 1).

    This is a law for updates drawn from the prior. For a fixed ΔW and a random R no law is known.

    References
    ----------
    docs/theory.md, 7.4.
    """
    m = whole("m", m)
    a = whole("a", a, 1, m)
    share = real("explained", explained, least=0, most=1 + _ROUNDING)
    if decoder == "least_squares":
        return 1 - a / m * share
    if decoder == "adjoint":
        return 1 - (2 - m / a) * share
    raise refuse("decoder", decoder, "least_squares or adjoint")
