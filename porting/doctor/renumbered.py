"""Rows brought back to their layer, where a fault led the mapping to another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from porting.doctor.names import in_place, numbers, template
from porting.leaves import Leaf

Shapes = Mapping[str, Sequence[int]]
Holds = Callable[[Leaf], bool]


def renumbered(
    rows: Mapping[str, Leaf], shapes: Shapes, holds: Holds | None = None
) -> dict[str, Leaf]:
    """The rows, each that leaves its layer brought back, if layers keep their number here.

    That most do, its likes among them, tells it, or else the values of those that do not: where a layer is missing,
    all others may have been taken for the one before. A leaf that has the values of its row
    stays: layers in another order are told by `in_order`, from all leaves of a list.

    Args:
        rows: path -> row.
        shapes: of the source.
        holds: whether the leaf of a row has the values that the row makes.

    >>> from porting.layouts import Rule
    >>> names = [("h/0/w", "h.1.w"), *((f"h/{n}/w", f"h.{n}.w") for n in (2, 3, 4, 5))]
    >>> rows = {path: Leaf(path, (key,), Rule("a -> a")) for path, key in names}
    >>> shapes = {f"h.{n}.w": (3,) for n in range(6)}
    >>> renumbered(rows, shapes)["h/0/w"].sources
    ('h.0.w',)
    """
    told = {p: r for p, r in rows.items() if numbers(r.sources[0])}
    odd = [p for p, r in told.items() if not in_place(p, r.sources[0])]
    better = {path: row for path in odd if (row := _in_layer(rows[path], shapes))}
    held = {path for path in better if holds is not None and holds(rows[path])}
    if 5 * len(odd) > len(told):
        moved = sum(map(holds, better.values())) if holds is not None else 0
        better = better if moved > len(held) else {}
    else:
        kept = {_list_of(told[path]) for path in told.keys() - set(odd)}
        better = {path: row for path, row in better.items() if _list_of(rows[path]) in kept}
    return {**rows, **{path: row for path, row in better.items() if path not in held}}


def _list_of(row: Leaf) -> tuple[str, str]:
    """What rows share that must keep their layers alike: the lists that they are in on both sides.

    Where a list of lists is one list, or has more numbers, only the same leaf of other layers
    tells.
    """
    names = template(row.path), template(row.sources[0])
    if names[0].count("#") != names[1].count("#"):
        return names
    path, key = (name.rpartition("#")[0] for name in names)
    return path, key


def _in_layer(row: Leaf, shapes: Shapes) -> Leaf | None:
    """The row with the source that has the numbers of its path, or None if there is none."""
    keys = tuple(key for source in row.sources if (key := _numbered(source, row.path, shapes)))
    return sure(replace(row, sources=keys)) if len(keys) == len(row.sources) else None


def sure(row: Leaf) -> Leaf:
    """The row without the doubt that an inferred one may have."""
    sure = {"confident": True, "alternatives": ()} if hasattr(row, "confident") else {}
    return replace(row, **sure)  # type: ignore[arg-type]


def _numbered(source: str, path: str, shapes: Shapes) -> str | None:
    """The key like `source` that has the numbers of `path`, if there is one of its shape."""
    shape = tuple(shapes[source])
    alike = [k for k in shapes if template(k) == template(source) and tuple(shapes[k]) == shape]
    there = [k for k in alike if in_place(path, k)]
    return max(there, key=lambda k: _shared(numbers(k), numbers(source)), default=None)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """In how many places two keys of one form have the same number."""
    return sum(x == y for x, y in zip(a, b, strict=True))
