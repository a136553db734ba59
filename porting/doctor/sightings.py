"""Where in a source a few values of every leaf are: each tensor is read once for all leaves.

A leaf that is put together from slices of a tensor has its values there. Most leaves that are
not from a tensor have none, which is seen without taking either apart. A large tensor has many
values of any leaf by chance: as many as it has of values that differ in their last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from porting.doctor.bits import blocks, canonical, probes
from porting.doctor.values import single

_LAST = np.uint64(1)  #: the bit that tells a value from its neighbour
BUCKETS = 20  #: bits that a value is first looked up by; a megabyte stays in a core's cache


class Sightings:
    """The tensors of a source in which the watched values were seen.

    Args:
        array: key -> source tensor.

    >>> source = {"a": np.arange(4), "b": np.arange(2, 6)}
    >>> seen = Sightings(source.__getitem__)
    >>> seen.watch([np.arange(3)])
    >>> seen.shares(np.arange(3), ["a", "b"])["a"]
    1.0
    """

    def __init__(self, array: Callable[[str], np.ndarray]) -> None:
        self._array = array
        self._values = np.empty(0, np.uint64)
        self._where: dict[int, list[str]] = {}
        self._scanned: set[str] = set()
        self._waiting: list[np.ndarray] = []

    def watch(self, leaves: Iterable[np.ndarray]) -> None:
        """Looks out for a few values of each leaf; they are read once something is asked."""
        self._waiting += leaves

    def shares(self, leaf: np.ndarray, keys: Iterable[str]) -> dict[str, float]:
        """key -> the share of a few values of `leaf` that are in this tensor not by chance."""
        some, keys = np.unique(_few(leaf)), list(keys)
        self._look_out(some)
        for key in keys:
            if key not in self._scanned:
                self._scan(key)
        there, chance = self._count(some), self._count(some ^ _LAST)
        return {key: _beyond(there[key], chance[key], len(some)) for key in keys}

    def _count(self, values: np.ndarray) -> Counter[str]:
        """key -> how many of some watched values are in it."""
        return Counter(key for value in values.tolist() for key in self._where.get(value, ()))

    def _look_out(self, some: np.ndarray) -> None:
        """Takes in what is waiting, and `some` if it is new; what was seen before is forgotten."""
        new = [_few(leaf) for leaf in self._waiting]
        self._waiting.clear()
        if not np.isin(some, self._values, assume_unique=True).all():
            new = [*new, some]
            self._values = np.unique(
                np.concatenate([self._values, *new, *(v ^ _LAST for v in new)])
            )
            self._where.clear()
            self._scanned.clear()

    def _scan(self, key: str) -> None:
        """Notes which of the watched values are in a tensor."""
        self._scanned.add(key)
        table = np.zeros(1 << BUCKETS, bool)
        table[_bucket(self._values)] = True
        seen = np.zeros(len(self._values), bool)
        for bits in _forms(self._array(key)):
            for piece in blocks(bits.shape):
                part = bits[piece].reshape(-1)
                hits = part[table[_bucket(part)]]
                places = np.minimum(np.searchsorted(self._values, hits), len(seen) - 1)
                seen[places[self._values[places] == hits]] = True
        for value in self._values[seen].tolist():
            self._where.setdefault(value, []).append(key)


def _few(leaf: np.ndarray) -> np.ndarray:
    return canonical(leaf[probes(leaf.shape)]).reshape(-1).astype(np.uint64)


def _beyond(there: int, chance: int, total: int) -> float:
    """The share that is there beyond what is by chance.

    >>> _beyond(48, 12, 48), _beyond(30, 12, 48), _beyond(12, 12, 48)
    (1.0, 0.5, 0.0)
    """
    return 1.0 if there == total else (there - chance) / max(total - chance, 1)


def _forms(array: np.ndarray) -> Iterable[np.ndarray]:
    """The bits of a tensor, and as float32 where that narrows it."""
    bits = canonical(array)
    narrow = bits.dtype == np.uint64 and array.dtype.kind == "f"
    return (bits, canonical(single(array))) if narrow else (bits,)


def _bucket(bits: np.ndarray) -> np.ndarray:
    mixed = bits.astype(np.uint32, copy=False) * np.uint32(0x9E3779B1)
    return mixed >> np.uint32(32 - BUCKETS)
