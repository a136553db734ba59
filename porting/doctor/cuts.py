"""A part of a packed tensor that was mixed up after it was cut, or cut along another axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from porting.doctor.arrange import Arrangement, find
from porting.doctor.bits import fingerprint
from porting.doctor.holding import Holding, Question
from porting.doctor.kinds import Named
from porting.doctor.own import joined_of
from porting.doctor.steps import Step

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
    shape = joined_of(q).shape
    return _box(q.row.rule.apply(np.arange(math.prod(shape)).reshape(shape)), shape)


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


def _box(places: np.ndarray, shape: Sequence[int]) -> Cut | None:
    """The slices that hold these places of an array, if they hold no others.

    >>> _box(np.array([[2, 4], [3, 5]]), (4, 2))
    (slice(1, 3, None), slice(0, 2, None))
    """
    ends = [(int(a.min()), int(a.max()) + 1) for a in np.unravel_index(places, shape)]
    whole = math.prod(stop - start for start, stop in ends) == places.size
    return tuple(slice(*pair) for pair in ends) if whole else None


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
