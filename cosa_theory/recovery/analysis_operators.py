"""Analysis operators Ω: ‖Ω X‖₁ is small where X has the structure that Ω looks for."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import scipy  # its parts are loaded where they are first used

from cosa_theory.ground.checks import refuse
from cosa_theory.linear.transforms import DCT, Transform
from cosa_theory.recovery.system import Floats

__all__ = ["ANALYSES", "AnalysisOperator", "Differences", "Orthonormal", "Stacked", "analysis_of"]


class AnalysisOperator(Protocol):
    """A linear map Ω from m × n matrices to arrays of any shape, with what a solver needs."""

    name: str

    @property
    def norm(self) -> float:
        """‖Ω‖, the largest singular value, or an upper bound of it."""
        ...

    @property
    def kernel(self) -> Floats:
        """An orthonormal basis of the X with ΩX = 0, shape (k, m, n)."""
        ...

    def apply(self, X: Floats) -> Floats:
        """Return ΩX."""
        ...

    def adjoint(self, U: Floats) -> Floats:
        """Return Ωᵀ U, shape (m, n)."""
        ...

    def solve(self, G: Floats) -> Floats:
        """Return (ΩᵀΩ)⁺ G, shape (m, n)."""
        ...


class Differences:
    """Differences between neighbours along both sides: anisotropic total variation.

    (ΩX)₀,ᵢⱼ = X_{i+1,j} − X_{ij} and (ΩX)₁,ᵢⱼ = X_{i,j+1} − X_{ij}, and 0 past the last row or
    column, so ΩX has shape (2, m, n). ΩᵀΩ is the Laplacian of the grid with free ends, which the
    cosine transform diagonalises, with eigenvalues 4 sin²(πk/2m) + 4 sin²(πl/2n) [1]_; constants
    are its kernel.

    References
    ----------
    .. [1] G. Strang, "The discrete cosine transform", SIAM Review 41 (1999), 135-147.
    """

    name = "differences"

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        rows, columns = (4 * np.sin(np.pi * np.arange(k) / (2 * k)) ** 2 for k in shape)
        self._eigenvalues = np.add.outer(rows, columns)

    @property
    def norm(self) -> float:
        """The square root of the largest eigenvalue, rounded up; 1 for a single entry."""
        largest = float(self._eigenvalues[-1, -1])
        return math.sqrt(largest) * (1 + 1e-14) if largest > 0 else 1.0

    @property
    def kernel(self) -> Floats:
        """The constant matrix of norm one."""
        return np.full((1, *self.shape), 1 / math.sqrt(math.prod(self.shape)))

    def apply(self, X: Floats) -> Floats:
        """Return the differences, shape (2, m, n)."""
        U = np.zeros((2, *self.shape))
        np.subtract(X[1:], X[:-1], out=U[0, :-1])
        np.subtract(X[:, 1:], X[:, :-1], out=U[1, :, :-1])
        return U

    def adjoint(self, U: Floats) -> Floats:
        """Return minus the divergence, shape (m, n)."""
        X = np.zeros(self.shape)
        X[1:] += U[0, :-1]
        X[:-1] -= U[0, :-1]
        X[:, 1:] += U[1, :, :-1]
        X[:, :-1] -= U[1, :, :-1]
        return X

    def solve(self, G: Floats) -> Floats:
        """Return the solution of Poisson's equation with mean zero."""
        C = scipy.fft.dctn(G, norm="ortho")
        C[0, 0] = 0.0
        divisor = self._eigenvalues.copy()
        divisor[0, 0] = 1.0
        X: Floats = scipy.fft.idctn(C / divisor, norm="ortho")
        return X


class Orthonormal:
    """An orthonormal transform as Ω: ‖ΩX‖₁ is then the ℓ1 norm of the coefficients."""

    norm = 1.0

    def __init__(self, transform: Transform, shape: tuple[int, int]) -> None:
        self.name = transform.name
        self.kernel: Floats = np.zeros((0, *shape))
        self._transform = transform

    def apply(self, X: Floats) -> Floats:
        """Return the coefficients, shape (m, n)."""
        return self._transform.forward(X)

    def adjoint(self, U: Floats) -> Floats:
        """Return the matrix with these coefficients."""
        return self._transform.inverse(U)

    def solve(self, G: Floats) -> Floats:
        """Return G: ΩᵀΩ is the identity."""
        return G


class Stacked:
    """An orthonormal transform stacked with the identity, a tight frame with ΩᵀΩ = 2.

    ‖ΩX‖₁ = ‖coefficients of X‖₁ + ‖X‖₁, small for matrices sparse in both; ΩX has shape (2, m, n).
    """

    norm = math.sqrt(2.0) * (1 + 1e-15)

    def __init__(self, transform: Transform, shape: tuple[int, int]) -> None:
        self.name = f"{transform.name}+identity"
        self.kernel: Floats = np.zeros((0, *shape))
        self._transform = transform

    def apply(self, X: Floats) -> Floats:
        """Return the coefficients above the entries, shape (2, m, n)."""
        return np.stack([self._transform.forward(X), X])

    def adjoint(self, U: Floats) -> Floats:
        """Return the matrix with coefficients U₀, plus U₁."""
        return self._transform.inverse(U[0]) + U[1]

    def solve(self, G: Floats) -> Floats:
        """Return G/2."""
        return G / 2


ANALYSES = ("differences", "dct+identity")
"""Names of the analysis operators; an orthonormal transform is given as an object."""


def analysis_of(omega: Any, shape: tuple[int, int]) -> AnalysisOperator:
    """Return the analysis operator that a name, a transform or an operator stands for."""
    if isinstance(omega, str) and omega in ANALYSES:  # an array is not equal to a name or not
        return Differences(shape) if omega == "differences" else Stacked(DCT(), shape)
    if hasattr(omega, "forward") and hasattr(omega, "inverse"):
        return Orthonormal(omega, shape)
    if all(hasattr(omega, part) for part in ("apply", "adjoint", "solve", "norm", "kernel")):
        operator: AnalysisOperator = omega
        return operator
    parts = "a transform, or an object with the parts of Ω: apply, adjoint, solve, norm and kernel"
    raise refuse("omega", omega, f"one of {', '.join(ANALYSES)}, {parts}")
