"""Leaves that have no source and need none: a bias of zeros, a buffer, a random stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.doctor.bits import canonical, constant, is_float
from porting.doctor.evidence import Evidence
from porting.doctor.fixes import fix_line
from porting.doctor.names import last, parent, template
from porting.doctor.values import narrow_type
from porting.doctor.verdict import LeafVerdict
from porting.layouts import Rule
from porting.leaves import ZEROS, Leaf
from porting.mapping.infer import NO_BIAS
from porting.mapping.units import buffer_reason

Verdicts = dict[str, LeafVerdict]

STREAM = buffer_reason("rngs/key")


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
    unmapped = getattr(mapping, "unmapped", {})
    likes = {template(path): why for path, why in unmapped.items() if why.startswith(NO_BIAS)}
    for path, why in unmapped.items():
        if path not in out or not out[path].wrong:
            continue
        if out[path].kind == "zeros":  # where its kernel is missing, the other layers tell
            why = likes.get(template(path), why)
        if why.startswith(NO_BIAS) and math.prod(tree[path].shape) not in spare:
            weight = why.removeprefix(NO_BIAS).strip()
            out |= _biasless(out[path], weight, tree[path], evidence, out)
        elif why == buffer_reason(path) and out[path].status == "unported":
            status = "ok" if why == STREAM or _as_usual(tree[path], tree) else "ambiguous"
            out[path] = replace(out[path], status=status, kind="buffer", note=f"It is {why}.")
    return out


def _as_usual(leaf: np.ndarray, tree: Mapping[str, Any]) -> bool:
    """Whether a buffer holds what it does in any model: a range, a count, the root of a width.

    >>> table = {"embedding": np.zeros((7, 16))}
    >>> _as_usual(np.arange(5)[None], table), _as_usual(np.float32([4]), table)
    (True, True)
    >>> _as_usual(np.float32([4.5]), table), _as_usual(np.int32([3, 1]), table)
    (False, False)
    >>> _as_usual(np.float32([4.90625]), {"embedding": np.zeros((7, 24))})
    True
    """
    if leaf.dtype.kind in "iu":
        return leaf.size < 2 or np.array_equal(leaf, np.broadcast_to(np.arange(leaf.shape[-1]), leaf.shape))  # fmt: skip
    if not is_float(leaf.dtype) or not leaf.size or not constant(canonical(leaf)):
        return False
    square = float(leaf.reshape(-1)[0]) ** 2
    room = 2.0**-7 if narrow_type(leaf) else 2.0**-16
    widths = {length for other in tree.values() for length in other.shape}
    return any(abs(square - width) <= room * width for width in widths)


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
