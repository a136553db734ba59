"""What a leaf holds that holds what it should with other values, in its order or in another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from porting.doctor.arrange import find
from porting.doctor.bits import canonical, equal, is_float, probes
from porting.doctor.holding import Holding, Question
from porting.doctor.own import expected_extent, joined_extent, joined_of, ruled, telling
from porting.doctor.pieces import assemble
from porting.doctor.proposals import FOLDED, Extent, extent, proposals
from porting.doctor.values import Change, agrees, single, through

SMALL = 2**16  #: sums of two tensors are tried up to this size
NEAREST = 16  #: tensors that may have been added to a leaf, those named most like it


def own_changed(q: Question) -> Holding | None:
    """The right array with other values."""
    assert q.expected is not None
    if q.expected.shape == q.leaf.shape:
        change = change_of(q, q.expected, expected_extent(q))
        if change:
            return Holding(q.home, None, change)
    for base, note in _parts(q):
        change = change_of(q, base, extent(base))
        if change:
            return Holding(q.home, None, change, note)
    return None


def _parts(q: Question) -> Iterator[tuple[np.ndarray, str]]:
    """What each of several joined sources would make alone."""
    if q.row is not None and len(q.row.sources) > 1:
        for key in q.row.sources:
            part = ruled(q.row, q.evidence.array(key))
            if part.shape == q.leaf.shape:
                yield part, f"Only {key} is in it."


def change_of(q: Question, base: np.ndarray, from_: Extent | None) -> Change | None:
    """The change that turns `base` into the leaf, element by element."""
    if base.shape != q.leaf.shape:
        return None
    for change in proposals_for(from_, q):
        if agrees(change, base, q.leaf, q.unit):
            return change
    return None


def own_summed(q: Question) -> Holding | None:
    """The right array with another tensor of its module, or of one beside it, added."""
    if q.row is None or q.expected is None or q.leaf.size > SMALL or q.extent is None:
        return None
    e, home = q.evidence, q.home
    around = home[0].split(".")[:-2]
    beside = [k for k in e.shaped_like(home[0]) if k.split(".")[: len(around)] == around]
    near = e.nearest(beside, home)[:NEAREST]
    for base in (q.expected, *(part for part, _ in _parts(q))):
        if base.shape != q.leaf.shape:
            continue
        for key in near:
            other = ruled(q.row, e.array(key))
            if other.shape == q.leaf.shape and _is_sum(q, base, other):
                change = Change("summed", f"{key} was added to it", np.asarray)
                return Holding(home, None, change)
    return None


def _is_sum(q: Question, a: np.ndarray, b: np.ndarray) -> bool:
    if not (is_float(a.dtype) and is_float(b.dtype)):
        return False

    def agree(*part: Any) -> bool:
        one, two, leaf = (single(array[part]) for array in (a, b, q.leaf))
        return bool(np.all(np.abs(one + two - leaf) <= q.unit * (np.abs(one) + np.abs(two))))

    return agree(*probes(q.leaf.shape)) and agree(...)


def own_resized_changed(q: Question) -> Holding | None:
    """The right array, cut or padded along one axis, with other values."""
    assert q.expected is not None
    for base, kept in _overlaps(q.expected, q.leaf):
        part = Question(kept, q.row, base, q.evidence, q.table)
        change = change_of(part, base, extent(base))
        if change:
            made = _changed_bits(q, change, joined_of(q))
            found = assemble(made, q.bits)
            if found and telling(q, found):
                return Holding(q.home, found, change)
    return None


def _overlaps(right: np.ndarray, leaf: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The common part of two arrays that differ in one length: their beginnings, their ends."""
    if right.ndim != leaf.ndim:
        return
    differ = [a for a, (n, m) in enumerate(zip(right.shape, leaf.shape, strict=True)) if n != m]
    if len(differ) != 1:
        return
    count = min(right.shape[differ[0]], leaf.shape[differ[0]])
    for part in (slice(0, count), slice(-count, None)):
        index = (slice(None),) * differ[0] + (part,)
        yield right[index], leaf[index]


def own_changed_rearranged(q: Question) -> Holding | None:
    """The right array with other values and in another order."""
    assert q.expected is not None
    if q.expected.size != q.leaf.size:
        return None
    joined = joined_of(q)
    if joined.size == q.expected.size:
        return changed_rearranged(q, q.home, joined, joined_extent(q, joined))
    for change in proposals_for(expected_extent(q), q):
        found = assemble(_changed_bits(q, change, joined), q.bits)
        if found and telling(q, found):
            return Holding(q.home, found, change)
    return None


def proposals_for(from_: Extent | None, q: Question) -> Iterator[Change]:
    """Changes that take an extent to that of the leaf."""
    if from_ is not None and q.extent is not None:
        yield from proposals(from_, q.extent, q.unit)


def changed_rearranged(
    q: Question, keys: tuple[str, ...], array: np.ndarray, from_: Extent | None
) -> Holding | None:
    """`array` with other values and in another order."""
    if array.size != q.leaf.size:
        return None
    for change in proposals_for(from_, q):
        if not _same_ends(q, change, from_):
            continue
        bits = _changed_bits(q, change, array)
        if equal(ruled(q.row, bits), q.bits):
            return Holding(keys, None, change)
        found = find(bits, q.bits) or assemble(bits, q.bits)
        if found and not found.partial:
            return Holding(keys, found, change)
    return None


def _same_ends(q: Question, change: Change, from_: Extent | None) -> bool:
    """Whether a change makes the ends of the leaf, bit for bit, as it must of all values."""
    if from_ is None or q.extent is None:
        return False
    ends = _changed_bits(q, change, np.array([from_.low, from_.high], np.float32)).view(np.float32)
    folds = change.kind in FOLDED and from_.low * from_.high < 0
    low = folds or ends.min() == q.extent.low
    return bool(low and ends.max() == q.extent.high)


def _changed_bits(q: Question, change: Change, array: np.ndarray) -> np.ndarray:
    made = change.apply(single(array))
    return canonical(through(q.narrow)(made) if q.narrow is not None else made)
