"""Where a forward pass parts from its reference, and which stages are wrong by themselves.

With a fresh recording of the candidate, its model is run again with the reference's arrays
in place of its own: every module then works on the right inputs, and what it hands to its
parts is seen as well. So each fault shows at its own stage, however many there are. With
files only, a stage is judged where its own inputs agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from porting.errors import checked
from porting.trace.align import Alignment, align_inputs, is_spatial
from porting.trace.comparison import Match, Site, StageResult, TraceComparison
from porting.trace.measure import Measure, units
from porting.trace.outputs import align_outputs
from porting.trace.pair import family, pair, passes
from porting.trace.sites import find_sites, main, worst
from porting.trace.stages import Stage, Trace


def compare_traces(
    reference: Trace, candidate: Trace, mapping: Mapping[str, str] | None = None
) -> TraceComparison:
    """Stage by stage, what the candidate does beside the reference.

    Args:
        reference: the trace that is right (mostly of `record_torch`).
        candidate: the trace to judge; a fresh one is replayed on the reference's inputs.
        mapping: reference stage -> candidate stage, where the names do not tell.

    Returns:
        A `TraceComparison`; its rows are in the order in which the stages finish.

    Raises:
        ArgumentError: the mapping names a stage that is not there.

    >>> from porting.trace.stages import Stage
    >>> x, y = np.float32([[1, 2]]), np.float32([[3, 4]])
    >>> right = Trace("torch", (Stage("fc", "Linear", "", 1, 2, {"0": x}, {"": y}),))
    >>> wrong = Trace("linen", (Stage("fc", "Dense", "", 1, 2, {"0": x}, {"": y + 1}),))
    >>> compare_traces(right, right).verdict, compare_traces(right, wrong).first.stage
    ('same', 'fc')
    """
    for name, trace in (("reference", reference), ("candidate", candidate)):
        checked(name, trace, Trace, "Pass a trace of record_torch, record_linen or record_nnx.")
    matches = _matches(reference, candidate, candidate, mapping)
    seen = worst(matches, candidate)
    judged, replayed = candidate, False
    if candidate.replay is not None and any(m.parts for m in seen.values()):
        matches, judged = _replayed(reference, candidate, matches, mapping)
        seen = worst(matches, candidate)
        replayed = True
    mains = main(matches, candidate)
    matches = {path: m for path, m in matches.items() if not _cut_elsewhere(m, mains, candidate)}
    sites = find_sites(matches, seen, candidate, judged, replayed)
    rows = [_row(match, seen[path], sites.get(path, ())) for path, match in matches.items()]
    return TraceComparison(
        reference,
        candidate,
        tuple(_in_order(rows, reference, candidate, matches)),
        matches,
        replayed,
        judged,
    )


def _matches(
    reference: Trace, candidate: Trace, shown: Trace, mapping: Mapping[str, str] | None
) -> dict[str, Match]:
    """The pairs, found by what the candidate's stages hold in `shown`."""
    pairs = pair(reference, shown, mapping)
    turned = reference.framework == "torch" != candidate.framework
    matches: dict[str, Match] = {}
    narrow = units(reference), units(candidate)
    depth = 0
    for stage in shown.stages:
        if stage.path not in pairs or stage.path not in candidate:
            continue
        wanted = reference.stage(pairs[stage.path])
        first = turned and _channels_first(reference, wanted)
        spatial = is_spatial(wanted.kind) or is_spatial(stage.kind)
        outputs = align_outputs(wanted, stage, first, spatial)
        if not outputs:
            continue
        flattened = _flattened(reference, wanted) if turned else ()
        inputs = align_inputs(wanted.inputs, stage.inputs, first, flattened, spatial)
        mine = candidate.stage(stage.path)
        before, inside = map(max, narrow[0][wanted.path], narrow[1][stage.path])
        matches[stage.path] = Match(mine, wanted, outputs, inputs, depth, (before, inside))
        depth += bool(family(stage.kind))
    return matches


def _channels_first(reference: Trace, wanted: Stage) -> bool:
    """Whether this stage of the reference is channels first for what it, or a part of it, is."""
    if is_spatial(wanted.kind):
        return True
    inside = (s for s in reference.stages if wanted.path in reference.ancestors(s.path))
    return wanted.output.ndim > 3 and any(is_spatial(s.kind) for s in inside)


def _replayed(
    reference: Trace,
    candidate: Trace,
    matches: dict[str, Match],
    mapping: Mapping[str, str] | None,
) -> tuple[dict[str, Match], Trace]:
    """The pairs found again on right arrays, and the candidate on the reference's inputs.

    The layers whose family is known are put right first: then the content of everything
    between them tells which stages belong together and how their axes lie.
    """
    assert candidate.replay is not None
    known = {p: m for p, m in matches.items() if _same_family(m)}
    shown = candidate.replay({p: _only_outputs(_forced(m)) for p, m in known.items()})
    matches = _matches(reference, candidate, shown, mapping)
    shown = candidate.replay({p: _only_outputs(_forced(m)) for p, m in matches.items()})
    for path, match in matches.items():
        stage = shown.stage(path)
        first = any(a.by == "kind" for _, a in match.inputs.values())
        flattened = _flattened(reference, match.wanted)
        spatial = is_spatial(match.wanted.kind) or is_spatial(stage.kind)
        inputs = align_inputs(match.wanted.inputs, stage.inputs, first, flattened, spatial)
        matches[path] = dataclasses.replace(match, inputs=inputs)
    return matches, candidate.replay({p: _forced(m) for p, m in matches.items()})


def _flattened(reference: Trace, wanted: Stage) -> tuple[tuple[int, ...], ...]:
    """(channels, height, …) of what the reference may have flattened before this stage."""
    return tuple(
        {
            stage.output.shape[1:]: None
            for stage in reference.stages
            if stage.finished < wanted.started and stage.output.ndim > 2 and is_spatial(stage.kind)
        }
    )


def _same_family(match: Match) -> bool:
    return bool(family(match.mine.kind)) and family(match.mine.kind) == family(match.wanted.kind)


def _only_outputs(stage: Stage) -> Stage:
    """Enough to find pairs and axes by: no inputs, float32."""
    return dataclasses.replace(stage, inputs={}, inputs64={}, outputs64={})


def _forced(match: Match) -> Stage:
    """The reference's arrays under the candidate's names, in its axes."""
    wanted = match.wanted

    def turned(
        pairs: Mapping[str, tuple[str, Alignment]], arrays: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        return {n: a.apply(arrays[other]) for n, (other, a) in pairs.items() if other in arrays}

    return dataclasses.replace(
        match.mine,
        inputs=turned(match.inputs, wanted.inputs),
        inputs64=turned(match.inputs, wanted.inputs64),
        outputs=turned(match.outputs, wanted.outputs),
        outputs64=turned(match.outputs, wanted.outputs64),
    )


def _cut_elsewhere(match: Match, seen: Mapping[str, Measure], trace: Trace) -> bool:
    """Whether a stage differs while what contains it agrees: then it is no such stage.

    An error does not vanish, but for a layer whose kind is known it is taken at its word (a
    key bias cancels in the softmax).
    """
    path = match.mine.path
    if not seen[path].parts or _same_family(match):
        return False
    around = next((p for p in trace.ancestors(path) if p in seen), None)
    return around is not None and not seen[around].parts


def _row(match: Match, how: Measure, sites: Sequence[Site]) -> StageResult:
    status = "same" if how.same else "noise"
    if sites or how.parts:
        status = "parts" if sites else "inherited"
    narrow = match.mine.dtype in ("bfloat16", "float16") and match.wanted.dtype == "float32"
    return StageResult(
        match.mine.path,
        match.wanted.path,
        match.mine.kind,
        str(match.output),
        how.error,
        how.noise,
        how.ratio,
        status,
        how.basis,
        tuple(sites),
        f"computed in {match.mine.dtype}" if narrow else match.output.note,
    )


def _in_order(
    rows: list[StageResult], reference: Trace, candidate: Trace, matches: Mapping[str, Match]
) -> list[StageResult]:
    """All rows in the order of the candidate; the reference's own stages behind their like."""
    found = {row.stage: row for row in rows}
    ordered = [
        found.get(s.path) or StageResult(s.path, None, s.kind, note=_why(s))
        for s in candidate.stages
    ]
    used = {match.wanted.path for match in matches.values()}
    for stage in reference.stages:
        if stage.path not in used:
            note = _why(stage) or "only in the reference"
            ordered.append(StageResult(stage.path, stage.path, stage.kind, note=note))
    return ordered


def _why(stage: Stage) -> str:
    return "passes its input through" if passes(stage) else ""
