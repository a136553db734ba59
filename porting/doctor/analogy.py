"""The path of a tensor by analogy: as a neighbour goes from layer to layer, so does it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from porting.doctor.names import numbers, renumber, template
from porting.leaves import Leaf

_LAYER = re.compile(r"(?:.*[._/])?\d+(?=\.)")


class Analogies:
    """The rows of a port by their tensors, and by the layers that these are in.

    Args:
        rows: each of one tensor.

    >>> from porting.layouts import Rule
    >>> names = {"b/0/conv/w": "s.0.0.conv.w", "b/0/bn/w": "s.0.0.bn.w", "b/3/conv/w": "s.1.2.conv.w"}
    >>> rows = [Leaf(path, (key,), Rule("a -> a")) for path, key in names.items()]
    >>> Analogies(rows).path(rows[1], "s.1.2.bn.w")
    'b/3/bn/w'
    """

    def __init__(self, rows: Sequence[Leaf]) -> None:
        self._rows: Mapping[str, Leaf] = {row.sources[0]: row for row in rows}
        self._layers: dict[str, list[str]] = {}
        self._numbered: dict[str, bool] = {}
        self._likes: dict[tuple[str, str], list[Leaf]] = {}
        for row in rows:
            self._likes.setdefault(_form(row), []).append(row)
        for key in self._rows:
            self._layers.setdefault(_layer(key), []).append(key)

    def path(self, like: Leaf, key: str) -> str | None:
        """Where `key` goes if it goes where `like` does, in its own layer.

        The neighbours tell the layer: those that both layers have. Where none does, the
        numbers of the key take the place of those of the like, if its likes are so numbered.
        """
        first = like.sources[0]
        here, there = _layer(first), _layer(key)
        near = self._layers.get(there, []) if here and there and here != there else []
        for beside in near:
            twin = self._rows.get(here + beside[len(there) :])
            if twin is not None and beside != key and twin is not like:
                found = _carried(like.path, twin.path, self._rows[beside].path)
                if found:
                    return found
        return None if near or not self._keeps_numbers(like) else renumber(like.path, first, key)

    def _keeps_numbers(self, like: Leaf) -> bool:
        """Whether most likes of a row have their number in their path as it has its own."""
        if like.path not in self._numbered:
            others = [r for r in self._likes[_form(like)] if r is not like]
            moved = [renumber(like.path, like.sources[0], r.sources[0]) for r in others]
            kept = sum(path == r.path for path, r in zip(moved, others, strict=True))
            self._numbered[like.path] = 2 * kept >= len(others)
        return self._numbered[like.path]


def _form(row: Leaf) -> tuple[str, str]:
    """What the same leaf of all layers shares."""
    return template(row.sources[0]), template(row.path)


@lru_cache(2**16)
def _layer(key: str) -> str:
    """A key up to its last number that is a component; "" if it has none."""
    found = _LAYER.match(key)
    return found.group() if found else ""


def _carried(path: str, twin: str, beside: str) -> str | None:
    """`path` with the numbers changed in which `beside` differs from `twin`."""
    mine, old, new = (numbers(name) for name in (path, twin, beside))
    if template(twin) != template(beside):
        return None
    changed = [n for n, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    if not changed or changed[-1] >= len(mine) or any(mine[n] != old[n] for n in changed):
        return None
    given = iter([new[n] if n in changed else own for n, own in enumerate(mine)])
    return re.sub(r"\d+", lambda _: str(next(given)), path)
