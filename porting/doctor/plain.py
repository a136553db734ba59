"""The verdict that the row of a leaf alone gives: what should be there, and the line that makes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from porting.doctor.fixes import fix_line
from porting.doctor.holding import Question
from porting.doctor.verdict import LeafVerdict


def plain_verdict(q: Question, path: str, status: str, **more: object) -> LeafVerdict:
    """A verdict with all that the row alone says."""
    home = ", ".join(q.home) or None
    rule = str(q.row.rule) if q.row and home else None
    plain = LeafVerdict(path, status, "", home, home, rule, rule, row=q.row)
    fix = "" if status == "ok" else fix_line(q.row, q.evidence, _target_dtype(q))
    return replace(plain, fix=fix, **more)  # type: ignore[arg-type]


def _target_dtype(q: Question) -> np.dtype:
    """The type that the leaf should have: its own, but never narrower than the source."""
    assert isinstance(q.leaf, np.ndarray)
    return q.leaf.dtype
