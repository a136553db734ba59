"""Which changes of value a leaf could have gone through, told by its smallest and largest value.

That costs one pass; whether every element agrees is asked only of the changes proposed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from porting.doctor.bits import is_float, parts
from porting.doctor.values import (
    CASTS,
    FUNCTIONS,
    MISREADS,
    SHIFTS,
    Change,
    scaled,
    single,
    through,
)

CHANGES = (*CASTS, *MISREADS, *FUNCTIONS)
SHIFTED = np.array([change.kind in SHIFTS for change in CHANGES])
FOLDED = ("magnitude", "square")  #: changes of which the lesser end is not that of the source
FOLDS = np.array([change.kind in FOLDED for change in CHANGES])
#: changes that keep the direction of a tensor, seen as one vector, or turn it round
STRAIGHT = np.array([change.kind in ("cast", "sign") for change in CHANGES])


@dataclass(frozen=True)
class Extent:
    """The smallest and largest value of a tensor, and how many it has."""

    low: float
    high: float
    size: int


def extent(array: np.ndarray) -> Extent | None:
    """The extent of a float tensor, or None if it has no finite one.

    >>> extent(np.float32([1, -2]))
    Extent(low=-2.0, high=1.0, size=2)
    """
    array = np.asarray(array)
    if not array.size or not is_float(array.dtype):
        return None
    ends = [(float(part.min()), float(part.max())) for part in map(single, parts(array))]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return Extent(low, high, array.size) if math.isfinite(low) and math.isfinite(high) else None


def proposals(source: Extent, leaf: Extent, unit: float) -> Iterator[Change]:
    """Changes that take the extent of a source to that of a leaf, within `unit`.

    >>> [c.text for c in proposals(Extent(-1, 2, 9), Extent(0, 3, 9), 1e-6)]
    ['1 was added']
    """
    lows, highs = _ends(source)
    near = _near(lows, leaf.low, unit)
    for n in np.flatnonzero(_near(highs, leaf.high, unit)):
        if near[n] or (FOLDS[n] and source.low * source.high < 0):
            yield CHANGES[n]
    yield from _scales(source, leaf, unit)


@lru_cache(maxsize=4096)
def _ends(source: Extent) -> tuple[np.ndarray, np.ndarray]:
    """What every change makes of the smallest and the largest value: lows and highs."""
    return _made(np.array([source.low, source.high], np.float32))


def _made(both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lesser and the greater of what each change makes of the pairs in the last axis."""
    made = np.array([change.apply(both) for change in CHANGES], np.float64)
    return made.min(axis=-1), made.max(axis=-1)


class Ends:
    """Many extents, each held against that of a leaf at once.

    >>> ends = Ends([Extent(-1, 2, 9), None, Extent(-5, 6, 9)])
    >>> ends.likely(Extent(0, 3, 9), 1e-6), ends.likely(Extent(-50, 60, 9), 1e-6)
    (([0], []), ([], [2]))
    """

    def __init__(self, extents: Sequence[Extent | None]) -> None:
        self._places = np.array([n for n, e in enumerate(extents) if e is not None], np.int64)
        both = np.array([(e.low, e.high) for e in extents if e is not None]).reshape(-1, 2)
        self._lows, self._highs = _made(both.astype(np.float32))
        self._folds = FOLDS[:, None] & (both[:, 0] * both[:, 1] < 0)
        self._ratios = _ratios(both)

    def likely(self, leaf: Extent, unit: float) -> tuple[list[int], list[int]]:
        """Places of the extents that something is proposed for: a bend, or only a factor."""
        near = _near(self._highs, leaf.high, unit)
        near &= self._folds | _near(self._lows, leaf.low, unit)
        bent, straight = near[~STRAIGHT].any(axis=0), near[STRAIGHT].any(axis=0)
        straight |= self._scaled(leaf, 16 * unit)
        return self._places[bent].tolist(), self._places[straight & ~bent].tolist()

    def exact(self, leaf: Extent, narrow: type | None, unit: float) -> list[int]:
        """Places of the extents of which a change makes the very ends of a leaf."""
        ends = [through(narrow)(e) if narrow else e for e in (self._lows, self._highs)]
        lows, highs = (
            e.astype(np.float32) == np.float32(x)
            for e, x in zip(ends, (leaf.low, leaf.high), strict=True)
        )
        same = (highs & (lows | self._folds)).any(axis=0) | self._scaled(leaf, unit / 2)
        return self._places[same].tolist()

    def _scaled(self, leaf: Extent, room: float) -> np.ndarray:
        """Which may be the ends of a leaf times a factor."""
        return np.abs(self._ratios - _ratios(np.array([[leaf.low, leaf.high]]))) <= room


def _ratios(both: np.ndarray) -> np.ndarray:
    """The end nearer to zero over the other: a factor of either sign leaves it as it is."""
    size = np.abs(both)
    nearer = np.where(size[:, 0] < size[:, 1], both[:, 0], both[:, 1])
    farther = np.where(size[:, 0] < size[:, 1], both[:, 1], both[:, 0])
    return nearer / np.where(farther == 0, 1, farther)


def _scales(source: Extent, leaf: Extent, unit: float) -> Iterator[Change]:
    for low, high in ((leaf.low, leaf.high), (leaf.high, leaf.low)):
        pairs = [(b, a) for b, a in ((low, source.low), (high, source.high)) if a or b]
        if not pairs or source.size < 3 or not all(a and b for b, a in pairs):
            continue
        factors = sorted((b / a for b, a in pairs), key=abs)
        same = abs(factors[-1] - factors[0]) <= 4 * unit * abs(factors[-1])
        factor = high / source.high if abs(source.high) > abs(source.low) else low / source.low
        if same and abs(factor - 1) > 4 * unit and factor != -1:
            yield scaled(_tidy(factor, unit))


def _tidy(factor: float, unit: float) -> float:
    """The usual factor near `factor`, if there is one: the extent is known only to rounding."""
    size = abs(factor)
    for power, back in ((1, 1.0), (-1, -1.0), (2, 0.5), (-2, -0.5)):
        whole = round(size**power) if size**power < 2**17 else 0
        if whole > 1 and abs(size**power - whole) <= 8 * unit * whole:
            return math.copysign(float(whole) ** back, factor)
    return factor


def _near(a: np.ndarray, b: float, unit: float) -> np.ndarray:
    """Where an end that each change makes is `b` within `unit`."""
    size = np.maximum(np.abs(a), abs(b))
    shifted = SHIFTED.reshape(-1, *(1,) * (a.ndim - 1))
    room = unit * (np.maximum(size, 2.0**-100) + (shifted & (size < 1)))
    return (a == b) | (np.isfinite(a) & (np.abs(a - b) <= room))
