"""What a leaf holds that holds what it should, and yet not so: moved, changed, or in part."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from porting.doctor.arrange import Arrangement, find
from porting.doctor.bits import canonical, equal, is_float, probes
from porting.doctor.holding import Holding, Question
from porting.doctor.pieces import ENOUGH, assemble
from porting.doctor.values import (
    CASTS,
    Change,
    Extent,
    agrees,
    extent,
    proposals,
    single,
    through,
)
from porting.errors import PortingError
from porting.leaves import ONLY, Leaf

SMALL = 2**16  #: sums of two tensors are tried up to this size
NEAREST = 16  #: tensors that may have been added to a leaf, those named most like it
TELLING = 4  #: values that a leaf needs to be told from another by its slices


def own_cast(q: Question) -> Holding | None:
    """The right array through a narrower type."""
    if q.expected is None or q.expected.shape != q.leaf.shape:
        return None
    if not (is_float(q.expected.dtype) and is_float(q.leaf.dtype)):
        return None
    for change in CASTS:
        if agrees(change, q.expected, q.leaf, 0.0):
            return Holding(q.home, None, change)
    return None


def _joined(q: Question) -> np.ndarray:
    assert q.row is not None
    return q.evidence.joined(q.row)


def _joined_extent(q: Question, joined: np.ndarray) -> Extent | None:
    """The extent of the source of a row; known already if it is one tensor."""
    alone = q.row is not None and q.row.join is ONLY
    return q.evidence.extent_of(q.home[0]) if alone else extent(joined)


def _expected_extent(q: Question) -> Extent | None:
    """The extent of the right array: that of its source, unless it is a part of it."""
    assert q.expected is not None
    whole = q.row is not None and q.row.join is ONLY and not q.row.rule.selects
    return q.evidence.extent_of(q.home[0]) if whole else extent(q.expected)


def own_rearranged(q: Question) -> Holding | None:
    """The right source in another whole order."""
    joined = _joined(q)
    if joined.size != q.leaf.size or _joined_extent(q, joined) != q.extent:
        return None
    found = find(q.bits_of(joined), q.bits)
    return Holding(q.home, found) if found else None


def own_narrowed(q: Question) -> Holding | None:
    """The right source through a narrower type, in any whole rearrangement."""
    for change, made in _narrowings(q, _joined(q)):
        if equal(ruled(q.row, made), q.bits):
            return Holding(q.home, None, change)
        found = find(made, q.bits)
        if found:
            return Holding(q.home, found, change)
    return None


def _narrowings(q: Question, array: np.ndarray) -> Iterator[tuple[Change, np.ndarray]]:
    """The bits of `array` through each cast that the leaf's values could come from."""
    if q.narrow is None or array.dtype.kind not in "fV":
        return
    have = q.extent
    for change in CASTS:
        made = change.apply(single(array))
        want = extent(made)
        whole = array.size == q.leaf.size
        if not whole or (want and have and (want.low, want.high) == (have.low, have.high)):
            yield change, canonical(made)


def ruled(row: Leaf | None, bits: np.ndarray) -> np.ndarray:
    """`bits` by the rule of a row, or an empty array if it does not fit."""
    try:
        return row.rule.apply(bits) if row else np.empty(0, bits.dtype)
    except PortingError:
        return np.empty(0, bits.dtype)


def own_part(q: Question) -> Holding | None:
    """One of several joined sources alone: a bias that was not added, an unfused direction."""
    row = q.row
    if row is None or len(row.sources) < 2:
        return None
    for key in row.sources:
        part = q.bits_of(q.evidence.array(key))
        if equal(ruled(row, part), q.bits):
            left = ", ".join(k for k in row.sources if k != key)
            change = Change("partial_sum", f"only {key}; {left} was left out", np.asarray)
            return Holding((key,), None, change)
    return None


def own_changed(q: Question) -> Holding | None:
    """The right array with other values."""
    assert q.expected is not None
    if q.expected.shape == q.leaf.shape:
        change = change_of(q, q.expected, _expected_extent(q))
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
    """The right array with another tensor of its module added."""
    if q.row is None or q.expected is None or q.leaf.size > SMALL or q.extent is None:
        return None
    e, home = q.evidence, q.home
    alike = [k for k in e.shapes if e.shapes[k] == e.shapes[home[0]]]
    for base in (q.expected, *(part for part, _ in _parts(q))):
        if base.shape != q.leaf.shape:
            continue
        for key in e.nearest(alike, home)[:NEAREST]:
            other = ruled(q.row, e.array(key))
            if other.shape == q.leaf.shape and _is_sum(q, base, other):
                change = Change("summed", f"{key} was added to it", np.asarray)
                return Holding(home, None, change)
    return None


def _is_sum(q: Question, a: np.ndarray, b: np.ndarray) -> bool:
    if not (is_float(a.dtype) and is_float(b.dtype)):
        return False
    total = single(a) + single(b)
    room = q.unit * (np.abs(single(a)) + np.abs(single(b)))
    return bool(np.all(np.abs(total - single(q.leaf)) <= room))


def own_partly(q: Question) -> Holding | None:
    """The right array of which some slices along one axis are something else."""
    assert q.expected is not None
    if q.expected.shape != q.leaf.shape or q.leaf.size < 4 * TELLING:
        return None
    spots, bits = probes(q.leaf.shape), q.bits_of(q.expected)
    if np.mean(bits[spots] == q.bits[spots]) < ENOUGH / 2:
        return None
    same = bits == q.bits
    for axis in range(same.ndim):
        known = same.all(axis=tuple(a for a in range(same.ndim) if a != axis))
        if ENOUGH <= known.mean() < 1:
            index = np.where(known, np.arange(len(known)), -1)
            found = Arrangement(
                (), q.row.rule if q.row else None, "pieces", "", True, ((axis, index),)
            )
            return Holding(q.home, found)
    return None


def own_pieces(q: Question) -> Holding | None:
    """Slices of the right source."""
    alone = q.row is not None and q.row.join is ONLY
    if alone and q.evidence.sightings.shares(q.leaf, q.home)[q.home[0]] < ENOUGH / 2:
        return None
    found = assemble(q.bits_of(_joined(q)), q.bits)
    return Holding(q.home, found) if found and telling(q, found) else None


def own_narrowed_pieces(q: Question) -> Holding | None:
    """Slices of the right source through a narrower type."""
    for change, made in _narrowings(q, _joined(q)):
        found = assemble(made, q.bits)
        if found and telling(q, found):
            return Holding(q.home, found, change)
    return None


def own_resized_changed(q: Question) -> Holding | None:
    """The right array, cut or padded along one axis, with other values."""
    assert q.expected is not None
    for base, kept in _overlaps(q.expected, q.leaf):
        part = Question(kept, q.row, base, q.evidence, q.table)
        change = change_of(part, base, extent(base))
        if change:
            made = _changed_bits(q, change, _joined(q))
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
    joined = _joined(q)
    if joined.size == q.expected.size:
        return changed_rearranged(q, q.home, joined, _joined_extent(q, joined))
    for change in proposals_for(_expected_extent(q), q):
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
        bits = _changed_bits(q, change, array)
        if equal(ruled(q.row, bits), q.bits):
            return Holding(keys, None, change)
        found = find(bits, q.bits) or assemble(bits, q.bits)
        if found and not found.partial:
            return Holding(keys, found, change)
    return None


def _changed_bits(q: Question, change: Change, array: np.ndarray) -> np.ndarray:
    made = change.apply(single(array))
    return canonical(through(q.narrow)(made) if q.narrow is not None else made)


def telling(q: Question, found: Arrangement) -> bool:
    """Whether so few values cannot agree by chance."""
    if found.partial:
        known = [index[index >= 0] for _, index in found.indices]
        runs = all(len(i) and np.array_equal(i, np.arange(i[0], i[0] + len(i))) for i in known)
        return runs and q.leaf.size >= 4 * TELLING
    regular = found.rule is not None or len(np.unique(q.bits)) >= 2 * TELLING
    return regular and q.leaf.size >= TELLING
