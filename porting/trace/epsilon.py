"""The epsilon of a norm, worked out from what it gave: nobody can list them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from porting.trace import functions
from porting.trace.questions import Problem

_NORMS: dict[str, Callable[..., np.ndarray]] = {
    "norm": functions.norm,
    "batch norm": functions.batch_norm,
    "group norm": functions.group_norm,
}


def worked_out(problem: Problem, usual: Sequence[float], **options: Any) -> tuple[float, ...]:
    """Epsilon to two digits, where it is none of the usual ones.

    An element of a norm without its bias is a / √(σ² + ε), so one over its square is linear in
    ε: two runs of the layer with known epsilons tell where the recorded output lies.

    Args:
        problem: a question about a norm.
        usual: the values that are tried anyway.
        options: of the layer, where its own defaults do not do.

    >>> x = np.random.default_rng(0).normal(size=(4, 7))
    >>> y = functions.norm(x, {}, epsilon=0.02)
    >>> worked_out(Problem("norm", {"x": x}, {}, np.float32(y), y), (1e-5,))
    (0.02,)
    """
    run, x, leaves = _NORMS[problem.layer], problem.operands["x"], problem.leaves
    y = problem.target if problem.target64 is None else problem.target64
    with np.errstate(all="ignore"):
        try:
            low, high = (run(x, leaves, epsilon=e, **options) for e in (0.0, 1.0))
            bias = leaves.get("bias", np.zeros(()))
            given, low, high = (1 / (z - bias) ** 2 for z in (y.reshape(low.shape), low, high))
        except ValueError:
            return ()  # a layer that does not fit these shapes
        found = (given - low) / (high - low)
    found = found[np.isfinite(found)]
    middle = float(np.median(found)) if found.size else 0.0
    near = float(f"{middle:.1e}")
    return (near,) if 0 < near < 1e3 and near not in usual else ()
