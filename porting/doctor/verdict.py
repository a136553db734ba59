"""`LeafVerdict`: what one leaf holds, what it should hold, and the way from one to the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from porting.leaves import Leaf

#: status -> what it means
STATUSES = {
    "ok": "holds what it should, bit for bit",
    "wrong_layout": "the right source, rearranged wrongly",
    "wrong_source": "holds another tensor",
    "changed": "the right source with other values",
    "unported": "holds nothing of the source",
    "missing": "is not there",
    "ambiguous": "the data cannot tell",
}


@dataclass(frozen=True)
class LeafVerdict:
    """The verdict on one leaf.

    Attributes:
        path: of the leaf in the ported tree.
        status: a key of `STATUSES`.
        kind: what was done, as a short word ("untransposed", "cast", "zeros"); "" if nothing.
        source: the source key that it holds (several joined by ", "), or None.
        expected_source: the key that it should hold, or None where the names do not tell.
        rule: what was done to the source, in named axes where they can say it.
        expected_rule: what should have been done.
        note: one or two sentences.
        fix: a NumPy expression in `source` that gives the right array; tried before it is shown.
        also: what was done besides `kind`, in the same words.
        holds: the path of the leaf whose part of a packed source it holds, or "".
        alternatives: source keys that explain the values as well.
        row: the row of the mapping that says what is right.
    """

    path: str
    status: str
    kind: str = ""
    source: str | None = None
    expected_source: str | None = None
    rule: str | None = None
    expected_rule: str | None = None
    note: str = ""
    fix: str = ""
    also: tuple[str, ...] = ()
    holds: str = ""
    alternatives: tuple[str, ...] = ()
    row: Leaf | None = field(default=None, compare=False, repr=False)

    @property
    def wrong(self) -> bool:
        """Whether the leaf is known to be wrong."""
        return self.status not in ("ok", "ambiguous")

    def to_dict(self) -> dict[str, object]:
        """The verdict as plain data."""
        names = ("path", "status", "kind", "source", "expected_source", "rule", "expected_rule")
        plain = {name: getattr(self, name) for name in (*names, "note", "fix", "holds")}
        return {**plain, "also": list(self.also), "alternatives": list(self.alternatives)}
