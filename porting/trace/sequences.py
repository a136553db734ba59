"""What a question about a recurrent layer is asked with: its input, its cells, its lengths.

Flax and PyTorch cut such a layer differently: one module or a loop over a cell, two
directions in one or apart. So a layer of the reference that has no like is asked for at the
place that its output goes to.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from porting.trace.comparison import Site, TraceComparison
from porting.trace.operands import Side
from porting.trace.pair import family
from porting.trace.recurrence_table import counts, fitting_cells
from porting.trace.recurrent import roles
from porting.trace.stages import Stage


def recurrent_input(comparison: TraceComparison, site: Site) -> Stage | None:
    """The recurrent stage of the reference whose output a site holds; None for another site."""
    here = comparison.matches[site.path]
    known = comparison.candidate.leaves
    if site.slot == "output":
        stage = here.wanted if family(here.wanted.kind) == "recurrent" else None
    else:
        used, start = set(comparison.pairs.values()), here.wanted.started
        before = [s for s in comparison.reference.stages if s.finished < start]
        near = [s for s in before if s.parent == here.wanted.parent][-1:]
        stage = next(
            (s for s in near if family(s.kind) == "recurrent" and s.path not in used), None
        )
    if stage is None or stage.output.ndim not in (2, 3):
        return None
    x, wide = _sequence(comparison, site, stage), site.pair.wanted.shape[-1]
    fit = x is not None and fitting_cells(_named(known, comparison), x.shape[-1], wide)
    return stage if fit else None


def _sequence(comparison: TraceComparison, site: Site, stage: Stage) -> np.ndarray | None:
    """What a recurrent stage reads; of a packed batch what the layer before it gave."""
    shape = site.pair.wanted.shape
    given = next((a for a in stage.inputs.values() if a.ndim in (2, 3)), None)
    if given is None or given.ndim == 3 or len(shape) < 3:
        return given
    before = [s for s in comparison.reference.stages if s.finished < stage.started]
    fit = [s.output for s in before if s.output.ndim == 3 and s.output.shape[:2] == shape[:2]]
    return fit[-1] if fit else None


def _named(leaves: Mapping[str, np.ndarray], comparison: TraceComparison) -> dict[str, np.ndarray]:
    """The parameters by path, without the name of their collection."""
    cut = comparison.candidate.framework == "linen"
    return {path.partition("/")[2] if cut else path: leaf for path, leaf in leaves.items()}


def cells_of(
    comparison: TraceComparison,
    site: Site,
    x: np.ndarray,
    target: np.ndarray,
    known: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The leaves of the cells that may have made the target: the site's own, else any that fit."""
    named = _named({path: known[path] for path in comparison.candidate.leaves}, comparison)
    found = fitting_cells(named, x.shape[-1], target.shape[-1])
    module = comparison.candidate.stage(site.path).module
    own = {path for path in found if path.startswith(f"{module}/") or path == module}
    inside = tuple(f"{path}/" for path in own or found)
    return {name: leaf for name, leaf in named.items() if name.startswith(inside)}


def steps(comparison: TraceComparison, site: Site, side: Side) -> dict[str, np.ndarray] | None:
    """The input of the recurrent layer, batch first; what it begins with; what counts steps."""
    stage, here = recurrent_input(comparison, site), comparison.matches[site.path]
    assert stage is not None
    names = [n for n, (other, _) in here.inputs.items() if stage is here.wanted]
    arrays = [side(here, name) for name in names]
    found = [a for a in arrays if a is not None and a.dtype.kind == "f"]
    first = found[0] if found else _sequence(comparison, site, stage)
    if first is None:
        return None
    x = first.astype(np.float64)
    whole = x[:, None] if x.ndim == 2 else x
    operands = {"x": whole}
    for name, other in zip(names[1:], arrays[1:], strict=True) if x.ndim == 2 else ():
        role = roles(here.mine.kind, {n: np.zeros(0) for n in names}).get(name, "h")
        if other is not None:
            operands[role] = other.astype(np.float64)
    for trace in (comparison.candidate, comparison.reference):
        for one in trace.stages:
            operands |= counts(one.inputs, *whole.shape[:2])
    return operands
