"""One choice of values run: how far off it is, and what that cost.

Most choices are far off, and a part of the output shows it: the first steps of a recurrent
layer, some channels of a convolution. Only a choice that holds there is run in full.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from porting.trace.attention_table import KINDS
from porting.trace.functions import pads
from porting.trace.questions import Choice, Problem
from porting.trace.recurrence_search import first_steps
from porting.trace.recurrence_table import KIND
from porting.trace.tables import LAYERS

#: A choice -> its largest error (infinite where it does not fit), and the operations spent.
Trial = Callable[[Choice], tuple[float, float]]
CALL = 1e5  #: operations that a run costs however small it is
FEW = 4  #: channels that a convolution is tried on
UNFIT = (ValueError, IndexError, StopIteration, ZeroDivisionError)


def trial_of(problem: Problem, allowed: float) -> Trial:
    """How a question's choices are run.

    >>> x = np.ones((2, 3))
    >>> trial = trial_of(Problem("norm", {"x": x}, {}, 0 * x), 1e-6)
    >>> trial({"epsilon": 1e-5})[0]
    0.0
    """
    first, whole = SCREENS.get(problem.layer), _in_full(problem)
    if first is None:
        return whole
    part = first(problem)

    def trial(choice: Choice) -> tuple[float, float]:
        error, work = part(choice)
        if not error <= allowed:
            return error, work
        error, more = whole(choice)
        return error, work + more

    return trial


def _in_full(problem: Problem) -> Trial:
    target = problem.target if problem.target64 is None else problem.target64
    work = CALL + COSTS.get(problem.layer, _each_element)(problem)
    known = np.isfinite(target) if target.dtype.kind == "f" else np.ones(target.shape, bool)

    def trial(choice: Choice) -> tuple[float, float]:
        with np.errstate(all="ignore"):
            try:
                output = LAYERS[problem.layer](problem, **choice)
            except UNFIT:
                return math.inf, CALL  # this choice does not fit these shapes
            if output.size != target.size or output.shape[:1] != target.shape[:1]:
                return math.inf, work
            apart = np.abs(output.reshape(target.shape) - target)[known]
            error = float(np.max(apart, initial=0.0)) if apart.size else math.inf
        return error if error == error else math.inf, work

    return trial


def _each_element(problem: Problem) -> float:
    return 20.0 * problem.target.size


def _dense_cost(problem: Problem) -> float:
    kernel = problem.leaves["kernel"]
    return problem.target.size * kernel.size / max(kernel.shape[-1], 1) / 16


def _attention_cost(problem: Problem) -> float:
    """Scores and sums over the keys; the rotation and spread of queries and keys."""
    arrays = [a for n, a in problem.operands.items() if n in ("q", "k", "v", "qkv")]
    return problem.target.size * arrays[-1].shape[1] / 4 + 2.0 * sum(a.size for a in arrays)


def _conv_cost(problem: Problem) -> float:
    kernel = problem.leaves["kernel"]
    taps = kernel.size / kernel.shape[-1]
    places = problem.target.size / problem.target.shape[-1]
    return places * taps * (1 + problem.target.shape[-1] / 16)


def _recurrent_cost(problem: Problem) -> float:
    x = problem.operands["x"]
    return x.shape[1] * (CALL / 8 + problem.target.shape[-1] ** 2 * x.shape[0] / 2)


#: layer -> the operations of one run
COSTS = {
    "dense": _dense_cost,
    **dict.fromkeys(KINDS, _attention_cost),
    **dict.fromkeys(("conv", "transposed conv"), _conv_cost),
    KIND: _recurrent_cost,
}


def _some_channels(problem: Problem) -> Trial:
    """The first channels of one image; sizes that cannot come out are not run at all."""
    x, kernel = problem.operands["x"], problem.leaves["kernel"]
    groups = x.shape[-1] // kernel.shape[-2]
    few = slice(min(FEW, kernel.shape[-1] // max(groups, 1)))
    leaves = {n: a[..., few] for n, a in problem.leaves.items()}
    at = (slice(0, 1), ..., few)
    part = dataclasses.replace(
        problem,
        operands={"x": x[:1, ..., : kernel.shape[-2]]},
        leaves=leaves,
        target=problem.target[at],
        target64=None if problem.target64 is None else problem.target64[at],
    )
    run = _in_full(part)
    return lambda choice: run(choice) if _comes_out(problem, **choice) else (math.inf, 0.0)


def _comes_out(
    problem: Problem, padding: str, stride: int, dilation: int = 1, **rest: object
) -> bool:
    """Whether a convolution has the size of its target."""
    given, kernel = problem.operands["x"].shape[1:-1], problem.leaves["kernel"].shape[:-2]
    if problem.target.ndim != len(kernel) + 2:
        return True
    step = 1 if problem.layer == "transposed conv" else stride
    if problem.layer == "transposed conv":
        if padding == "SAME":
            return tuple(n * stride for n in given) == problem.target.shape[1:-1]
        given = tuple((n - 1) * stride + 1 for n in given)
    around = pads(padding, given, kernel, step, dilation)
    sizes = tuple(
        (n + sum(both) - (taps - 1) * dilation - 1) // step + 1
        for n, both, taps in zip(given, around, kernel, strict=True)
    )
    return sizes == problem.target.shape[1:-1]


#: layer -> the trial of a part that comes before the whole
SCREENS: dict[str, Callable[[Problem], Trial]] = {
    KIND: first_steps,
    **dict.fromkeys(("conv", "transposed conv"), _some_channels),
}
