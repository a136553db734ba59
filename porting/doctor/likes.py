"""Leaves whose own shape misled the mapping: they should be what their likes are.

A kernel with its axes in another order has another shape, and a mapping that knows shapes
alone finds a rule that leads there. The same leaf of other layers, or the other parts of
the same packed tensor, tell the odd one out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from porting.doctor.names import template
from porting.errors import PortingError
from porting.layouts import Rule
from porting.leaves import STACK, Leaf

Shapes = Mapping[str, Sequence[int]]

#: the number of the part of a packed axis that a rule takes
_PART = re.compile(r"(?<=p=)\d+")


def likened(rows: Mapping[str, Leaf], shapes: Shapes, given: Shapes) -> dict[str, Leaf]:
    """The rows, each that leads to an odd shape given the rule of its likes.

    Args:
        rows: what the names and the shapes say.
        shapes: of the source.
        given: shapes of the leaves.

    >>> rules = ["(h d) i -> i h d"] * 2 + ["(h d) i -> h d i"]
    >>> rows = [Leaf(f"{n}/q", (f"{n}.q",), Rule(r, {"h": 2})) for n, r in enumerate(rules)]
    >>> shapes, given = {f"{n}.q": (6, 5) for n in range(3)}, {f"{n}/q": (5, 2, 3) for n in range(2)}
    >>> str(likened({r.path: r for r in rows}, shapes, {**given, "2/q": (2, 3, 5)})["2/q"].rule)
    '(h d) i -> i h d; h=2'
    """
    out = dict(rows)
    for group in _groups(rows.values(), shapes):
        usual = _usual(group)
        for row in group:
            rule = _as_in(usual, row) if usual else row.rule
            if rule != row.rule and _shape(rule, row, shapes) != tuple(given[row.path]):
                out[row.path] = replace(row, rule=rule)
    return out


def _groups(rows: Iterable[Leaf], shapes: Shapes) -> Iterable[list[Leaf]]:
    """Rows of one leaf in all layers, and of all parts of one tensor; each group at least three."""
    found: dict[Hashable, list[Leaf]] = {}
    for row in rows:
        sizes = tuple(tuple(shapes.get(key, ())) for key in row.sources)
        keys = tuple(map(template, row.sources))
        found.setdefault((template(row.path), keys, sizes, row.join.name), []).append(row)
        if _PART.search(row.rule.pattern):
            found.setdefault((row.sources, row.join.name), []).append(row)
    return [group for group in found.values() if len(group) > 2]


def _usual(group: Sequence[Leaf]) -> Rule | None:
    """The rule of at least two thirds of a group, but for the part that is taken."""
    votes = Counter(_PART.sub("", row.rule.pattern) for row in group)
    most, count = votes.most_common(1)[0]
    like = next(row.rule for row in group if _PART.sub("", row.rule.pattern) == most)
    return like if 3 * count >= 2 * len(group) else None


def _as_in(usual: Rule, row: Leaf) -> Rule:
    """The rule of the likes of a row, with the part that the row takes."""
    own = _PART.search(row.rule.pattern)
    pattern = _PART.sub(own.group(), usual.pattern) if own else usual.pattern
    return replace(usual, pattern=pattern)


def _shape(rule: Rule, row: Leaf, shapes: Shapes) -> tuple[int, ...] | None:
    """The shape that a rule makes of the tensors of a row; the row's own where it does not fit."""
    try:
        lead = (len(row.sources),) if row.join is STACK else ()
        return rule.shape((*lead, *shapes[row.sources[0]]))
    except PortingError:
        return None
