"""Leaves whose names do not tell what they should be: the values decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.diagnose.bits import canonical, equal
from porting.diagnose.evidence import Evidence
from porting.diagnose.judge import judge
from porting.diagnose.verdict import LeafVerdict
from porting.leaves import Leaf

Verdicts = dict[str, LeafVerdict]


def settle(
    verdicts: Verdicts, tree: Mapping[str, Any], rows: Mapping[str, Leaf], evidence: Evidence
) -> Verdicts:
    """The verdicts, with those that rest on an unsure name judged by the values alone."""
    out = dict(verdicts)
    for path, verdict in verdicts.items():
        row = rows.get(path)
        if row is None:
            out[path] = _unmapped(verdict, np.asarray(tree[path]), rows, evidence, verdicts)
        elif verdict.wrong and not getattr(row, "confident", True):
            out[path] = _doubted(verdict, np.asarray(tree[path]), row, evidence, verdicts)
    return out


def _claimed(key: str, verdicts: Verdicts, but: str) -> bool:
    """Whether another leaf rightly holds `key`."""
    return any(v.status == "ok" and v.source == key and v.path != but for v in verdicts.values())


def _doubted(
    verdict: LeafVerdict, leaf: np.ndarray, row: Leaf, evidence: Evidence, verdicts: Verdicts
) -> LeafVerdict:
    """A leaf that differs from what an unsure row says: is it one of the other readings?"""
    others: tuple[Leaf, ...] = getattr(row, "alternatives", ())
    for other in others:
        made = evidence.expected(other)
        if made is not None and equal(canonical(made), canonical(leaf)):
            return _other_reading(verdict, other, row, verdicts)
    if verdict.status != "wrong_source" or not verdict.source or ", " in verdict.source:
        return verdict
    if verdict.rule == verdict.expected_rule and not _claimed(
        verdict.source, verdicts, verdict.path
    ):
        note = f"The names do not tell; by its values it is {verdict.source}, and no other leaf is."
        return replace(
            verdict, status="ok", kind="", expected_source=verdict.source, note=note, fix=""
        )
    note = f"{verdict.note} The names are unsure: {getattr(row, 'reason', '')}."
    return replace(verdict, status="ambiguous", note=note, fix="")


def _other_reading(verdict: LeafVerdict, other: Leaf, row: Leaf, verdicts: Verdicts) -> LeafVerdict:
    source = ", ".join(other.sources)
    free = other.sources != row.sources and not _claimed(source, verdicts, verdict.path)
    note = (
        f"The names allow {source} by {other.rule} as well as {', '.join(row.sources)} by "
        f"{row.rule}; it holds the former."
    )
    return replace(
        verdict, status="ok" if free else "ambiguous", kind="", source=source,
        rule=str(other.rule), expected_source=source if free else None, note=note, fix="",
        alternatives=(source, ", ".join(row.sources)),
    )  # fmt: skip


def conventional(path: str, key: str, rows: Mapping[str, Leaf], evidence: Evidence) -> Leaf | None:
    """What leaves of this name are in this port, applied to `key`."""
    rank = len(evidence.shapes[key])
    name = path.rsplit("/", 1)[-1]
    votes: Counter[str] = Counter()
    found: dict[str, Leaf] = {}
    for row in rows.values():
        same = len(row.sources) == 1 and row.path.rsplit("/", 1)[-1] == name
        if same and len(evidence.shapes.get(row.sources[0], ())) == rank and not row.rule.selects:
            votes[str(row.rule)] += 1
            found[str(row.rule)] = row
    if not votes:
        return _usual(path, name, key, rank)
    return Leaf(path, (key,), found[votes.most_common(1)[0][0]].rule)


def _usual(path: str, name: str, key: str, rank: int) -> Leaf | None:
    from porting.layouts import Rule, identity

    usual = {
        ("kernel", 2): Rule("o i -> i o"),
        ("kernel", 3): Rule("o i k -> k i o"),
        ("kernel", 4): Rule("o i h w -> h w i o"),
        ("kernel", 5): Rule("o i d h w -> d h w i o"),
    }
    if name == "kernel":
        rule = usual.get((name, rank))
        return Leaf(path, (key,), rule) if rule else None
    return Leaf(path, (key,), identity(rank)) if rank else None


def _unmapped(
    verdict: LeafVerdict,
    leaf: np.ndarray,
    rows: Mapping[str, Leaf],
    evidence: Evidence,
    verdicts: Verdicts,
) -> LeafVerdict:
    """A leaf without a row: the source is what it holds, the rule what its name means here."""
    key = verdict.source
    if key is None or ", " in key:
        return verdict
    if _claimed(key, verdicts, verdict.path):
        note = f"{verdict.note} {key} is in another leaf as well."
        return replace(verdict, status="ambiguous", note=note)
    row = conventional(verdict.path, key, rows, evidence)
    if row is None or evidence.expected(row) is None:
        return verdict
    again = judge(verdict.path, leaf, row, evidence)
    if again.status == "ok":
        return replace(again, note=f"The names do not tell; by its values it is {key}.")
    return again
