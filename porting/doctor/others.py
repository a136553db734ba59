"""What a leaf holds that should hold something else: another tensor, whole or in part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from porting.doctor.altered import change_of, changed_rearranged, proposals_for
from porting.doctor.arrange import find
from porting.doctor.bits import canonical, equal, fingerprint, is_float
from porting.doctor.holding import Holding, Question
from porting.doctor.names import parent, template
from porting.doctor.own import TELLING, ruled, telling
from porting.doctor.pieces import ENOUGH, assemble
from porting.doctor.values import CASTS, Change, agrees, seems_narrow, single
from porting.leaves import ONLY

SEARCHED = 2**27  #: elements of other sources that are cut into slices for one leaf


def by_same_rule(q: Question) -> Holding | None:
    """Another tensor of the same shape, ported by the rule of this leaf."""
    if q.row is None or q.expected is None or len(q.home) != 1 or q.row.join is not ONLY:
        return None
    e, stem = q.evidence, template(q.home[0])
    shape = e.shapes[q.home[0]]
    alike = e.shaped_like(q.home[0]) if q.row.rule.selects else e.of_extent(q.leaf.size, q.extent)
    keys = e.nearest([k for k in alike if k not in q.home and e.shapes[k] == shape], q.home)
    for key in sorted(keys, key=lambda k: template(k) != stem):
        if equal(ruled(q.row, q.bits_of(e.array(key))), q.bits):
            others = tuple(k for k in keys if k != key and e.same(k, key))
            return Holding((key,), None, None, "", others)
    return None


def by_other_leaf(q: Question) -> Holding | None:
    """What a leaf of another tensor should hold, bit for bit."""
    return next((h for h in _fitting(q) if not _of_home(q, h.keys)), None)


def by_other_leaf_narrowed(q: Question) -> Holding | None:
    """What a leaf of another tensor should hold, through a narrower type."""
    if q.leaf.size < 2 * TELLING or not seems_narrow(q.leaf):
        return None
    fitting = (h for change in CASTS for h in _fitting(q, change))
    return next((h for h in fitting if not _of_home(q, h.keys)), None)


def by_other_part(q: Question) -> Holding | None:
    """What another leaf of the same tensor should hold, bit for bit."""
    return next((h for h in _fitting(q) if _of_home(q, h.keys)), None)


def _fitting(q: Question, change: Change | None = None) -> Iterator[Holding]:
    """Other leaves that should have these bits but for a cast, those most like this one first."""
    if q.row is None or q.leaf.size < TELLING:
        return
    own, e = template(q.row.path), q.evidence
    paths = [p for p in q.table.with_sample(q.leaf, change) if p != q.row.path]
    for path in sorted(paths, key=lambda p: template(p) != own):
        right, keys = q.table.right(path), q.table.rows[path].sources
        if right is not None and _same(q, right, change):
            twins = [k for k in e.shaped_like(keys[0]) if e.same(k, keys[0])] if len(keys) == 1 else []  # fmt: skip
            others = tuple(k for k in twins if k not in keys)
            yield Holding(keys, None, change, "", others, other=path)


def _same(q: Question, right: np.ndarray, change: Change | None) -> bool:
    """Whether the leaf is `right`, bit for bit, or what a cast makes of it."""
    if change is None:
        return equal(q.bits_of(right), q.bits)
    return agrees(change, right, q.leaf, 0.0)


def _of_home(q: Question, keys: tuple[str, ...]) -> bool:
    """Whether the keys hold the tensors that the leaf should be made of."""
    return all(any(q.evidence.same(key, home) for home in q.home) for key in keys)


def _likely_leaves(q: Question) -> Iterator[str]:
    """Paths of the other leaves that a change may turn into this, those of the same tensor first."""
    if q.row is None or q.extent is None:
        return
    own = q.row
    paths = [p for p in q.table.likely(q.leaf, q.extent, q.unit) if p != own.path]

    def order(path: str) -> tuple[bool, bool]:
        return q.table.rows[path].sources != own.sources, template(path) != template(own.path)

    yield from sorted(paths, key=order)


def by_print(q: Question) -> Holding | None:
    """Another tensor of as many elements whose fingerprint is the leaf's."""
    e = q.evidence
    if q.leaf.size < 2:
        return None
    keys = [k for k in e.of_extent(q.leaf.size, q.extent) if k not in q.home]
    if not keys:
        return None
    own = fingerprint(q.bits)
    fits = e.nearest([k for k in keys if _print(q, k) == own], q.home)
    for key in fits:
        source = q.bits_of(e.array(key))
        found = find(source, q.bits) or assemble(source, q.bits)
        if found:
            return Holding((key,), found, None, "", tuple(k for k in fits if k != key))
    return None


def _print(q: Question, key: str) -> int:
    array = q.evidence.array(key)
    if canonical(array[:0]).dtype == q.bits.dtype or array.dtype.kind != "f":
        return q.evidence.print_of(key)
    return fingerprint(q.bits_of(array))


def by_other_print(q: Question) -> Holding | None:
    """What another leaf should hold, joined from several tensors, in another order."""
    for path in q.table.joined(q.leaf.size):
        row = q.table.rows[path]
        if row.sources == q.home or q.table.extent(path) != q.extent:
            continue
        source = q.bits_of(q.evidence.joined(row))
        if fingerprint(source) == fingerprint(q.bits):
            found = find(source, q.bits) or assemble(source, q.bits)
            if found:
                return Holding(row.sources, found, other=path)
    return None


def other_leaf_changed(q: Question) -> Holding | None:
    """What another leaf should hold, with other values."""
    if q.leaf.size < (TELLING if q.narrow is None else 2 * TELLING):
        return None
    for path in _likely_leaves(q):
        from_ = q.table.extent(path)
        likely = any(True for _ in proposals_for(from_, q))
        right = q.table.right(path) if likely else None
        change = None if right is None else change_of(q, right, from_)
        if change:
            return Holding(q.table.rows[path].sources, None, change, other=path)
    return None


def other_pieces(q: Question) -> Holding | None:
    """Slices of any other source."""
    e, spent = q.evidence, 0
    if q.leaf.size < 4 * TELLING:
        return None
    shares = e.sightings.shares(q.leaf, int(q.leaf.size * ENOUGH / 2))
    keys = [k for k in shares if k not in q.home and shares[k] >= ENOUGH / 2]
    partial: Holding | None = None
    for key in e.nearest(keys, q.home):
        spent += e.size(key)
        if spent > SEARCHED:
            break
        source = q.bits_of(e.array(key))
        found = assemble(source, q.bits, e.sums(key, source.dtype))
        if found and telling(q, found) and (q.leaf.ndim > 1 or found.rule or found.partial):
            if not found.partial:
                return Holding((key,), found)
            partial = partial or Holding((key,), found)
    return partial


def sum_of_two(q: Question) -> Holding | None:
    """A part of the sum of two vectors of one module, where no name tells that they are summed."""
    if q.home or q.leaf.ndim != 1 or q.leaf.size < TELLING:
        return None
    vectors = [k for k, shape in q.evidence.shapes.items() if len(shape) == 1]
    for a, b in combinations(vectors, 2):
        if parent(a) != parent(b) or q.evidence.shapes[a] != q.evidence.shapes[b]:
            continue
        parts = [q.evidence.array(key) for key in (a, b)]
        if all(is_float(part.dtype) for part in parts):
            found = assemble(canonical(single(parts[0]) + single(parts[1])), q.bits)
            if found and found.rule and not found.partial:
                return Holding((a, b), found, note="Their sum.")
    return None


def other_changed(q: Question) -> Holding | None:
    """Any other tensor of as many elements, with other values."""
    if q.leaf.size < TELLING or q.extent is None:
        return None
    e = q.evidence
    likely = [k for k in e.likely(q.extent, q.narrow, q.unit) if k not in q.home]
    for key in e.nearest(likely, q.home):
        from_ = e.extent_of(key)
        if any(True for _ in proposals_for(from_, q)):
            found = changed_rearranged(q, (key,), e.array(key), from_)
            if found:
                return found
    return None
