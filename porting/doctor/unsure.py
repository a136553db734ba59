"""Leaves whose names do not tell what they should be: the values decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.doctor.bits import canonical, equal
from porting.doctor.evidence import Evidence
from porting.doctor.flattens import asks
from porting.doctor.judge import judge
from porting.doctor.names import alike, last, parent, template
from porting.doctor.style import TURNED
from porting.doctor.unmapped import Verdicts, accepted, claimed, conventional, unmapped
from porting.doctor.verdict import LeafVerdict
from porting.layouts import Rule
from porting.leaves import ONLY, Leaf

#: kinds of wrong layout that are right in another model, by what the names leave open: where
#: a packed tensor is cut, how a flatten is ordered, which way a kernel lies
PACKED = {"split", "heads", "rotary", "blocks", "other_part"}
FLATTENED = {"flatten", "heads", "permuted", "blocks", "rotary"}
TURNABLE = {"transposed", "untransposed"}

TURNS = {"flipped", "axes", "rearranged"}
DECONVOLUTION = (
    "Reversed along its spatial axes, in and out exchanged: right if the layer is a transposed "
    "convolution, wrong if it is a convolution. The names do not tell."
)


def settle(
    verdicts: Verdicts,
    tree: Mapping[str, Any],
    rows: Mapping[str, Leaf],
    evidence: Evidence,
    given: bool = False,
) -> Verdicts:
    """The verdicts, with those that rest on an unsure name judged by the values alone.

    Args:
        verdicts: by path, each judged by its row.
        tree: the given leaves.
        rows: of the mapping; a row with `confident=False` is unsure.
        evidence: the source.
        given: whether a person gave the rows; else names alone tell what a kernel is.
    """
    out = dict(verdicts)
    for path, verdict in verdicts.items():
        row = rows.get(path)
        if row is None:
            out[path] = unmapped(verdict, tree, rows, evidence, out)
        elif verdict.status == "wrong_source" and _better_named(verdict, rows):
            out[path] = _by_name(verdict, np.asarray(tree[path]), rows, evidence)
        elif (
            not given and verdict.kind in TURNS and _is_deconvolution(verdict, row, rows, evidence)
        ):
            out[path] = replace(verdict, status="ambiguous", note=DECONVOLUTION, fix="")
        elif verdict.wrong and not getattr(row, "confident", True):
            out[path] = _doubted(verdict, np.asarray(tree[path]), row, evidence, out)
    return out


def _is_deconvolution(
    verdict: LeafVerdict, row: Leaf, rows: Mapping[str, Leaf], evidence: Evidence
) -> bool:
    """Whether a leaf that was taken for a convolution is ported as a transposed one.

    A bias, or a like of another shape, tells that it is a convolution after all.
    """
    key = row.sources[0]
    shape = evidence.shapes.get(key, ())
    if verdict.rule != TURNED.get(len(shape)) or row.join is not ONLY or _turns(row.rule):
        return False
    bias = evidence.shapes.get(f"{parent(key)}.bias")
    if bias is not None and shape[0] != shape[1] and tuple(bias) == shape[:1]:
        return False
    likes = [r.sources[0] for r in rows.values() if template(r.sources[0]) == template(key)]
    return all(evidence.shapes[k][:1] == evidence.shapes[k][1:2] for k in likes if k != key)


def _turns(rule: Rule) -> bool:
    """Whether a rule reverses an axis."""
    return "-" in rule.pattern.split("->")[1]


def _better_named(verdict: LeafVerdict, rows: Mapping[str, Leaf]) -> bool:
    """Whether the leaf's path is more like the key that it holds than like its row's key.

    A key that is another leaf's is not this one's, however alike (`k_proj/bias` and
    `out_proj.bias`, where k is a part of `in_proj_bias`).
    """
    if verdict.source is None or verdict.expected_source is None:
        return False
    if any(r.sources == (verdict.source,) for p, r in rows.items() if p != verdict.path):
        return False
    name = last(verdict.path)
    held, wanted = (
        max((alike(verdict.path, key), name in last(key).split("_")) for key in keys.split(", "))
        for keys in (verdict.source, verdict.expected_source)
    )
    return ", " not in verdict.source and held > wanted


def _by_name(
    verdict: LeafVerdict, leaf: np.ndarray, rows: Mapping[str, Leaf], evidence: Evidence
) -> LeafVerdict:
    """A leaf whose values and name agree on another source than its row."""
    note = f"By its values and its name it is {verdict.source}."
    if verdict.rule == verdict.expected_rule:
        return accepted(verdict, note)
    row = conventional(verdict.path, verdict.source or "", rows, evidence)
    return verdict if row is None else judge(verdict.path, leaf, row, evidence)


def _doubted(
    verdict: LeafVerdict, leaf: np.ndarray, row: Leaf, evidence: Evidence, verdicts: Verdicts
) -> LeafVerdict:
    """A leaf that differs from what an unsure row says: is it one of the other readings?"""
    own = alike(verdict.path, row.sources[0])
    others: tuple[Leaf, ...] = getattr(row, "alternatives", ())
    rivals = [o for o in others if o.sources == row.sources or alike(o.path, o.sources[0]) >= own]
    for other in rivals:
        made = evidence.expected(other)
        if made is not None and equal(canonical(made), canonical(leaf)):
            return _other_reading(verdict, other, row, verdicts)
    due = evidence.expected(row)
    as_long = due is None or due.shape == leaf.shape
    if verdict.status == "wrong_layout" and verdict.kind in _open_readings(row, as_long):
        note = f"{verdict.note} The names do not tell which is right: {getattr(row, 'reason', '')}."
        return replace(verdict, status="ambiguous", note=note, fix="")
    sure_source = all(o.sources == row.sources for o in rivals)
    if verdict.status != "wrong_source" or not verdict.source or sure_source:
        return verdict
    free = not claimed(verdict.source, verdicts, verdict.path)
    if verdict.rule == verdict.expected_rule and free and ", " not in verdict.source:
        note = f"The names do not tell; by its values it is {verdict.source}, and no other leaf is."
        return accepted(verdict, note)
    note = f"{verdict.note} The names are unsure: {getattr(row, 'reason', '')}."
    return replace(verdict, status="ambiguous", note=note, fix="")


def _open_readings(row: Leaf, as_long: bool) -> set[str]:
    """The kinds of layout among which an unsure row leaves the choice.

    A leaf behind a flatten that is not as long as it should be along every axis was turned.
    """
    if row.rule.selects:
        return PACKED
    if asks(row):
        return FLATTENED | TURNABLE if as_long else set()
    return TURNABLE if getattr(row, "alternatives", ()) else FLATTENED | TURNABLE


def _other_reading(verdict: LeafVerdict, other: Leaf, row: Leaf, verdicts: Verdicts) -> LeafVerdict:
    source = ", ".join(other.sources)
    free = other.sources != row.sources and not claimed(source, verdicts, verdict.path)
    note = (
        f"The names allow {source} by {other.rule} as well as {', '.join(row.sources)} by "
        f"{row.rule}; it holds the former."
    )
    return replace(
        verdict, status="ok" if free else "ambiguous", kind="", source=source,
        rule=str(other.rule), expected_source=source if free else None, note=note, fix="",
        alternatives=(source, ", ".join(row.sources)),
    )  # fmt: skip
