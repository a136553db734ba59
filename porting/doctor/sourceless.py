"""Leaves that have no source and need none: a bias of zeros, a buffer, a random stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.doctor.evidence import Evidence
from porting.doctor.fixes import fix_line
from porting.doctor.names import last, parent
from porting.doctor.verdict import LeafVerdict
from porting.layouts import Rule
from porting.leaves import ZEROS, Leaf
from porting.mapping.infer import NO_BIAS
from porting.mapping.units import buffer_reason

Verdicts = dict[str, LeafVerdict]


def without_source(
    verdicts: Mapping[str, LeafVerdict],
    tree: Mapping[str, Any],
    evidence: Evidence,
    mapping: Any,
) -> Verdicts:
    """Leaves of nothing in the source that are right so, or that are no parameters.

    A bias of zeros says what a layer without a bias says. A source tensor of its size that
    is read by nothing would be that bias; then the zeros are a fault. What another leaf
    should hold would not.
    """
    out = dict(verdicts)
    unused = getattr(mapping, "unused", {})
    wanted = {key for v in out.values() if v.wrong for key in (v.expected_source or "").split(", ")}
    spare = {
        evidence.size(key) for key, why in unused.items()
        if key in evidence.shapes.keys() - wanted and "no place" in why
        and not _of_another(key, evidence)
    }  # fmt: skip
    for path, why in getattr(mapping, "unmapped", {}).items():
        if path not in out or not out[path].wrong:
            continue
        if why.startswith(NO_BIAS) and math.prod(tree[path].shape) not in spare:
            weight = why.removeprefix(NO_BIAS).strip()
            out |= _biasless(out[path], weight, tree[path], evidence, out)
        elif why == buffer_reason(path) and out[path].status == "unported":
            out[path] = replace(out[path], status="ambiguous", kind="buffer", note=f"It is {why}.")
    return out


def _of_another(key: str, evidence: Evidence) -> bool:
    """Whether a key is named as the bias of a layer whose weight is in the source too."""
    module, name = parent(key), last(key)
    weight = f"{module}.{name.replace('bias', 'weight')}"
    return "bias" in name and weight in evidence.shapes


def _biasless(
    verdict: LeafVerdict,
    weight: str,
    leaf: np.ndarray,
    evidence: Evidence,
    verdicts: Mapping[str, LeafVerdict],
) -> Verdicts:
    """The bias that Flax has where the source has none: right as zeros, else to be made so.

    Where another leaf has its zeros, and it has what that one should hold, they were exchanged.
    """
    why = f"The source has no bias beside {weight}"
    if verdict.kind == "zeros":
        return {verdict.path: LeafVerdict(verdict.path, "ok", note=f"{why}: zeros add nothing.")}
    axes = [f"a{n}" for n in range(leaf.ndim)]
    sizes = dict(zip(axes, leaf.shape, strict=True)) if leaf.ndim > 1 else {}
    whole = f"({' '.join(axes)})" if leaf.ndim > 1 else "a0"
    row = Leaf(verdict.path, (weight,), Rule(f"{whole} -> {' '.join(axes)}", sizes), ZEROS)
    made = evidence.expected(row)
    if made is None or made.shape != leaf.shape:
        return {}
    held = f"Holds {verdict.source}." if verdict.source else verdict.note
    note = f"{held} {why}: it should be zeros."
    fixed = replace(verdict, note=note, fix=fix_line(row, evidence, leaf.dtype), row=row)
    swapped = next((v for v in verdicts.values() if _has_zeros_of(v, verdict)), None)
    if swapped is None:
        return {verdict.path: fixed}
    told = f"All zeros, which belong at {verdict.path}; that holds {verdict.source}."
    other = replace(swapped, status="wrong_source", holds=verdict.path, note=told)
    return {verdict.path: replace(fixed, holds=swapped.path), swapped.path: other}


def _has_zeros_of(v: LeafVerdict, bias: LeafVerdict) -> bool:
    """Whether a leaf is zeros, and a bias that should be zeros holds what it should hold."""
    held = bias.source is not None and bias.source == v.expected_source
    return held and v.status == "unported" and v.kind == "zeros"
