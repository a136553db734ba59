"""Packed tensors that were taken apart in another known way than the usual one.

A packed gate and up (or q, k and v) lie in blocks in most checkpoints; in some they are
interleaved row by row, or by head or group. Which of them the source means, no name says.
Where all parts together are one such reading, exactly and completely, the port may be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.doctor.bits import canonical, equal
from porting.doctor.evidence import Evidence
from porting.doctor.names import parent, template
from porting.doctor.values import narrow_type, seems_narrow, single, through
from porting.doctor.verdict import LeafVerdict
from porting.layouts import Rule
from porting.leaves import ONLY, Leaf

Rows = dict[str, Leaf]

#: what takes one block of a packed axis in a rule: the block, its number, what is in it
_BLOCK = re.compile(r"\((\w+)=(\d+) (\w+)\)")
_GROUP = "group"  #: the axis of the groups in which parts are interleaved
#: keys of PyTorch's own modules, which pack in blocks and in no other way
_TOLD = re.compile(r"(in_proj_(weight|bias)|(weight|bias)_[ih]h(_l\d+)?(_reverse)?)$")


def reread(rows: Mapping[str, Leaf], tree: Mapping[str, Any], evidence: Evidence) -> Rows:
    """The rows of packed tensors that the whole port reads in another known way, in that way.

    One part that is there as it is usual decides for the usual way, in whatever layer it is.

    Args:
        rows: what the names say.
        tree: the given leaves.
        evidence: the source.
    """

    def held(row: Leaf) -> bool:
        return row.path in tree and has_values(row, np.asarray(tree[row.path]), evidence)

    out: Rows = {}
    for module in _modules(rows).values():
        if any(held(row) for parts in module.values() for row in parts.values()):
            continue
        for key, parts in module.items():
            others = next((m for m in _others(parts, evidence) if all(map(held, m.values()))), None)
            likes = [p for k, p in module.items() if template(k) == template(key)]
            if others and _complete(parts):
                groups = _groups(next(iter(others.values())))
                for like in likes:
                    out |= {path: _interleaved(row, groups, evidence) for path, row in like.items()}
    return out


def questions_of(
    verdicts: Mapping[str, LeafVerdict], other: Mapping[str, Leaf]
) -> dict[str, LeafVerdict]:
    """The verdicts, each leaf that is right only by another reading made a question."""
    out = dict(verdicts)
    for path, row in other.items():
        if path in out and out[path].status == "ok":
            note = (
                f"With its likes it is all of {row.sources[0]}, the parts interleaved ({row.rule}): "
                "right if the source is packed so, wrong if in blocks. The names do not tell."
            )
            out[path] = replace(out[path], status="ambiguous", kind="split", note=note)
    return out


def _modules(rows: Mapping[str, Leaf]) -> dict[str, dict[str, Rows]]:
    """Like modules of all layers -> packed tensor -> the rows that take its blocks."""
    found: dict[str, dict[str, Rows]] = {}
    for path, row in rows.items():
        key = row.sources[0]
        if row.join is ONLY and _BLOCK.search(row.rule.pattern) and not _TOLD.search(key):
            found.setdefault(template(parent(key)), {}).setdefault(key, {})[path] = row
    return found


def _complete(parts: Mapping[str, Leaf]) -> bool:
    """Whether the rows take every block once."""
    picks = [_BLOCK.findall(row.rule.pattern)[0] for row in parts.values()]
    sizes = dict(next(iter(parts.values())).rule.sizes)
    return sorted(int(number) for _, number, _ in picks) == list(range(sizes[picks[0][0]]))


def has_values(row: Leaf, leaf: np.ndarray, evidence: Evidence) -> bool:
    """Whether a leaf has the values that its row makes, in its own type or through a narrow one.

    >>> row, evidence = Leaf("b", ("a",), Rule("n -> n")), Evidence({"a": np.float32([0.1, 0.2])})
    >>> has_values(row, np.float16([0.1, 0.2]), evidence), has_values(row, np.float32([1, 2]), evidence)
    (True, False)
    """
    made = evidence.expected(row)
    if made is None or made.shape != leaf.shape:
        return False
    if equal(canonical(made), canonical(leaf)):
        return True
    narrow = narrow_type(leaf) if seems_narrow(leaf) else None
    return narrow is not None and equal(canonical(through(narrow)(single(made))), canonical(leaf))


def _others(parts: Mapping[str, Leaf], evidence: Evidence) -> Iterator[Rows]:
    """The rows of one packed tensor by its other readings, one number of groups after another."""
    each = _each(next(iter(parts.values())), evidence)
    for groups in (n for n in range(2, each + 1) if each % n == 0):
        yield {path: _interleaved(row, groups, evidence) for path, row in parts.items()}


def _each(row: Leaf, evidence: Evidence) -> int:
    """How long one block is."""
    block = _BLOCK.findall(row.rule.pattern)[0]
    sizes = row.rule.axis_sizes(evidence.shapes[row.sources[0]])
    return sizes[block[2]]


def _groups(row: Leaf) -> int:
    """In how many groups a row of `_interleaved` reads; 0 for one after the other."""
    return dict(row.rule.sizes).get(_GROUP, 0)


def _interleaved(row: Leaf, groups: int, evidence: Evidence) -> Leaf:
    """The row with its parts interleaved in `groups`; all apart for 0, or where a group is one."""
    block, number, inside = _BLOCK.findall(row.rule.pattern)[0]
    left, right = row.rule.pattern.split(" -> ")
    sizes = dict(row.rule.sizes)
    if groups in (0, _each(row, evidence)):
        left = _BLOCK.sub(f"({inside} {block}={number})", left)
        return replace(row, rule=Rule(f"{left} -> {right}", sizes))
    left = _BLOCK.sub(f"({_GROUP} {block}={number} {inside})", left)
    bare = inside in re.sub(r"\([^()]*\)", "", right).split()
    both = f"({_GROUP} {inside})" if bare else f"{_GROUP} {inside}"
    right = re.sub(rf"\b{inside}\b", both, right)
    return replace(row, rule=Rule(f"{left} -> {right}", {**sizes, _GROUP: groups}))
