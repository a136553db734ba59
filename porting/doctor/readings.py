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
from porting.doctor.verdict import LeafVerdict
from porting.leaves import ONLY, Leaf

#: the left side of a rule that takes one block of a packed axis
_BLOCK = re.compile(r"^((?:\w+ )*)\((\w+)=(\d+) [^()]*\)")
#: keys of PyTorch's own modules, which pack in blocks and in no other way
_TOLD = re.compile(r"(in_proj_(weight|bias)|(weight|bias)_[ih]h(_l\d+)?(_reverse)?)$")


def other_readings(
    verdicts: Mapping[str, LeafVerdict],
    tree: Mapping[str, Any],
    rows: Mapping[str, Leaf],
    evidence: Evidence,
) -> dict[str, LeafVerdict]:
    """The verdicts on parts whose whole packed tensor was read in another known way: a question.

    A tensor of the same module, there or in another layer, that was read as is usual decides:
    then it is none.

    Args:
        verdicts: by path.
        tree: the given leaves.
        rows: what the names say.
        evidence: the source.
    """
    usual: set[str] = set()
    open_: dict[str, dict[str, LeafVerdict]] = {}
    for key, parts in _packed(rows).items():
        here = {path: verdicts[path] for path in parts if path in tree and path in verdicts}
        if len(here) == len(parts) and all(v.status == "ok" for v in here.values()):
            usual.add(template(parent(key)))
        elif len(here) == len(parts) and all(v.status == "wrong_layout" for v in here.values()):
            text = _read_as(parts, tree, evidence)
            open_[key] = {p: _question(v, text) for p, v in here.items() if text}
    told = [found for key, found in open_.items() if template(parent(key)) not in usual]
    return dict(verdicts) | {path: v for found in told for path, v in found.items()}


def _packed(rows: Mapping[str, Leaf]) -> dict[str, dict[str, Leaf]]:
    """Packed tensor -> the rows that take its blocks, path -> row; those that take all of them."""
    found: dict[str, dict[str, Leaf]] = {}
    for path, row in rows.items():
        if row.join is ONLY and _BLOCK.match(row.rule.pattern) and not _TOLD.search(row.sources[0]):
            found.setdefault(row.sources[0], {})[path] = row
    return {key: parts for key, parts in found.items() if _complete(list(parts.values()))}


def _complete(parts: list[Leaf]) -> bool:
    """Whether the rows take every block once."""
    picks = [_BLOCK.match(row.rule.pattern) for row in parts]
    count = _count(parts[0])
    return sorted(int(pick[3]) for pick in picks if pick) == list(range(count))


def _count(row: Leaf) -> int:
    """How many blocks the packed axis of a row has."""
    pick = _BLOCK.match(row.rule.pattern)
    return int(dict(row.rule.sizes)[pick[2]]) if pick else 0


def _read_as(parts: Mapping[str, Leaf], tree: Mapping[str, Any], evidence: Evidence) -> str:
    """How all parts together were read, in words; "" if in no known way."""
    first = next(iter(parts.values()))
    match = _BLOCK.match(first.rule.pattern)
    axis, count = (len(match[1].split()) if match else 0), _count(first)
    source = evidence.array(first.sources[0])
    given = {path: canonical(np.asarray(tree[path])) for path in parts}
    each = source.shape[axis] // count
    for groups, packed in _regrouped(source, axis, count):
        made = {path: canonical(row.rule.apply(packed)) for path, row in parts.items()}
        if all(equal(made[path], given[path]) for path in parts):
            return "row by row" if groups == each else f"in {groups} groups (heads)"
    return ""


def _regrouped(source: np.ndarray, axis: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """The tensor as it would be in blocks, were its parts interleaved in so many groups."""
    each, shape = source.shape[axis] // count, source.shape
    for groups in (n for n in range(2, each + 1) if each % n == 0):
        split = source.reshape(*shape[:axis], groups, count, each // groups, *shape[axis + 1 :])
        yield groups, split.swapaxes(axis, axis + 1).reshape(shape)


def _question(verdict: LeafVerdict, text: str) -> LeafVerdict:
    note = (
        f"All parts of {verdict.expected_source} together are the whole tensor, interleaved {text}: "
        "right if the source is packed so, wrong if in blocks. The names do not tell."
    )
    return replace(verdict, status="ambiguous", note=note, fix="")
