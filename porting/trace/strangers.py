"""Stages that only one of the two models has: a layer that was left out, or one too many."""

from __future__ import annotations

import numpy as np

from porting.trace.align import is_spatial
from porting.trace.pair import family, passes
from porting.trace.stages import Trace

MOST = 4  #: of them that are looked at, the latest


def strangers(
    trace: Trace, container: str | None, used: set[str], before: int, double: bool, turned: bool
) -> dict[str, np.ndarray]:
    """The outputs of a container's own stages that have no like in the other model.

    Args:
        trace: the model that has them.
        container: the stage around them; None for the outermost.
        used: the stages that are paired.
        before: when they must have finished.
        double: whether the float64 arrays are due.
        turned: whether images are channels first and must be turned.

    >>> from porting.trace.stages import Stage
    >>> stage = Stage("extra", "Norm", "m", 1, 2, {}, {"": np.ones((1, 2), np.float32)})
    >>> strangers(Trace("linen", (stage,)), "m", set(), 3, False, False)
    {'extra': array([[1., 1.]])}
    """
    own = [s for s in trace.children(container or "") if s.finished < before and not passes(s)]
    # A function that a formula knows was not left out where it is no module.
    own = [s for s in own if family(s.kind) not in ("activation", "pool", "flatten")]
    # A module around a paired stage was not left out; what it does besides is a formula.
    paired = used.union(*(trace.ancestors(path) for path in used))
    found = {}
    for stage in [s for s in own if s.path not in paired][-MOST:]:
        array = (stage.outputs64 or stage.outputs) if double else stage.outputs
        value = next(iter(array.values()))
        if value.dtype.kind == "f" and value.ndim:
            first = turned and is_spatial(stage.kind) and value.ndim > 2
            found[stage.path] = np.moveaxis(value, 1, -1) if first else value
    return {name: value.astype(np.float64) for name, value in found.items()}
