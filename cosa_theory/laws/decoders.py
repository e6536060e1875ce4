"""Closed forms of what comes back when a core Y = A ΔW Bᵀ is decoded by its adjoint, q Aᵀ Y B.

A (a × m) and B (b × n) are independent projections at analysis scale, so L = Aᵀ and R = B. Their
Gram matrices have mean I, so the adjoint returns ΔW on average; its error follows from their second
moments, which each ensemble states in its record. An argument out of its range raises `InputError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cosa_theory.ground.checks import matrix, numbers, sizes
from cosa_theory.ground.errors import InputError
from cosa_theory.laws.norms import GramMoments
from cosa_theory.laws.synthesis import Numbers

__all__ = ["InputMoments", "best_gain", "decoder_error", "gram_growth", "input_moments"]


@dataclass(frozen=True)
class InputMoments:
    """What the law of a decoder needs to know of an update and of the inputs x it is applied to.

    Both are shares of E‖ΔW x‖² = tr(ΔW C ΔWᵀ), with C = E[x xᵀ].

    Parameters
    ----------
    spread : float
        tr(C) ‖ΔW‖² over it: what inputs without a direction would see, n where C = I. It is large
        where few inputs meet the update.
    aligned : float
        Σᵢ Cᵢᵢ ‖ΔW eᵢ‖² over it: 1 where C is diagonal.
    """

    spread: float
    aligned: float


def input_moments(dW: ArrayLike, C: ArrayLike | None = None) -> InputMoments:
    """Measure the moments of an update under the second moments of its inputs.

    Parameters
    ----------
    dW : array, shape (m, n)
        The update, at any scale.
    C : array, shape (n, n), optional
        E[x xᵀ] of the inputs, at any scale; the identity by default, which weighs every direction
        alike, so that errors are those of ‖ΔW‖².

    Raises
    ------
    InputError
        If C has another shape, or no input meets the update: tr(ΔW C ΔWᵀ) is zero.
    """
    given = matrix("dW", dW).astype(np.float64)
    largest = float(np.max(np.abs(given)))
    if largest == 0:
        raise InputError("dW is zero: it must have a nonzero entry", argument="dW")
    given /= largest
    columns = np.sum(given * given, axis=0)
    energy = float(columns.sum())
    if C is None:
        return InputMoments(spread=float(given.shape[1]), aligned=1.0)
    moments = matrix("C", C).astype(np.float64)
    if moments.shape != (given.shape[1], given.shape[1]):
        raise InputError(
            f"C has shape {moments.shape}: it must be {(given.shape[1],) * 2}, one row and one "
            "column for every input of dW",
            argument="C",
        )
    mapped = float(np.sum((given @ moments) * given))
    if not mapped > 0:
        raise InputError("C is blind to dW: tr(dW C dWᵀ) must be positive", argument="C")
    diagonal = np.diagonal(moments)
    return InputMoments(
        spread=float(diagonal.sum()) * energy / mapped,
        aligned=float(diagonal @ columns) / mapped,
    )


def gram_growth(moments: GramMoments, d: Numbers) -> Any:
    """Return η with E[(AᵀA)²] = η I, for a projection A of vectors of length d.

    η = pair + (d + 1) cross + excess: 1 + (d + 1)/k for k Gaussian rows, d/k for Haar ones. See
    docs/theory.md, 6.3.
    """
    (d,) = sizes(d=d)
    return moments.pair + (d + 1) * moments.cross + moments.excess


def decoder_error(
    left: GramMoments, m: int, right: GramMoments, update: InputMoments, gain: Numbers = 1.0
) -> Any:
    """Return E‖(q AᵀA ΔW BᵀB − ΔW) x‖² / E‖ΔW x‖² of q times the adjoint.

    With η = `gram_growth` of A and (p, c, e) the moments of B it is q² g − 2q + 1, where

        g = η (p + c + c·spread + e·aligned).

    For C = I this is the error in energy: η_A η_B − 1 at q = 1. Least squares on rotation-invariant
    ranges is the Haar adjoint at q = ab/(mn), whose energy error is 1 − ab/(mn).

    Parameters
    ----------
    left, right : GramMoments
        Of A (a × m) and B (b × n), from the records of their ensembles.
    m : int
        Rows of the update.
    update : InputMoments
        Of the update and its inputs; see `input_moments`.
    gain : float or array
        q.

    References
    ----------
    docs/theory.md, 6.3. Second moments of AᵀA; for Gaussian entries, R. J. Muirhead, Aspects of
    Multivariate Statistical Theory (1982), section 3.2.
    """
    gain = numbers("gain", gain)
    growth = 1 / best_gain(left, m, right, update)
    return gain**2 * growth - 2 * gain + 1


def best_gain(left: GramMoments, m: int, right: GramMoments, update: InputMoments) -> float:
    """Return the q of the least `decoder_error`, which is then 1 − q.

    See docs/theory.md, 6.3.
    """
    p, c, e = right.pair, right.cross, right.excess
    seen = p + c + c * update.spread + e * update.aligned
    return float(1 / (gram_growth(left, m) * seen))
