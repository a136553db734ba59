"""The leaves of a list, each put where the layer that it holds should be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from porting.doctor.evidence import Evidence
from porting.doctor.names import last, template
from porting.doctor.series import SURE, Column, Series, Within
from porting.doctor.style import USUAL
from porting.mapping.names import natural

Shape = tuple[int, ...]


def filled(series: Series, tree: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The leaves of a list where they belong; a stand-in of the right shape for what is lost.

    Args:
        series: the list.
        tree: the given leaves.
        evidence: the source.
    """
    usual, out = series.usual(), {}
    told: dict[int, dict[str, str]] = {}
    for column in series.columns:
        found = _owners(column, series, usual)
        likes = [
            (evidence.shapes[key], tuple(tree[path].shape)) for path, key in series.inside(column)
        ]
        for number, path in column.paths.items():
            rank = series.here[number]
            if rank in found:
                out[path] = tree[found[rank]]
                continue
            key = told.setdefault(rank, _tensors(series, rank)).get(path)
            shape = _shape(path, evidence.shapes[key], likes) if key else None
            if shape is not None:
                out[path] = np.broadcast_to(np.zeros((), tree[path].dtype), shape)
    return out


def _owners(column: Column, series: Series, usual: Mapping[int, int]) -> dict[int, str]:
    """Rank of a layer -> the path of the leaf that is this layer's, of those that are found.

    A leaf whose values tell nothing goes where the leaves beside it go.
    """
    paths = {series.here[number]: path for number, path in column.paths.items()}
    held = {path: series.held(column, path) for path in paths.values()}
    found = {rank: path for rank, path in paths.items() if rank in held[path]}
    for rank, path in paths.items():
        if rank not in held[path]:
            free = sorted(r for r in held[path] if r in paths and r not in found)
            found |= {free[0]: path} if free else {}
    unknown = [rank for rank, path in paths.items() if not column.keys[path]]
    for rank in list(unknown):
        place = next((r for r in (usual.get(rank, rank), rank) if r not in found), None)
        if place in paths:
            found[place] = paths[rank]
            unknown.remove(rank)
    free = [rank for rank in paths if rank not in found]
    return found | ({free[0]: paths[unknown[0]]} if len(free) == len(unknown) == 1 else {})


def _tensors(series: Series, rank: int) -> dict[str, str]:
    """Path -> the key that it should hold, of the leaves of one layer, told by the other layers.

    Numbered siblings (`bn1`, `bn2`) follow each other on both sides, wherever they start.
    """
    keys, groups = series.there[rank], defaultdict(list)
    for column in series.columns:
        path = next((p for number, p in column.paths.items() if series.here[number] == rank), None)
        if path:
            groups[template("/".join(column.rest))].append((path, series.kinds(column)))
    found: dict[str, str] = {}
    for group in groups.values():
        votes = Counter(_kind(what) for _, kinds in group for what in kinds.elements())
        likes = [what for what in keys if votes and _kind(what) == votes.most_common(1)[0][0]]
        if len(likes) == len(group):
            paths = sorted((path for path, _ in group), key=natural)
            found |= zip(paths, (keys[what] for what in sorted(likes, key=_natural)), strict=True)
        else:
            there = (
                (path, next((w for w, _ in k.most_common() if w in keys), None))
                for path, k in group
            )
            found |= {path: keys[what] for path, what in there if what}
    return found | _left_over(
        [x for group in groups.values() for x in group if x[0] not in found],
        {w: k for w, k in keys.items() if k not in found.values()},
    )


def _left_over(
    leaves: Sequence[tuple[str, Counter[Within]]], keys: Mapping[Within, str]
) -> dict[str, str]:
    """A leaf and a tensor of one kind that nothing else is left for."""
    kinds = {path: {(what[0][-1], what[1]) for what in votes} for path, votes in leaves}
    found = {}
    for path, mine in kinds.items():
        fits = [key for (rest, rank), key in keys.items() if (rest[-1], rank) in mine]
        alone = not any(mine & other for p, other in kinds.items() if p != path)
        if len(fits) == 1 and alone:
            found[path] = fits[0]
    return found


def _kind(what: Within) -> tuple[str, int]:
    """What numbered siblings have in common."""
    return template(".".join(what[0])), what[1]


def _natural(what: Within) -> tuple[tuple[int, int, str], ...]:
    return natural(".".join(what[0]))


def _shape(path: str, source: Shape, likes: Sequence[tuple[Shape, Shape]]) -> Shape | None:
    """The shape of a leaf that is made of a tensor as its likes are, or None if nothing tells.

    Args:
        path: of the leaf.
        source: the shape of its tensor.
        likes: (shape of the tensor, shape of the leaf) of the same leaf in other layers.

    >>> _shape("a/kernel", (6, 2), [((5, 3), (3, 5)), ((4, 4), (4, 4))])
    (2, 6)
    """
    rank = len(source)
    votes = Counter(
        order
        for have, given in likes
        if len(have) == len(given) == rank <= max(USUAL)
        for order in permutations(range(rank))
        if tuple(have[axis] for axis in order) == given
    )
    if max(votes.values(), default=0) < SURE * len(likes):
        same = {given for have, given in likes if have == source}
        return same.pop() if len(same) == 1 else None
    usual = USUAL.get(rank) if last(path) == "kernel" else tuple(range(rank))
    order = max(votes, key=lambda order: (votes[order], order == usual))
    return tuple(source[axis] for axis in order)
