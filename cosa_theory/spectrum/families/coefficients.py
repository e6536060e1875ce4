"""Some coefficients of ΔW in a fixed basis: random ones, and those chosen by their size."""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cosa_theory.linear.transforms import DCT, Transform, Wavelet
from cosa_theory.spectrum.families.base import Cost, Draws, Fit, Size, Update, log2_choices
from cosa_theory.spectrum.families.fitted import Matrix, Places, add, drawn_places
from cosa_theory.spectrum.families.masks import entries, largest, placed

__all__: list[str] = []

_BANDS = 3  # of frequencies, in which MaCP chooses
_PATCH = 16

Choice = Callable[[Update, Matrix, Size, Draws], Places]


def _drawn(update: Update, coefficients: Matrix, size: Size, draws: Draws) -> Places:
    return drawn_places(update, coefficients.size, size, draws, "coefficients")


def _top(update: Update, coefficients: Matrix, size: Size, draws: Draws) -> Places:
    return largest(np.abs(coefficients), size.parameters)


def _by_band(update: Update, coefficients: Matrix, size: Size, draws: Draws) -> Places:
    """Return the largest of each band of frequencies, as many as its share of the energy deserves.

    Bands are thirds of the distance from frequency 0, (j/m)² + (k/n)². A band that has fewer than
    its due leaves the rest to the largest of all.
    """

    def banded() -> tuple[Matrix, list[Places]]:
        m, n = coefficients.shape
        distance = np.hypot(np.arange(m)[:, None] / m, np.arange(n)[None, :] / n)
        band = np.minimum((distance / np.sqrt(2) * _BANDS).astype(int), _BANDS - 1).ravel()
        flat = np.abs(coefficients).ravel()
        return flat, [np.flatnonzero(band == one) for one in range(_BANDS)]

    flat, bands = update.once("bands", banded)
    energy = np.array([np.sum(flat[inside] ** 2) for inside in bands])
    due = np.floor(size.parameters * energy / energy.sum()).astype(int)
    score, top = flat.copy(), flat.max()
    for inside, wanted in zip(bands, due.tolist(), strict=True):
        count = min(wanted, inside.size)
        if count:
            score[inside[largest(flat[inside], count)]] += 2 * top
    return largest(score, size.parameters)


def _fit(update: Update, size: Size, draws: Draws, basis: Transform, choice: Choice) -> Fit:
    def transformed() -> Matrix:
        with warnings.catch_warnings():  # along an odd side wavelet coefficients are entries
            warnings.simplefilter("ignore")
            return basis.forward(update.delta)

    coefficients, shape = update.once("coefficients", transformed), update.shape
    places = choice(update, coefficients, size, draws)
    kept = coefficients.flat[places]
    return Fit(
        (kept,),
        lambda values: basis.inverse(placed(values, places, shape)),
        held=float(kept @ kept),
    )


def _cosines(m: int, n: int) -> int:
    """Return how many real cosines Re exp(2πi(jp/m + kq/n)) differ: (j, k) is (−j, −k)."""
    own = (1 + (m % 2 == 0)) * (1 + (n % 2 == 0))
    return (m * n + own) // 2


def _fourier_size(m: int, n: int, parameters: int) -> Size:
    count = min(parameters, _cosines(m, n))
    return Size(count, f"{count:,} frequencies", None, None, min(m, n))


def _fourier(update: Update, size: Size, draws: Draws, chosen: bool) -> Fit:
    """Return Σ c Re exp(2πi(jp/m + kq/n)) over P frequencies (j, k): real numbers, no phases.

    That is what FourierFT trains, so it can express only the even part of ΔW, X_pq with the same
    value at (−p, −q): half the energy of what has no symmetry. Distinct cosines are orthogonal.
    """
    shape = m, n = update.shape

    def transformed() -> tuple[Places, Matrix, Matrix]:
        kept = np.flatnonzero(_first_of_pairs(m, n))
        # ⟨ΔW, cosine⟩ is the real part of the transform, ‖cosine‖² is mn, or mn/2 for a true pair.
        seen = scipy.fft.fft2(update.delta).real.ravel()[kept] / (m * n)
        return kept, seen, np.where(_mirror(m, n).ravel()[kept] == kept, 1.0, 2.0)

    kept, seen, twice = update.once("frequencies", transformed)
    if chosen:
        places = largest(np.abs(seen) * np.sqrt(twice), size.parameters)
    else:
        places = drawn_places(update, kept.size, size, draws, "frequencies")

    def build(values: Matrix) -> Matrix:
        whole: Matrix = scipy.fft.fft2(placed(values, kept[places], shape)).real
        return whole

    values = (seen * twice)[places]
    return Fit((values,), build, held=float(m * n * (values @ seen[places])))


def _mirror(m: int, n: int) -> Places:
    """Return, for each (j, k), the flat place of (−j, −k)."""
    rows, columns = -np.arange(m) % m, -np.arange(n) % n
    return rows[:, None] * n + columns[None, :]


def _first_of_pairs(m: int, n: int) -> NDArray[np.bool_]:
    places = np.arange(m * n).reshape(m, n)
    return (places <= _mirror(m, n)).ravel()


def _patches(m: int, n: int) -> tuple[int, int]:
    """Return the sides of the patches: the largest divisors of the sides up to `_PATCH`."""

    def side(length: int) -> int:
        return next(one for one in range(min(_PATCH, length), 0, -1) if length % one == 0)

    return side(m), side(n)


def _patched(update: Update, size: Size, draws: Draws) -> Fit:
    """Return the largest cosine coefficients of patches of ΔW."""
    m, n = update.shape
    p, q = _patches(m, n)

    def cut(matrix: Matrix) -> Matrix:
        return matrix.reshape(m // p, p, n // q, q).swapaxes(1, 2)

    coefficients = update.once(
        "patches", lambda: scipy.fft.dctn(cut(update.delta), axes=(2, 3), norm="ortho")
    )
    places = largest(np.abs(coefficients), size.parameters)

    def build(values: Matrix) -> Matrix:
        made = placed(values, places, coefficients.shape)
        back = scipy.fft.idctn(made, axes=(2, 3), norm="ortho")
        whole: Matrix = back.swapaxes(1, 2).reshape(m, n)
        return whole

    kept = coefficients.flat[places]
    return Fit((kept,), build, held=float(kept @ kept))


def _cost(m: int, n: int, size: Size, told: bool) -> Cost:
    """Return the cost of coefficients whose update is formed once a step and then applied."""
    places = log2_choices(m * n, size.parameters) if told else 0.0
    return Cost.of(size, 0, m * n, places)


_FREE, _TOLD = partial(_cost, told=False), partial(_cost, told=True)
_FOURIERFT = "Z. Gao et al., arXiv 2405.03003 (2024)"
_WAVEFT = "A. Bilican et al., arXiv 2505.12532 (2025)"

_add = partial(add, group="entries")

_add(
    36,
    "random_dct",
    "random cosine coefficients",
    "N. Ahmed, T. Natarajan, K. R. Rao, IEEE Trans. Computers (1974)",
    entries,
    partial(_fit, basis=DCT(), choice=_drawn),
    _FREE,
    drawn=True,
    law=True,
)
_add(
    37,
    "random_fourier",
    "FourierFT, random frequencies",
    _FOURIERFT,
    _fourier_size,
    partial(_fourier, chosen=False),
    _FREE,
    drawn=True,
    law=True,
)
_add(
    38,
    "fourierft",
    "FourierFT, the best frequencies",
    _FOURIERFT,
    _fourier_size,
    partial(_fourier, chosen=True),
    _TOLD,
)
_add(
    39,
    "waveft",
    "WaveFT, the best wavelet coefficients",
    _WAVEFT,
    entries,
    partial(_fit, basis=Wavelet("haar"), choice=_top),
    _TOLD,
)
_add(
    45,
    "dct",
    "largest cosine coefficients",
    "N. Ahmed, T. Natarajan, K. R. Rao, IEEE Trans. Computers (1974)",
    entries,
    partial(_fit, basis=DCT(), choice=_top),
    _TOLD,
)
_add(
    46,
    "macp",
    "MaCP (cosine coefficients, by bands)",
    "Y. Shen et al., ACL 2025, arXiv 2505.23870",
    entries,
    partial(_fit, basis=DCT(), choice=_by_band),
    _TOLD,
    "lower bound",
)
_add(
    47,
    "delta_dct",
    "Delta-DCT (cosine coefficients of patches)",
    "C. Huang et al., arXiv 2503.06676 (2025)",
    entries,
    _patched,
    _TOLD,
)
