"""What a comparison of two traces says: one row a stage, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from porting.errors import number_of
from porting.trace.align import Alignment
from porting.trace.measure import Measure, Pair
from porting.trace.stages import Stage, Trace

STATUSES = {
    "same": "equal, or its difference vanishes in float64",
    "noise": "rounding explains the difference",
    "parts": "wrong by itself: its inputs are right and its output is not",
    "inherited": "wrong because something before or inside it is",
    "unpaired": "the other model has no such stage",
}


@dataclass(frozen=True)
class Match:
    """A stage of the candidate, its reference, and how the axes of each array are turned.

    Attributes:
        mine: the candidate's stage as it was recorded.
        wanted: the reference's stage.
        outputs: candidate output -> (reference output, how it is turned), the main one first.
        inputs: candidate input -> (reference input, how it is turned).
        depth: layers before it.
        units: the unit roundoff of the narrowest dtype up to this stage, and inside it.
    """

    mine: Stage
    wanted: Stage
    outputs: Mapping[str, tuple[str, Alignment]]
    inputs: Mapping[str, tuple[str, Alignment]]
    depth: int
    units: tuple[float, float]

    @property
    def main(self) -> str:
        """The name of the candidate's output that goes on to the next stage."""
        return next(iter(self.outputs))

    @property
    def output(self) -> Alignment:
        """How the reference's main output is turned."""
        return self.outputs[self.main][1]


@dataclass(frozen=True)
class Site:
    """One place where a stage does something else than its reference.

    Attributes:
        slot: `output`: what the stage makes of its inputs, or of its parts' outputs;
            `input`: what it hands to one of its parts.
        path: the candidate's stage whose output or input it is.
        name: the name of that array.
        measure: its error, on the reference's inputs.
        pair: both arrays, in the candidate's axes.
        main: whether it goes on to the next stage (an attention weight, a carry may not).
    """

    slot: str
    path: str
    name: str
    measure: Measure
    pair: Pair = field(repr=False, compare=False)
    main: bool = True

    def __str__(self) -> str:
        where = f"the input of {self.path}"
        if self.slot == "output":
            where = "its output" if self.main else f"its output {self.name}"
        return f"{where} is off by {self.measure.error:.2g} ({times(self.measure.ratio)} the noise)"


@dataclass(frozen=True)
class StageResult:
    """One stage beside its reference.

    Attributes:
        stage: the candidate's path; the reference's where the candidate has none.
        reference: the reference's path, or None.
        kind: the class of the stage.
        alignment: what was done to the reference's axes; "" where nothing is paired.
        error: the largest absolute difference, as it was seen in the recording.
        noise: what rounding explains.
        ratio: error / noise.
        status: one of `STATUSES`.
        basis: how the noise is known; see `Measure.basis`.
        sites: where it parts by itself.
        note: what else there is to know.
    """

    stage: str
    reference: str | None
    kind: str
    alignment: str = ""
    error: float | None = None
    noise: float | None = None
    ratio: float | None = None
    status: str = "unpaired"
    basis: str = ""
    sites: tuple[Site, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class TraceComparison:
    """Two traces, stage by stage, in the order in which the stages finish.

    Attributes:
        reference: the trace that is right.
        candidate: the trace that is judged.
        rows: one for each stage.
        matches: candidate stage -> its reference and the alignments of its arrays.
        replayed: whether every stage was judged on the reference's inputs; otherwise only
            those whose own inputs agree are.
        judged: the candidate's stages as they ran on the reference's inputs, or as recorded.
    """

    reference: Trace
    candidate: Trace
    rows: tuple[StageResult, ...]
    matches: Mapping[str, Match] = field(repr=False)
    replayed: bool
    judged: Trace = field(repr=False)

    @property
    def pairs(self) -> dict[str, str]:
        """Candidate stage -> reference stage."""
        return {path: match.wanted.path for path, match in self.matches.items()}

    @property
    def parting(self) -> tuple[StageResult, ...]:
        """The stages that are wrong by themselves, in the order in which they go wrong."""
        found = [row for row in self.rows if row.status == "parts"]
        return tuple(sorted(found, key=lambda row: min(map(self.when, row.sites))))

    def when(self, site: Site) -> int:
        """When a site shows, on the clock of the candidate."""
        stage = self.candidate.stage(site.path)
        return stage.started if site.slot == "input" else stage.finished

    @property
    def first(self) -> StageResult | None:
        """The first stage that parts from its reference, or None."""
        return next(iter(self.parting), None)

    @property
    def verdict(self) -> str:
        """`parts`, `noise` or `same`; `unpaired` where no stage found its reference."""
        found = {row.status for row in self.rows}
        order = ("parts", "inherited", "noise", "same")
        verdict = next((status for status in order if status in found), "unpaired")
        return "parts" if verdict == "inherited" else verdict

    def row(self, stage: str) -> StageResult:
        """The row of a candidate's stage."""
        return next(row for row in self.rows if row.stage == stage)

    def report(self) -> str:
        """The rows as text, with a sentence on top."""
        paired = [row for row in self.rows if row.status != "unpaired"]
        lines = [self._headline(len(paired))]
        lines += [f"  {row.stage}: {site}." for row in self.parting for site in row.sites]
        for row in self.rows:
            numbers = "" if row.error is None else f"{row.error:9.2g} {times(row.ratio):>8}"
            beside = f" <- {row.reference}" if row.reference else ""
            turned = f"  [{row.alignment}]" if row.alignment not in ("", "as is") else ""
            note = f"  {row.note}" if row.note else ""
            lines.append(f"{row.status:>9} {numbers:>18}  {row.stage}{beside}{turned}{note}")
        return "\n".join(lines)

    def _headline(self, paired: int) -> str:
        stages = f"{number_of(paired, 'stage')} paired, {len(self.rows) - paired} unpaired."
        if self.verdict == "unpaired":
            return f"No stage of one model was found in the other. {stages} Pass a mapping."
        if not self.parting:
            parts = "An error is seen, but no stage could be judged by itself. "
            said = parts if self.verdict == "parts" else "No stage parts from its reference. "
            return said + stages
        names = ", ".join(row.stage for row in self.parting)
        how = "" if self.replayed else " Without a replay, later faults may hide behind it."
        verb = "parts by itself" if len(self.parting) == 1 else "part by themselves"
        return f"{number_of(len(self.parting), 'stage')} {verb}: {names}. {stages}{how}"

    def as_rows(self) -> list[dict[str, Any]]:
        """The rows as plain dictionaries, for a table, a chart or JSON."""
        words = ("stage", "reference", "kind", "alignment", "error", "noise", "ratio", "status")
        return [
            {w: getattr(row, w) for w in words}
            | {"basis": row.basis, "sites": [str(site) for site in row.sites], "note": row.note}
            for row in self.rows
        ]


def times(ratio: float | None) -> str:
    """A ratio for people.

    >>> times(0.25), times(4321.0), times(math.inf)
    ('0.25×', '4.3e+03×', '∞×')
    """
    if ratio is None:
        return ""
    return "∞×" if math.isinf(ratio) else f"{ratio:.2g}×"
