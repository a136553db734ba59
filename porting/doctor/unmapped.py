"""Leaves that no row of the mapping is for: the values tell the source, the name what is usual."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.doctor.arrange import axis_names
from porting.doctor.bits import canonical, equal
from porting.doctor.evidence import Evidence
from porting.doctor.judge import judge
from porting.doctor.names import alike, last
from porting.doctor.style import TURNED, USUAL, deconvolves
from porting.doctor.verdict import LeafVerdict
from porting.layouts import Rule, identity
from porting.leaves import Leaf

Verdicts = dict[str, LeafVerdict]


def accepted(verdict: LeafVerdict, note: str) -> LeafVerdict:
    """The leaf is what it holds, whatever its row said."""
    return replace(
        verdict, status="ok", kind="", expected_source=verdict.source,
        expected_rule=verdict.rule, note=note, fix="", row=None,
    )  # fmt: skip


def claimed(key: str, verdicts: Verdicts, but: str) -> bool:
    """Whether another leaf rightly holds `key`."""
    return any(v.status == "ok" and v.source == key and v.path != but for v in verdicts.values())


def conventional(path: str, key: str, rows: Mapping[str, Leaf], evidence: Evidence) -> Leaf | None:
    """What leaves of this name are in this port, applied to `key`; else what is usual."""
    rank, name, turned = len(evidence.shapes[key]), last(path), deconvolves(path)
    votes: Counter[str] = Counter()
    found: dict[str, Rule] = {}
    for row in rows.values():
        same = len(row.sources) == 1 and last(row.path) == name and not row.rule.selects
        same = same and deconvolves(row.path) == turned
        fits = same and evidence.expected(Leaf(path, (key,), row.rule)) is not None
        if fits and len(evidence.shapes.get(row.sources[0], ())) == rank:
            votes[str(row.rule)] += 1
            found[str(row.rule)] = row.rule
    if votes:
        return Leaf(path, (key,), found[votes.most_common(1)[0][0]])
    if name != "kernel":
        return Leaf(path, (key,), identity(rank)) if rank else None
    if turned and rank in TURNED:
        return Leaf(path, (key,), Rule(TURNED[rank]))
    names, order = axis_names(rank), USUAL.get(rank)
    if order is None:
        return None
    return Leaf(path, (key,), Rule(f"{' '.join(names)} -> {' '.join(names[a] for a in order)}"))


def unmapped(
    verdict: LeafVerdict,
    tree: Mapping[str, Any],
    rows: Mapping[str, Leaf],
    evidence: Evidence,
    verdicts: Verdicts,
) -> LeafVerdict:
    """A leaf without a row: the source is what it holds, the rule what its name means here."""
    leaf = np.asarray(tree[verdict.path])
    if verdict.source is None or ", " in verdict.source:
        return verdict
    home = _misplaced(verdict, leaf, tree, rows, evidence)
    if home is not None:
        return home
    key = _likeliest(verdict, evidence)
    if claimed(key, verdicts, verdict.path):
        note = f"{verdict.note} {key} is in another leaf as well."
        return replace(verdict, status="ambiguous", note=note)
    owner = _owner(key, verdict.path, tree, rows)
    if owner:
        note = f"Holds {key}, which belongs at {owner}. Nothing in the source belongs here."
        return replace(verdict, status="wrong_source", kind="other", source=key, note=note)
    row = conventional(verdict.path, key, rows, evidence)
    if row is None or evidence.expected(row) is None:
        return verdict
    again = judge(verdict.path, leaf, row, evidence)
    if again.status == "ok":
        return replace(again, note=f"The names do not tell; by its values it is {key}.")
    return again


def _owner(key: str, path: str, tree: Mapping[str, Any], rows: Mapping[str, Leaf]) -> str | None:
    """The other leaf of this port that `key`, whole, is for."""
    return next(
        (
            other for other, row in rows.items()
            if other != path and other in tree and row.sources == (key,) and not row.rule.selects
        ),
        None,
    )  # fmt: skip


def _misplaced(
    verdict: LeafVerdict,
    leaf: np.ndarray,
    tree: Mapping[str, Any],
    rows: Mapping[str, Leaf],
    evidence: Evidence,
) -> LeafVerdict | None:
    """A leaf that holds, whole and right, what a leaf that is not there should hold."""
    for path, row in rows.items():
        if path in tree or verdict.source not in row.sources:
            continue
        made = evidence.expected(row)
        if made is not None and equal(canonical(made), canonical(leaf)):
            key = ", ".join(row.sources)
            note = f"It holds {key} as it should be, under another name: it belongs at {path}."
            return replace(
                accepted(verdict, note), kind="renamed", source=key, expected_source=key,
                rule=str(row.rule), expected_rule=str(row.rule), holds=path,
            )  # fmt: skip
    return None


def _likeliest(verdict: LeafVerdict, evidence: Evidence) -> str:
    """Of the keys that hold the same tensor, the one whose name is most like the path."""
    held = verdict.source or ""
    shape = evidence.shapes[held]
    keys = [k for k in evidence.shapes if evidence.shapes[k] == shape and evidence.same(k, held)]
    return max(keys, key=lambda k: (alike(verdict.path, k), k == held))
