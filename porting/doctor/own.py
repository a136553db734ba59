"""What a leaf holds that holds what it should, and yet not so: moved, changed, or in part."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from porting.doctor.arrange import Arrangement, find
from porting.doctor.bits import canonical, equal, is_float, probes
from porting.doctor.holding import Holding, Question
from porting.doctor.pieces import ENOUGH, assemble
from porting.doctor.proposals import Extent, extent
from porting.doctor.values import CASTS, Change, agrees, single
from porting.errors import PortingError
from porting.leaves import ONLY, Leaf

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


def joined_of(q: Question) -> np.ndarray:
    """The source of a leaf's row before its rule."""
    assert q.row is not None
    return q.evidence.joined(q.row)


def joined_extent(q: Question, joined: np.ndarray) -> Extent | None:
    """The extent of the source of a row; known already if it is one tensor."""
    alone = q.row is not None and q.row.join is ONLY
    return q.evidence.extent_of(q.home[0]) if alone else extent(joined)


def expected_extent(q: Question) -> Extent | None:
    """The extent of the right array: that of its source, unless it is a part of it."""
    assert q.expected is not None
    whole = q.row is not None and q.row.join is ONLY and not q.row.rule.selects
    return q.evidence.extent_of(q.home[0]) if whole else extent(q.expected)


def own_rearranged(q: Question) -> Holding | None:
    """The right source in another whole order."""
    joined = joined_of(q)
    if joined.size != q.leaf.size or joined_extent(q, joined) != q.extent:
        return None
    found = find(q.bits_of(joined), q.bits)
    return Holding(q.home, found) if found else None


def own_narrowed(q: Question) -> Holding | None:
    """The right source through a narrower type, in any whole rearrangement."""
    for change, made in _narrowings(q, joined_of(q)):
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


def own_padded(q: Question) -> Holding | None:
    """The right array, whole, with slices before or behind it that are something else."""
    assert q.expected is not None
    have, due = q.leaf.shape, q.expected.shape
    longer = [a for a, (n, m) in enumerate(zip(have, due, strict=False)) if n > m]
    axis = longer[0] if len(longer) == 1 and len(have) == len(due) else -1
    if axis < 0 or q.expected.size < TELLING or have[:axis] + have[axis + 1 :] != due[:axis] + due[axis + 1 :]:  # fmt: skip
        return None
    bits, length = q.bits_of(q.expected), due[axis]
    for start in (0, have[axis] - length):
        if equal(q.bits.take(range(start, start + length), axis=axis), bits):
            index = np.full(have[axis], -1)
            index[start : start + length] = np.arange(length)
            return Holding(q.home, _by_slices(q, axis, index))
    return None


def _by_slices(q: Question, axis: int, index: np.ndarray) -> Arrangement:
    """What the row of a leaf makes, but for slices along one axis of it that it has not."""
    rule = q.row.rule if q.row else None
    return Arrangement((), rule, "pieces", "", True, ((axis, index),))


def own_partly(q: Question) -> Holding | None:
    """The right array of which some slices along one axis are something else."""
    assert q.expected is not None
    if q.expected.shape != q.leaf.shape or q.leaf.size < 2 * TELLING:
        return None
    spots, bits = probes(q.leaf.shape), q.bits_of(q.expected)
    if np.mean(bits[spots] == q.bits[spots]) < ENOUGH / 2:
        return None
    same = bits == q.bits
    if len(np.unique(bits[same])) < TELLING:
        return None
    for axis in range(same.ndim):
        known = same.all(axis=tuple(a for a in range(same.ndim) if a != axis))
        if ENOUGH <= known.mean() < 1:
            index = np.where(known, np.arange(len(known)), -1)
            return Holding(q.home, _by_slices(q, axis, index))
    return None


def own_pieces(q: Question) -> Holding | None:
    """Slices of the right source."""
    alone = q.row is not None and q.row.join is ONLY
    if alone and q.evidence.sightings.share(q.leaf, q.home[0]) < ENOUGH / 2:
        return None
    source = q.bits_of(joined_of(q))
    found = assemble(source, q.bits, q.evidence.sums(q.home[0], source.dtype) if alone else None)
    return Holding(q.home, found) if found and telling(q, found) else None


def own_narrowed_pieces(q: Question) -> Holding | None:
    """Slices of the right source through a narrower type."""
    for change, made in _narrowings(q, joined_of(q)):
        found = assemble(made, q.bits)
        if found and telling(q, found):
            return Holding(q.home, found, change)
    return None


def telling(q: Question, found: Arrangement) -> bool:
    """Whether so few values cannot agree by chance."""
    if found.partial:
        known = [index[index >= 0] for _, index in found.indices]
        runs = all(len(i) and np.array_equal(i, np.arange(i[0], i[0] + len(i))) for i in known)
        return runs and q.leaf.size >= 4 * TELLING
    regular = found.rule is not None or len(np.unique(q.bits)) >= 2 * TELLING
    return regular and q.leaf.size >= TELLING
