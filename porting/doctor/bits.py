"""The bits of a tensor: compared exactly, and summed so that their order does not matter.

Two tensors hold the same numbers in some order if, and but for a chance of about 2⁻⁶⁴ only
if, the sums of their mixed bits agree. Such a sum also adds up over slices, so a packed
tensor is found from its parts. A match is always checked bit for bit afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

BLOCK = 1 << 16  #: elements that are looked at together; two blocks fit a core's cache
PROBES = 48  #: elements that are compared before a whole tensor is


def is_float(dtype: Any) -> bool:
    """Whether `dtype` is a real floating type, the ones of `ml_dtypes` included.

    >>> is_float(np.float32), is_float(np.int64)
    (True, False)
    """
    kind = np.dtype(dtype)
    return kind.kind == "f" or (kind.kind == "V" and kind.name.startswith(("bfloat", "float")))


def canonical(array: Any) -> np.ndarray:
    """The bits of every value, in one form for all types that hold the same value.

    Floats up to 32 bits (and wider ones that lose nothing) become the bits of their float32
    value, so a bfloat16 tensor and its exact float32 copy agree. Integers and booleans become
    the bits of their int64 value. float32 is a view; nothing is copied.

    >>> canonical(np.float32([1.0])) == canonical(np.float16([1.0]))
    array([ True])
    """
    array = np.asarray(array)
    if array.dtype == np.float32:
        return array.view(np.uint32)
    if is_float(array.dtype):
        return _float_bits(array)
    if array.dtype.kind in "biu" or array.dtype.name.startswith(("int", "uint")):
        return array.astype(np.int64).view(np.uint64)
    return np.asarray(array, order="C").view(np.uint64)


def _float_bits(array: np.ndarray) -> np.ndarray:
    if array.dtype.itemsize < 4:
        return array.astype(np.float32).view(np.uint32)
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    exact = np.array_equal(narrow.astype(array.dtype), array, equal_nan=True)
    return narrow.view(np.uint32) if exact else array.astype(np.float64).view(np.uint64)


def blocks(shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Index tuples that cut an array of `shape` into pieces of at most `BLOCK` elements.

    The longest axis is halved first, so a piece is near square and a transposed view of it
    stays in the cache as well.

    >>> len(list(blocks((512, 512))))
    4
    """
    todo = [tuple(slice(0, n) for n in shape)]
    while todo:
        piece = todo.pop()
        sizes = [s.stop - s.start for s in piece]
        if math.prod(sizes) <= BLOCK:
            yield piece
            continue
        axis = int(np.argmax(sizes))
        middle = piece[axis].start + (sizes[axis] + 1) // 2
        for part in (slice(middle, piece[axis].stop), slice(piece[axis].start, middle)):
            todo.append((*piece[:axis], part, *piece[axis + 1 :]))


def parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """Views that cut an array, in any order of its elements, into pieces of at most `BLOCK`.

    >>> [part.shape for part in parts(np.zeros((512, 200)))]
    [(65536,), (36864,)]
    """
    if array.flags.c_contiguous:
        flat = array.reshape(-1)
        yield from (flat[n : n + BLOCK] for n in range(0, flat.size, BLOCK))
    else:
        yield from (array[piece] for piece in blocks(array.shape))


@lru_cache(maxsize=256)
def probes(shape: tuple[int, ...], count: int = PROBES) -> tuple[np.ndarray, ...]:
    """Indices of a few elements all over an array of `shape`."""
    size = math.prod(shape)
    places = np.linspace(0, max(size - 1, 0), count if size else 0).astype(np.int64)
    return np.unravel_index(places, shape) if shape else ()


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of bits are equal; a few elements are compared first.

    >>> equal(np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2))
    False
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.strides == b.strides and a.__array_interface__["data"] == b.__array_interface__["data"]:
        return True
    if a.size > 4 * PROBES:
        spots = probes(a.shape)
        if not np.array_equal(a[spots], b[spots]):
            return False
    if a.flags.c_contiguous and b.flags.c_contiguous:
        a, b = a.reshape(-1), b.reshape(-1)
        if a.size % 2 == 0 and a.dtype == np.uint32:
            a, b = a.view(np.uint64), b.view(np.uint64)
        return all(
            bool((a[n : n + BLOCK] == b[n : n + BLOCK]).all()) for n in range(0, a.size, BLOCK)
        )
    return all(bool((a[piece] == b[piece]).all()) for piece in blocks(a.shape))


def mixed(bits: np.ndarray) -> np.ndarray:
    """32 well-mixed bits for each element (a bijection of 32-bit input), in a new array.

    The constants are those of xxHash's and Murmur's finalisers.
    """
    if bits.dtype.itemsize == 8:
        bits = ((bits * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(29)).astype(np.uint32)
    out = bits * np.uint32(0x9E3779B1)
    out ^= out >> np.uint32(15)
    out *= np.uint32(0x85EBCA77)
    out ^= out >> np.uint32(13)
    return out


def fingerprint(bits: np.ndarray) -> int:
    """The sum of the mixed bits: equal for every order and shape of the same values.

    >>> x = np.arange(6, dtype=np.uint32).reshape(2, 3)
    >>> fingerprint(x) == fingerprint(x.T), fingerprint(x) == fingerprint(x + np.uint32(1))
    (True, False)
    """
    return sum(int(mixed(part).sum(dtype=np.uint64)) for part in parts(bits))


def slice_sums(bits: np.ndarray, keep: Sequence[int]) -> np.ndarray:
    """A fingerprint of every slice along the axes `keep`, flat in the order of these axes.

    >>> slice_sums(np.arange(6, dtype=np.uint32).reshape(2, 3), (0,)).shape
    (2,)
    """
    rest = tuple(a for a in range(bits.ndim) if a not in keep)
    sums = np.zeros([bits.shape[a] for a in keep], np.uint64)
    for piece in blocks(bits.shape):
        part = tuple(piece[a] for a in keep)
        sums[part] += mixed(bits[piece]).sum(axis=rest, dtype=np.uint64)
    return sums.reshape(-1)


def constant(bits: np.ndarray) -> bool:
    """Whether all elements have the same bits (an empty tensor counts).

    >>> constant(np.zeros(3, np.uint32)), constant(np.arange(3))
    (True, False)
    """
    if not bits.size:
        return True
    first = bits[(0,) * bits.ndim]
    last = bits[(-1,) * bits.ndim]
    return bool(first == last) and all(bool((bits[p] == first).all()) for p in blocks(bits.shape))
