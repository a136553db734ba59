"""Where a forward pass parts from its reference, and which stages are wrong by themselves.

With a fresh recording of the candidate, its model is run again with the reference's arrays
in place of its own: every module then works on the right inputs, and what it hands to its
parts is seen as well. So each fault shows at its own stage, however many there are. With
files only, a stage is judged where its own inputs agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from porting.trace.align import align, align_inputs, is_spatial
from porting.trace.comparison import Match, Site, StageResult, TraceComparison
from porting.trace.measure import Measure, Pair, measure
from porting.trace.pair import family, pair, passes
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
    matches = _matches(reference, candidate, candidate, mapping)
    seen = {path: _output(match, match.mine) for path, match in matches.items()}
    judged, replayed = candidate, False
    if candidate.replay is not None and any(m.parts for _, m in seen.values()):
        matches, judged = _replayed(reference, candidate, matches, mapping)
        seen = {path: _output(match, match.mine) for path, match in matches.items()}
        replayed = True
    matches = {path: m for path, m in matches.items() if not _cut_elsewhere(m, seen, candidate)}
    sites = _sites(matches, seen, candidate, judged, replayed)
    rows = [_row(match, seen[path][1], sites.get(path, ())) for path, match in matches.items()]
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
    depth = 0
    for stage in shown.stages:
        if stage.path not in pairs or stage.path not in candidate:
            continue
        wanted = reference.stage(pairs[stage.path])
        first = turned and _channels_first(reference, wanted)
        output = align(wanted.output, stage.output, first)
        if output is None:
            continue
        flattened = _flattened(reference, wanted) if turned else ()
        inputs = align_inputs(wanted.inputs, stage.inputs, first, flattened)
        mine = candidate.stage(stage.path)
        matches[stage.path] = Match(mine, wanted, output, inputs, depth)
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
    shown = candidate.replay({p: _forced(m, inputs=False) for p, m in known.items()})
    matches = _matches(reference, candidate, shown, mapping)
    shown = candidate.replay({p: _forced(m, inputs=False) for p, m in matches.items()})
    for path, match in matches.items():
        stage = shown.stage(path)
        first = any(a.by == "kind" for _, a in match.inputs.values())
        flattened = _flattened(reference, match.wanted)
        inputs = align_inputs(match.wanted.inputs, stage.inputs, first, flattened)
        matches[path] = dataclasses.replace(match, inputs=inputs)
    return matches, candidate.replay({p: _forced(m, inputs=True) for p, m in matches.items()})


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


def _forced(match: Match, inputs: bool) -> Stage:
    """The reference's arrays under the candidate's names, in its axes."""
    wanted, name = match.wanted, next(iter(match.mine.outputs))
    first = next(iter(wanted.outputs))
    given = match.inputs if inputs else {}

    def turned(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {n: a.apply(arrays[other]) for n, (other, a) in given.items() if other in arrays}

    wide = {name: match.output.apply(wanted.outputs64[first])} if wanted.outputs64 else {}
    return dataclasses.replace(
        match.mine,
        inputs=turned(wanted.inputs),
        inputs64=turned(wanted.inputs64),
        outputs={name: match.output.apply(wanted.output)},
        outputs64=wide,
    )


def _output(match: Match, stage: Stage) -> tuple[Pair, Measure]:
    wanted, mine = match.wanted.outputs64, stage.outputs64
    pair_ = Pair(
        match.output.apply(match.wanted.output),
        stage.output,
        match.output.apply(next(iter(wanted.values()))) if wanted else None,
        next(iter(mine.values())) if mine else None,
    )
    return pair_, measure(pair_, match.depth)


def _input(match: Match, stage: Stage, name: str) -> tuple[Pair, Measure]:
    other, turn = match.inputs[name]
    wide = match.wanted.inputs64.get(other)
    pair_ = Pair(
        turn.apply(match.wanted.inputs[other]),
        stage.inputs[name],
        None if wide is None else turn.apply(wide),
        stage.inputs64.get(name),
    )
    return pair_, measure(pair_, match.depth)


def _cut_elsewhere(match: Match, seen: Mapping[str, tuple[Pair, Measure]], trace: Trace) -> bool:
    """Whether a stage differs while what contains it agrees: then it is no such stage.

    An error does not vanish, but for a layer whose kind is known it is taken at its word (a
    key bias cancels in the softmax).
    """
    path = match.mine.path
    if not seen[path][1].parts or _same_family(match):
        return False
    around = next((p for p in trace.ancestors(path) if p in seen), None)
    return around is not None and not seen[around][1].parts


def _sites(
    matches: Mapping[str, Match],
    seen: Mapping[str, tuple[Pair, Measure]],
    candidate: Trace,
    judged: Trace,
    replayed: bool,
) -> dict[str, list[Site]]:
    """Stage -> where it parts by itself."""
    sites: dict[str, list[Site]] = {}
    for path, match in matches.items():
        stage = judged.stage(path)
        was = {site.name for site in _input_sites(match, match.mine)}
        wrong_inputs = [site for site in _input_sites(match, stage) if site.name in was]
        if not seen[path][1].parts:  # it makes the same of another input: that is no fault
            wrong_inputs = []
        blamed = _blamed(path, matches, candidate)
        if wrong_inputs and (replayed or _first_to_part(match, matches[blamed], matches, seen)):
            sites.setdefault(blamed, []).extend(wrong_inputs)
        local = _output(match, stage)
        inside = any(path in candidate.ancestors(p) and seen[p][1].parts for p in matches)
        judgeable = replayed or (not wrong_inputs and match.inputs and not inside)
        if local[1].parts and seen[path][1].parts and judgeable:
            name = next(iter(stage.outputs))
            sites.setdefault(path, []).append(Site("output", path, name, local[1], local[0]))
    return sites


def _input_sites(match: Match, stage: Stage) -> list[Site]:
    found = []
    for name in match.inputs:
        pair_, how = _input(match, stage, name)
        if how.parts and not _is_mask(pair_):
            found.append(Site("input", stage.path, name, how, pair_))
    return found


def _is_mask(pair_: Pair) -> bool:
    """Whether both arrays only say where to look away (0 and something very negative)."""
    return all(a.dtype.kind == "f" and a.min(initial=0) < -1e4 for a in (pair_.wanted, pair_.given))


def _first_to_part(
    match: Match,
    around: Match,
    matches: Mapping[str, Match],
    seen: Mapping[str, tuple[Pair, Measure]],
) -> bool:
    """Whether all is right until `around` hands this stage its input."""
    before = [p for p, m in matches.items() if m.mine.finished < match.mine.started]
    handed = around is match or not _input_sites(around, around.mine)
    return handed and not any(seen[p][1].parts for p in before)


def _blamed(path: str, matches: Mapping[str, Match], trace: Trace) -> str:
    """The stage that handed the input over: the nearest paired one around it."""
    return next((p for p in trace.ancestors(path) if p in matches), path)


def _row(match: Match, how: Measure, sites: tuple[Site, ...] | list[Site]) -> StageResult:
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
        f"computed in {match.mine.dtype}" if narrow else "",
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
