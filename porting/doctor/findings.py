"""Many verdicts -> few findings: one sentence for what was done wrong in one way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from porting.doctor.names import template
from porting.doctor.rings import rings
from porting.doctor.titles import TITLES, done
from porting.doctor.verdict import LeafVerdict
from porting.doctor.wording import difference, places

#: severity -> order in the report
SEVERITIES = {"error": 0, "warning": 1, "note": 2}

KEYS = 6  #: source keys that one sentence names


@dataclass(frozen=True)
class Finding:
    """One thing that was done wrong, with every leaf that it touched.

    Attributes:
        title: a sentence.
        severity: "error", "warning" or "note".
        status, kind: as in the verdicts.
        leaves: paths, in the order of the tree.
        fix: the line for the first of them, "" if none is needed or known.
    """

    title: str
    severity: str
    status: str
    kind: str
    leaves: tuple[str, ...]
    fix: str = ""

    def to_dict(self) -> dict[str, object]:
        """The finding as plain data."""
        return {
            "title": self.title, "severity": self.severity, "status": self.status,
            "kind": self.kind, "leaves": list(self.leaves), "fix": self.fix,
        }  # fmt: skip


def findings(
    verdicts: Mapping[str, LeafVerdict], shapes: Mapping[str, Sequence[int]]
) -> tuple[Finding, ...]:
    """The findings of a diagnosis, the worst first.

    Args:
        verdicts: by path.
        shapes: of the leaves, by path.
    """
    groups: dict[tuple[str, ...], list[LeafVerdict]] = {}
    names = rings(verdicts)
    for v in verdicts.values():
        if v.status != "ok":
            more = names[v.path] if v.kind == "rotated" else ()
            groups.setdefault((*_key(v), *more), []).append(v)
    found = [_finding(group, verdicts, shapes) for group in groups.values()]
    found += _renamed(verdicts)
    return tuple(sorted(found, key=lambda f: (SEVERITIES[f.severity], -len(f.leaves))))


def _key(v: LeafVerdict) -> tuple[str, ...]:
    """What verdicts must share to be one finding."""
    if v.kind == "exchanged":
        return (v.status, v.kind, *v.also, *_pair(v))
    if v.status == "changed":
        return (v.status, v.kind, v.note.split(".")[0] if v.kind != "scaled" else v.note)
    if v.status == "wrong_source" and v.kind == "other":
        return (v.status, v.kind, *v.also, template(v.path), template(v.source or ""))
    return (v.status, v.kind, *v.also)


def _pair(v: LeafVerdict) -> tuple[str, ...]:
    """The names that were exchanged; ("layers",) for the same leaf of two layers."""
    both = [v.holds, v.path] if v.holds else [v.source or "", v.expected_source or ""]
    a, b = (template(name).replace("/", ".") for name in both)
    return ("layers",) if a == b else tuple(sorted(difference(a, b)))


def _finding(
    group: list[LeafVerdict],
    verdicts: Mapping[str, LeafVerdict],
    shapes: Mapping[str, Sequence[int]],
) -> Finding:
    first = group[0]
    severity = {
        "ambiguous": "note",
        "changed": "warning" if first.kind in ("cast", "finer") else "error",
    }
    paths = tuple(v.path for v in group)
    title = TITLES[first.status](group, verdicts, shapes)
    if first.also:
        title = f"{title.removesuffix('.')}, and {', '.join(map(done, first.also))}."
    fix = next((v.fix for v in group if v.fix), "")
    return Finding(title, severity.get(first.status, "error"), first.status, first.kind, paths, fix)


def _renamed(verdicts: Mapping[str, LeafVerdict]) -> list[Finding]:
    """Leaves that hold what they should under a name that may not be theirs."""
    moved = [
        v for v in verdicts.values() if v.kind == "renamed" and v.status == "ok" and not v.holds
    ]
    if not moved:
        return []
    paths = tuple(v.path for v in moved)
    title = f"{places(paths)}: right values under another name."
    return [Finding(title, "warning", "ok", "renamed", paths)]


def unused_finding(
    unused: Mapping[str, str], wanted: Collection[str | None]
) -> tuple[Finding, ...]:
    """The source keys that nothing holds, wants or excuses, as one finding without leaves."""
    left = [key for key, why in unused.items() if not why and key not in wanted]
    if not left:
        return ()
    title = f"No leaf holds {', '.join(left[:KEYS])}{' …' * (len(left) > KEYS)}: the target may have no place for it, or a leaf is missing."
    return (Finding(title, "note", "missing", "unused", ()),)
