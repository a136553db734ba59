"""The terms that a formula may be made of, as columns over some elements of the target."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from porting.trace.formula import NONE, THEN, Factor, Term
from porting.trace.functions import ACTIVATIONS
from porting.trace.looks import PLAIN, Look, looks, pooled, pooled_as_it_is, spread

PLAINS = 12  #: arrays that are added or multiplied
#: Activations that are met every day.
USUAL = (NONE, "GELU (erf)", "GELU (tanh)", "SiLU", "ReLU", "tanh", "sigmoid")


@dataclass(frozen=True)
class Columns:
    """Terms and their values at the sampled elements, the plainest first."""

    terms: tuple[Term, ...]
    values: np.ndarray
    cost: np.ndarray


def columns_of(operands: Mapping[str, np.ndarray], shape: tuple[int, ...], at: tuple) -> Columns:
    """The terms of these arrays that fit a shape, each once, at the elements `at`.

    >>> x = np.arange(6.0).reshape(2, 3) - 2
    >>> some = columns_of({"x": x}, (2, 3), np.unravel_index(np.arange(6), (2, 3)))
    >>> [str(term) for term in some.terms][:2]
    ['x', 'GELU (erf) of x']
    """
    seen: set[bytes] = set()
    found: list[tuple[Term, np.ndarray, int]] = []

    def add(factors: Sequence[Factor], column: np.ndarray, cost: int) -> None:
        mark = np.round(column / max(np.max(np.abs(column), initial=0), 1e-300), 11).tobytes()
        if np.all(np.isfinite(column)) and np.any(column) and mark not in seen:
            seen.add(mark)
            found.append((Term(tuple(factors)), column, cost))

    plain: dict[Factor, np.ndarray] = {}
    whole: dict[Factor, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for factor, column, cost in _factors(operands, shape, at):
            add([factor], column, cost)
            if factor.activation == NONE and factor.look.kind in ("", "part"):
                plain[factor] = column
            if factor.activation in WHOLE:
                whole[factor] = column
        plain = dict(itertools.islice(plain.items(), PLAINS))
        for factors, column, cost in _joined(plain):
            add(factors, column, cost)
        for (one, x), (other, y) in itertools.product(whole.items(), plain.items()):
            add([one, other], x * y, 4)
    terms, values, costs = zip(*found, strict=True) if found else ((), (), ())
    return Columns(tuple(terms), np.array(values), np.array(costs))


def _factors(
    operands: Mapping[str, np.ndarray], shape: tuple[int, ...], at: tuple
) -> Iterator[tuple[Factor, np.ndarray, int]]:
    """activation(look(array)): every look as it is first, then with its activations."""
    plain = [(n, look, a[at]) for n, x in operands.items() for look, a in looks(x, shape)]
    pools = {
        n: x for n, x in operands.items() if any(True for _ in pooled(x[..., :1], _one(shape)))
    }
    for act, function in ACTIVATIONS.items():
        rare = act not in USUAL
        shown = [(n, look, function(column)) for n, look, column in plain if look.kind != "flatten"]
        for name, x in pools.items():
            shown += [(name, *one) for one in _pools(x, function, shape, at)]
        for name in {n: None for n, look, _ in plain if look.kind == "flatten"}:
            seen = looks(function(operands[name]), shape)
            shown += [(name, look, a[at]) for look, a in seen if look.kind == "flatten"]
        shown.sort(key=lambda one: act == NONE and one[1].kind != "")
        for name, look, column in shown:
            cost = bool(look.kind) if act == NONE else 1 + rare + bool(look.kind)
            yield Factor(name, look, act), column, cost
    for name, array in _side_by_side(operands, shape):
        yield Factor(name), array[at], 1
    for (act, function), (name, x) in itertools.product(WHOLE.items(), operands.items()):
        whole = spread(function(x), shape) if x.ndim > 1 and spread(x, shape) is not None else None
        if whole is not None:
            yield Factor(name, PLAIN, act), whole[at], 3


def _one(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], 1)


def _pools(
    x: np.ndarray, function: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], at: tuple
) -> Iterator[tuple[Look, np.ndarray]]:
    """What pools of an activated array are at the elements `at`, from their channels alone."""
    if x.shape[-1] != shape[-1]:
        return
    channels, place = np.unique(at[-1], return_inverse=True)
    few = (*shape[:-1], len(channels))
    views = pooled if function is ACTIVATIONS[NONE] else pooled_as_it_is
    for look, array in views(function(x[..., channels]), few):
        yield look, array[(*at[:-1], place)]


def _normed(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.sum(x**2, -1, keepdims=True))


def _softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


#: Functions that look at more than one element.
WHOLE = {
    "softmax": _softmax,
    "log-softmax": lambda x: np.log(_softmax(x)),
    "softmax over the positions": lambda x: _softmax(x, 1),
    "division by the length": _normed,
}


def _side_by_side(
    operands: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    """Two arrays laid side by side: channels of a skip connection, a token before the others."""
    for axis in dict.fromkeys((len(shape) - 1, 1)):
        if len(shape) < 2:
            return
        lengths = {n: _length(x, shape, axis) for n, x in operands.items()}
        sizes = {n: size for n, size in lengths.items() if 0 < size < shape[axis]}
        for one, other in itertools.product(sizes, sizes):
            if sizes[one] + sizes[other] != shape[axis] or (axis == 1 and len(shape) > 3):
                continue
            pieces = [[*_pieces(operands[n], n, shape, axis, sizes[n])] for n in (one, other)]
            for (a, x), (b, y) in itertools.product(*pieces):
                yield f"{a}{THEN}{b}", np.concatenate([x, y], axis)


def _length(array: np.ndarray, shape: tuple[int, ...], axis: int) -> int:
    """How much of an axis an array may fill; 0 where it can fill none."""
    if array.ndim == len(shape):
        return array.shape[axis]
    return math.prod(array.shape[1:-1]) if array.ndim > len(shape) == 3 and axis == 1 else 0


def _pieces(
    array: np.ndarray, name: str, shape: tuple[int, ...], axis: int, size: int
) -> Iterator[tuple[str, np.ndarray]]:
    piece = [*shape]
    piece[axis] = size
    plain = spread(array, tuple(piece))
    if plain is not None:
        yield name, plain
    for look, shown in pooled(array, piece):
        if look.kind == "pool":
            yield f"{name} [{look.words}]", shown


def _joined(
    plain: Mapping[Factor, np.ndarray],
) -> Iterator[tuple[Sequence[Factor], np.ndarray, int]]:
    """Products of two arrays, one of them maybe activated, and activated sums of two or three."""
    for (a, x), (b, y) in itertools.permutations(plain.items(), 2):
        for act, function in ACTIVATIONS.items():
            if act != NONE or a.name < b.name:
                yield [replace(a, activation=act), b], function(x) * y, 2 + (act not in USUAL)
    for count in (2, 3):
        for group in itertools.combinations(plain.items(), count):
            name = " + ".join(sorted(f.look.of(f.name) for f, _ in group))
            total = functools.reduce(np.add, [x for _, x in group])
            for act, function in ACTIVATIONS.items():
                if act != NONE:
                    yield (
                        [Factor(name, activation=act)],
                        function(total),
                        count + (act not in USUAL),
                    )
