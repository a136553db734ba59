"""What a leaf holds, found by its values: a chain of questions, the cheapest first.

Every question returns a `Holding` or None. Each match is exact, bit for bit; where a value
was changed on the way, within the rounding of the leaf's own type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from porting.doctor.arrange import Arrangement, find
from porting.doctor.bits import canonical, constant, equal, fingerprint, is_float
from porting.doctor.holding import Holding, Question
from porting.doctor.names import template
from porting.doctor.pieces import assemble
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

SEARCHED = 2**27  #: elements of other sources that are cut into slices for one leaf
SMALL = 2**16  #: sums of two tensors are tried up to this size
TELLING = 4  #: values that a leaf needs to be told from another by its slices


def questions(q: Question) -> Iterator[Holding | None]:
    """All that is asked about a leaf, in order."""
    if constant(q.bits):
        return
    own = q.expected is not None and not constant(canonical(q.expected))
    for ask, of_own in QUESTIONS:
        if own or not of_own:
            yield ask(q)


def holding(q: Question) -> Holding | None:
    """The first answer, or None: nothing of the source is in this leaf."""
    return next((answer for answer in questions(q) if answer), None)


def _own_cast(q: Question) -> Holding | None:
    """The right array through a narrower type."""
    if q.expected is None or q.expected.shape != q.leaf.shape:
        return None
    if not (is_float(q.expected.dtype) and is_float(q.leaf.dtype)):
        return None
    for change in CASTS:
        if agrees(change, q.expected, q.leaf, 0.0):
            return Holding(q.home, None, change)
    return None


def _own(q: Question) -> np.ndarray:
    assert q.row is not None
    return q.evidence.joined(q.row)


def _own_rearranged(q: Question) -> Holding | None:
    source = _own(q)
    known = q.evidence.extent_of(q.home[0]) if q.row and q.row.join is ONLY else extent(source)
    if known != q.extent:
        return None
    found = find(q.bits_of(source), q.bits)
    return Holding(q.home, found) if found else None


def _own_narrowed(q: Question) -> Holding | None:
    """The right source through a narrower type, in any whole rearrangement."""
    for change, made in _narrowings(q, _own(q)):
        if equal(_ruled(q.row, made), q.bits):
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


def _ruled(row: Leaf | None, bits: np.ndarray) -> np.ndarray:
    """`bits` by the rule of a row, or an empty array if it does not fit."""
    try:
        return row.rule.apply(bits) if row else np.empty(0, bits.dtype)
    except PortingError:
        return np.empty(0, bits.dtype)


def _by_same_rule(q: Question) -> Holding | None:
    """Another tensor of the same shape, ported by the rule of this leaf."""
    if q.row is None or q.expected is None or len(q.home) != 1 or q.row.join is not ONLY:
        return None
    e, stem = q.evidence, template(q.home[0])
    keys = [k for k in e.shaped_like(q.home[0]) if k not in q.home]
    if not q.row.rule.selects:
        keys = [k for k in keys if e.extent_of(k) == q.extent]
    keys = e.nearest(keys, q.home)
    for key in sorted(keys, key=lambda k: template(k) != stem):
        if equal(_ruled(q.row, q.bits_of(e.array(key))), q.bits):
            others = tuple(k for k in keys if k != key and e.same(k, key))
            return Holding((key,), None, None, "", others)
    return None


def _by_print(q: Question) -> Holding | None:
    """Another tensor of as many elements whose fingerprint is the leaf's."""
    e = q.evidence
    sized = [k for k in e.of_size(q.leaf.size) if k not in q.home]
    keys = [k for k in sized if e.extent_of(k) == q.extent]
    if not keys or q.leaf.size < 2:
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


def _own_part(q: Question) -> Holding | None:
    """One of several joined sources alone: a bias that was not added, an unfused direction."""
    row = q.row
    if row is None or len(row.sources) < 2:
        return None
    for key in row.sources:
        part = q.bits_of(q.evidence.array(key))
        if equal(_ruled(row, part), q.bits):
            left = ", ".join(k for k in row.sources if k != key)
            change = Change("partial_sum", f"only {key}; {left} was left out", np.asarray)
            return Holding((key,), None, change)
    return None


def _own_changed(q: Question) -> Holding | None:
    """The right array with other values."""
    for base, note in _bases(q):
        change = _change(q, base, extent(base))
        if change:
            return Holding(q.home, None, change, note)
    return None


def _bases(q: Question) -> Iterator[tuple[np.ndarray, str]]:
    if q.expected is not None:
        yield q.expected, ""
    if q.row is not None and len(q.row.sources) > 1:
        for key in q.row.sources:
            part = _ruled(q.row, q.evidence.array(key))
            if part.shape == q.leaf.shape:
                yield part, f"Only {key} is in it."


def _change(q: Question, base: np.ndarray, from_: Extent | None) -> Change | None:
    """The change that turns `base` into the leaf, element by element."""
    if from_ is None or q.extent is None or base.shape != q.leaf.shape:
        return None
    for change in proposals(from_, q.extent, q.unit):
        if agrees(change, base, q.leaf, q.unit):
            return change
    return None


def _own_summed(q: Question) -> Holding | None:
    """The right array with another tensor of its module added."""
    if q.row is None or q.leaf.size > SMALL or q.extent is None:
        return None
    e, home = q.evidence, q.home
    alike = [k for k in e.shapes if e.shapes[k] == e.shapes[home[0]]]
    for base, _ in _bases(q):
        for key in e.nearest(alike, home):
            other = _ruled(q.row, e.array(key))
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


def _own_pieces(q: Question) -> Holding | None:
    found = assemble(q.bits_of(_own(q)), q.bits)
    return Holding(q.home, found) if found and _telling(q, found) else None


def _own_narrowed_pieces(q: Question) -> Holding | None:
    for change, made in _narrowings(q, _own(q)):
        found = assemble(made, q.bits)
        if found and _telling(q, found):
            return Holding(q.home, found, change)
    return None


def _own_changed_rearranged(q: Question) -> Holding | None:
    """The right array with other values and in another order."""
    assert q.expected is not None
    if q.expected.size != q.leaf.size or q.extent is None:
        return None
    return _changed_rearranged(q, q.home, _own(q)) or _changed_rearranged(q, q.home, q.expected)


def _changed_rearranged(q: Question, keys: tuple[str, ...], array: np.ndarray) -> Holding | None:
    from_ = extent(array)
    if from_ is None or q.extent is None or array.size != q.leaf.size:
        return None
    for change in proposals(from_, q.extent, q.unit):
        made = change.apply(single(array))
        if q.narrow is not None:
            made = through(q.narrow)(made)
        bits = canonical(made)
        if equal(_ruled(q.row, bits), q.bits):
            return Holding(keys, None, change)
        found = find(bits, q.bits) or assemble(bits, q.bits)
        if found and not found.partial:
            return Holding(keys, found, change)
    return None


def _telling(q: Question, found: Arrangement) -> bool:
    """Whether so few values cannot agree by chance."""
    if found.partial:
        known = [index[index >= 0] for _, index in found.indices]
        runs = all(len(i) and np.array_equal(i, np.arange(i[0], i[0] + len(i))) for i in known)
        return runs and q.leaf.size >= 4 * TELLING
    regular = found.rule is not None or len(np.unique(q.bits)) >= 2 * TELLING
    return regular and q.leaf.size >= TELLING


def _other_pieces(q: Question) -> Holding | None:
    """Slices of any other source."""
    e, spent = q.evidence, 0
    keys = [k for k in e.shapes if k not in q.home and e.size(k) >= q.leaf.size // 2]
    partial: Holding | None = None
    for key in e.nearest(keys, q.home):
        spent += e.size(key)
        if spent > SEARCHED or q.leaf.size < 4 * TELLING:
            break
        found = assemble(q.bits_of(e.array(key)), q.bits)
        if found and _telling(q, found) and (q.leaf.ndim > 1 or found.rule or found.partial):
            if not found.partial:
                return Holding((key,), found)
            partial = partial or Holding((key,), found)
    return partial


def _other_changed(q: Question) -> Holding | None:
    """Any other tensor of as many elements, with other values."""
    if q.extent is None or q.leaf.size < TELLING:
        return None
    e = q.evidence
    for key in e.nearest([k for k in e.of_size(q.leaf.size) if k not in q.home], q.home):
        from_ = e.extent_of(key)
        if from_ and any(True for _ in proposals(from_, q.extent, q.unit)):
            found = _changed_rearranged(q, (key,), e.array(key))
            if found:
                return found
    return None


#: what is asked about a leaf, in order, and whether it takes a row that tells something
QUESTIONS: tuple[tuple[Callable[[Question], Holding | None], bool], ...] = (
    (_own_cast, True),
    (_own_rearranged, True),
    (_own_narrowed, True),
    (_by_same_rule, False),
    (_by_print, False),
    (_own_part, True),
    (_own_changed, True),
    (_own_summed, True),
    (_own_pieces, True),
    (_own_narrowed_pieces, True),
    (_own_changed_rearranged, True),
    (_other_pieces, False),
    (_other_changed, False),
)
