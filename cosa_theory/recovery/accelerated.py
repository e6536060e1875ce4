"""Accelerated proximal gradient steps for ½‖Φx − y‖² + λ‖x‖₁, two products with Φ in each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from numpy.typing import NDArray

from cosa_theory.recovery.shrinkage import clipped
from cosa_theory.recovery.system import Floats, System

__all__ = ["AcceleratedSteps", "as_column"]

_WHOLE = 1 << 17  # entries of an array up to which it is worked on as a whole
_BLOCK = 1 << 16  # entries at a time beyond: a few temporaries of this size stay in cache
_RAISE, _LOWER = 2.0, 0.9  # factors of the curvature, after a step that was too long or fine
_NOISE = 10  # rounding of a residual, in units of ‖y‖, that no curvature is to answer for
_LEAST = 1e-6  # least curvature, as a share of the greatest


class AcceleratedSteps:
    """The state of a fast iterative shrinkage-thresholding algorithm on a batch of problems.

    From the extrapolated point z, x⁺ = S(z − ∇f(z)/ℓ, λ/ℓ), with S soft thresholding and
    f(x) = ½‖Φx − y‖²; then z⁺ = x⁺ + β(x⁺ − x) with β = (t − 1)/t⁺ and t⁺ = (1 + √(1 + 4t²))/2
    [1]_. The curvature ℓ is a local one: a step stands if ‖Φ(x⁺ − z)‖² ≤ ℓ‖x⁺ − z‖², which is
    what the method's descent needs, or if ℓ is ‖A‖²‖B‖², where it always holds. The momentum
    starts anew (t = 1) when it points uphill, ⟨z − x⁺, x⁺ − x⟩ > 0 [2]_.

    Residuals are affine, so Φz − y is extrapolated from two of them, and the curvature check is
    free where it succeeds: a step costs one product with Φ and one with Φᵀ.

    `X` are the points x (B, m, n), from the given ones or zero, `residual` is Φx − y (B, p, q) and
    `ahead` Φz − y; `correlation` is ‖Φᵀ(Φz − y)‖_∞ and `norm1` ‖x‖₁, (B,) each.

    References
    ----------
    .. [1] A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear
       inverse problems", SIAM J. Imaging Sciences 2 (2009), 183-202, equations (4.1) to (4.3);
       backtracking on page 194.
    .. [2] B. O'Donoghue, E. Candès, "Adaptive restart for accelerated gradient schemes",
       Foundations of Computational Mathematics 15 (2015), 715-732, section 3.2.
    """

    def __init__(self, system: System, Y: Any, X: Any = None) -> None:
        self.system, self.Y = system, Y
        self._xp = array_namespace(Y)
        batch = Y.shape[0]
        if X is None:
            shape = (batch, *system.coefficient_shape)
            self.X = self._xp.zeros(shape, dtype=Y.dtype, device=Y.device)
            self.residual = -Y
        else:
            self.X = X
            self.residual = system.apply(X) - Y
        # Copies, because both change in place while the others are still needed.
        self._Z = self._xp.asarray(self.X, copy=True)
        self.ahead = self.residual
        self._greatest = system.lipschitz
        self._curvature = np.full(batch, min(_longest_column(system), self._greatest))
        self._t = np.ones(batch)
        unit = float(np.finfo(np.float64 if Y.dtype.itemsize == 8 else np.float32).eps)
        self._slack = (_NOISE * unit) ** 2 * self._norms2(Y)
        self.norm1 = self._norms1()
        self._G: Any = None
        self.correlation: Floats = np.zeros(batch)
        self._differentiate()

    def keep(self, items: NDArray[np.bool_]) -> None:
        """Go on with some items only."""
        chosen = np.flatnonzero(items)
        self.X, self._Z, self._G = self.X[chosen], self._Z[chosen], self._G[chosen]
        self.Y, self.residual = self.Y[chosen], self.residual[chosen]
        self.ahead = self.ahead[chosen]
        self._curvature, self._t = self._curvature[chosen], self._t[chosen]
        self._slack = self._slack[chosen]
        self.correlation, self.norm1 = self.correlation[chosen], self.norm1[chosen]

    def step(self, lam: Floats) -> NDArray[np.bool_]:
        """Take one step with the penalties `lam` (B,); return which items moved.

        An item whose step was too long stays where it is, with a larger curvature.
        """
        X, moved, turned, norm1 = self._proximal_points(lam)
        residual = self.system.apply(X)
        residual -= self.Y
        change = self._norms2(residual - self.ahead)
        fits = change <= self._curvature * moved + self._slack
        fits |= self._curvature >= self._greatest
        self._curvature[~fits] *= _RAISE
        if not fits.any():
            np.minimum(self._curvature, self._greatest, out=self._curvature)
            return fits
        stays = np.flatnonzero(~fits)
        before = [array[stays] for array in self._state()]
        self._extrapolate(X, residual, restart=turned > 0)
        if stays.size:
            for array, old in zip(self._state(), before, strict=True):
                array[stays] = old
        self.norm1[fits] = norm1[fits]
        self._curvature[fits] *= _LOWER
        np.clip(self._curvature, _LEAST * self._greatest, self._greatest, out=self._curvature)
        self._differentiate()
        return fits

    def _state(self) -> tuple[Any, ...]:
        return self.X, self._Z, self.residual, self.ahead, self._t

    def _proximal_points(self, lam: Floats) -> tuple[Any, Floats, Floats, Floats]:
        """Return x⁺, ‖x⁺ − z‖², ⟨z − x⁺, x⁺ − x⟩ and ‖x⁺‖₁."""
        xp, shape = self._xp, self.X.shape
        flat = [xp.reshape(array, (shape[0], -1)) for array in (self.X, self._Z, self._G)]
        new, sums = None, np.zeros((3, shape[0]))
        for items, span in self._tiles():
            x, z, g = (array[items, span] for array in flat)
            threshold = lam[items] / self._curvature[items]
            steps = g * as_column(-1 / self._curvature[items], z)
            steps += z
            taken = clipped(steps, as_column(threshold, z))
            steps -= taken
            point = steps
            # Where a point is not zero, the threshold was taken from it in full.
            sums[2, items] += _host(xp.vecdot(point, taken)) / np.where(threshold > 0, threshold, 1)
            from_z = xp.subtract(point, z, out=taken)
            sums[0, items] += _host(xp.vecdot(from_z, from_z))
            sums[1, items] -= _host(xp.vecdot(from_z, point - x))
            if point.shape == flat[0].shape:
                new = point
            else:
                new = xp.empty_like(flat[0]) if new is None else new
                new[items, span] = point
        return xp.reshape(new, shape), sums[0], sums[1], sums[2]

    def _extrapolate(self, X: Any, residual: Any, restart: NDArray[np.bool_]) -> None:
        """Move to the new points, and z ahead of them."""
        t = np.where(restart, 1.0, self._t)
        self._t = 0.5 * (1 + np.sqrt(1 + 4 * t**2))
        beta = (t - 1) / self._t
        flat = [self._xp.reshape(array, (X.shape[0], -1)) for array in (self.X, self._Z, X)]
        for items, span in self._tiles():
            x, z, new = (array[items, span] for array in flat)
            step = new - x
            step *= as_column(beta[items], x)
            step += new
            z[...] = step
        self.ahead = residual - self.residual
        ahead = self._xp.reshape(self.ahead, (X.shape[0], -1))
        ahead *= as_column(beta, ahead)
        self.ahead += residual
        self.X, self.residual = X, residual

    def _differentiate(self) -> None:
        """Compute Φᵀ(Φz − y), the gradient at z."""
        self._G = None  # so that its memory serves the new one
        self._G = self.system.apply_adjoint(self.ahead)
        self.correlation = np.zeros(self.X.shape[0])
        flat = self._xp.reshape(self._G, (self.X.shape[0], -1))
        for items, span in self._tiles():
            g = flat[items, span]
            largest = np.maximum(_host(self._xp.max(g, axis=1)), -_host(self._xp.min(g, axis=1)))
            self.correlation[items] = np.maximum(self.correlation[items], largest)

    def _tiles(self) -> Iterator[tuple[slice, slice]]:
        """Yield the parts (items, entries) that the arrays are worked on in."""
        batch, size = self.X.shape[0], self.system.size
        if batch * size <= _WHOLE or str(getattr(self.X, "device", "cpu")) != "cpu":
            yield slice(0, batch), slice(0, size)
            return
        for item in range(batch):
            for start in range(0, size, _BLOCK):
                yield slice(item, item + 1), slice(start, min(start + _BLOCK, size))

    def _norms2(self, R: Any) -> Floats:
        """Return the squared Frobenius norm of each item, summed in float64."""
        flat = self._xp.astype(self._xp.reshape(R, (R.shape[0], -1)), self._xp.float64, copy=False)
        return _host(self._xp.vecdot(flat, flat))

    def _norms1(self) -> Floats:
        """Return ‖x‖₁ of each item."""
        total = np.zeros(self.X.shape[0])
        flat = self._xp.reshape(self.X, (self.X.shape[0], -1))
        for items, span in self._tiles():
            total[items] += _host(self._xp.sum(self._xp.abs(flat[items, span]), axis=1))
        return total


def as_column(values: Floats, like: Any) -> Any:
    """Return one number per item as a factor for arrays (items, entries) such as `like`."""
    if len(values) == 1:
        return float(values[0])
    xp = array_namespace(like)
    return xp.asarray(values[:, None], dtype=like.dtype, device=like.device)


def _host(values: Any) -> Floats:
    """Return a small array as float64 on the host."""
    if is_numpy_array(values):
        return values.astype(np.float64)
    return values.detach().cpu().numpy().astype(np.float64)


def _longest_column(system: System) -> float:
    """Return the greatest squared norm of a column of A ⊗ B."""
    return float(np.prod([np.einsum("ij,ij->j", M, M).max() for M in system.factors]))
