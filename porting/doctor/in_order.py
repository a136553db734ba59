"""Leaves that are in another layer than their number says, put where they belong.

Names and shapes are all that a mapping sees. Where layers are of different shapes and were
taken in another order, the shapes followed the fault, and so would the mapping. The values tell
which layer of the source a leaf holds, and the numbers of both sides which it should hold: the
k-th layer there is the k-th here. A mapping of the leaves so put in order is not misled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.doctor.contents import Contents
from porting.doctor.counting import misplaced, otherwise
from porting.doctor.evidence import Evidence
from porting.doctor.names import numbers
from porting.doctor.places import Form, Number, places
from porting.doctor.series import Series, series_of
from porting.doctor.slots import filled
from porting.doctor.unmapped import conventional
from porting.leaves import Leaf


def out_of_order(tree: Mapping[str, Any], mapping: Any, evidence: Evidence) -> list[Series]:
    """The lists of layers that are in another order, or counted otherwise, than in the source.

    Args:
        tree: the given leaves.
        mapping: what their names and shapes say.
        evidence: the source.
    """
    doubted = _doubted(tree, mapping.leaves)
    if not doubted:
        return []
    found = Contents(evidence)
    inside = [path for path in tree if any(at.form in doubted for at in places(path))]
    keys = {path: found.keys_of(np.asarray(tree[path])) for path in inside}
    lists = series_of(keys, evidence.shapes)
    told = [series if misplaced(series) else otherwise(series) for series in lists]
    return [series for series in told if series is not None]


def in_order(tree: Mapping[str, Any], lists: list[Series], evidence: Evidence) -> dict[str, Any]:
    """The leaves, each where the layer that it holds should be; stand-ins where none is."""
    out = dict(tree)
    for series in lists:
        out |= filled(series, tree, evidence)
    return out


def by_number(
    rows: Mapping[str, Leaf], tree: Mapping[str, Any], lists: list[Series], evidence: Evidence
) -> dict[str, Leaf]:
    """The rows of a mapping, each of these lists with the tensor of the layer of its number.

    Args:
        rows: of a mapping of the leaves in order.
        tree: these leaves.
        lists: that were put in order.
        evidence: the source.
    """
    out = dict(rows)
    for series in lists:
        for column in series.columns:
            kinds = series.kinds(column)
            for number, path in column.paths.items():
                there = series.there[series.here[number]]
                keys = [there[kind] for kind, _ in kinds.most_common() if kind in there]
                row = _told(path, keys, rows, evidence) if keys else None
                made = evidence.expected(row)
                if row is not None and made is not None and made.shape == tree[path].shape:
                    out[path] = row
    return out


def _told(path: str, keys: list[str], rows: Mapping[str, Any], evidence: Evidence) -> Leaf | None:
    """What a leaf is that should hold one of `keys`, the likeliest first; None if it is known."""
    row = rows.get(path)
    if row is None or (len(row.sources) == 1 and row.sources[0] not in keys):
        return conventional(path, keys[0], rows, evidence)
    if getattr(row, "confident", True):
        return None
    fits = [one for one in (row, *row.alternatives) if set(one.sources) <= set(keys)]
    if len({one.sources for one in fits}) != 1:
        return None
    sure = {"confident": True, "alternatives": ()}
    return replace(row, sources=fits[0].sources, rule=fits[0].rule, join=fits[0].join, **sure)


def _doubted(tree: Mapping[str, Any], rows: Mapping[str, Any]) -> set[Form]:
    """Lists with a leaf that no tensor fits, or whose leaves are not in the order of the source."""
    columns: dict[tuple[Form, Form], list[tuple[Number, Number | None]]] = defaultdict(list)
    for path in tree:
        held = numbers(rows[path].sources[0]) if path in rows else None
        for at in places(path):
            columns[at.form, at.rest].append((at.number, held))
    doubted = set()
    for (form, _), column in columns.items():
        order = [there for _, there in sorted(column, key=lambda pair: pair[0])]
        known = [there for there in order if there is not None]
        if len(known) < len(order) or known != sorted(known):
            doubted.add(form)
    return doubted
