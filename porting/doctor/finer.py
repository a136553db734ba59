"""A port from a finer copy of the source: its values round to those of the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.doctor.bits import is_float
from porting.doctor.evidence import Evidence
from porting.doctor.fixes import fix_line
from porting.doctor.judge import judge
from porting.doctor.table import Table
from porting.doctor.values import CASTS, Change, agrees
from porting.doctor.verdict import LeafVerdict

Verdicts = dict[str, LeafVerdict]

ENOUGH = 32  #: values that must round to the source's before it is taken for a narrowed copy


def finer_copy(
    verdicts: Mapping[str, LeafVerdict], tree: Mapping[str, Any], evidence: Evidence, table: Table
) -> Verdicts:
    """The verdicts, where the source was narrowed after the port was made.

    Leaves that are the source but for that are told so, and those that nothing explained are
    judged again, narrowed as the source was.

    Args:
        verdicts: by path.
        tree: the given leaves.
        evidence: the source.
        table: what all leaves should be.
    """
    open_ = {p: np.asarray(tree[p]) for p, v in verdicts.items() if v.kind in ("foreign", "stale")}
    floats = {path: leaf for path, leaf in open_.items() if is_float(leaf.dtype)}
    casts = {p: c for p, leaf in floats.items() if (c := _cast(leaf, p, evidence, table))}
    votes: Counter[Change] = Counter()
    for path, cast in casts.items():
        votes[cast] += floats[path].size
    (cast, most), *_ = votes.most_common(1) or [(CASTS[0], 0)]
    if most < ENOUGH:
        return dict(verdicts)
    out = dict(verdicts)
    for path, leaf in floats.items():
        if casts.get(path) is cast:
            out[path] = _told(verdicts[path], cast)
        else:
            out[path] = _again(verdicts[path], leaf, cast, evidence, table)
    return out


def _cast(leaf: np.ndarray, path: str, evidence: Evidence, table: Table) -> Change | None:
    """The cast that makes what a leaf should be out of it."""
    expected = evidence.expected(table.rows.get(path))
    if expected is None or not is_float(expected.dtype):
        return None
    return next((c for c in CASTS if agrees(c, leaf, expected, 0.0)), None)


def _told(verdict: LeafVerdict, cast: Change) -> LeafVerdict:
    key = verdict.expected_source
    note = f"{cast.text[0].upper()}{cast.text[1:]} it is {key} bit for bit: made from a finer copy of the source. Compare it with that one."
    return replace(
        verdict, status="changed", kind="finer", source=key, rule=verdict.expected_rule, note=note
    )


def _again(
    verdict: LeafVerdict, leaf: np.ndarray, cast: Change, evidence: Evidence, table: Table
) -> LeafVerdict:
    """The verdict on a leaf narrowed as the source was; the given one if that says no more."""
    again = judge(
        verdict.path,
        cast.apply(leaf.astype(np.float32)),
        table.rows.get(verdict.path),
        evidence,
        table,
    )
    if again.status in ("ok", "unported"):
        return verdict
    fix = fix_line(again.row, evidence, leaf.dtype)
    note = f"{again.note} Besides, it is from a finer copy of the source ({cast.text})."
    return replace(again, note=note, fix=fix, also=(*again.also, "finer"))
