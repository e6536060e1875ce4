"""Checks of arguments, made once, where a caller from outside comes in.

Each returns the value in the form the library works with, or raises an `InputError` that carries
the argument's name and says "NAME is VALUE: it must be ...". What stands behind a public function
trusts its arguments.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from cosa_theory.ground.errors import InputError, quoted

__all__ = [
    "MOST_ALPHA",
    "MOST_SIZE",
    "choice",
    "factor",
    "finite",
    "matrix",
    "numbers",
    "pair",
    "real",
    "real_matrix",
    "refuse",
    "several",
    "sizes",
    "torch_device",
    "whole",
]


MOST_SIZE = 2**24
"""The largest size of a layer or of a core: no vocabulary comes near it."""

MOST_ALPHA = 1e12
"""The largest factor of an update, so that products in float32 stay numbers."""


def refuse(argument: str, value: Any, must: str) -> InputError:
    """Return the error "`argument` is `value`: it must be `must`", for checks of one place only."""
    return InputError(f"{argument} is {quoted(value)}: it must be {must}", argument=argument)


def whole(argument: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return an integer of any library, within its bounds, as an int; bool and float are none."""
    try:
        number = least - 1 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:  # also of arrays and of tensors that hold no integer
        number = least - 1
    if number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least:,} to {most:,}"
        raise refuse(argument, value, f"a whole number {bounds}")
    return number


def pair(argument: str, value: Any, most: int | None = None) -> tuple[int, int]:
    """Return two whole numbers of at least 1, such as the shape of a core."""
    try:
        first, second = value
        return whole(argument, first, most=most), whole(argument, second, most=most)
    except (TypeError, ValueError):  # an InputError is a ValueError
        bounds = "of at least 1" if most is None else f"from 1 to {most:,}"
        raise refuse(argument, value, f"two whole numbers {bounds}") from None


def real(
    argument: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return a finite real number as a float; text and bool are none.

    `least` ≤ value ≤ `most` and `above` < value < `below`.
    """
    try:
        number = math.nan if isinstance(value, (str, bytes, bool, np.bool_)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number) and least <= number <= most and above < number < below:
        return number
    raise refuse(argument, value, _range(least, most, above, below) or "a finite number")


def factor(argument: str, value: Any) -> float:
    """Return the factor of an adapter's update."""
    return real(argument, value, least=-MOST_ALPHA, most=MOST_ALPHA)


def _range(least: float, most: float, above: float, below: float = math.inf) -> str:
    """Say between which bounds a number must be, "" for none."""
    bounds = (("at least", least), ("above", above), ("at most", most), ("below", below))
    return " and ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))


_FEW = 12  # names that a sentence lists without being cut


def choice(argument: str, value: Any, allowed: Iterable[str]) -> str:
    """Return one of some names; the error lists those there are, the likest first of many."""
    names = tuple(allowed)
    if not isinstance(value, str) or value not in names:
        if len(names) > _FEW and isinstance(value, str) and value:
            alike = [name for name in names if value in name] or get_close_matches(value, names)
            names = tuple(dict.fromkeys([*alike, *names]))
        listed = ", ".join(name or "''" for name in names)
        raise refuse(argument, value, f"one of {listed}")
    return value


def several(argument: str, value: Any) -> tuple[Any, ...]:
    """Return the items of a list or of what else has items; text is one item itself."""
    try:
        if not isinstance(value, str):
            return tuple(value)
    except TypeError:  # a number, or an array that is one
        pass
    raise refuse(argument, value, f"in a list, as in [{quoted(value)}]")


def matrix(argument: str, value: Any, shape: Sequence[int] | None = None) -> NDArray[Any]:
    """Return a matrix with finite entries, in float32 if it is float32 and in float64 otherwise.

    It has entries, real ones without NaN, and the `shape` where one is asked for.
    """
    array = real_matrix(argument, value, shape)
    finite(argument, array)
    return array


def real_matrix(argument: str, value: Any, shape: Sequence[int] | None = None) -> NDArray[Any]:
    """Return a matrix as `matrix` does, without looking for NaN and infinite entries."""
    array = np.asarray(value)
    if array.ndim != 2 or 0 in array.shape or (shape is not None and array.shape != tuple(shape)):
        wanted = "a matrix with entries" if shape is None else " × ".join(map(str, shape))
        text = f"{argument} has shape {array.shape}: it must be {wanted}"
        raise InputError(text, argument=argument)
    if array.dtype.kind not in "fiub":
        text = f"{argument} has entries of type {array.dtype}: they must be real numbers"
        raise InputError(text, argument=argument)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def finite(argument: str, array: Any) -> None:
    """Refuse NaN and infinite entries of a numpy or torch matrix, without one more array.

    The error names the first of them by its place.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(array.sum())
    if math.isfinite(total):
        return
    xp = array_namespace(array)
    for row in range(array.shape[0]):  # rare: name the first, or find an overflow of the sum
        wrong = ~xp.isfinite(array[row, ...])
        if bool(xp.any(wrong)):
            column = int(xp.argmax(xp.astype(xp.reshape(wrong, (-1,)), xp.int8)))
            where = f"({row}, {column})" if array.ndim > 1 else str(row)
            text = f"{argument} has a NaN or infinite entry, first at {where}: mend it"
            raise InputError(text, argument=argument)


def sizes(least: float = 1, **named: Any) -> list[NDArray[np.float64]]:
    """Return whole numbers from `least` on, or arrays of them, in float64 for closed forms."""
    arrays = []
    for argument, value in named.items():
        array = _floats(argument, value)
        wrong = ~((array >= least) & (array == np.floor(array)) & np.isfinite(array))
        if np.any(wrong):
            raise refuse(
                argument, float(array[wrong].flat[0]), f"a whole number of at least {least:g}"
            )
        arrays.append(array)
    return arrays


def numbers(
    argument: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
) -> NDArray[np.float64]:
    """Return real numbers, one or an array, as a float64 array for a closed form.

    `least` ≤ value ≤ `most` and `above` < value, and no NaN.
    """
    array = _floats(argument, value)
    wrong = ~((array >= least) & (array <= most) & (array > above if above > -math.inf else True))
    if np.any(wrong):
        must = _range(least, most, above) or "a number"
        raise refuse(argument, float(array[wrong].flat[0]), must)
    return array


def _floats(argument: str, value: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise refuse(argument, value, "a real number, or an array of them") from None


def torch_device(argument: str, device: str | None, dtype: str = "float64") -> str | None:
    """Return the name of a device, None for none, on which torch can compute in a type."""
    if device is None:
        return None
    import torch

    try:
        torch.zeros(1, dtype=getattr(torch, dtype), device=device).sum().item()
    # What torch raises for a device differs with its build: not compiled in, no driver, no such.
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{argument} is {device!r}, which torch cannot use here ({first}): name "
            "another one, or leave it out for numpy",
            argument=argument,
        ) from error
    return device
