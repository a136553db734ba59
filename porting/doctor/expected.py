"""What every leaf of a port should be, where the fault itself may have misled the mapping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from porting.doctor.bits import canonical, constant, equal
from porting.doctor.evidence import Evidence
from porting.doctor.foretell import foretold, predicted_path
from porting.doctor.likes import likened
from porting.doctor.names import alike, parent
from porting.doctor.parts import missing_parts
from porting.doctor.placed import placed
from porting.doctor.readings import has_values
from porting.doctor.renumbered import renumbered
from porting.doctor.style import restyled
from porting.doctor.unmapped import conventional
from porting.leaves import Leaf

TELLING = 8  #: values that name a tensor


def expected_rows(mapping: Any, tree: Mapping[str, Any], evidence: Evidence) -> dict[str, Leaf]:
    """The rows of an inferred mapping, those that a fault misled put in line with their likes."""

    def holds(row: Leaf) -> bool:
        return has_values(row, np.asarray(tree[row.path]), evidence)

    there = {path: row for path, row in mapping.leaves.items() if path in tree}
    there = placed(there, evidence.shapes, holds)
    rows = restyled(renumbered(there, evidence.shapes, holds), evidence.shapes, holds)
    rows = likened(rows, evidence.shapes, {path: tree[path].shape for path in rows})
    claimed, excused = {key for row in rows.values() for key in row.sources}, excused_keys(mapping)

    def wanted(row: Leaf) -> bool:
        """Whether a leaf should be: its tensor has no excuse and no twin, or it is there, open."""
        new = [k for k in row.sources if k not in excused and not has_twin(k, claimed, evidence)]
        if row.path not in tree:
            return bool(new)
        made = evidence.expected(row) if row.path not in rows else None
        return made is not None and made.size == np.asarray(tree[row.path]).size

    lost = {path: row for path, row in mapping.leaves.items() if path not in tree}
    open_ = [path for path in tree if path not in rows]
    absent = foretold(rows, evidence.shapes, open_) | missing_parts({**rows, **lost}) | lost
    rows |= {path: row for path, row in absent.items() if wanted(row)}
    return rows | _resized(rows, tree, evidence)


def _resized(
    rows: Mapping[str, Leaf], tree: Mapping[str, Any], evidence: Evidence
) -> dict[str, Leaf]:
    """Rows for leaves that no tensor fits, and whose name or values tell which tensor they are."""
    claimed = {key for row in rows.values() for key in row.sources}
    open_ = [path for path in tree if path not in rows]
    near: dict[tuple[int, ...], list[str]] = {}
    for key in evidence.shapes if open_ else ():
        shape = evidence.shapes[key]
        if shape not in near:
            near[shape] = [p for p in open_ if _one_length_off(tree[p].shape, shape)]
    free = [k for k, shape in evidence.shapes.items() if near.get(shape) and k not in claimed]
    found = {}
    for key in free:
        guess = predicted_path(key, rows, evidence.shapes, True)
        fit = [p for p in near[evidence.shapes[key]] if guess and parent(p) == parent(guess[0])]
        row = conventional(fit[0], key, rows, evidence) if len(fit) == 1 else None
        if row is not None:
            found[row.path] = row
    for path in (p for p in open_ if p not in found):
        keys = [k for k in free if path in near[evidence.shapes[k]]]
        held = [k for k in keys if _begins_as(path, k, tree, rows, evidence)]
        best = max(held, key=lambda k: alike(path, k), default=None)
        row = conventional(path, best, rows, evidence) if best else None
        if row is not None:
            found[path] = row
    return found


def _begins_as(
    path: str, key: str, tree: Mapping[str, Any], rows: Mapping[str, Leaf], evidence: Evidence
) -> bool:
    """Whether a leaf of another length has the values of a tensor, as far as both go."""
    made = evidence.expected(conventional(path, key, rows, evidence))
    leaf = np.asarray(tree[path])
    if made is None or made.ndim != leaf.ndim or made.size < TELLING:
        return False
    common = tuple(slice(0, min(n, m)) for n, m in zip(made.shape, leaf.shape, strict=True))
    return equal(canonical(made[common]), canonical(leaf[common]))


def _one_length_off(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two shapes of one rank differ in one length, in whatever order they are."""
    return len(a) == len(b) and (Counter(a) & Counter(b)).total() == len(a) - 1


def excused_keys(mapping: Any) -> set[str]:
    """Source keys that a mapping leaves out for a reason."""
    reasons = getattr(mapping, "unused", {}).items()
    return {key for key, why in reasons if why and "no place" not in why}


def has_twin(key: str, keys: Iterable[str], evidence: Evidence) -> bool:
    """Whether another of `keys` holds the same tensor, and not just one number."""
    return any(key != k and evidence.same(key, k) for k in keys) and not constant(
        canonical(evidence.array(key))
    )
