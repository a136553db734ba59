"""Where in a source a few values of every leaf are: each tensor is read once for all leaves.

A leaf that is put together from slices of a tensor has its values there. Most leaves that are
not from a tensor have none, which is seen without taking either apart. A large tensor has many
values of any leaf by chance: as many as it has of values that differ in their last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from porting.doctor.bits import blocks, canonical, probes
from porting.doctor.values import single

_LAST = np.uint64(1)  #: the bit that tells a value from its neighbour
BUCKETS = 20  #: bits that a value is first looked up by; a megabyte stays in a core's cache


class Sightings:
    """The tensors of a source in which the watched values were seen.

    Args:
        array: key -> source tensor.
        sizes: key -> how many elements that has.

    >>> source = {"a": np.arange(4), "b": np.arange(2, 6), "c": np.arange(7, 9)}
    >>> seen = Sightings(source.__getitem__, {"a": 4, "b": 4, "c": 2})
    >>> seen.watch([np.arange(3)])
    >>> seen.shares(np.arange(3), 2)["a"], seen.share(np.arange(3), "c")
    (1.0, 0.0)
    """

    def __init__(self, array: Callable[[str], np.ndarray], sizes: Mapping[str, int]) -> None:
        self._array = array
        self._sizes = sizes
        self._values = np.empty(0, np.uint64)
        self._where: dict[int, list[str]] = {}
        self._scanned: set[str] = set()
        self._waiting: list[np.ndarray] = []
        self._forget()

    def watch(self, leaves: Iterable[np.ndarray]) -> None:
        """Looks out for a few values of each leaf; they are read once something is asked."""
        self._waiting += leaves

    def share(self, leaf: np.ndarray, key: str) -> float:
        """The share of a few values of `leaf` that are in a tensor not by chance."""
        some = self._look_out(leaf)
        self._scan(key)
        return self._shares(some).get(key, 0.0)

    def shares(self, leaf: np.ndarray, least: int) -> dict[str, float]:
        """The same of all tensors of at least `least` elements that have any of these values."""
        some = self._look_out(leaf)
        while self._smaller and self._sizes[self._smaller[-1]] >= least:
            self._scan(self._smaller.pop())
        found = self._shares(some)
        return {key: found[key] for key in found if self._sizes[key] >= least}

    def _shares(self, some: np.ndarray) -> dict[str, float]:
        there, chance = self._count(some), self._count(some ^ _LAST)
        return {key: _beyond(there[key], chance[key], len(some)) for key in there}

    def _count(self, values: np.ndarray) -> Counter[str]:
        """key -> how many of some watched values are in it."""
        return Counter(key for value in values.tolist() for key in self._where.get(value, ()))

    def _look_out(self, leaf: np.ndarray) -> np.ndarray:
        """A few values of a leaf; if they are new, what was seen before is forgotten."""
        some = np.unique(_few(leaf))
        if not self._watched(some).all():
            new = [*map(_few, self._waiting), some]
            self._waiting.clear()
            self._values = np.unique(
                np.concatenate([self._values, *new, *(v ^ _LAST for v in new)])
            )
            self._forget()
        return some

    def _forget(self) -> None:
        """Begins anew, with the watched values of now."""
        self._where.clear()
        self._scanned.clear()
        self._smaller = sorted(self._sizes, key=self._sizes.__getitem__)
        self._table = np.zeros(1 << BUCKETS, bool)
        self._table[_bucket(self._values)] = True

    def _watched(self, bits: np.ndarray) -> np.ndarray:
        """Which of some values are watched."""
        places = np.searchsorted(self._values, bits)
        places[places == len(self._values)] = 0
        return self._values[places] == bits if len(self._values) else np.zeros(len(bits), bool)

    def _scan(self, key: str) -> None:
        """Notes which of the watched values are in a tensor."""
        if key in self._scanned:
            return
        self._scanned.add(key)
        seen: set[int] = set()
        for bits in _forms(self._array(key)):
            for piece in blocks(bits.shape):
                part = bits[piece].reshape(-1)
                hits = part[self._table[_bucket(part)]]
                seen.update(hits[self._watched(hits)].tolist())
        for value in seen:
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
