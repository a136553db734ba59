"""Which output of a stage stands for which output of its reference."""

from __future__ import annotations

import math

from porting.trace.align import Alignment, align, options
from porting.trace.recurrent import main_output, roles
from porting.trace.stages import Stage

Turned = dict[str, tuple[str, Alignment]]


def align_outputs(
    reference: Stage, candidate: Stage, channels_first: bool = False, spatial: bool = False
) -> Turned:
    """Candidate output -> (reference output, alignment); the main one first.

    What goes on to the next layer pairs first: by role in a recurrent layer, else the first
    with the first; where their sizes differ (a cache comes first), by an equal name or by the
    only shape that fits. Of the others those pair that say by role or by name that they are
    the same. Integers other than the main output are left out: a tie may turn them.

    Returns:
        An empty dictionary where nothing fits.
    """
    found: Turned = {}
    for mine, theirs in _candidates(reference, candidate):
        if mine in found or theirs in {other for other, _ in found.values()}:
            continue
        arrays = reference.outputs[theirs], candidate.outputs[mine]
        if found and {a.dtype.kind for a in arrays} != {"f"}:
            continue
        alignment = align(*arrays, channels_first, spatial=spatial)
        if alignment is not None:
            found[mine] = theirs, alignment
    return found


def comparable(reference: Stage, candidate: Stage) -> tuple[str, str] | None:
    """The first output of the candidate, and of the reference, that may be the same."""
    for mine, theirs in _candidates(reference, candidate):
        shapes = reference.outputs[theirs].shape, candidate.outputs[mine].shape
        if math.prod(shapes[0]) == math.prod(shapes[1]) and options(*shapes):
            return mine, theirs
    return None


def _candidates(reference: Stage, candidate: Stage) -> list[tuple[str, str]]:
    """Pairs of outputs that may be the same, the surest first."""
    what = [roles(stage.kind, stage.outputs) for stage in (reference, candidate)]
    if all(what):
        by_role = {role: name for name, role in what[0].items()}
        pairs = [(mine, by_role[r]) for mine, r in what[1].items() if r in by_role]
        return sorted(pairs, key=lambda pair: what[1][pair[0]] != "out")
    main = main_output(candidate.kind, candidate.outputs)
    first = main, main_output(reference.kind, reference.outputs)
    named = [(name, name) for name in candidate.outputs if name in reference.outputs]
    sizes = candidate.outputs[main].size, reference.outputs[first[1]].size
    return [first, *named] if sizes[0] == sizes[1] else [*named, *_only_fit(reference, candidate)]


def _only_fit(reference: Stage, candidate: Stage) -> list[tuple[str, str]]:
    """The outputs whose size one output of each side has."""
    sizes = [[array.size for array in stage.outputs.values()] for stage in (candidate, reference)]
    pairs = [
        (mine, theirs)
        for mine, a in candidate.outputs.items()
        for theirs, b in reference.outputs.items()
        if a.size == b.size and all(side.count(a.size) == 1 for side in sizes)
    ]
    first = main_output(reference.kind, reference.outputs)
    return sorted(pairs, key=lambda pair: pair[1] != first)
