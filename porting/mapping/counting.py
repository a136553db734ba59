"""Whether the numbers of auto-named modules (`Dense_0`) follow the order of the source.

Flax counts modules as they are called, and a source that keeps its order of definition
tells which of several equal layers comes first. A tree that somebody numbered along its
sorted names, or at will, tells nothing of the kind. Layers of different shapes, which no
order decides, show which it is: where they contradict the order, no layer is placed by it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from porting.leaves import Leaf
from porting.mapping.match import CONVENTION, Pair, counted_before
from porting.mapping.names import natural
from porting.mapping.result import MappedLeaf
from porting.mapping.units import Unit

STRAY = 0.2  #: a share of contradictions that definition and call order may have between them
NO_ORDER = "nothing shows that the target is numbered in the order of the source"


@dataclass(frozen=True)
class Order:
    """How often neighbours of different shapes stand in the order of the source.

    Attributes:
        kept: kinds of neighbours that do.
        broken: kinds of neighbours that do not.
        kinds: number of different layers.
    """

    kept: int
    broken: int
    kinds: int = 2


def order_of(pairs: Sequence[Pair]) -> Order:
    """How the numbers of auto-named targets agree with the source's order.

    Only neighbours of different shapes are asked: equal ones were placed by the order.
    """
    seen: dict[bool, set] = {True: set(), False: set()}
    for members in _counted(pairs).values():
        each = [members[n] for n in sorted(members)]
        for one, other in pairwise(each):
            kinds = _kind(one), _kind(other)
            before = _goes_first(_first(one), _first(other)) if kinds[0] != kinds[1] else None
            if before is not None:
                seen[before].add(kinds)
    return Order(len(seen[True]), len(seen[False]), len({_kind([pair]) for pair in pairs}))


def follows(defined: Order, by_name: Order) -> bool:
    """Whether the target is counted in the order of the source, and not along its names.

    Where all layers are equal there is nothing to ask: then Flax's own way is believed.

    >>> follows(Order(9, 1), Order(4, 6)), follows(Order(9, 1), Order(10, 0))
    (True, False)
    """
    if defined.kinds == 1:
        return True
    share = defined.broken / max(1, defined.broken + defined.kept)
    return share <= STRAY and defined.broken < by_name.broken


def by_name(sources: Iterable[Unit]) -> list[Unit]:
    """The source as a walk along its sorted names counts it: 0, 1, 10, 11, 2.

    >>> from porting.mapping.units import units
    >>> import numpy as np
    >>> found = units({f"h.{i}.w": np.ones(2) for i in range(11)}, ordered=True)
    >>> [str(unit) for unit in by_name(found)][9:]
    ['h.10', 'h.2']
    """
    sources = list(sources)
    numbers: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for unit in sources:
        for depth, name in enumerate(unit.path):
            if name.isdigit():
                numbers[unit.path[:depth]].add(name)
    ranks = {
        (*parent, name): str(rank)
        for parent, names in numbers.items()
        for rank, name in enumerate(sorted(names))
    }
    keys = [next(iter(unit.parts.values())).sources[0] for unit in sources]
    place = {key: i for i, key in enumerate(sorted(keys, key=lambda key: re.split("[./]", key)))}
    return [
        replace(
            unit,
            path=tuple(ranks.get(unit.path[: d + 1], c) for d, c in enumerate(unit.path)),
            order=place[key],
        )
        for unit, key in zip(sources, keys, strict=True)
    ]


def reread(
    sure: dict[str, MappedLeaf],
    rival: dict[str, MappedLeaf],
    readings: Sequence[dict[str, MappedLeaf]],
) -> dict[str, MappedLeaf]:
    """The leaves on which two ways of counting agree, and questions for the rest.

    Args:
        sure: the leaves, as sure as they are if nobody contradicts.
        rival: the leaves under the other way of counting.
        readings: leaves under every way of counting, the likely one first.
    """
    made = {}
    for path, leaf in sure.items():
        found = [reading[path] for reading in readings if path in reading] or [leaf]
        if leaf.confident and _same(leaf, rival.get(path, leaf)):
            made[path] = leaf
            continue
        first = found[0]
        reason = first.reason if not first.confident else f"{first.sources[0]} fits: {NO_ORDER}"
        others = [other for each in (*found, leaf) for other in (each, *each.alternatives)]
        made[path] = MappedLeaf(path, first.sources, first.rule, first.join, False, reason,
                                tuple(_distinct(others, first)))  # fmt: skip
    return made


def _distinct(readings: Iterable[Leaf], chosen: Leaf) -> list[Leaf]:
    kept: list[Leaf] = []
    for leaf in readings:
        if not any(_same(leaf, other) for other in [chosen, *kept]):
            kept.append(Leaf(leaf.path, leaf.sources, leaf.rule, leaf.join))
    return kept


def _same(one: Leaf, other: Leaf) -> bool:
    return (one.sources, one.rule, one.join.name) == (other.sources, other.rule, other.join.name)


def _counted(pairs: Sequence[Pair]) -> dict[tuple[str, ...], dict[int, list[Pair]]]:
    """Path of an auto-named list -> number -> the pairs of that member."""
    lists: dict[tuple[str, ...], dict[int, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        path = pair.target.path
        for depth in range(1, len(path)):
            if path[depth].isdigit() and path[depth - 1][:1].isupper():
                lists[path[:depth]][int(path[depth])].append(pair)
    return lists


def _kind(member: list[Pair]) -> tuple:
    """What a member is made of: the shapes of its leaves."""
    shapes = ((slot, part.shape) for pair in member for slot, part in pair.target.parts.items())
    return tuple(sorted(shapes))


def _first(member: list[Pair]) -> Unit:
    units = [pair.source for pair in member]
    return min(units, key=lambda unit: (unit.order, natural(str(unit))))


def _goes_first(a: Unit, b: Unit) -> bool | None:
    """Whether the source has `a` before `b`, by number, by order or by convention."""
    counted = counted_before(a, b)
    if counted is not None:
        return counted
    if a.order >= 0 and b.order >= 0 and a.order != b.order:
        return a.order < b.order
    first, second = CONVENTION.get(a.role), CONVENTION.get(b.role)
    if first is None or second is None or first == second or a.path[:-1] != b.path[:-1]:
        return None
    return first < second
