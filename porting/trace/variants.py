"""The table of known variants: what one layer, or the code between two layers, may do else.

Every row is one option of a layer with the values that are met in practice, the usual one
first. The search runs the layer in float64 with every choice of values and keeps those that
give a recorded output, so it names both what the reference means and what the candidate does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from porting.trace import functions
from porting.trace.measure import FLOOR, U

Choice = dict[str, Any]
MOST = 3000  #: choices that are run for one question
SAMPLE = 512  #: elements that elementwise choices are tried on
ROWS = 12  #: queries that attention is tried on


@dataclass(frozen=True)
class Problem:
    """A recorded output and all that it may have been made of.

    Attributes:
        layer: a key of `LAYERS`.
        operands: float64 arrays by name; `x` for a layer with one input.
        leaves: the layer's parameters in Flax's layout.
        target: the output, float32 or an integer type.
        target64: the output of the float64 run, where there is one.
    """

    layer: str
    operands: Mapping[str, np.ndarray]
    leaves: Mapping[str, np.ndarray]
    target: np.ndarray = field(repr=False)
    target64: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Variant:
    """One option of a layer.

    Attributes:
        layer: the layer, a key of `LAYERS`.
        option: the argument of the layer's function.
        title: what a difference in it is called.
        values: what it can be, the usual one first; or a function of the problem.
        verdict: `code`, or `weight` where the option undoes a fault of a leaf.
    """

    layer: str
    option: str
    title: str
    values: Sequence[Any] | Callable[[Problem], Sequence[Any]]
    verdict: str = "code"


_EPSILONS = (1e-5, 1e-6, 1e-12, 1e-3, 1e-8, 1.1920929e-07, 0.0)
_MASKS = (
    "none",
    "causal",
    "each token only itself",
    "causal, exchanged (the future only)",
    "causal, exchanged (itself and the future)",
    "causal, without itself",
)


def _square(problem: Problem) -> Sequence[str]:
    shape = problem.leaves["kernel"].shape
    square = len(shape) == 2 and shape[0] == shape[1]
    return ("as it is", "transposed") if square else ("as it is",)


def _paddings(problem: Problem) -> Sequence[str]:
    widest = max(problem.leaves["kernel"].shape[:-2])
    return ("SAME", *(f"{n} on each side" for n in range(widest + 1)), "SAME_LOWER")


def _orders(problem: Problem) -> Sequence[str]:
    spatial = problem.leaves["kernel"].shape[:-2]
    exchanged = len(spatial) == 2 and spatial[0] == spatial[1]
    return ("as it is", "flipped", *(("height and width exchanged",) if exchanged else ()))


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _groups(problem: Problem) -> Sequence[int]:
    return sorted(_divisors(problem.operands["x"].shape[-1]), key=lambda n: n != 32)


def _heads(problem: Problem) -> Sequence[int]:
    """The heads that the queries show, or every number that divides, usual widths first."""
    q, k = problem.operands["q"], problem.operands["k"]
    if q.ndim == 4:
        return (q.shape[2],)
    wide, narrow = q.shape[-1], k.shape[-1]
    fit = [n for n in _divisors(wide) if n * narrow % wide == 0 and wide // n > 1]
    return sorted(fit, key=lambda n: (wide // n not in (64, 128, 80, 96, 32), n))


def _masks(problem: Problem) -> Sequence[str]:
    length = problem.operands["k"].shape[1]
    windows = range(2, min(length, 32))
    return (*_MASKS, *(f"causal, window of {n} tokens" for n in windows))


def _rotary(problem: Problem) -> Sequence[str]:
    q = problem.operands["q"]
    square = q.shape[1] == problem.operands["k"].shape[1]
    even = any((q[0, 0].size // n) % 2 == 0 for n in _heads(problem))
    return ("none", "half-split", "interleaved") if square and even else ("none",)


VARIANTS = (
    Variant("norm", "epsilon", "epsilon", _EPSILONS),
    Variant("norm", "mean", "the mean", ("subtracted", "kept")),
    Variant("norm", "scale", "1 + w", ("w", "1 + w")),
    Variant("norm", "variance", "the variance", ("biased", "unbiased")),
    Variant("batch norm", "epsilon", "epsilon", (1e-5, 1e-3, 1e-6, 1e-4, 1e-12)),
    Variant("batch norm", "statistics", "training mode", ("running", "of the batch")),
    Variant("group norm", "epsilon", "epsilon", _EPSILONS),
    Variant("group norm", "groups", "the number of groups", _groups),
    Variant("dense", "kernel", "a square kernel", _square, "weight"),
    Variant("dense", "bias", "the bias", ("added", "left out")),
    Variant("conv", "padding", "the padding", _paddings),
    Variant("conv", "stride", "the stride", (1, 2, 3, 4)),
    Variant("conv", "dilation", "the dilation", (1, 2)),
    Variant("conv", "kernel", "the kernel's axes", _orders, "weight"),
    Variant("embed", "offset", "the offset of the positions", (0, 1, 2, -1)),
    Variant("embed", "scale", "the factor √width", ("1", "√width")),
    Variant("attention", "heads", "the number of heads", _heads),
    Variant("attention", "mask", "the mask", _masks),
    Variant("attention", "scale", "the scale of the scores", ("1/√d", "none", "1/d", "1/√width")),
    Variant("attention", "rotary", "the rotary layout", _rotary),
    Variant("attention", "base", "the rotary base", (1e4, 5e5, 1e6, 1e5, 1e3, 2e6, 5e6, 1e7)),
    Variant("attention", "groups", "the spread of the key heads", ("repeat", "tile")),
    Variant("between", "activation", "the activation", tuple(functions.ACTIVATIONS)),
    Variant(
        "ids", "ids", "the ids", ("all 0", "all 1", *(f"positions from {n}" for n in range(4)))
    ),
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
    "embed": _on_x(functions.embed),
    "attention": lambda problem, **c: functions.attention(problem.operands, **c),
    "between": lambda problem, **c: functions.combined(problem.operands, **c),
    "ids": lambda problem, **c: functions.identifiers(problem.operands, problem.target.shape, **c),
}


def choices(problem: Problem, usual: Choice | None = None) -> Iterator[tuple[int, Choice]]:
    """Every choice for a problem with the number of options that leave the usual value.

    Args:
        problem: the question.
        usual: the choice to begin with, where it is not the first of every row.
    """
    if problem.layer == "between":
        yield from _expressions(sorted(problem.operands))
        return
    rows = [row for row in VARIANTS if row.layer == problem.layer]
    values = {
        row.option: row.values(problem) if callable(row.values) else row.values for row in rows
    }
    if problem.layer == "ids":
        values["ids"] = (*values["ids"], *problem.operands)
    if usual:
        values = {o: sorted(v, key=lambda x, o=o: x != usual[o]) for o, v in values.items()}
    found = itertools.product(*(range(len(v)) for v in values.values()))
    for index in sorted(found, key=lambda index: (sum(map(bool, index)), sum(index)))[:MOST]:
        pairs = zip(index, values.items(), strict=True)
        yield sum(map(bool, index)), {name: options[i] for i, (name, options) in pairs}


def _expressions(names: list[str]) -> Iterator[tuple[int, Choice]]:
    """activation(one) + others, activation(one) × another, ReLU(sum): what stands between."""
    pairs = [" + ".join(two) for two in itertools.combinations(names, 2)]
    for activation, of in itertools.product(functions.ACTIVATIONS, names):
        linear = activation == "no activation"
        rest = [n for n in names if n != of and (not linear or n > of)]
        sums = [" + ".join(two) for two in itertools.combinations(rest, 2)]
        for plus in ("", *rest, *sums):
            yield 0, {"activation": activation, "of": of, "plus": plus, "times": ""}
        for times in rest:
            yield 0, {"activation": activation, "of": of, "plus": "", "times": times}
    for activation, of in itertools.product(functions.ACTIVATIONS, pairs):
        if activation != "no activation":
            yield 0, {"activation": activation, "of": of, "plus": "", "times": ""}


def fitting(problem: Problem, usual: Choice | None = None) -> list[Choice]:
    """The choices that give the recorded output, those nearest to the usual one.

    A choice fits if it is as near as rounding allows and no other is nearer by far.

    >>> x = np.random.default_rng(0).normal(size=(4, 7))
    >>> y = functions.norm(x, {}, epsilon=1e-3)
    >>> fitting(Problem("norm", {"x": x}, {}, np.float32(y), y))[0]["epsilon"]
    0.001
    """
    problem = SAMPLED.get(problem.layer, lambda whole: whole)(problem)
    target = problem.target if problem.target64 is None else problem.target64
    scale = float(np.max(np.abs(target), initial=0.0))
    allowed = (32 * U if problem.target64 is None else FLOOR) * scale
    near: list[tuple[float, Choice]] = []
    level = 0
    for deviations, choice in choices(problem, usual):
        if near and deviations > level:
            break
        error = _error(problem, choice, target)
        if error <= allowed:
            near.append((error, choice))
            level = deviations
    floor = (4 * U if problem.target64 is None else 1e-12) * scale
    best = min((error for error, _ in near), default=0.0)
    return [choice for error, choice in near if error <= max(16 * best, floor)]


def differences(layer: str, wanted: Choice, given: Choice) -> list[tuple[str, str]]:
    """What two choices for one layer differ in: title and verdict of each.

    >>> plain = {"activation": "no activation", "times": ""}
    >>> wanted, given = plain | {"of": "x", "plus": "attn"}, plain | {"of": "attn", "plus": ""}
    >>> differences("between", wanted, given)
    [('a missing residual', 'code')]
    """
    apart = {option for option in wanted if wanted[option] != given[option]}
    if layer != "between":
        rows = [row for row in VARIANTS if row.layer == layer and row.option in apart]
        return [(row.title, row.verdict) for row in rows]
    if apart <= {"activation"}:
        return [("the activation", "code")] if apart else []
    if wanted["times"] and wanted["times"] == given["of"] and given["times"] == wanted["of"]:
        return [("the gate, exchanged with what it is multiplied by", "code")]
    terms, others = (
        set(f"{c['of']} + {c['plus']}".strip(" +").split(" + ")) for c in (wanted, given)
    )
    if others < terms:
        return [("a missing residual", "code")]
    return [("a residual too many" if terms < others else "the order of the layers", "code")]


def _error(problem: Problem, choice: Choice, target: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        try:
            output = LAYERS[problem.layer](problem, **choice)
        except (ValueError, IndexError, StopIteration, ZeroDivisionError):
            return float("inf")  # this choice does not fit these shapes
        if output.size != target.size or output.shape[:1] != target.shape[:1]:
            return float("inf")
        error = float(np.max(np.abs(output.reshape(target.shape) - target), initial=0.0))
    return error if error == error else float("inf")


def _some_elements(problem: Problem) -> Problem:
    """The same question about some elements: enough to tell elementwise functions apart."""
    size = problem.target.size
    take = np.random.default_rng(0).choice(size, min(size, SAMPLE), replace=False)
    wide = None if problem.target64 is None else problem.target64.ravel()[take]
    operands = {name: array.ravel()[take] for name, array in problem.operands.items()}
    return Problem(problem.layer, operands, {}, problem.target.ravel()[take], wide)


def _some_rows(problem: Problem) -> Problem:
    """The same question about one sequence and some of its queries, the last one included."""
    length = problem.operands["q"].shape[1]
    rows = np.unique(np.linspace(0, length - 1, min(length, ROWS)).astype(int))
    operands = {name: array[:1] for name, array in problem.operands.items()} | {"rows": rows}
    if problem.target.shape[:2] != problem.operands["q"].shape[:2]:
        return problem  # heads before positions, or joined with the batch
    wide = None if problem.target64 is None else problem.target64[:1, rows]
    return Problem(problem.layer, operands, {}, problem.target[:1, rows], wide)


#: How a question is made smaller before many choices are tried.
SAMPLED = {"between": _some_elements, "attention": _some_rows}
