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
from porting.doctor.values import CASTS, FUNCTIONS, MISREADS, Change, scaled, single


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
    changes, lows, highs = _ends(source)
    folds = source.low * source.high < 0
    for n in np.flatnonzero(_near(highs, leaf.high, unit)):
        folded = folds and changes[n].kind in ("magnitude", "square")
        if folded or _near(lows[n], leaf.low, unit):
            yield changes[n]
    yield from _scales(source, leaf, unit)


@lru_cache(maxsize=4096)
def _ends(source: Extent) -> tuple[tuple[Change, ...], np.ndarray, np.ndarray]:
    """What every change makes of the smallest and the largest value: lows and highs."""
    changes = (*CASTS, *MISREADS, *FUNCTIONS)
    lows, highs = _made(changes, np.array([source.low, source.high], np.float32))
    return changes, lows, highs


def _made(changes: Sequence[Change], both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lesser and the greater of what each change makes of the pairs in the last axis."""
    made = np.array([change.apply(both) for change in changes], np.float64)
    return made.min(axis=-1), made.max(axis=-1)


class Ends:
    """Many extents, sorted so that those a leaf could come from are found without asking each.

    >>> ends = Ends([Extent(-1, 2, 9), None, Extent(-5, 6, 9)])
    >>> ends.likely(Extent(0, 3, 9), 1e-6), ends.likely(Extent(-50, 60, 9), 1e-6)
    ([0], [2])
    """

    def __init__(self, extents: Sequence[Extent | None]) -> None:
        places = [n for n, e in enumerate(extents) if e is not None]
        both = np.array([(e.low, e.high) for e in extents if e is not None]).reshape(-1, 2)
        _, highs = _made((*CASTS, *MISREADS, *FUNCTIONS), both.astype(np.float32))
        self._highs = _Sorted(highs.reshape(-1), np.tile(places, len(highs)))
        self._ratios = _Sorted(_ratios(both), np.array(places, np.int64))

    def likely(self, leaf: Extent, unit: float) -> list[int]:
        """Places of the extents that something is proposed for, and of few others."""
        high = self._highs.within(leaf.high, 2 * unit * (abs(leaf.high) + 1))
        ratio = self._ratios.within(float(_ratios(np.array([[leaf.low, leaf.high]]))[0]), 16 * unit)
        return np.unique(np.concatenate([high, ratio])).tolist()


class _Sorted:
    """Finite numbers in order, and where each came from."""

    def __init__(self, numbers: np.ndarray, places: np.ndarray) -> None:
        finite = np.isfinite(numbers)
        order = np.argsort(numbers[finite])
        self._numbers, self._places = numbers[finite][order], places[finite][order]

    def within(self, number: float, room: float) -> np.ndarray:
        """The places of the numbers that are at most `room` away."""
        start = np.searchsorted(self._numbers, number - room, "left")
        stop = np.searchsorted(self._numbers, number + room, "right")
        return self._places[start:stop]


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
    """Where `a` is `b` within `unit`.

    A value below 1 may have come from 1 + w or w - 1, whose rounding is that of 1.
    """
    size = np.maximum(np.abs(a), abs(b))
    room = unit * (np.maximum(size, 2.0**-100) + (size < 1))
    return (a == b) | (np.isfinite(a) & (np.abs(a - b) <= room))
