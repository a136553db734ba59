"""Where in a source a few values of every leaf are: each tensor is read once for all leaves.

A leaf that is put together from slices of a tensor has its values there. Most leaves that are
not from a tensor have none, which is seen without taking either apart. A large tensor has many
values of any leaf by chance: as many as it has of values that differ in their last bit.

To look up each value of a large tensor takes long. There only landmarks are looked up, values
whose last bits are zero, as one in `EVERY` is in any tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from porting.doctor.bits import PROBES, canonical, parts, probes
from porting.doctor.values import single

BUCKETS = 20  #: bits that a value is first looked up by; a megabyte stays in a core's cache
LARGE = 2**14  #: elements from which a tensor is looked through at its landmarks alone
EVERY = 64  #: one value in so many is a landmark
TELLING = 12  #: landmarks that a leaf needs to be told by them


class Watch:
    """Values that are looked out for, each with its neighbour, and the tensors they are in.

    Args:
        apart: the bit in which a value differs from its neighbour.

    >>> watch = Watch(1)
    >>> watch.add([np.uint64([4, 6])])
    >>> watch.note("a", iter([np.uint64([2, 4, 5, 6])]))
    >>> watch.share_by_key(np.uint64([4, 6]))
    {'a': 1.0}
    """

    def __init__(self, apart: int) -> None:
        self._apart = np.uint64(apart)
        self._values = np.empty(0, np.uint64)
        self._where: dict[int, list[str]] = {}
        self._table = np.zeros(1 << BUCKETS, bool)

    def add(self, values: Iterable[np.ndarray]) -> None:
        """Looks out for more values; what was seen before is forgotten."""
        new = list(values)
        beside = [some ^ self._apart for some in new]
        self._values = np.unique(np.concatenate([self._values, *new, *beside]))
        self._where.clear()
        self._table[_bucket(self._values)] = True

    def known(self, bits: np.ndarray) -> np.ndarray:
        """Which of some values are looked out for."""
        if not len(self._values):
            return np.zeros(len(bits), bool)
        places = np.searchsorted(self._values, bits)
        places[places == len(self._values)] = 0
        return self._values[places] == bits

    def note(self, key: str, parts: Iterator[np.ndarray]) -> None:
        """Notes which of the values are in a tensor, given in parts."""
        seen: set[int] = set()
        for part in parts:
            hits = part[np.flatnonzero(self._table.take(_bucket(part), mode="clip"))]
            seen.update(hits[self.known(hits)].tolist())
        for value in seen:
            self._where.setdefault(value, []).append(key)

    def share_by_key(self, some: np.ndarray) -> dict[str, float]:
        """key -> the share of some values that are in this tensor not by chance."""
        there, chance = self._count(some), self._count(some ^ self._apart)
        return {key: _beyond(there[key], chance[key], len(some)) for key in there}

    def _count(self, values: np.ndarray) -> Counter[str]:
        return Counter(key for value in values.tolist() for key in self._where.get(value, ()))


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
        self._all, self._marks = Watch(1), Watch(EVERY)
        self._waiting: list[np.ndarray] = []
        self._forget()

    def _forget(self) -> None:
        """Begins anew: no tensor was read yet."""
        self._scanned: set[str] = set()
        self._smaller = sorted(self._sizes, key=self._sizes.__getitem__)

    def watch(self, leaves: Iterable[np.ndarray]) -> None:
        """Looks out for a few values of each leaf; they are read once something is asked."""
        self._waiting += leaves

    def share(self, leaf: np.ndarray, key: str) -> float:
        """The share of a few values of `leaf` that are in a tensor; 1 where they tell nothing."""
        some, marks = self._look_out(leaf)
        self._scan(key)
        if self._sizes[key] < LARGE:
            return self._all.share_by_key(some).get(key, 0.0)
        return self._marks.share_by_key(marks).get(key, 0.0) if len(marks) >= TELLING else 1.0

    def shares(self, leaf: np.ndarray, least: int) -> dict[str, float]:
        """The same of all tensors of at least `least` elements that have any of these values."""
        some, marks = self._look_out(leaf)
        while self._smaller and self._sizes[self._smaller[-1]] >= least:
            self._scan(self._smaller.pop())
        large = self._marks.share_by_key(marks)
        if len(marks) < TELLING:
            large = {key: 1.0 for key, size in self._sizes.items() if size >= LARGE}
        found = self._all.share_by_key(some) | large
        return {key: found[key] for key in found if self._sizes[key] >= least}

    def _look_out(self, leaf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A few values of a leaf, and landmarks; what was read is read again if they are new."""
        some, marks = _few(leaf), _landmarks(leaf)
        if not (self._all.known(some).all() and self._marks.known(marks).all()):
            self._all.add([*map(_few, self._waiting), some])
            self._marks.add([*map(_landmarks, self._waiting), marks])
            self._waiting.clear()
            self._forget()
        return some, marks

    def _scan(self, key: str) -> None:
        """Reads a tensor, if it was not read yet."""
        if key in self._scanned:
            return
        self._scanned.add(key)
        if self._sizes[key] < LARGE:
            self._all.note(key, _parts(self._array(key)))
        else:
            self._marks.note(key, map(_landmarks_of, _parts(self._array(key))))


def _few(leaf: np.ndarray) -> np.ndarray:
    return np.unique(_sampled(leaf, PROBES))


def _landmarks(leaf: np.ndarray) -> np.ndarray:
    """A few landmarks of a leaf, from all over it."""
    marks = _landmarks_of(_sampled(leaf, 3 * EVERY * PROBES))
    return np.unique(marks[:: len(marks) // (2 * PROBES) + 1])


def _sampled(leaf: np.ndarray, count: int) -> np.ndarray:
    spots = probes(leaf.shape, min(count, leaf.size))
    return canonical(leaf[spots]).reshape(-1).astype(np.uint64)


def _landmarks_of(bits: np.ndarray) -> np.ndarray:
    return bits.take(np.flatnonzero((bits & bits.dtype.type(EVERY - 1)) == 0), mode="clip")


def _beyond(there: int, chance: int, total: int) -> float:
    """The share that is there beyond what is by chance.

    >>> _beyond(48, 12, 48), _beyond(30, 12, 48), _beyond(12, 12, 48)
    (1.0, 0.5, 0.0)
    """
    return 1.0 if there == total else (there - chance) / max(total - chance, 1)


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The bits of a tensor, and as float32 where that narrows it, in flat parts."""
    bits = canonical(array)
    narrow = bits.dtype == np.uint64 and array.dtype.kind == "f"
    for form in (bits, canonical(single(array))) if narrow else (bits,):
        yield from (part.reshape(-1) for part in parts(form))


def _bucket(bits: np.ndarray) -> np.ndarray:
    mixed = bits.astype(np.uint32, copy=False) * np.uint32(0x9E3779B1)
    return mixed >> np.uint32(32 - BUCKETS)
