"""The table of known variants: what one layer, or the code between two layers, may do else.

Every row is one option of a layer with the values that are met in practice, the usual ones
first; `variants` runs them. The rows of attention stand in `attention_table`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from porting.trace import functions
from porting.trace.attention import MASKS, hidden
from porting.trace.attention_table import ATTENTION, KINDS, attention_of
from porting.trace.epsilon import worked_out
from porting.trace.questions import Problem, Variant, divisors
from porting.trace.recurrence_table import KIND, RECURRENT, recurrent

_EPSILONS = (1e-5, 1e-6, 1e-12, 1e-3, 1e-8, 1.1920929e-07, 0.0)
_BATCH = (1e-5, 1e-3, 1e-6, 1e-4, 1e-12)


def _mask(problem: Problem, mask: str) -> np.ndarray:
    """A mask whose True is seen, as whole numbers."""
    seen = hidden(mask, *problem.target.shape[-2:]) == 0
    return np.broadcast_to(seen, problem.target.shape).astype(int)


def _square(problem: Problem) -> Sequence[str]:
    shape = problem.leaves["kernel"].shape
    square = len(shape) == 2 and shape[0] == shape[1]
    return ("as it is", "transposed") if square else ("as it is",)


def _paddings(problem: Problem) -> Sequence[str]:
    widest = max(problem.leaves["kernel"].shape[:-2])
    sides = [f"{n} on each side" for n in range(widest + 1)]
    around = [f"{side}, {how}" for side in sides[1:] for how in ("circular", "reflected")]
    return ("SAME", *sides, "SAME_LOWER", *around, *_uneven(problem))


def _uneven(problem: Problem) -> Sequence[str]:
    """Another number before than behind: a causal convolution, a transposed one."""
    taps = max(problem.leaves["kernel"].shape[:-2])
    pairs = itertools.product(range(2 * taps - 1), repeat=2)
    return [f"{low} before, {high} behind" for low, high in pairs if low != high]


def _transposed(problem: Problem) -> Sequence[str]:
    taps = max(problem.leaves["kernel"].shape[:-2])
    even = [f"{n} before, {n} behind" for n in range(2 * taps - 1)]
    return ("SAME", *even, *_uneven(problem))


def _orders(problem: Problem) -> Sequence[str]:
    spatial = problem.leaves["kernel"].shape[:-2]
    exchanged = len(spatial) == 2 and spatial[0] == spatial[1]
    return ("as it is", "flipped", *(("height and width exchanged",) if exchanged else ()))


def _groups(problem: Problem) -> Sequence[int]:
    return sorted(divisors(problem.operands["x"].shape[-1]), key=lambda n: n != 32)


def _of_groups(problem: Problem) -> Sequence[float]:
    return (*_EPSILONS, *worked_out(problem, _EPSILONS, groups=_groups(problem)[0]))


VARIANTS = (
    Variant("norm", "epsilon", "epsilon", lambda p: (*_EPSILONS, *worked_out(p, _EPSILONS))),
    Variant("norm", "mean", "the mean", ("subtracted", "kept")),
    Variant("norm", "scale", "1 + w", ("w", "1 + w")),
    Variant("norm", "variance", "the variance", ("biased", "unbiased")),
    Variant("batch norm", "epsilon", "epsilon", lambda p: (*_BATCH, *worked_out(p, _BATCH))),
    Variant("batch norm", "statistics", "training mode", ("running", "of the batch")),
    Variant("group norm", "epsilon", "epsilon", _of_groups),
    Variant("group norm", "groups", "the number of groups", _groups),
    Variant("dense", "kernel", "a square kernel", _square, "weight"),
    Variant("dense", "bias", "the bias", ("added", "left out")),
    Variant("conv", "padding", "the padding", _paddings),
    Variant("conv", "stride", "the stride", (1, 2, 3, 4)),
    Variant("conv", "dilation", "the dilation", (1, 2)),
    Variant("conv", "kernel", "the kernel's axes", _orders, "weight"),
    Variant("transposed conv", "padding", "the padding", _transposed),
    Variant("transposed conv", "stride", "the stride", (2, 1, 3, 4)),
    Variant("transposed conv", "kernel", "the kernel's axes", _orders, "weight"),
    Variant("embed", "offset", "the offset of the positions", (0, 1, 2, -1)),
    Variant("embed", "scale", "the factor √width", ("1", "√width")),
    Variant(
        "ids", "ids", "the ids", ("all 0", "all 1", *(f"positions from {n}" for n in range(4)))
    ),
    Variant("mask", "mask", "the mask", tuple(MASKS), usual=99),
    *ATTENTION,
    *RECURRENT,
)


def _on_x(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda problem, **choice: function(problem.operands["x"], problem.leaves, **choice)


#: layer -> the function that runs a choice.
LAYERS: dict[str, Callable[..., np.ndarray]] = {
    "norm": _on_x(functions.norm),
    "batch norm": _on_x(functions.batch_norm),
    "group norm": _on_x(functions.group_norm),
    "dense": _on_x(functions.dense),
    "conv": _on_x(functions.conv),
    "transposed conv": _on_x(functions.conv_transpose),
    "embed": _on_x(functions.embed),
    **dict.fromkeys(KINDS, attention_of),
    KIND: recurrent,
    "mask": _mask,
    "ids": lambda problem, **c: functions.identifiers(problem.operands, problem.target.shape, **c),
}
