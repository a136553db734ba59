"""Leaves that are not there, and where the tensors of a source were expected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from porting.leaves import Leaf

_NUMBER = re.compile(r"\d+")


def template(name: str) -> str:
    """`name` with every number replaced by '#'.

    >>> template("encoder.layer.10.bias")
    'encoder.layer.#.bias'
    """
    return _NUMBER.sub("#", name)


def numbers(name: str) -> tuple[int, ...]:
    """The numbers in `name`.

    >>> numbers("stages.1.layers.0")
    (1, 0)
    """
    return tuple(map(int, _NUMBER.findall(name)))


def parent(name: str) -> str:
    """`name` without its last part, '.' or '/' between parts.

    >>> parent("a.b.weight"), parent("a/b/kernel")
    ('a.b', 'a/b')
    """
    return re.split(r"[./](?=[^./]*$)", name)[0]


def predicted_path(key: str, rows: Mapping[str, Leaf]) -> tuple[str, Leaf] | None:
    """Where `key` would go, judged by its siblings in other layers or in its own module.

    >>> from porting.layouts import Rule
    >>> row = Leaf("h_0/ln/bias", ("h.0.ln.bias",), Rule("a -> a"))
    >>> predicted_path("h.1.ln.bias", {row.path: row})[0]
    'h_1/ln/bias'
    """
    single = [row for row in rows.values() if len(row.sources) == 1]
    return _from_layers(key, single) or _from_module(key, single)


def _from_layers(key: str, rows: Iterable[Leaf]) -> tuple[str, Leaf] | None:
    votes: Counter[str] = Counter()
    found: dict[str, Leaf] = {}
    for row in rows:
        if template(row.sources[0]) == template(key) and row.sources[0] != key:
            path = _renumbered(row.path, numbers(row.sources[0]), numbers(key))
            if path:
                votes[path] += 1
                found[path] = row
    return (best := votes.most_common(1)[0][0], found[best]) if votes else None


def _renumbered(path: str, old: tuple[int, ...], new: tuple[int, ...]) -> str | None:
    """`path` with the numbers that tell two source keys apart put in their place."""
    have = list(numbers(path))
    differ = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    for i in differ:
        places = [j for j, n in enumerate(have) if n == old[i]]
        if not places:
            return None
        have[min(places, key=lambda j: abs((len(have) - j) - (len(old) - i)))] = new[i]
    rest = iter(have)
    return _NUMBER.sub(lambda _: str(next(rest)), path)


def _from_module(key: str, rows: Iterable[Leaf]) -> tuple[str, Leaf] | None:
    """Where a sibling of the same module went, with the name that this leaf has elsewhere."""
    rows = list(rows)
    last = key.rsplit(".", 1)[-1]
    siblings = [row for row in rows if parent(row.sources[0]) == parent(key)]
    for sibling in siblings:
        kind = (_last(sibling.path), sibling.sources[0].rsplit(".", 1)[-1])
        for row in rows:
            twins = (_last(row.path), row.sources[0].rsplit(".", 1)[-1]) == kind
            if twins and row is not sibling:
                other = next(
                    (r for r in rows if r.sources[0] == f"{parent(row.sources[0])}.{last}"), None
                )
                if other:
                    return _moved(sibling.path, row.path, other.path), other
    return None


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _moved(path: str, twin: str, other: str) -> str:
    """`path` with its collection and last name as they go from `twin` to `other`."""
    start, here = path.split("/")[0], other.split("/")[0]
    end = f"{parent(path)}/{_last(other)}"
    return here + end[len(start) :] if twin.split("/")[0] == start else end
