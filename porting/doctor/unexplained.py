"""A leaf that no source explains: left at its init, a constant, an older copy, or from elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from porting.doctor.bits import constant, is_float
from porting.doctor.holding import Question
from porting.doctor.likeness import COMPARED, near
from porting.doctor.plain import plain_verdict
from porting.doctor.values import single
from porting.doctor.verdict import LeafVerdict

CLOSE = 0.9  #: a correlation from which a leaf is called close to what it should be


def unexplained(q: Question, path: str) -> LeafVerdict:
    """A leaf that no source explains."""
    size = q.leaf.size
    if size and constant(q.bits):
        return _constant(q, path)
    verdict = plain_verdict(q, path, "unported", source=None, rule=None, kind="foreign")
    both = q.expected is not None and is_float(q.leaf.dtype) and is_float(q.expected.dtype)
    if both and q.expected is not None and q.expected.shape == q.leaf.shape:
        likeness = near(q.expected, q.leaf)
        if likeness >= CLOSE:
            note = (
                f"No bits of the source, and yet close to {verdict.expected_source} (correlation "
                f"{likeness:.4f}): an older or a further trained copy, or noise was added."
            )
            return replace(verdict, kind="stale", note=note)
    return replace(verdict, note=f"Nothing in the source has these values. {_spread(q.leaf)}")


def _spread(leaf: np.ndarray) -> str:
    if not is_float(leaf.dtype) or leaf.size < 8:
        return "It was left at its init or comes from elsewhere."
    some = leaf.reshape(-1)[:: max(1, leaf.size // COMPARED)]
    if not np.isfinite(single(some)).all():
        return "It holds NaN or infinity."
    deviation = float(np.std(single(some), dtype=np.float64))
    return f"Its standard deviation is {deviation:.3g}: left at its random init, or from elsewhere."


def _constant(q: Question, path: str) -> LeafVerdict:
    """A leaf of one value: left at its init, or a constant tensor of the source."""
    value = q.leaf.reshape(-1)[0]
    number = value.item()
    kind = {0.0: "zeros", 1.0: "ones"}.get(number, "constant")
    e = q.evidence
    alike = [
        key
        for key in e.nearest(e.of_size(q.leaf.size), q.home)
        if key not in q.home and _holds_only(e.array(key), value)
    ]
    values = "Its value is" if q.leaf.size == 1 else f"All its {q.leaf.size:,} values are"
    what = f"{values} {number:g}"
    note = f"{what}: left at its init."
    if alike:
        note = f"{what}: left at its init, or {alike[0]}, which is as constant."
    status = "ambiguous" if alike and not q.home else "unported"
    verdict = plain_verdict(q, path, status, source=None, rule=None, kind=kind, note=note)
    return replace(verdict, alternatives=tuple(alike))


def _holds_only(array: np.ndarray, value: np.ndarray) -> bool:
    return bool(np.all(array == value))
