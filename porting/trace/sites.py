"""The places where stages part by themselves: what they make, and what they hand on."""

from __future__ import annotations

from collections.abc import Mapping

from porting.trace.comparison import Match, Site
from porting.trace.measure import Measure, Pair, measure, widened
from porting.trace.stages import Stage, Trace

Matches = Mapping[str, Match]


def outputs(
    matches: Matches, trace: Trace, replayed: bool = False
) -> dict[tuple[str, str], Measure]:
    """(stage, output) -> its error, as it is in `trace`."""
    pairs = {
        (path, name): _output(match, trace.stage(path), name, replayed)
        for path, match in matches.items()
        for name in match.outputs
    }
    return widened({key: measure(p, matches[key[0]].depth) for key, p in pairs.items()})


def worst(matches: Matches, trace: Trace) -> dict[str, Measure]:
    """Stage -> the error of its main output; of another one where only that parts."""
    found: dict[str, Measure] = {}
    for (path, _), how in outputs(matches, trace).items():
        if path not in found or (how.parts and not found[path].parts):
            found[path] = how
    return found


def main(matches: Matches, trace: Trace) -> dict[str, Measure]:
    """Stage -> the error of its main output."""
    found = outputs(matches, trace)
    return {path: found[path, match.main] for path, match in matches.items()}


def _output(match: Match, stage: Stage, name: str, replayed: bool) -> Pair:
    other, turn = match.outputs[name]
    wide = match.wanted.outputs64.get(other)
    return Pair(
        turn.apply(match.wanted.outputs[other]),
        stage.outputs[name],
        None if wide is None else turn.apply(wide),
        stage.outputs64.get(name),
        match.units[replayed],
    )


def _input(match: Match, stage: Stage, name: str, replayed: bool) -> Pair:
    other, turn = match.inputs[name]
    wide = match.wanted.inputs64.get(other)
    return Pair(
        turn.apply(match.wanted.inputs[other]),
        stage.inputs[name],
        None if wide is None else turn.apply(wide),
        stage.inputs64.get(name),
        match.units[replayed],
    )


def find_sites(
    matches: Matches, seen: Mapping[str, Measure], candidate: Trace, judged: Trace, replayed: bool
) -> dict[str, list[Site]]:
    """Stage -> where it parts by itself.

    Args:
        matches: the pairs.
        seen: the errors as they were recorded; where nothing shows, nothing is blamed.
        candidate: the recording.
        judged: the candidate on the reference's arrays, or the recording again.
        replayed: whether it is the former.
    """
    sites: dict[str, list[Site]] = {}
    recorded, wrong = (
        _wrong_inputs(matches, candidate, False),
        _wrong_inputs(matches, judged, replayed),
    )
    local = outputs(matches, judged, replayed)
    for path, match in matches.items():
        if not seen[path].parts:
            continue
        was = {site.name for site in recorded[path]}
        inputs = [site for site in wrong[path] if site.name in was]
        blamed = _blamed(path, matches, candidate)
        handed = blamed == path or not recorded[blamed]
        if inputs and (replayed or (handed and _first_to_part(match, matches, seen))):
            sites.setdefault(blamed, []).extend(inputs)
        inside = any(path in candidate.ancestors(p) and seen[p].parts for p in matches)
        if replayed or (not inputs and match.inputs and not inside):
            made = [
                Site("output", path, name, local[path, name], pair, name == match.main)
                for name in match.outputs
                if local[path, name].parts
                for pair in [_output(match, judged.stage(path), name, replayed)]
            ]
            if made:
                sites.setdefault(path, []).append(made[0])
    return sites


def _wrong_inputs(matches: Matches, trace: Trace, replayed: bool) -> dict[str, list[Site]]:
    """Stage -> its inputs that part from the reference's."""
    pairs = {
        (path, name): _input(match, trace.stage(path), name, replayed)
        for path, match in matches.items()
        for name in match.inputs
    }
    measures = widened({key: measure(p, matches[key[0]].depth) for key, p in pairs.items()})
    sites: dict[str, list[Site]] = {path: [] for path in matches}
    for (path, name), how in measures.items():
        if how.parts and not _is_mask(pairs[path, name]):
            sites[path].append(Site("input", path, name, how, pairs[path, name]))
    return sites


def _is_mask(pair: Pair) -> bool:
    """Whether both arrays only say where to look away (0 and something very negative)."""
    return all(a.dtype.kind == "f" and a.min(initial=0) < -1e4 for a in (pair.wanted, pair.given))


def _first_to_part(match: Match, matches: Matches, seen: Mapping[str, Measure]) -> bool:
    """Whether all that was done before this stage is right."""
    before = [p for p, m in matches.items() if m.mine.finished < match.mine.started]
    return not any(seen[p].parts for p in before)


def _blamed(path: str, matches: Matches, trace: Trace) -> str:
    """The stage that handed the input over: the nearest paired one around it."""
    return next((p for p in trace.ancestors(path) if p in matches), path)
