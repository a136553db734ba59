"""What every leaf should be, by shape: to tell that a leaf holds what another should."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from porting.doctor.bits import canonical, probes
from porting.doctor.evidence import Evidence
from porting.doctor.proposals import Ends, Extent, extent
from porting.doctor.values import Change, single
from porting.leaves import ONLY, Leaf

ALONG = 0.99  #: the cosine from which a leaf may be another times a factor, but for rounding


@dataclass
class Table:
    """The rows of a mapping and, once asked for, what they make.

    The caches belong to one diagnosis; nothing outlives it.

    Attributes:
        rows: path -> row.
        evidence: the source.
    """

    rows: Mapping[str, Leaf]
    evidence: Evidence
    _shaped: dict[tuple[int, ...], list[str]] = field(default_factory=dict)
    _sampled: dict[tuple[object, ...], dict[bytes, list[str]]] = field(default_factory=dict)
    _extents: dict[str, Extent | None] = field(default_factory=dict)
    _directions: dict[str, np.ndarray] = field(default_factory=dict)
    _ends: dict[tuple[int, ...], Ends] = field(default_factory=dict)

    def right(self, path: str) -> np.ndarray | None:
        """What the leaf at `path` should be, or None if its row does not fit."""
        return self.evidence.expected(self.rows[path])

    def of_shape(self, shape: tuple[int, ...]) -> list[str]:
        """Paths of the leaves that should have `shape`."""
        return self._by_shape().get(shape, [])

    def joined(self, size: int) -> list[str]:
        """Paths of the leaves of `size` elements that are made of several tensors."""
        shapes = [shape for shape in self._by_shape() if math.prod(shape) == size]
        return [p for s in shapes for p in self.of_shape(s) if len(self.rows[p].sources) > 1]

    def _by_shape(self) -> dict[tuple[int, ...], list[str]]:
        if not self._shaped:
            for path in self.rows:
                made = self.right(path)
                if made is not None:
                    self._shaped.setdefault(made.shape, []).append(path)
        return self._shaped

    def reading(self, sources: tuple[str, ...]) -> list[str]:
        """Paths of the leaves that are made of `sources`."""
        return [path for path, row in self.rows.items() if row.sources == sources]

    def with_sample(self, leaf: np.ndarray, change: Change | None = None) -> list[str]:
        """Paths of the leaves that should have the shape of `leaf` and, changed, a few values."""
        key = (leaf.shape, change)
        if key not in self._sampled:
            found: dict[bytes, list[str]] = {}
            for path in self.of_shape(leaf.shape):
                made = self.right(path)
                if made is not None:
                    found.setdefault(_sample(made, change), []).append(path)
            self._sampled[key] = found
        return self._sampled[key].get(_sample(leaf), [])

    def likely(self, leaf: np.ndarray, extent: Extent, unit: float) -> list[str]:
        """Paths of the leaves of the shape of `leaf` that a change may have turned into it."""
        paths = self.of_shape(leaf.shape)
        if leaf.shape not in self._ends:
            self._ends[leaf.shape] = Ends([self.extent(path) for path in paths])
        bent, straight = self._ends[leaf.shape].likely(extent, unit)
        own = _direction(leaf)
        along = (n for n in straight if abs(self._directed(paths[n]) @ own) >= ALONG)
        return [paths[n] for n in sorted([*bent, *along])]

    def _directed(self, path: str) -> np.ndarray:
        if path not in self._directions:
            made = self.right(path)
            assert made is not None
            self._directions[path] = _direction(made)
        return self._directions[path]

    def extent(self, path: str) -> Extent | None:
        """The smallest and largest value of what the leaf at `path` should be."""
        if path not in self._extents:
            row, made = self.rows[path], self.right(path)
            whole = row.join is ONLY and not row.rule.selects
            known = self.evidence.extent_of(row.sources[0]) if whole and made is not None else None
            self._extents[path] = known or (None if made is None else extent(made))
        return self._extents[path]


def _direction(array: np.ndarray) -> np.ndarray:
    """A few elements as one vector of length 1."""
    some = single(array[probes(array.shape)]).astype(np.float64).reshape(-1)
    return some / (np.sqrt(some @ some) or 1.0)


def _sample(array: np.ndarray, change: Change | None = None) -> bytes:
    """The bits of a few elements, changed."""
    some = array[probes(array.shape)]
    return canonical(change.apply(single(some)) if change else some).tobytes()
