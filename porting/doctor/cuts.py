"""A part of a packed tensor that was mixed up after it was cut, or cut along another axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from porting.doctor.arrange import Arrangement, find
from porting.doctor.bits import fingerprint
from porting.doctor.holding import Holding, Question
from porting.doctor.kinds import Named
from porting.doctor.own import joined_of
from porting.doctor.steps import Step
from porting.layouts import Axis, Rule

Cut = tuple[slice, ...]

#: kind of a whole rearrangement -> kind of wrong layout
MIXED = {"reshape": "reshaped", "fortran": "fortran", "flip": "flipped"}


def own_cut(q: Question) -> Holding | None:
    """The part that the leaf should be, its elements in any whole order."""
    own = _own(q)
    return _rearranged(q, own, None) if own else None


def cut_elsewhere(q: Question) -> Holding | None:
    """As much of the packed tensor as the leaf should be, cut along another axis."""
    own = _own(q)
    if own is None:
        return None
    found = (_rearranged(q, cut, named) for cut, named in _others(own, joined_of(q).shape))
    return next((holding for holding in found if holding), None)


def _own(q: Question) -> Cut | None:
    """Which part of its source the leaf should be, if that is one block of it."""
    if q.row is None or q.expected is None or not q.row.rule.selects:
        return None
    if q.expected.size != q.leaf.size:
        return None
    return _box(q.row.rule, joined_of(q).shape)


def _rearranged(q: Question, cut: Cut, named: Named | None) -> Holding | None:
    """The leaf as a part of its source in some whole order."""
    part = q.bits_of(joined_of(q)[cut])
    found = find(part, q.bits) if fingerprint(part) == fingerprint(q.bits) else None
    if found is None:
        return None
    kind = MIXED.get(found.kind, "rearranged")
    also = () if found.kind in ("identity", "transpose") else (kind,)
    named = replace(named, also=also) if named else Named(kind)
    steps = (Step("index", cut), *found.steps)
    return Holding(q.home, Arrangement(steps, None, found.kind), named=named)


def _box(rule: Rule, shape: Sequence[int]) -> Cut | None:
    """The block of an array of `shape` that a rule takes, or None if that is no one block.

    >>> _box(Rule("(p=1 o) i -> i o", {"p": 3}), (12, 5))
    (slice(4, 8, None), slice(0, 5, None))
    >>> _box(Rule("(h p=1 d) i -> i h d", {"p": 3, "h": 2}), (12, 5)) is None
    True
    """
    sizes = rule.axis_sizes(shape)
    found = [_block(axis, n, sizes) for axis, n in zip(rule.sides[0], shape, strict=True)]
    cut = tuple(block for block in found if block is not None)
    return cut if len(cut) == len(shape) else None


def _block(axis: Axis, length: int, sizes: Mapping[str, int]) -> slice | None:
    """What is taken of one axis, if it is one block: part of all, or of its outermost atom."""
    if axis.parts and axis.take is not None:
        return _scaled(axis.take, length, 1)
    first, *rest = axis.atoms
    if any(atom.take is not None for atom in rest):
        return None
    if first.take is None:
        return slice(0, length)
    return _scaled(first.take, length, length // sizes.get(first.name, length))


def _scaled(take: int | slice, length: int, each: int) -> slice:
    """A number or a range of blocks, `each` long, as a range of slices."""
    if isinstance(take, int):
        return slice(take * each, (take + 1) * each)
    start, stop, _ = take.indices(length // each)
    return slice(start * each, stop * each)


def _others(own: Cut, shape: Sequence[int]) -> Iterator[tuple[Cut, Named]]:
    """Parts of the size of the right one along the other axes, each with its name."""
    axis = next((a for a, n in enumerate(shape) if own[a] != slice(0, n)), None)
    if axis is None or shape[axis] % (size := own[axis].stop - own[axis].start):
        return
    count = shape[axis] // size
    for other in range(len(shape)):
        if other != axis and shape[other] % count == 0:
            each = shape[other] // count
            for part in range(count):
                cut = [slice(0, n) for n in shape]
                cut[other] = slice(part * each, (part + 1) * each)
                yield tuple(cut), Named("split", f"Cut along axis {other}, expected axis {axis}.")
