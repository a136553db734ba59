"""How a leaf was put together from slices of a source: axis by axis.

For every axis of the source, the slices of the leaf are looked up among the slices of the
source by their fingerprints. That gives the index along this axis, whatever it is: a block
of a packed projection, one part of every head, rotary pairs, gates in another order, layers
sorted as text, a channel order, rows that were cut or added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from porting.doctor.arrange import Arrangement, axis_names
from porting.doctor.bits import blocks, equal, probes, slice_sums
from porting.doctor.patterns import Pattern, pattern, short_index
from porting.doctor.steps import Step
from porting.layouts import Rule

LARGE = 2**18  #: elements from which a few values are looked up first
ENOUGH = 0.5  #: the share of a leaf's slices that must be the source's to name it


@dataclass(frozen=True)
class Axis:
    """Where one axis of the source went.

    Attributes:
        axis: of the source.
        leaf: axes of the leaf that it became, in their order.
        index: for each of the leaf's slices, the slice of the source; -1 if it has none.
    """

    axis: int
    leaf: tuple[int, ...]
    index: np.ndarray


def locate(wanted: np.ndarray, table: np.ndarray) -> np.ndarray:
    """For each sum of `wanted` its place in `table`, or -1; runs are kept where sums repeat.

    >>> locate(np.array([5, 5, 7, 9]), np.array([5, 5, 7])).tolist()
    [0, 1, 2, -1]
    """
    order = np.argsort(table, kind="stable")
    first = np.searchsorted(table, wanted, "left", sorter=order)
    last = np.searchsorted(table, wanted, "right", sorter=order)
    found = np.where(last > first, order[np.minimum(first, len(order) - 1)], -1)
    used: set[int] = set()
    for place in np.flatnonzero(last - first > 1):
        options = order[first[place] : last[place]].tolist()
        found[place] = _likeliest(options, found, int(place), used)
        used.add(int(found[place]))
    return found


def _likeliest(options: list[int], found: np.ndarray, place: int, used: set[int]) -> int:
    """Of equal slices: the one that goes on as the two before it did, or was not used yet."""
    guesses = []
    if place > 1:
        guesses.append(int(2 * found[place - 1] - found[place - 2]))
    if place > 0:
        guesses.append(int(found[place - 1] + 1))
    for guess in (*guesses, place):
        if guess in options:
            return guess
    return next((o for o in options if o not in used), options[0])


Sums = dict[int, np.ndarray]  #: axis -> a fingerprint of every slice along it


def assemble(source: np.ndarray, leaf: np.ndarray, sums: Sums | None = None) -> Arrangement | None:
    """How the slices of `source` make up `leaf` (both bits), or None.

    Axes of size 1 carry nothing and are left out of the search. A leaf of which some slices
    are not the source's gives a partial arrangement, if the rest is at least half of it, or
    all of a matrix (a table that was padded).

    Args:
        source: bits of a tensor.
        leaf: bits of what is made of it.
        sums: of the source, filled in as they are needed; given where enough values of the leaf
            are known to be in it, which is looked up otherwise.

    >>> packed = np.arange(24, dtype=np.uint32).reshape(12, 2)
    >>> str(assemble(packed, np.ascontiguousarray(packed[4:8].T)))
    'o=4:8 i -> i o'
    """
    if source.dtype != leaf.dtype or not source.size or not leaf.size:
        return None
    if sums is None and leaf.size > LARGE and shared(source, leaf) < ENOUGH / 2:
        return None
    best: Arrangement | None = None
    sums = {} if sums is None else sums
    for axis, axes in _starts(source, leaf):
        if axis not in sums:
            sums[axis] = slice_sums(source, (axis,))
        index = locate(slice_sums(leaf, axes), sums[axis])
        share = float(np.mean(index >= 0))
        if share < ENOUGH and not _all_there(index, source, axis):
            continue
        made = _complete(source, leaf, Axis(axis, axes, index))
        if made and not made.partial:
            return made
        best = best or made
    return best


def _all_there(index: np.ndarray, source: np.ndarray, axis: int) -> bool:
    """Whether all slices of a matrix are in the leaf, in their order."""
    return source.ndim > 1 and np.array_equal(index[index >= 0], np.arange(source.shape[axis]))


def shared(source: np.ndarray, leaf: np.ndarray) -> float:
    """The share of a few values of `leaf` (bits) that are anywhere in `source` (bits).

    >>> shared(np.arange(9, dtype=np.uint32), np.arange(6, 12, dtype=np.uint32))
    0.5
    """
    some = np.unique(leaf[probes(leaf.shape)])
    table = np.zeros(1 << 16, bool)
    table[_bucket(some)] = True
    found = np.zeros(len(some), bool)
    for piece in blocks(source.shape):
        part = source[piece].reshape(-1)
        found |= np.isin(some, part[table[_bucket(part)]])
    return float(found.mean())


def _bucket(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32, copy=False) * np.uint32(0x9E3779B1)) >> np.uint32(16)


def _starts(source: np.ndarray, leaf: np.ndarray) -> list[tuple[int, tuple[int, ...]]]:
    """(source axis, leaf axes) whose slices have the same number of elements."""
    pairs = []
    for axes in _subsets(range(leaf.ndim)):
        each = leaf.size // math.prod(leaf.shape[a] for a in axes)
        for axis in range(source.ndim):
            if source.shape[axis] > 1 and source.size // source.shape[axis] == each:
                pairs.append((axis, axes))
    return sorted(pairs, key=lambda p: len(p[1]))


def _subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    return [c for n in range(1, len(axes) + 1) for c in combinations(axes, n)]


def _complete(source: np.ndarray, leaf: np.ndarray, start: Axis) -> Arrangement | None:
    """The other axes of the source, once the slices along one are known."""
    known = start.index >= 0
    rows = source.take(start.index[known], axis=start.axis)
    held = _rows_of(leaf, start.leaf)[known]
    placed = [start]
    free = [a for a in range(leaf.ndim) if a not in start.leaf]
    others = [a for a in range(source.ndim) if a != start.axis and source.shape[a] > 1]
    held_shape = [leaf.shape[a] for a in free]
    held = held.reshape([len(held), *held_shape])
    for axis in others:
        table = slice_sums(rows, (axis,))
        for axes in _subsets([a for a in free if not any(a in p.leaf for p in placed)]):
            if math.prod(leaf.shape[a] for a in axes) != source.shape[axis]:
                continue
            index = locate(slice_sums(held, [free.index(a) + 1 for a in axes]), table)
            if len(set(index.tolist())) == len(index) and index.min() >= 0:
                placed.append(Axis(axis, axes, index))
                break
        else:
            return None
    placed.sort(key=lambda p: p.axis)
    return _checked(source, leaf, placed, known, start)


def _rows_of(leaf: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """`leaf` with `axes` merged in front."""
    rest = [a for a in range(leaf.ndim) if a not in axes]
    count = math.prod(leaf.shape[a] for a in axes)
    return leaf.transpose([*axes, *rest]).reshape(count, -1)


def _checked(
    source: np.ndarray, leaf: np.ndarray, placed: list[Axis], known: np.ndarray, start: Axis
) -> Arrangement | None:
    """The arrangement of `placed`, if it really makes the leaf."""
    made = source
    for place in placed:
        made = made.take(np.where(place.index < 0, 0, place.index), axis=place.axis)
    made = made.reshape([len(p.index) for p in placed])
    split = [leaf.shape[a] for p in placed for a in p.leaf]
    units = [a for a in range(leaf.ndim) if not any(a in p.leaf for p in placed)]
    if any(leaf.shape[a] != 1 for a in units):
        return None
    order = [a for p in placed for a in p.leaf] + units
    made = made.reshape([*split, *(1 for _ in units)]).transpose(np.argsort(order))
    if known.all():
        if not equal(made, leaf):
            return None
    elif not equal(_rows_of(made, start.leaf)[known], _rows_of(leaf, start.leaf)[known]):
        return None
    return _described(source.shape, leaf.shape, placed, units)


def _described(
    source: Sequence[int], leaf: Sequence[int], placed: list[Axis], units: Sequence[int]
) -> Arrangement:
    names = axis_names(len(source))
    partial = any((p.index < 0).any() for p in placed)
    indices = tuple((p.axis, p.index) for p in placed)
    found = {p.axis: pattern(p.index, source[p.axis], names[p.axis]) for p in placed}
    homes = tuple((p.axis, p.leaf) for p in placed)
    done = Arrangement((), None, "pieces", "", partial, indices, homes)
    if partial or any(v is None for v in found.values()):
        text = [
            f"{names[p.axis]}[{short_index(p.index)}]"
            for p in placed
            if not np.array_equal(p.index, np.arange(source[p.axis]))
        ]
        return replace(done, note="; ".join(text), steps=(Step("take", (", ".join(text),)),))
    return replace(done, rule=_rule(source, leaf, placed, found, units))


def _rule(
    source: Sequence[int],
    leaf: Sequence[int],
    placed: list[Axis],
    found: dict[int, Pattern | None],
    units: Sequence[int],
) -> Rule | None:
    """The arrangement in named axes."""
    left: list[str] = []
    sizes: dict[str, int] = {}
    right: dict[int, str] = dict.fromkeys(units, "1")
    for axis in range(len(source)):
        pattern_ = found.get(axis)
        if pattern_ is None:
            left.append("1")
            continue
        place = next(p for p in placed if p.axis == axis)
        parts = pattern_.spread([leaf[a] for a in place.leaf])
        if parts is None:
            return None
        left.append(parts.left)
        sizes |= parts.sizes
        right |= dict(zip(place.leaf, parts.right, strict=True))
    return Rule(f"{' '.join(left)} -> {' '.join(right[a] for a in range(len(leaf)))}", sizes)
