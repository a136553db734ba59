"""From a place that parts to the questions that the table of variants can answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from porting.trace.comparison import Match, Site, TraceComparison
from porting.trace.operands import (
    Side,
    candidate_side,
    masks_and_angles,
    reference_side,
    shaped,
)
from porting.trace.owned import QKV, layer_of, leaves_of, multi_head, values
from porting.trace.pair import family, role
from porting.trace.questions import Problem
from porting.trace.recurrence_table import KIND as RECURRENT
from porting.trace.sequences import cells_of, recurrent_input, steps
from porting.trace.strangers import strangers

NEAR = 6  #: parts before a place that may have been handed on


def problems(
    comparison: TraceComparison, site: Site, right: Mapping[str, np.ndarray] | None = None
) -> list[tuple[Problem, Problem]]:
    """The questions about one site: what does the reference mean, what does the candidate do.

    Where one question has no answer the next one is asked. `right` are leaves by path that
    the candidate should hold and does not: what the reference means is asked with them.

    Both are asked on the same operands where the candidate was replayed, else each on its
    own (they agree up to here).
    """
    layer = _layer(comparison, site) if site.main else None
    if layer is None:
        return []
    asked = _asked(comparison, site, layer, right or {})
    return [] if asked is None else [asked]


def repeated(
    comparison: TraceComparison, site: Site, before: Sequence[Site]
) -> list[tuple[Problem, Problem]]:
    """The question whether a place is made of what parted before it, and alike in both models."""
    asked = _asked(comparison, site, "between", {}) if site.main else None
    if asked is None:
        return []
    double = asked[0].target64 is not None
    both = asked[0].operands.keys() & asked[1].operands.keys()
    # what parted first: of two equal arrays the first one is named
    mean: dict[str, np.ndarray] = {}
    does: dict[str, np.ndarray] = {}
    for other in before[-2:]:
        arrays = other.pair.wanted, other.pair.given
        if double and other.pair.wanted64 is not None and other.pair.given64 is not None:
            arrays = other.pair.wanted64, other.pair.given64
        for operands, array in zip((mean, does), arrays, strict=True):
            fitted = shaped(array, site.pair.wanted)
            if fitted is not None:
                operands[f"the input of {other.path}"] = fitted
    if mean.keys() != does.keys() or not mean:
        return []
    rest = ({n: a for n, a in p.operands.items() if n in both} for p in asked)
    replaced = zip(asked, map(dict.__or__, (mean, does), rest), strict=True)
    first, second = (dataclasses.replace(p, operands=o) for p, o in replaced)
    return [(first, second)]


def active_dropouts(comparison: TraceComparison, stage: str) -> list[str]:
    """The dropouts of a stage that change what they are given; the reference's do not count."""
    found = []
    for inner in comparison.candidate.stages:
        first = next(iter(inner.inputs.values()), None)
        if "dropout" not in inner.kind.lower() or first is None:
            continue
        if _around(comparison, inner.path) == stage and not np.array_equal(first, inner.output):
            found.append(inner.path)
    return found


def _asked(
    comparison: TraceComparison, site: Site, layer: str, right: Mapping[str, np.ndarray]
) -> tuple[Problem, Problem] | None:
    """The two questions with one layer's rows, where what they need was recorded."""
    pair = site.pair
    double = pair.wanted64 is not None and pair.given64 is not None
    targets = (
        (pair.wanted, pair.wanted64 if double else None),
        (pair.given, pair.given64 if double else None),
    )
    with np.errstate(invalid="ignore"):
        apart = np.abs(pair.given.astype(np.float64) - pair.wanted)
    apart[~np.isfinite(apart)] = 0  # a row that is hidden altogether tells nothing
    held = comparison.candidate.leaves
    asked = []
    for index, (target, wide) in enumerate(targets):
        known = held if index else {**held, **right}
        alike = not index or comparison.replayed
        side = reference_side(double) if alike else candidate_side(double)
        operands = _operands(comparison, site, layer, side, target)
        if operands is None:
            return None
        leaves = {}
        if layer == "between":
            operands |= _own_leaves(comparison, site, known)
            operands |= _alone(comparison, site, index, double)
        elif layer == RECURRENT:
            leaves = cells_of(comparison, site, operands["x"], target, known)
        elif site.slot == "output":
            leaves = values(comparison.candidate, site.path, layer, known)
        asked.append(Problem(layer, operands, leaves, target, wide, apart))
    return asked[0], asked[1]


def _layer(comparison: TraceComparison, site: Site) -> str | None:
    """The row of the table that a site asks for."""
    if site.pair.wanted.dtype.kind in "iu":
        return "ids"
    if site.pair.wanted.dtype == bool:
        return "mask"
    if recurrent_input(comparison, site) is not None:
        return RECURRENT
    parts = _parts(comparison, site)
    if site.slot == "input" or parts:
        return _between(comparison, site, parts)
    names = set(leaves_of(comparison.candidate, site.path))
    kind = comparison.candidate.stage(site.path).kind
    if names or "norm" in family(kind):
        return layer_of(kind, names)
    return "multi-head" if multi_head(comparison.candidate, site.path) else "between"


def _between(comparison: TraceComparison, site: Site, parts: list[str]) -> str:
    """What the latest parts are for: queries, keys and values together, or anything."""
    roles = {role(path) for path in parts}
    if roles >= QKV and role(parts[-1]) in QKV:
        return "attention"
    last = comparison.matches[parts[-1]].mine.output if parts else np.zeros(0)
    packed = last.ndim > 2 and last.size == 3 * site.pair.wanted.size
    return "packed attention" if packed else "between"


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


def _operands(
    comparison: TraceComparison, site: Site, layer: str, side: Side, target: np.ndarray
) -> dict[str, np.ndarray] | None:
    """What the site may be made of, by name; None where that was not recorded."""
    container = _container(comparison, site)
    if layer == "mask":
        return {}
    if layer == RECURRENT:
        return steps(comparison, site, side)
    if layer in ("attention", "packed attention", "multi-head"):
        return _attended(comparison, site, layer, side)
    if layer not in ("between", "spatial", "ids"):
        match = comparison.matches[site.path]
        x = side(match, next(iter(match.inputs))) if match.inputs else None
        return None if x is None else {"x": x if x.dtype.kind in "iu" else x.astype(np.float64)}
    found = {path: side(comparison.matches[path], None) for path in _parts(comparison, site)}
    if container is not None:
        match = comparison.matches[container]
        for name in match.inputs:
            label = "its own input" if len(match.inputs) == 1 else f"its own input {name}"
            found[label] = side(match, name)
    if layer == "between":
        floats = {n: a for n, a in found.items() if a is not None and a.dtype.kind == "f"}
        return {name: a.astype(np.float64) for name, a in floats.items() if a.ndim}
    fitted = {name: shaped(a, target) for name, a in found.items() if a is not None}
    return {name: a for name, a in fitted.items() if a is not None}


def _own_leaves(
    comparison: TraceComparison, site: Site, known: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The leaves that lie in the container itself: a class token, positions, a scale."""
    container = _container(comparison, site)
    names = leaves_of(comparison.candidate, container) if container is not None else {}
    arrays = {f"its leaf {n}": np.asarray(known[path]) for n, path in names.items()}
    floats = {n: a for n, a in arrays.items() if a.dtype.kind == "f" and a.ndim}
    return {name: a.astype(np.float64) for name, a in floats.items()}


def _alone(
    comparison: TraceComparison, site: Site, index: int, double: bool
) -> dict[str, np.ndarray]:
    """What only the model that is asked about has, as it was recorded."""
    container, here = _container(comparison, site), comparison.matches[site.path]
    trace = comparison.judged if index else comparison.reference
    around = container if container is None or index else comparison.matches[container].wanted.path
    used = set(comparison.matches if index else comparison.pairs.values())
    stage = here.mine if index else here.wanted
    before = stage.started if site.slot == "input" else stage.finished
    turned = not index and trace.framework == "torch" != comparison.candidate.framework
    return strangers(trace, around, used, before, double, turned)


def _attended(
    comparison: TraceComparison, site: Site, layer: str, side: Side
) -> dict[str, np.ndarray] | None:
    """Queries, keys and values (or what a module makes them of), masks and angles."""
    container = _container(comparison, site)
    match = comparison.matches[site.path if container is None else container]
    parts = _parts(comparison, site)
    if layer == "multi-head":
        found = _attending(match, side)
    elif layer == "packed attention":
        found = {"qkv": side(comparison.matches[parts[-1]], None)}
    else:
        found = {role(path): side(comparison.matches[path], None) for path in parts}
        found = {name: found[name] for name in "qkv"}
    if not found or any(a is None for a in found.values()):
        return None
    wide = {name: a.astype(np.float64) for name, a in found.items() if a is not None}
    keys = wide.get("k", next(iter(wide.values()))).shape[1]
    scopes = [match.wanted]
    if parts:
        around = comparison.reference.ancestors(comparison.matches[parts[-1]].wanted.path)
        scopes += [comparison.reference.stage(path) for path in list(around)[:1]]
    return wide | masks_and_angles(match, scopes, side, next(iter(wide.values())).shape[:2], keys)


def _attending(match: Match, side: Side) -> Mapping[str, np.ndarray | None]:
    """The inputs of a multi-head module: queries, and keys and values where they are others."""
    arrays = {name: side(match, name) for name in match.inputs}
    floats = [a for a in arrays.values() if a is not None and a.dtype.kind == "f" and a.ndim == 3]
    if not floats:
        return {}
    q, k = floats[0], floats[1] if len(floats) > 1 else floats[0]
    return {"q": q, "k": k, "v": floats[2] if len(floats) > 2 else k}
