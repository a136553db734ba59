"""One leaf and what it should be -> its verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from porting.doctor.bits import canonical, equal, fingerprint
from porting.doctor.evidence import Evidence
from porting.doctor.holding import Holding, Question
from porting.doctor.kinds import LAYOUTS, Named
from porting.doctor.naming import name_layout
from porting.doctor.plain import plain_verdict
from porting.doctor.questions import holding
from porting.doctor.table import Table
from porting.doctor.unexplained import unexplained
from porting.doctor.values import single, through
from porting.doctor.verdict import LeafVerdict
from porting.leaves import ONLY, Leaf


def judge(
    path: str,
    leaf: np.ndarray,
    row: Leaf | None,
    evidence: Evidence,
    table: Table | None = None,
) -> LeafVerdict:
    """The verdict on `leaf`, with what `row` says it should be as the measure.

    A leaf that has the expected bits is "ok", whatever else would explain it.

    Args:
        path: of the leaf.
        leaf: the given array.
        row: what it should be, or None where the names do not tell.
        evidence: the source.
        table: what all leaves should be.
    """
    expected = evidence.expected(row)
    row = row if expected is not None else None
    q = Question(leaf, row, expected, evidence, table or Table({}, evidence))
    if expected is not None and equal(q.bits, canonical(expected)):
        return plain_verdict(q, path, "ok", note=_widened(leaf, expected))
    found = holding(q)
    return unexplained(q, path) if found is None else _judged(q, path, found)


def _widened(leaf: np.ndarray, expected: np.ndarray) -> str:
    if leaf.dtype == expected.dtype:
        return ""
    return f"{expected.dtype} in the source, {leaf.dtype} here; no value changed."


def _judged(q: Question, path: str, found: Holding) -> LeafVerdict:
    held, e = ", ".join(found.keys), q.evidence
    base = plain_verdict(
        q, path, "wrong_source", source=held, rule=_rule_text(q, found), alternatives=found.others
    )
    if not q.home:
        return _by_values(q, base, found)
    own = set(found.keys) <= set(q.home)
    if not own and not all(any(e.same(k, h) for h in q.home) for k in found.keys):
        return _other_verdict(q, replace(base, kind="other"), found)
    base = replace(base, source=held if own else base.expected_source)
    meant = found.other or _other_part(q, found)
    if meant:
        return _other_part_verdict(q, base, found, meant)
    return _own_verdict(q, base, found)


def _rule_text(q: Question, found: Holding) -> str | None:
    if found.arrangement is not None:
        return str(found.arrangement)
    row = q.table.rows[found.other] if found.other else q.row
    return str(row.rule) if row else None


def _other_part(q: Question, found: Holding) -> str:
    """The path of the leaf whose part of the same packed source this is, "" if it is its own."""
    if q.row is None or not q.row.rule.selects or found.arrangement is None:
        return ""
    return "" if _is_made_of(q, found, q.row) else _meant(q, found)


def _meant(q: Question, found: Holding) -> str:
    """The path of the leaf that should hold these very values, in whatever order."""
    rows = q.table.rows
    paths = [p for p in q.table.reading(found.keys) if q.row is None or p != q.row.path]
    return next((p for p in paths if _is_made_of(q, found, rows[p])), "")


def _is_made_of(q: Question, found: Holding, row: Leaf) -> bool:
    """Whether the leaf has the values, in any order, that a row makes."""
    made = q.evidence.expected(row)
    if made is None or made.size != q.leaf.size:
        return False
    return fingerprint(_bits(q, found, made)) == fingerprint(q.bits)


def _bits(q: Question, found: Holding, array: np.ndarray) -> np.ndarray:
    """The bits of `array`, its values changed as those of the leaf were."""
    if found.change is None:
        return q.bits_of(array)
    made = found.change.apply(single(array))
    return canonical(through(q.narrow)(made) if q.narrow is not None else made)


def _other_part_verdict(q: Question, base: LeafVerdict, found: Holding, meant: str) -> LeafVerdict:
    """A wrong piece of a packed source that is right for another leaf is named so."""
    named = _layout_name(q, found, q.table.rows[meant])
    note = f"Another part of the packed tensor: what {meant} should hold. {_besides(found, named)}"
    return replace(
        base, status="wrong_layout", kind="other_part", holds=meant, note=note.strip(),
        also=_also(found, named),
    )  # fmt: skip


def _other_verdict(q: Question, base: LeafVerdict, found: Holding) -> LeafVerdict:
    """Another tensor, and what was done to it besides."""
    meant = found.other or _meant(q, found)
    row = q.table.rows[meant] if meant else replace(q.row, sources=found.keys) if q.row else None
    named = _layout_name(q, found, row) if row and (meant or row.join is ONLY) else None
    parts = [f"Holds {base.source} instead of {base.expected_source}.", _besides(found, named)]
    if found.others:
        parts.append(f"{', '.join(found.others)} would explain it as well.")
    holds = meant if meant and row and row.rule.selects else ""
    note = " ".join(filter(None, parts))
    return replace(base, note=note, holds=holds, also=_also(found, named))


def _own_verdict(q: Question, base: LeafVerdict, found: Holding) -> LeafVerdict:
    """The right source, in another order or with other values."""
    if found.arrangement is None:
        assert found.change is not None
        note = f"Its values are {_what(found)}. {found.note}".strip()
        return replace(base, status="changed", kind=found.change.kind, note=note)
    named = _layout_name(q, found, q.row) or Named("rearranged")
    besides = _besides(found, replace(named, kind=named.also[0], also=named.also[1:]) if named.also else None)  # fmt: skip
    note = f"{LAYOUTS[named.kind].capitalize()}. {named.note} {besides}".replace("  ", " ").strip()
    status = "changed" if named.kind == "partly" else "wrong_layout"
    also = _also(found, named)[1:]
    return replace(base, status=status, kind=named.kind, note=note, also=also)


def _also(found: Holding, named: Named | None) -> tuple[str, ...]:
    """All kinds of what was done to the values and their order."""
    layouts = (named.kind, *named.also) if named else ()
    return (*layouts, found.change.kind) if found.change else layouts


def _besides(found: Holding, named: Named | None) -> str:
    """What was done besides, in a sentence; "" if nothing was."""
    layouts = [LAYOUTS[kind] for kind in (named.kind, *named.also)] if named else []
    values = [f"its values are {_what(found)}"] if found.change else []
    return f"Besides, {', '.join([*layouts, *values])}." if layouts or values else ""


def _what(found: Holding) -> str:
    assert found.change is not None
    text = found.change.text
    verbs = ("narrowed", "scaled", "squared", "inverted", "subtracted", "cut", "only")
    return text if text.startswith(verbs) else f"not those of the source: {text}"


def _layout_name(q: Question, found: Holding, row: Leaf | None) -> Named | None:
    """What was done wrong to what `row` makes; None if nothing was but to its values."""
    expected = q.evidence.expected(row)
    if found.named or found.arrangement is None or row is None or expected is None:
        return found.named
    source = q.evidence.joined(row)
    if equal(_bits(q, found, expected), q.bits):
        return None
    if found.change is not None:
        source, expected = (_bits(q, found, a).view(np.float32) for a in (source, expected))
    return name_layout(found.arrangement, source, expected, q.leaf, row.rule)


def _by_values(q: Question, base: LeafVerdict, found: Holding) -> LeafVerdict:
    """A leaf that the names say nothing about: what it holds is all that is known."""
    note = f"The names do not tell what this leaf should be. By its values it is {base.source}"
    if found.change is not None:
        changed = replace(base, status="changed", kind=found.change.kind)
        return replace(changed, note=f"{note}, but {found.change.text}.")
    partial = found.arrangement is not None and found.arrangement.partial
    status = "ambiguous" if partial else "ok"
    return replace(base, status=status, note=f"{note} by {base.rule}. {found.note}".strip())
