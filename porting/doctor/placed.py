"""Modules that names and shapes do not tell apart: all leaves of one decide together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from porting.doctor.names import last, parent
from porting.leaves import Leaf

Holds = Callable[[Leaf], bool]
Shapes = Mapping[str, Sequence[int]]

TOGETHER = 2  #: leaves of a module whose values name its source


def placed(rows: Mapping[str, Leaf], shapes: Shapes, holds: Holds) -> dict[str, Leaf]:
    """The rows, each module that is a question read from the source that its values are of.

    One leaf may have been exchanged with another; several of a module that hold the tensors
    of one source module say which module it is, and so what the others should be. A leaf that
    was only given what was left over is given what is left over then.

    Args:
        rows: path -> row; one with alternatives is a question.
        shapes: of the source.
        holds: whether the leaf of a row has the values that the row makes.

    >>> from porting.layouts import Rule
    >>> from porting.mapping.result import MappedLeaf
    >>> def asked(name, first, second):
    ...     a, b = (Leaf(f"bn/{name}", (f"{key}.{name}",), Rule("a -> a")) for key in (first, second))
    ...     return MappedLeaf(a.path, a.sources, a.rule, confident=False, alternatives=(b,))
    >>> rows = {f"bn/{name}": asked(name, "norm0", "norm1") for name in ("bias", "mean", "var")}
    >>> found = placed(rows, {}, lambda row: row.sources[0] in ("norm1.bias", "norm1.mean"))
    >>> found["bn/var"].sources, found["bn/var"].confident
    (('norm1.var',), True)
    """
    modules: dict[str, list[Leaf]] = {}
    for row in rows.values():
        if getattr(row, "alternatives", ()):
            modules.setdefault(parent(row.path), []).append(row)
    chosen = {m: found for m, members in modules.items() if (found := _chosen(members, holds))}
    taken = Counter(next(iter(found.values())).sources for found in chosen.values())
    alone = (f for f in chosen.values() if taken[next(iter(f.values())).sources] == 1)
    moved = {path: row for found in alone for path, row in found.items()}
    return {**rows, **_left_over(rows, moved, shapes), **moved}


def _left_over(
    rows: Mapping[str, Leaf], moved: Mapping[str, Leaf], shapes: Shapes
) -> dict[str, Leaf]:
    """Unsure rows of a tensor that is another's now, with the one tensor that became free."""
    now = {key for row in moved.values() for key in row.sources}
    free = {key for path in moved for key in rows[path].sources} - now
    found = {}
    for path, row in rows.items():
        if path in moved or getattr(row, "confident", True) or not now.issuperset(row.sources):
            continue
        (key, *more) = row.sources
        fits = [k for k in free if last(k) == last(key) and shapes[k] == shapes[key]]
        if len(fits) == 1 and not more:
            found[path] = replace(row, sources=(fits[0],))
    return found


def _chosen(members: Sequence[Leaf], holds: Holds) -> dict[str, Leaf]:
    """The rows of one module, from the source that several of its leaves and no others hold."""
    readings = {row.path: _readings(row) for row in members}
    votes = Counter(
        source for by in readings.values() for source, option in by.items() if holds(option)
    )
    (source, most), *others = votes.most_common(2) or [("", 0)]
    if most < TOGETHER or (others and others[0][1] == most):
        return {}
    return {path: by[source] for path, by in readings.items() if source in by}


def _readings(row: Leaf) -> dict[str, Leaf]:
    """Source module -> the row read from it, no longer a question."""
    options = {parent(o.sources[0]): o for o in (*row.alternatives, row)}  # type: ignore[attr-defined]
    return {
        module: replace(
            row, sources=option.sources, rule=option.rule, join=option.join,
            confident=True, alternatives=(),
        )  # type: ignore[call-arg]
        for module, option in options.items()
    }  # fmt: skip
