"""The two sides of a diagnosis, read once and remembered by fingerprint and extent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from porting.doctor.bits import canonical, fingerprint, probes
from porting.doctor.names import words
from porting.doctor.proposals import Ends, Extent, extent
from porting.doctor.sightings import Sightings
from porting.errors import ArgumentError, PortingError
from porting.leaves import Leaf
from porting.tensors import array_of, is_torch
from porting.tree import flatten


@dataclass
class Evidence:
    """The source tensors and what was found out about them so far.

    The caches belong to one diagnosis; nothing outlives it.

    Attributes:
        source: key -> array (a `Checkpoint` is read lazily).
        places: key -> its place in the source.
        sightings: which tensors hold a few values of a leaf.
        torch: keys that were given as tensors of PyTorch.
    """

    source: Mapping[str, Any]
    shapes: dict[str, tuple[int, ...]] = field(init=False)
    places: dict[str, int] = field(init=False)
    sightings: Sightings = field(init=False)
    torch: set[str] = field(init=False)
    _views: dict[str, np.ndarray] = field(default_factory=dict)
    _samples: dict[str, bytes] = field(default_factory=dict)
    _shaped: dict[tuple[int, ...], list[str]] = field(default_factory=dict)
    _prints: dict[str, int] = field(default_factory=dict)
    _extents: dict[str, Extent | None] = field(default_factory=dict)
    _sized: dict[int, list[str]] = field(default_factory=dict)
    _within: dict[int, dict[Extent | None, list[str]]] = field(default_factory=dict)
    _ends: dict[int, Ends] = field(default_factory=dict)
    _sums: dict[tuple[str, np.dtype], dict[int, np.ndarray]] = field(default_factory=dict)
    _words: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.source, Mapping):
            raise ArgumentError(
                f"The source is a {type(self.source).__name__}. Pass a state_dict, another "
                "mapping of arrays, or an opened checkpoint."
            )
        specs = getattr(self.source, "specs", None)
        self.torch = set()
        if specs is None:
            self.torch = {key for key, value in self.source.items() if is_torch(value)}
            self.source = specs = flatten(self.source)
        self.shapes = {key: tuple(specs[key].shape) for key in specs}
        self.places = {key: n for n, key in enumerate(self.shapes)}
        self.sightings = Sightings(self.array, {key: self.size(key) for key in self.shapes})

    def array(self, key: str) -> np.ndarray:
        """A source tensor."""
        if key in self._views:
            return self._views[key]
        array = array_of(self.source[key])
        if not array.flags.owndata:
            self._views[key] = array
        return array

    def size(self, key: str) -> int:
        """The number of elements of a source tensor."""
        return math.prod(self.shapes[key])

    def print_of(self, key: str) -> int:
        """The order-free fingerprint of a source tensor."""
        if key not in self._prints:
            self._prints[key] = fingerprint(canonical(self.array(key)))
        return self._prints[key]

    def sums(self, key: str, dtype: np.dtype) -> dict[int, np.ndarray]:
        """Axis -> fingerprints of the slices of a source tensor with bits of `dtype`, as known."""
        return self._sums.setdefault((key, dtype), {})

    def sample_of(self, key: str) -> bytes:
        """The bits of a few elements of a source tensor."""
        if key not in self._samples:
            array = self.array(key)
            self._samples[key] = canonical(array[probes(array.shape)]).tobytes()
        return self._samples[key]

    def shaped_like(self, key: str) -> list[str]:
        """Keys of tensors of the shape of `key`, itself included."""
        shape = self.shapes[key]
        if shape not in self._shaped:
            self._shaped[shape] = [k for k, s in self.shapes.items() if s == shape]
        return self._shaped[shape]

    def extent_of(self, key: str) -> Extent | None:
        """The smallest and largest value of a source tensor."""
        if key not in self._extents:
            self._extents[key] = extent(self.array(key))
        return self._extents[key]

    def of_size(self, size: int) -> list[str]:
        """Keys of tensors with `size` elements."""
        if not self._sized:
            for key in self.shapes:
                self._sized.setdefault(self.size(key), []).append(key)
        return self._sized.get(size, [])

    def of_extent(self, size: int, wanted: Extent | None) -> list[str]:
        """Keys of tensors with `size` elements and these ends."""
        if size not in self._within:
            found = self._within[size] = {}
            for key in self.of_size(size):
                found.setdefault(self.extent_of(key), []).append(key)
        return self._within[size].get(wanted, [])

    def likely(self, leaf: Extent, narrow: type | None, unit: float) -> list[str]:
        """Keys of tensors of as many elements that a change may have turned into a leaf."""
        keys = self.of_size(leaf.size)
        if leaf.size not in self._ends:
            self._ends[leaf.size] = Ends([self.extent_of(key) for key in keys])
        return [keys[n] for n in self._ends[leaf.size].exact(leaf, narrow, unit)]

    def same(self, a: str, b: str) -> bool:
        """Whether two keys hold the same tensor (tied, or stored twice)."""
        return a == b or (
            self.shapes[a] == self.shapes[b]
            and self.sample_of(a) == self.sample_of(b)
            and self.print_of(a) == self.print_of(b)
        )

    def nearest(self, keys: Iterable[str], home: Iterable[str]) -> list[str]:
        """`keys`, those that share the longest beginning with one of `home` first."""
        homes = [self._words_of(h) for h in home]

        def distance(key: str) -> tuple[int, int]:
            own = self._words_of(key)
            return -max((_shared(own, h) for h in homes), default=0), self.places[key]

        return sorted(keys, key=distance)

    def _words_of(self, key: str) -> list[str]:
        if key not in self._words:
            self._words[key] = words(key)
        return self._words[key]

    def expected(self, row: Leaf | None) -> np.ndarray | None:
        """What a row says its leaf should be, or None where it says nothing that fits."""
        if row is None or not self.shapes.keys() >= set(row.sources):
            return None
        try:
            return self.made(row)
        except PortingError:
            return None

    def made(self, row: Leaf) -> np.ndarray:
        """What a row makes of its tensors, which must all be there.

        Raises:
            RuleError: the rule does not fit them.
        """
        return row.rule.apply(row.joined([self.array(key) for key in row.sources]))

    def joined(self, row: Leaf) -> np.ndarray:
        """The source of a row before its rule: one tensor, or several joined."""
        return row.joined([self.array(key) for key in row.sources])


def _shared(a: list[str], b: list[str]) -> int:
    """How many words two names begin with in common."""
    return next(
        (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
