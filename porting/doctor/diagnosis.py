"""`diagnose`: source and ported tree -> a verdict for every leaf, and what they add up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from porting.doctor.cells import lost_leaves
from porting.doctor.evidence import Evidence
from porting.doctor.expected import expected_rows
from porting.doctor.findings import Finding, findings, unused_finding
from porting.doctor.finer import finer_copy
from porting.doctor.fixes import right_array
from porting.doctor.flattens import Orders, lying, unanswered
from porting.doctor.in_order import by_number, in_order, out_of_order
from porting.doctor.judge import judge
from porting.doctor.missing import held_keys, missing
from porting.doctor.readings import questions_of, reread
from porting.doctor.relations import relate
from porting.doctor.renamed import renamed
from porting.doctor.sourceless import without_source
from porting.doctor.table import Table
from porting.doctor.unsure import settle
from porting.doctor.verdict import STATUSES, LeafVerdict
from porting.errors import ArgumentError, checked, number_of
from porting.leaves import Leaf
from porting.tensors import array_of
from porting.tree import leaves as leaves_of

SHOWN = 6  #: leaves that a text report lists for one finding


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a port, leaf by leaf.

    Attributes:
        leaves: path -> verdict, in the order of the ported tree; missing leaves last.
        findings: what was done wrong, grouped, the worst first.
        unused: source keys that no leaf holds -> why that may be right ("" if it is not known).
    """

    leaves: dict[str, LeafVerdict]
    findings: tuple[Finding, ...]
    unused: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether no leaf is known to be wrong."""
        return not any(v.wrong for v in self.leaves.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many leaves have each status, those without any left out."""
        found = Counter(v.status for v in self.leaves.values())
        return {status: found[status] for status in STATUSES if found[status]}

    def report(self) -> str:
        """The diagnosis as text."""
        lines = [_headline(self)]
        for number, finding in enumerate(self.findings, 1):
            lines += ["", f"{number}. [{finding.severity}] {finding.title}"]
            lines += [f"   {line}" for line in self._shown(finding)]
            if finding.fix:
                lines.append(f"   fix for {finding.leaves[0]}: {finding.fix}")
        return "\n".join(lines)

    def _shown(self, finding: Finding) -> list[str]:
        """The first leaves of a finding; a note that they share is written once."""
        shown = finding.leaves[:SHOWN]
        notes = {self.leaves[path].note for path in finding.leaves}
        shared = len(notes) == 1 and len(finding.leaves) > 1
        lines = [*notes] if shared else []
        lines += [path if shared else f"{path}: {self.leaves[path].note}" for path in shown]
        more = len(finding.leaves) - len(shown)
        return [*lines, f"and {more:,} more"] if more else lines

    def to_dict(self) -> dict[str, object]:
        """The diagnosis as plain data."""
        return {
            "ok": self.ok,
            "counts": self.counts,
            "findings": [finding.to_dict() for finding in self.findings],
            "leaves": {path: v.to_dict() for path, v in self.leaves.items()},
            "unused": self.unused,
        }

    def to_json(self, indent: int | None = 2) -> str:
        """The diagnosis as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)


def _headline(diagnosis: Diagnosis) -> str:
    total, wrong = len(diagnosis.leaves), sum(v.wrong for v in diagnosis.leaves.values())
    unsure = diagnosis.counts.get("ambiguous", 0)
    told = f" Of {number_of(unsure, 'leaf')} the data cannot tell." if unsure else ""
    if wrong:
        verb = "is" if wrong == 1 else "are"
        return f"{wrong:,} of {number_of(total, 'leaf')} {verb} wrong.{told}"
    return f"All {number_of(total, 'leaf')} hold what they should.{told}"


def diagnose(source: Mapping[str, Any], ported: Any, mapping: Any = None) -> Diagnosis:
    """What every leaf of a port holds, and whether it should.

    The verdict comes from the values. Names only say what should be there; where they are
    unsure, the values decide alone.

    Args:
        source: key -> array: a state_dict, an opened checkpoint, or Flax parameters.
        ported: Linen variables, an NNX module, or a flat mapping path -> array.
        mapping: what should be where (`porting.mapping.Mapping`); inferred if None.

    Returns:
        The verdicts, the findings, and the source keys that nothing holds.

    Raises:
        ArgumentError: the port holds no arrays, or one side what is no array of numbers.

    >>> weight = np.arange(9, dtype=np.float32).reshape(3, 3)
    >>> found = diagnose({"fc.weight": weight}, {"params": {"fc": {"kernel": weight}}})
    >>> found.leaves["params/fc/kernel"].status, found.leaves["params/fc/kernel"].fix
    ('wrong_layout', 'source["fc.weight"].T')
    """
    tree = {path: array_of(leaf) for path, leaf in leaves_of(ported).items()}
    if not tree:
        raise ArgumentError("The ported parameters hold no array. Pass the whole tree.")
    evidence = Evidence(source)
    with np.errstate(all="ignore"):
        return _diagnosed(source, tree, evidence, mapping)


def _diagnosed(
    source: Mapping[str, Any], tree: Mapping[str, Any], evidence: Evidence, mapping: Any
) -> Diagnosis:
    from porting.mapping import infer_mapping

    given = mapping is not None
    if mapping is None:
        mapping = infer_mapping(source, {**tree, **lost_leaves(tree)})
        lists = out_of_order(tree, mapping, evidence)
        ordered = in_order(tree, lists, evidence)
        if any(ordered[path] is not leaf for path, leaf in tree.items()):
            mapping = infer_mapping(source, {**ordered, **lost_leaves(ordered)})
        rows = by_number(expected_rows(mapping, ordered, evidence), ordered, lists, evidence)
    else:
        leaves: Any = getattr(mapping, "leaves", None)
        checked(
            "mapping.leaves", leaves, Mapping, "Pass what infer_mapping returns, or no mapping."
        )
        rows = dict(leaves)
    other = {} if given else reread(rows, tree, evidence)
    rows |= other
    orders = Orders(evidence, given)
    rows |= orders.asked(rows)
    table = Table(rows, evidence)
    evidence.sightings.watch(map(np.asarray, tree.values()))
    verdicts = {
        path: judge(path, leaf, rows.get(path), evidence, table) for path, leaf in tree.items()
    }
    told = lying(verdicts, rows, tree, evidence)
    rows |= told
    verdicts |= {p: judge(p, tree[p], row, evidence, table) for p, row in told.items()}
    verdicts = finer_copy(verdicts, tree, evidence, table)
    verdicts = settle(verdicts, tree, rows, evidence, given)
    verdicts = questions_of(verdicts, other)
    verdicts, elsewhere = renamed(verdicts, rows)
    rows |= elsewhere
    verdicts |= missing(verdicts, tree, rows, evidence, mapping, given)
    verdicts = without_source(verdicts, tree, evidence, mapping)
    verdicts = relate(unanswered(verdicts, tree, orders, evidence))
    shapes = {path: tuple(leaf.shape) for path, leaf in tree.items()}
    unused = _unused(verdicts, rows, evidence, getattr(mapping, "unused", {}))
    wanted = {
        k for v in verdicts.values() if v.wrong for k in (v.expected_source or "").split(", ")
    }
    keys = wanted & evidence.shapes.keys()
    wanted |= {key for key in unused if any(evidence.same(key, k) for k in keys)}
    found = findings(verdicts, shapes) + unused_finding(unused, wanted)
    return Diagnosis(verdicts, found, unused)


def _unused(
    verdicts: Mapping[str, LeafVerdict],
    rows: Mapping[str, Leaf],
    evidence: Evidence,
    reasons: Mapping[str, str],
) -> dict[str, str]:
    """Source keys that no leaf holds, with the excuse that there is for them."""
    held = held_keys(verdicts)
    held |= {key for v in verdicts.values() if v.status == "ok" and v.row for key in v.row.sources}
    unused = {}
    for key in evidence.shapes:
        if key not in held:
            why = reasons.get(key, "")
            unused[key] = "" if why.startswith("no place") else why
    return unused


def repair(source: Mapping[str, Any], ported: Any, diagnosis: Diagnosis) -> dict[str, np.ndarray]:
    """The ported leaves with every one that is wrong put right, path -> array.

    Leaves whose right value the names do not tell are left as they are. A leaf that is under
    another name is moved to its own.

    >>> weight = np.arange(9, dtype=np.float32).reshape(3, 3)
    >>> source, ported = {"fc.weight": weight}, {"params": {"fc": {"kernel": weight}}}
    >>> repair(source, ported, diagnose(source, ported))["params/fc/kernel"][0].tolist()
    [0.0, 3.0, 6.0]
    """
    checked("diagnosis", diagnosis, Diagnosis, "Pass what diagnose returns.")
    evidence = Evidence(source)
    out = {path: array_of(leaf) for path, leaf in leaves_of(ported).items()}
    for path, verdict in diagnosis.leaves.items():
        if verdict.wrong and verdict.row is not None and verdict.fix:
            elsewhere = verdict.alternatives[0] if verdict.kind == "renamed" else path
            given = out.pop(elsewhere, None)
            dtype = None if given is None else given.dtype
            out[path] = np.asarray(right_array(verdict.row, evidence, dtype), order="C")
    return out
