"""Leaves that have no source and need none: a bias of zeros, a buffer, a random stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from porting.doctor.evidence import Evidence
from porting.doctor.names import last, parent
from porting.doctor.verdict import LeafVerdict
from porting.mapping.infer import NO_BIAS
from porting.mapping.units import buffer_reason


def without_source(
    verdicts: dict[str, LeafVerdict], tree: Mapping[str, Any], evidence: Evidence, mapping: Any
) -> dict[str, LeafVerdict]:
    """Leaves of nothing in the source that are right so, or that are no parameters.

    A bias of zeros says what a layer without a bias says. A source tensor of its size that
    is read by nothing would be that bias; then the zeros are a fault. The bias of another
    layer would not.
    """
    out = dict(verdicts)
    spare = {
        evidence.size(key) for key, why in getattr(mapping, "unused", {}).items()
        if key in evidence.shapes and "no place" in why and not _of_another(key, evidence)
    }  # fmt: skip
    for path, why in getattr(mapping, "unmapped", {}).items():
        if path not in out or out[path].status != "unported":
            continue
        if why.startswith(NO_BIAS) and out[path].kind == "zeros":
            if math.prod(tree[path].shape) not in spare:
                note = f"{why[0].upper()}{why[1:]}: zeros add nothing."
                out[path] = LeafVerdict(path, "ok", note=note)
        elif why == buffer_reason(path):
            out[path] = replace(out[path], status="ambiguous", kind="buffer", note=f"It is {why}.")
    return out


def _of_another(key: str, evidence: Evidence) -> bool:
    """Whether a key is named as the bias of a layer whose weight is in the source too."""
    module, name = parent(key), last(key)
    weight = f"{module}.{name.replace('bias', 'weight')}"
    return "bias" in name and weight in evidence.shapes
