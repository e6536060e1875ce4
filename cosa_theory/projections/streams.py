"""Keyed random streams, the raw bits every exact ensemble is built from, and fingerprints."""

import hashlib
import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from cosa_theory.ground.checks import refuse, whole
from cosa_theory.ground.errors import InputError

__all__ = ["fingerprint", "stream"]

# Named in every hash: a change of the encoding or of an ensemble must change this text, so that
# an old seed never silently means new numbers.
_STREAM_VERSION = b"cosa_theory stream 1"
_FINGERPRINT_VERSION = b"cosa_theory fingerprint 1"

CHUNK = 1 << 16  # values per step: temporaries stay in cache, whatever the size of the output


def _encode(part: Any) -> bytes:
    """Encode a key part so that no two different keys share an encoding.

    A type tag, the length in eight bytes, then the content: text as UTF-8, integers in
    hexadecimal (any size), tuples as their encoded members.
    """
    if isinstance(part, str):
        tag, body = b"s", part.encode("utf-8", "surrogatepass")
    elif isinstance(part, tuple):
        tag, body = b"t", b"".join(_encode(member) for member in part)
    else:
        if isinstance(part, bool) or not hasattr(part, "__index__"):
            raise InputError(
                f"key holds {part!r} of type {type(part).__name__}: it must be made of str, int "
                "and tuples of them",
                argument="key",
            )
        tag, body = b"i", format(operator.index(part), "x").encode("ascii")
    return tag + len(body).to_bytes(8, "little") + body


class _Words(ISeedSequence):
    """The key of a Philox counter, in the place of a seed that would be hashed into one.

    Given as the argument `key` instead, numpy would first gather entropy from the system, which
    costs more than all the rest of a small draw, and not use it.
    """

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint64]:
        """Return the key, which is what Philox asks for."""
        return self.words


def stream(seed: int, *key: Any) -> np.random.Generator:
    """Return the random stream that belongs to a seed and a key.

    The generator is a Philox counter whose 128-bit key is the head of the SHA-256 hash of
    ``(seed, *key)`` [1]_: the same values in any process, in any order of the draws and on any
    machine, with streams of different keys independent for every practical purpose. No global
    generator is read or written.

    Parameters
    ----------
    seed : int
        Non-negative, of any size.
    *key : str, int or tuple of them
        What the stream is for, such as a layer's name and a role. ``"1"`` and ``1`` differ, as do
        ``("a", "b")`` and ``"a", "b"``.

    Returns
    -------
    numpy.random.Generator
        At the start of its stream; each call returns a new one.

    Raises
    ------
    InputError
        If the seed is negative or not an integer, or a part of the key is of another type.

    References
    ----------
    .. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy
       as 1, 2, 3", SC 2011.
    """
    seed = whole("seed", seed, 0)
    digest = hashlib.sha256(_STREAM_VERSION + _encode((seed, *key))).digest()
    words = np.frombuffer(digest, "<u8", count=2).astype(np.uint64, copy=False)
    return np.random.Generator(np.random.Philox(_Words(words)))  # type: ignore[arg-type]


def key_parts(key: Any) -> tuple[Any, ...]:
    """Return the parts of a key that a caller gave: of a name, which is text, itself."""
    if not isinstance(key, (str, tuple)):
        raise refuse("key", key, "a str or a tuple of str and int")
    return (key,) if isinstance(key, str) else key


def raw_words(generator: np.random.Generator, count: int) -> NDArray[np.uint64]:
    """Return the next `count` 64-bit words of the stream, uniform on 0 … 2⁶⁴ − 1, shape (count,).

    Philox defines them bit by bit, so what is built from them with integer arithmetic is exact by
    specification, on any machine and for any version of numpy.
    """
    words: NDArray[np.uint64] = generator.bit_generator.random_raw(count)
    return words


def fill_signs(
    out: NDArray[np.floating[Any]], generator: np.random.Generator, magnitude: float
) -> None:
    """Fill a float vector with independent ±`magnitude` (as its dtype rounds it), one bit an entry.

    Entry i is +magnitude where bit i mod 64 (lowest first) of word i // 64 is 0, −magnitude where
    it is 1; ⌈count/64⌉ words of the stream are used.
    """
    value = out.dtype.type(magnitude)
    for start in range(0, out.size, CHUNK):  # CHUNK is a multiple of 64
        part = out[start : start + CHUNK]
        words = raw_words(generator, -(-part.size // 64)).astype("<u8", copy=False)
        bits = np.unpackbits(words.view(np.uint8), count=part.size, bitorder="little")
        np.multiply(bits, -2 * value, out=part)
        part += value


def uniform_below(words: NDArray[np.uint64], bound: int | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Map uniform words u to uniform integers ⌊u·bound/2⁶⁴⌋ in 0 … bound − 1, bound from 1 to 2³².

    Every value has probability 1/bound to within 2⁻⁶⁴, at one word each: without the
    data-dependent number of words that a rejection would need.
    """
    size, half = np.asarray(bound, np.uint64), np.uint64(32)
    # The product has 96 bits: carry the low half's overflow into the high half's product.
    result = (words & np.uint64(0xFFFFFFFF)) * size
    result >>= half
    result += (words >> half) * size
    result >>= half
    return result


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the values in row-major order as contiguous little-endian blocks of bounded size."""
    rows = array.reshape(-1, 1) if array.ndim < 2 else array
    step = max(1, CHUNK // max(1, math.prod(rows.shape[1:])))
    little_endian = array.dtype.newbyteorder("<")
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(rows[start : start + step], dtype=little_endian)


def content_hash(kind: str, shape: tuple[int, ...], arrays: dict[str, NDArray[Any]]) -> str:
    """Hash named arrays, in their order, with the kind of container and the shape they describe.

    The kind tells equal contents of different containers apart; byte order and memory layout do
    not matter. Returns the first 32 hexadecimal characters of a SHA-256 hash.
    """
    digest = hashlib.sha256(_FINGERPRINT_VERSION + _encode((kind, tuple(map(int, shape)))))
    for name, array in arrays.items():
        digest.update(_encode((name, array.dtype.name, tuple(array.shape))))
        for block in _blocks(array):
            digest.update(block.data)
    return digest.hexdigest()[:32]


def _sparse_arrays(matrix: Any) -> dict[str, NDArray[Any]]:
    """Return the canonical arrays of a csr or csc matrix: sorted, summed, 64-bit indices."""
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return {
        "data": matrix.data,
        "indices": matrix.indices.astype(np.int64, copy=False),
        "indptr": matrix.indptr.astype(np.int64, copy=False),
    }


def _tensor_array(tensor: Any) -> tuple[NDArray[Any], str]:
    """Return a torch tensor's values as an array, with the name of its dtype."""
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:  # numpy has no such type: hash the bits
        tensor = tensor.view(torch.uint16)
    return tensor.numpy(), name


def fingerprint(A: Any) -> str:
    """Return a hash of the content of a projection.

    Equal for equal values, whatever the byte order, the memory layout or the integer type of
    sparse indices; different for another value, dtype, shape or kind of container. An array and a
    torch tensor of equal values have the same fingerprint.

    Parameters
    ----------
    A : ndarray, csr or csc array, SRHT or its transpose, torch.Tensor
        Shape k × d, or any shape for a dense array.

    Returns
    -------
    str
        32 hexadecimal characters, the first 128 bits of a SHA-256 hash.

    Raises
    ------
    InputError
        If `A` is of another type, or an array of objects.
    """
    if hasattr(A, "fingerprint_arrays"):  # a structured operator lists what defines it
        kind, arrays = A.fingerprint_arrays()
        return content_hash(kind, A.shape, arrays)
    if getattr(A, "format", None) in ("csr", "csc"):
        return content_hash(A.format, A.shape, _sparse_arrays(A))
    name = None
    if type(A).__module__.partition(".")[0] == "torch" and hasattr(A, "detach"):
        A, name = _tensor_array(A)
    if not isinstance(A, np.ndarray):
        must = "a numpy array, a torch tensor, a csr or csc array or an SRHT"
        raise InputError(f"A is of type {type(A).__name__}: it must be {must}", argument="A")
    if A.dtype.hasobject:  # whose memory holds addresses
        raise InputError(f"A has entries of type {A.dtype}: they must be numbers", argument="A")
    return content_hash(f"dense {name or A.dtype.name}", A.shape, {"values": A})
