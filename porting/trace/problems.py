"""From a place that parts to the questions that the table of variants can answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from porting.trace.comparison import Match, Site, TraceComparison
from porting.trace.pair import family, words
from porting.trace.stages import Stage, Trace
from porting.trace.variants import Problem

Side = Callable[[Match, str | None], np.ndarray | None]
NEAR = 6  #: parts before a place that may have been handed on


def leaves_of(trace: Trace, stage: str) -> dict[str, str]:
    """Name -> path of the leaves that lie directly in a stage's module.

    >>> trace = Trace("linen", (), {"params/fc/kernel": 0, "params/fc/sub/bias": 0})
    >>> leaves_of(trace, "fc")
    {'kernel': 'params/fc/kernel'}
    """
    mark = "." if trace.framework == "torch" else "/"
    module = stage.partition("#")[0].removesuffix("/attend")
    module = "" if module == "(model)" else module
    found = {}
    for path in trace.leaves:
        inner = path.partition("/")[2] if trace.framework == "linen" else path
        where, _, name = inner.rpartition(mark)
        if where == module:
            found[name] = path
    return found


def problems(comparison: TraceComparison, site: Site) -> list[tuple[Problem, Problem]]:
    """The questions about one site: what does the reference mean, what does the candidate do.

    Both are asked on the same operands where the candidate was replayed, else each on its
    own (they agree up to here).
    """
    layer = _layer(comparison, site)
    if layer is None:
        return []
    pair = site.pair
    double = pair.wanted64 is not None and pair.given64 is not None
    targets = (
        (pair.wanted, pair.wanted64 if double else None),
        (pair.given, pair.given64 if double else None),
    )
    asked = []
    for index, (target, wide) in enumerate(targets):
        side = _reference_side(double) if not index or comparison.replayed else _own_side(double)
        operands = _operands(comparison, site, layer, side, target)
        if operands is None:
            return []
        asked.append(Problem(layer, operands, _values(comparison, site), target, wide))
    return [(asked[0], asked[1])]


def _layer(comparison: TraceComparison, site: Site) -> str | None:
    """The row of the table that a site asks for."""
    if site.pair.wanted.dtype.kind in "iu":
        return "ids"
    parts = _parts(comparison, site)
    if site.slot == "input" or parts:
        roles = {_role(path) for path in parts}
        return "attention" if {"q", "k", "v"} <= roles else "between"
    names = set(leaves_of(comparison.candidate, site.path))
    if not names:
        return "between"
    return _layer_of(comparison.candidate.stage(site.path).kind, names)


def _layer_of(kind: str, names: set[str]) -> str | None:
    if "kernel" in names:
        return "conv" if family(kind) == "conv" else "dense"
    if {"mean", "var"} <= names:
        return "batch norm"
    if "embedding" in names:
        return "embed"
    if names <= {"scale", "bias"}:
        return "group norm" if family(kind) == "group norm" else "norm"
    return None


def _values(comparison: TraceComparison, site: Site) -> dict[str, np.ndarray]:
    trace = comparison.candidate
    found = leaves_of(trace, site.path) if site.slot == "output" else {}
    return {name: np.asarray(trace.leaves[path], np.float64) for name, path in found.items()}


def _around(comparison: TraceComparison, path: str) -> str | None:
    ancestors = comparison.candidate.ancestors(path)
    return next((p for p in ancestors if p in comparison.matches), None)


def _container(comparison: TraceComparison, site: Site) -> str | None:
    return site.path if site.slot == "output" else _around(comparison, site.path)


def _parts(comparison: TraceComparison, site: Site) -> list[str]:
    """The parts of the same container done before the site in either model, the latest last."""
    container = _container(comparison, site)
    here = comparison.matches[site.path]
    ends = [s.started if site.slot == "input" else s.finished for s in (here.mine, here.wanted)]
    inside = [
        path
        for path, match in comparison.matches.items()
        if _around(comparison, path) == container != path
        and (match.mine.finished < ends[0] or match.wanted.finished < ends[1])
    ]
    return sorted(inside, key=lambda p: comparison.matches[p].wanted.finished)[-NEAR:]


def _role(path: str) -> str:
    last = words(path)[-1:]
    return last[0] if last else ""


def _reference_side(double: bool) -> Side:
    """Arrays of the reference in the candidate's axes: an output (None) or a named input."""

    def array(match: Match, name: str | None) -> np.ndarray | None:
        wanted: Stage = match.wanted
        if name is None:
            outputs = wanted.outputs64 if double else wanted.outputs
            return match.output.apply(next(iter(outputs.values()))) if outputs else None
        other, turn = match.inputs[name]
        inputs: Mapping[str, np.ndarray] = wanted.inputs64 if double else wanted.inputs
        return turn.apply(inputs[other]) if other in inputs else None

    return array


def _own_side(double: bool) -> Side:
    """Arrays of the candidate as it was recorded."""

    def array(match: Match, name: str | None) -> np.ndarray | None:
        if name is None:
            outputs = match.mine.outputs64 if double else match.mine.outputs
            return next(iter(outputs.values()), None)
        return (match.mine.inputs64 if double else match.mine.inputs).get(name)

    return array


def _operands(
    comparison: TraceComparison, site: Site, layer: str, side: Side, target: np.ndarray
) -> dict[str, np.ndarray] | None:
    """What the site may be made of, by name; None where that was not recorded."""
    if layer not in ("between", "attention", "ids"):
        match = comparison.matches[site.path]
        x = side(match, next(iter(match.inputs))) if match.inputs else None
        return None if x is None else {"x": x if x.dtype.kind in "iu" else x.astype(np.float64)}
    found: dict[str, np.ndarray | None] = {}
    container = _container(comparison, site)
    for path in _parts(comparison, site):
        name = _role(path) if layer == "attention" else path
        found[name] = side(comparison.matches[path], None)
    if container is not None and layer != "attention":
        match = comparison.matches[container]
        for name in match.inputs:
            label = "its own input" if len(match.inputs) == 1 else f"its own input {name}"
            found[label] = side(match, name)
    if layer == "attention":
        return {n: found[n].astype(np.float64) for n in "qkv" if found[n] is not None}
    shaped = {name: _shaped(a, target) for name, a in found.items() if a is not None}
    return {name: a for name, a in shaped.items() if a is not None}


def _shaped(array: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """`array` spread to the target's shape, or its last axes merged; None where it cannot be."""
    if (array.dtype.kind in "iu") != (target.dtype.kind in "iu"):
        return None
    try:
        if array.size == target.size and array.shape[:1] == target.shape[:1]:
            array = array.reshape(target.shape)
        spread = np.broadcast_to(array, target.shape)
    except ValueError:
        return None
    return spread if array.dtype.kind in "iu" else spread.astype(np.float64)
