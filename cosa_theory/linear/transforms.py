"""Orthonormal transforms of matrices: changes of basis in which an update may be sparse.

Each transform maps m × n matrices to m × n coefficients, keeps the Frobenius inner product
(⟨forward(X), forward(Y)⟩ = ⟨X, Y⟩), and is undone by `inverse`. All are separable: the
coefficients are C = Uᵀ X V with one orthogonal matrix for each side, so a Kronecker operator
A ⊗ B on X is the Kronecker operator (A U) ⊗ (B V) on C, and `rows` gives its factors. Arrays are
numpy arrays; float32 stays float32, integers become float64.
"""

import warnings
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import scipy  # its parts are loaded where they are first used
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import get_lapack_funcs, qr, svd

from cosa_theory.ground import checks
from cosa_theory.ground.errors import InputError

__all__ = ["DCT", "Coordinate", "SingularBasis", "Transform", "Wavelet"]

Side: TypeAlias = Literal[0, 1]


class Transform(Protocol):
    """An orthonormal change of basis of m × n matrices.

    Matrices are arrays of real numbers; an `InputError` names what is not one,
    or not of the shape that the transform is for.
    """

    name: str

    def forward(self, X: ArrayLike) -> NDArray[Any]:
        """Return the coefficients Uᵀ X V, shape (m, n), of a matrix X of shape (m, n)."""
        ...

    def inverse(self, C: ArrayLike) -> NDArray[Any]:
        """Return the matrix U C Vᵀ, shape (m, n), with coefficients C of shape (m, n)."""
        ...

    def rows(self, F: ArrayLike, side: Side) -> NDArray[Any]:
        """Return F U (side 0, F of shape (k, m)) or F V (side 1, F of shape (k, n))."""
        ...


def _as_real(X: ArrayLike, shape: tuple[int, int] | None = None) -> NDArray[Any]:
    return checks.real_matrix("the matrix to transform", X, shape)


class Coordinate:
    """The coordinate basis: the coefficients of a matrix are its entries."""

    name = "coordinate"

    def forward(self, X: ArrayLike) -> NDArray[Any]:
        """Return X itself, a view where it is a float array already."""
        return _as_real(X)

    inverse = forward

    def rows(self, F: ArrayLike, side: Side) -> NDArray[Any]:
        """Return F itself: U and V are identities."""
        return _as_real(F)


class DCT:
    """The two-dimensional discrete cosine transform, type II, orthonormal.

    C_jk = c_j c_k Σ_{p,q} X_pq cos(π(2p+1)j / 2m) cos(π(2q+1)k / 2n), with c_0 = √(1/m) or √(1/n)
    and √(2/m) or √(2/n) otherwise. C_00 is the mean times √(mn); frequencies grow with the index.

    References
    ----------
    N. Ahmed, T. Natarajan, K. R. Rao, "Discrete cosine transform", IEEE Trans. Computers (1974).
    """

    name = "dct"

    def forward(self, X: ArrayLike) -> NDArray[Any]:
        """Return the cosine coefficients."""
        return scipy.fft.dctn(_as_real(X), norm="ortho")

    def inverse(self, C: ArrayLike) -> NDArray[Any]:
        """Return the matrix with these cosine coefficients."""
        return scipy.fft.idctn(_as_real(C), norm="ortho")

    def rows(self, F: ArrayLike, side: Side) -> NDArray[Any]:
        """Return the cosine transform of every row of F."""
        return scipy.fft.dct(_as_real(F), axis=1, norm="ortho")


class Wavelet:
    """The separable two-dimensional wavelet transform, orthonormal.

    C = Uᵀ X V, where U and V are the periodised one-dimensional transforms of the two sides, each
    over all its levels (the tensor-product, or fully separable, wavelet basis). A side of length
    2^k·odd has at most k levels, so that the transform stays square and orthogonal; an odd side is
    left as it is, which a warning says. Coarsest scales come first along either side.

    Parameters
    ----------
    wavelet : str
        An orthogonal wavelet of PyWavelets, such as "haar", "db2" or "sym4".

    Raises
    ------
    InputError
        If there is no such wavelet or it is not orthogonal.

    References
    ----------
    docs/theory.md, 5.4. S. Mallat, "A Wavelet Tour of Signal Processing", 3rd ed. (2009), section
    7.7.4; the tensor-product form and its atoms of unequal scales: R. DeVore, S. Konyagin, V.
    Temlyakov, "Hyperbolic wavelet approximation", Constructive Approximation 14 (1998), 1-26.
    """

    name = "wavelet"

    def __init__(self, wavelet: str = "db2") -> None:
        import pywt  # on use only: most of the library does without

        if wavelet not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(wavelet).orthogonal:
            known = "an orthogonal one of PyWavelets, such as 'haar', 'db2' or 'sym4'"
            raise checks.refuse("wavelet", wavelet, known)
        self._wavelet = pywt.Wavelet(wavelet)

    def levels(self, length: int) -> int:
        """Return how many times a side of this length is halved."""
        import pywt

        halvings = (length & -length).bit_length() - 1  # the power of two in it
        return min(halvings, pywt.dwt_max_level(length, self._wavelet.dec_len))

    def forward(self, X: ArrayLike) -> NDArray[Any]:
        """Return the wavelet coefficients; warn if a side cannot be halved even once."""
        matrix = _as_real(X)
        self._warn_if_idle(matrix.shape)
        return self._analyse(self._analyse(matrix, 1), 0)

    def inverse(self, C: ArrayLike) -> NDArray[Any]:
        """Return the matrix with these wavelet coefficients."""
        return self._synthesise(self._synthesise(_as_real(C), 1), 0)

    def rows(self, F: ArrayLike, side: Side) -> NDArray[Any]:
        """Return the wavelet transform of every row of F; warn as `forward` does."""
        matrix = _as_real(F)
        self._warn_if_idle(matrix.shape[1:])
        return self._analyse(matrix, 1)

    def _analyse(self, X: NDArray[Any], axis: int) -> NDArray[Any]:
        import pywt

        levels = self.levels(X.shape[axis])
        if levels == 0:
            return X
        parts = pywt.wavedec(X, self._wavelet, "periodization", levels, axis)
        return np.concatenate(parts, axis)

    def _synthesise(self, C: NDArray[Any], axis: int) -> NDArray[Any]:
        import pywt

        length = C.shape[axis]
        levels = self.levels(length)
        if levels == 0:
            return C
        ends = [length >> level for level in range(levels, 0, -1)]
        parts = np.split(C, ends, axis)
        return pywt.waverec(parts, self._wavelet, "periodization", axis)

    def _warn_if_idle(self, shape: tuple[int, ...]) -> None:
        idle = [length for length in shape if self.levels(length) == 0]
        if idle:
            warnings.warn(
                f"a side of length {idle[0]} cannot be halved by this wavelet: along it the "
                "coefficients are the entries",
                stacklevel=3,
            )


class SingularBasis:
    """The basis of singular vectors of a weight: X ↦ Uᵀ X V with W = U Σ Vᵀ.

    U and V are complete: the left and right null spaces of W, where it has any, get an arbitrary
    but fixed orthonormal basis, so that the map is an isometry for every shape and rank. The long
    side's factor is kept as Householder reflections, never as a square matrix: memory is of the
    size of W, and building costs one QR and one SVD of the short side.

    Parameters
    ----------
    W : array of shape (m, n)
        The weight, finite. Its type, float32 or float64, is the precision of the vectors.

    Attributes
    ----------
    shape : (int, int)
        (m, n), the only shape that can be transformed.
    singular_values : array of shape (min(m, n),)
        Those of W, largest first; index i belongs to row i and column i of the coefficients.

    Raises
    ------
    InputError
        If W is not a non-empty finite real matrix.
    """

    name = "singular"

    def __init__(self, W: ArrayLike) -> None:
        weight = checks.matrix("W", W)
        self.shape = weight.shape
        self._wide = weight.shape[0] < weight.shape[1]
        tall = weight.T if self._wide else weight
        # Q stays as the reflections below the diagonal; the triangle above is the small factor.
        (self._reflections, self._tau), triangle = qr(tall, mode="raw", check_finite=False)
        self._ormqr = get_lapack_funcs("ormqr", (tall,))
        self._left, self.singular_values, right = svd(triangle, check_finite=False)
        self._right = right.T

    def rows(self, F: ArrayLike, side: Side) -> NDArray[Any]:
        """Return F U (side 0) or F V (side 1)."""
        matrix = _as_real(F)
        if matrix.shape[1] != self.shape[side]:
            raise InputError(
                f"side {side} of this basis has length {self.shape[side]}, rows of F have "
                f"{matrix.shape[1]}"
            )
        if side == (0 if self._wide else 1):  # the short side
            return matrix @ self._right
        long = self._rotate_long(np.array(matrix.T), transpose=True)
        width = self._left.shape[0]
        long[:width] = self._left.T @ long[:width]
        return long.T

    def _rotate_long(self, X: NDArray[Any], transpose: bool) -> NDArray[Any]:
        """Multiply by the complete Q of the QR factorisation, or by its transpose."""
        direction = "T" if transpose else "N"
        work = 64 * X.shape[1] + 64 * 65  # room for LAPACK's largest block of reflections
        return self._ormqr("L", direction, self._reflections, self._tau, X, work)[0]

    def forward(self, X: ArrayLike) -> NDArray[Any]:
        """Return Uᵀ X V: W itself gives its singular values on the diagonal and zeros elsewhere."""
        matrix = _as_real(X, self.shape)
        tall = (matrix.T if self._wide else matrix) @ self._right
        tall = self._rotate_long(tall, transpose=True)
        side = tall.shape[1]
        tall[:side] = self._left.T @ tall[:side]
        return tall.T if self._wide else tall

    def inverse(self, C: ArrayLike) -> NDArray[Any]:
        """Return U C Vᵀ."""
        matrix = _as_real(C, self.shape)
        tall = np.array(matrix.T if self._wide else matrix)
        side = tall.shape[1]
        tall[:side] = self._left @ tall[:side]
        tall = self._rotate_long(tall, transpose=False) @ self._right.T
        return tall.T if self._wide else tall
