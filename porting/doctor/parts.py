"""Parts of a packed tensor that no leaf reads: where they would go, told by the other parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import takewhile

from porting.doctor.names import last, parent
from porting.leaves import Leaf

_PICK = re.compile(r"(\w+)=(\d+)(?![\d:])")


def missing_parts(rows: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The leaves that would read the parts that are left over, path -> row.

    A gate that is missing from one matrix is named after the same gate of another.

    >>> from porting.layouts import Rule
    >>> def row(path, key, part):
    ...     return Leaf(f"{path}/kernel", (key,), Rule(f"(p={part} o) i -> i o", {"p": 2}))
    >>> table = [row("ii", "w_ih", 0), row("hi", "w_hh", 0), row("hf", "w_hh", 1)]
    >>> list(missing_parts({r.path: r for r in table}))
    ['if/kernel']
    """
    groups: dict[tuple[object, ...], dict[int, Leaf]] = {}
    read: dict[str, set[int]] = {}
    for row in rows.values():
        picks = _PICK.findall(row.rule.pattern)
        part = int(picks[0][1]) if len(picks) == 1 else -1
        for key in row.sources:
            read.setdefault(key, set()).add(part)
        if part >= 0:
            form = _PICK.sub(r"\1", row.rule.pattern)
            groups.setdefault((row.sources, row.join.name, form), {})[part] = row
    found: dict[str, Leaf] = {}
    for have in groups.values():
        for path, row in _left_over(have, list(groups.values()), read):
            if path not in rows:
                found.setdefault(path, row)
    return found


def _left_over(
    have: Mapping[int, Leaf], groups: list[dict[int, Leaf]], read: Mapping[str, set[int]]
) -> Iterator[tuple[str, Leaf]]:
    """The parts of one packed tensor that no leaf reads, each with the path that is due."""
    at, like = next(iter(have.items()))
    name = _PICK.findall(like.rule.pattern)[0][0]
    count = dict(like.rule.sizes).get(name, 0)
    taken = {part for key in like.sources for part in read[key]}
    for part in set(range(count)) - taken if -1 not in taken else ():
        for other in groups:
            path = _alike(like.path, other[at].path, other[part].path) if at in other and part in other else ""  # fmt: skip
            if path:
                pattern = _PICK.sub(f"{name}={part}", like.rule.pattern)
                yield path, replace(like, path=path, rule=replace(like.rule, pattern=pattern))
                break


def _alike(path: str, twin: str, other: str) -> str:
    """`path` with its module renamed as from `twin` to `other`.

    >>> _alike("cell/ii/kernel", "cell/hi/bias", "cell/hg/bias")
    'cell/ig/kernel'
    """
    mine, a, b = map(parent, (path, twin, other))
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    old, new = a[start:], b[start:]
    if last(twin) != last(other) or not old or not mine.endswith(old):
        return ""
    return f"{mine.removesuffix(old)}{new}/{last(path)}"
