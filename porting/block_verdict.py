"""What a port of the encoder block did, leaf by leaf and in words."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from porting.block import LINEN_TO_NNX
from porting.block_case import SOURCES, BlockCase
from porting.block_stages import Stage
from porting.compare import NetworkComparison
from porting.errors import number_of
from porting.faults import Fault, Leaves, Port
from porting.leaves import Leaf
from porting.verdict import Verdict


@dataclass(frozen=True)
class LeafRow:
    """One row of the leaf table.

    Attributes:
        leaf: where it goes, from which tensors, by which rule.
        before: shapes of its source tensors.
        after: shape of the leaf that this port wrote.
        status: "ok", "skipped" (left at its init) or "wrong" (other numbers or shape).
        same: whether it equals the right leaf bit for bit; a skipped leaf may, by chance of
            the init.
    """

    leaf: Leaf
    before: tuple[tuple[int, ...], ...]
    after: tuple[int, ...]
    status: str
    same: bool

    @property
    def path(self) -> str:
        """The Linen path."""
        return self.leaf.path

    @property
    def attribute(self) -> str:
        """The NNX attribute path."""
        return LINEN_TO_NNX[self.leaf.path]

    @property
    def code(self) -> str:
        """The line that writes this leaf rightly.

        A Linen source is written into an NNX block, a PyTorch source into Linen `params`.
        """
        keys = "".join(f'["{name}"]' for name in self.path.split("/")[1:])
        (source,) = self.leaf.sources
        if source == self.path:
            block = self.attribute.replace("/", ".")
            return f"block.{block}.set_value(params{keys})"
        value = f'state["{source}"]'
        if (index := re.search(r"qkv=(\d)", self.leaf.rule.pattern)) is not None:
            value = f"np.split({value}, 3)[{index[1]}]"
        return f"params{keys} = {value}{'.T' if len(self.after) == 2 else ''}"


def leaf_rows(
    table: tuple[Leaf, ...], source: Leaves, right: Port, port: Port
) -> tuple[LeafRow, ...]:
    """The leaf table of `port` beside the right one."""
    rows = []
    for leaf in table:
        wrote = port.leaves[leaf.path]
        same = np.array_equal(wrote, right.leaves[leaf.path], equal_nan=True)
        status = "skipped" if leaf.path in port.skipped else "ok" if same else "wrong"
        before = tuple(source[key].shape for key in leaf.sources)
        rows.append(LeafRow(leaf, before, wrote.shape, status, same))
    return tuple(rows)


def verdict_of(
    case: BlockCase,
    fault: Fault | None,
    stages: tuple[Stage, ...],
    rows: tuple[LeafRow, ...],
    crash: str,
) -> Verdict:
    """The verdict of a port, with the lines that put it right.

    Args:
        stages: empty after a crash.
        crash: what Flax said, or "".
    """
    if fault is None:
        return _without_fault(stages[-1].nnx, rows)
    wrong = [row for row in rows if row.status != "ok"]
    fix = "\n".join(row.code for row in wrong) or fault.fix
    if crash:
        text = (
            f"{wrong[0].path} arrived as {wrong[0].after}, which the block does not fit. "
            f"{fault.why} Here the shapes differ, so Flax notices. With d_ff = d_model nothing would."
        )
        return Verdict("crash", text, fix, crash)
    if stages[-1].nnx.within:
        return Verdict("unsure", _why_unseen(case, fault, rows), fix)
    return Verdict(fault.kind, _what_happened(fault, stages, rows), fix)


def _without_fault(output: NetworkComparison, rows: tuple[LeafRow, ...]) -> Verdict:
    if not output.within:
        return Verdict(
            "unsure",
            f"All {len(rows)} leaves are in place, bit for bit, and the output is off by up to "
            f"{output.d64:.1e} in float64. Change the data seed.",
        )
    return Verdict(
        "exact",
        f"Every output is within rounding. Largest difference {output.d32:.1e}; in float64 it "
        f"shrinks to {output.d64:.1e}, as only rounding does. All {len(rows)} leaves are in "
        "place, bit for bit.",
    )


def _why_unseen(case: BlockCase, fault: Fault, rows: tuple[LeafRow, ...]) -> str:
    if fault.where == "leaves" and all(row.same for row in rows):
        fresh = SOURCES[case.source].fresh and not case.randomise
        way = "Randomise every leaf to see the difference." if fresh else "Change the data seed."
        return (
            "Every leaf is right, bit for bit, by chance: this fault exchanged or left numbers "
            "that are equal at a fresh init, where biases are zero and scales one. No check can "
            f"fail. {way}"
        )
    return (
        f"{_blame(rows)} Yet every output is within rounding here. {fault.symptom} "
        "Another input may tell: change T or the data seed."
    )


def _what_happened(fault: Fault, stages: tuple[Stage, ...], rows: tuple[LeafRow, ...]) -> str:
    output = stages[-1].nnx
    first = next(stage for stage in stages if stage.diverges)
    return (
        f"Shapes agree. The output is off by up to {output.d64:.1e}, {_times(output)} its "
        f"rounding. It starts at {first.name} ({first.title.lower()}). {_blame(rows)} {fault.why}"
    )


def _blame(rows: tuple[LeafRow, ...]) -> str:
    wrong = [row.path for row in rows if not row.same]
    if not wrong:
        return "Every leaf is right, bit for bit; the forward pass is not."
    named = wrong[0] if len(wrong) == 1 else f"{wrong[0]} and {len(wrong) - 1} more"
    verb = "is not what" if len(wrong) == 1 else "are not what"
    return f"{number_of(len(wrong), 'leaf')} of {len(rows)} {verb} the source holds: {named}."


def _times(comparison: NetworkComparison) -> str:
    ratio = comparison.error_over_noise
    return f"{ratio:.1e} times" if np.isfinite(ratio) else "far beyond"
