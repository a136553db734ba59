"""One leaf and what it should be -> its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from porting.doctor.bits import BLOCK, canonical, constant, equal, is_float
from porting.doctor.evidence import Evidence
from porting.doctor.fixes import fix_line
from porting.doctor.holding import Holding, Question
from porting.doctor.naming import LAYOUTS, Named, name_layout
from porting.doctor.questions import holding
from porting.doctor.values import near, single
from porting.doctor.verdict import LeafVerdict
from porting.leaves import Leaf

CLOSE = 0.9  #: a correlation from which a leaf is called close to what it should be


def judge(
    path: str,
    leaf: np.ndarray,
    row: Leaf | None,
    evidence: Evidence,
    rows: Mapping[str, Leaf] | None = None,
) -> LeafVerdict:
    """The verdict on `leaf`, with what `row` says it should be as the measure.

    A leaf that has the expected bits is "ok", whatever else would explain it.
    """
    expected = evidence.expected(row)
    q = Question(leaf, row if expected is not None else None, expected, evidence)
    if expected is not None and equal(q.bits, canonical(expected)):
        return _verdict(q, path, "ok", note=_widened(leaf, expected))
    found = holding(q)
    if found is None:
        return _nothing(q, path)
    return _other_part(q, _judged(q, path, found), rows or {})


def _other_part(q: Question, verdict: LeafVerdict, rows: Mapping[str, Leaf]) -> LeafVerdict:
    """A wrong piece of a packed source that is right for another leaf is named so."""
    if q.row is None or not q.row.rule.selects or verdict.status != "wrong_layout":
        return verdict
    for path, other in rows.items():
        if path == verdict.path or other.sources != q.row.sources or other.join != q.row.join:
            continue
        made = q.evidence.expected(other)
        if made is not None and equal(canonical(made), q.bits):
            note = f"Another part of the packed tensor: what {path} should hold."
            rule = str(other.rule)
            return replace(verdict, kind="other_part", holds=path, note=note, rule=rule)
    return verdict


def _verdict(q: Question, path: str, status: str, **more: object) -> LeafVerdict:
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


def _widened(leaf: np.ndarray, expected: np.ndarray) -> str:
    if leaf.dtype == expected.dtype:
        return ""
    return f"{expected.dtype} in the source, {leaf.dtype} here; no value changed."


def _nothing(q: Question, path: str) -> LeafVerdict:
    """A leaf that no source explains."""
    size = q.leaf.size
    if size and constant(q.bits):
        return _constant(q, path)
    verdict = _verdict(q, path, "unported", source=None, rule=None, kind="foreign")
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
    some = leaf.reshape(-1)[:: max(1, leaf.size // BLOCK)]
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
    what = f"All its {q.leaf.size:,} values are {number:g}"
    note = f"{what}: left at its init."
    if alike:
        note = f"{what}: left at its init, or {alike[0]}, which is as constant."
    verdict = _verdict(q, path, "unported", source=None, rule=None, kind=kind, note=note)
    return replace(verdict, alternatives=tuple(alike))


def _holds_only(array: np.ndarray, value: np.ndarray) -> bool:
    return bool(np.all(array == value))


def _judged(q: Question, path: str, found: Holding) -> LeafVerdict:
    held, e = ", ".join(found.keys), q.evidence
    rule = _rule_text(q, found)
    base = _verdict(q, path, "wrong_source", source=held, rule=rule, alternatives=found.others)
    changed = found.change.text if found.change else ""
    if not q.home:
        return _by_values(q, base, found)
    if set(found.keys) <= set(q.home) or all(any(e.same(k, h) for h in q.home) for k in found.keys):
        own = held if set(found.keys) <= set(q.home) else base.expected_source
        return _own_verdict(q, replace(base, source=own), found, changed)
    return replace(base, kind="other", note=_other_note(q, found, changed))


def _rule_text(q: Question, found: Holding) -> str | None:
    if found.arrangement is not None:
        return str(found.arrangement)
    return str(q.row.rule) if q.row else None


def _own_verdict(q: Question, base: LeafVerdict, found: Holding, changed: str) -> LeafVerdict:
    """The right source, in another order or with other values."""
    if found.arrangement is None:
        assert found.change is not None
        note = f"Its values are {_what(found)}. {found.note}".strip()
        return replace(base, status="changed", kind=found.change.kind, note=note)
    named = _layout_name(q, found)
    also = f" Besides, its values are {_what(found)}." if changed else ""
    note = f"{LAYOUTS[named.kind].capitalize()}. {named.note}".strip() + also
    if named.kind == "partly":
        return replace(base, status="changed", kind="partly", note=note)
    return replace(base, status="wrong_layout", kind=named.kind, note=note)


def _what(found: Holding) -> str:
    assert found.change is not None
    text = found.change.text
    verbs = ("narrowed", "scaled", "squared", "inverted", "subtracted", "cut", "only")
    return text if text.startswith(verbs) else f"not those of the source: {text}"


def _layout_name(q: Question, found: Holding) -> Named:
    assert found.arrangement is not None
    assert q.row is not None
    assert q.expected is not None
    source, expected, leaf = q.evidence.joined(q.row), q.expected, q.leaf
    if found.change is not None:
        source, expected = (found.change.apply(single(a)) for a in (source, expected))
    return name_layout(found.arrangement, source, expected, leaf, q.row.rule)


def _other_note(q: Question, found: Holding, changed: str) -> str:
    held = ", ".join(found.keys)
    parts = [f"Holds {held} instead of {', '.join(q.home)}."]
    if (
        found.arrangement is not None
        and q.row is not None
        and str(found.arrangement) != str(q.row.rule)
    ):
        parts.append(f"It was rearranged by {found.arrangement} as well.")
    if changed:
        parts.append(f"Besides, its values are {_what(found)}.")
    if found.others:
        parts.append(f"{', '.join(found.others)} would explain it as well.")
    return " ".join(parts)


def _by_values(q: Question, base: LeafVerdict, found: Holding) -> LeafVerdict:
    """A leaf that the names say nothing about: what it holds is all that is known."""
    note = f"The names do not tell what this leaf should be. By its values it is {base.source}"
    if found.change is not None:
        changed = replace(base, status="changed", kind=found.change.kind)
        return replace(changed, note=f"{note}, but {found.change.text}.")
    partial = found.arrangement is not None and found.arrangement.partial
    status = "ambiguous" if partial else "ok"
    return replace(base, status=status, note=f"{note} by {base.rule}.")
