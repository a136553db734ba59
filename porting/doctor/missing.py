"""Leaves that are not there: those that a mapping names, or that the names foretell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from porting.doctor.evidence import Evidence
from porting.doctor.expected import excused_keys, has_twin
from porting.doctor.fixes import fix_line
from porting.doctor.flattens import plain_rows
from porting.doctor.foretell import predicted_path
from porting.doctor.unmapped import conventional
from porting.doctor.verdict import LeafVerdict
from porting.leaves import Leaf


def held_keys(verdicts: Mapping[str, LeafVerdict]) -> set[str]:
    """The source keys that leaves hold.

    >>> sorted(held_keys({"a": LeafVerdict("a", "ok", source="b_ih, b_hh")}))
    ['b_hh', 'b_ih']
    """
    return {key for v in verdicts.values() if v.source for key in v.source.split(", ")}


def missing(
    verdicts: Mapping[str, LeafVerdict],
    tree: Mapping[str, Any],
    rows: Mapping[str, Leaf],
    evidence: Evidence,
    mapping: Any,
    given: bool,
) -> dict[str, LeafVerdict]:
    """Leaves that are not there: those that a given mapping names, or that the names foretell."""
    absent = {path: row for path, row in rows.items() if path not in tree}
    held = held_keys(verdicts)
    excused = excused_keys(mapping)
    meant = [v.row for v in verdicts.values() if v.row] + list(absent.values())
    claimed = {key for row in meant for key in row.sources}
    guessed: list[str] = []
    known = plain_rows(rows)
    for key in () if given else evidence.shapes:
        if key in held or key in claimed or key in excused:
            continue
        if has_twin(key, (*held, *claimed, *guessed), evidence):
            continue
        guess = predicted_path(key, known, evidence.shapes)
        if guess and guess[0] not in tree and guess[0] not in absent:
            guessed.append(key)
            rule = guess[1].rule
            row = conventional(guess[0], key, known, evidence)
            alone = evidence.expected(Leaf(guess[0], (key,), rule)) is None
            absent[guess[0]] = row if alone and row else Leaf(guess[0], (key,), rule)
    return {path: _missing_verdict(path, row, evidence, verdicts) for path, row in absent.items()}


def _missing_verdict(
    path: str, row: Leaf, evidence: Evidence, verdicts: Mapping[str, LeafVerdict]
) -> LeafVerdict:
    key = ", ".join(row.sources)
    found = [v.path for v in verdicts.values() if v.holds == path and v.kind == "renamed"]
    what = f"This part of {key}" if row.rule.selects else key
    note = f"{what} is under {found[0]}." if found else f"{what} is in no leaf."
    known = all(k in evidence.shapes for k in row.sources)
    dtype = evidence.array(row.sources[0]).dtype if known else np.dtype("float32")
    fix = fix_line(row, evidence, dtype) if known else ""
    return LeafVerdict(
        path,
        "missing",
        "renamed" if found else "absent",
        expected_source=key,
        expected_rule=str(row.rule),
        note=note,
        fix=fix,
        alternatives=tuple(found),
        row=row,
    )
