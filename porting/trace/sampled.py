"""A question made smaller before many choices are tried on it: a few rows of it tell as much.

What looks at one position at a time is asked about some positions; attention about some
queries of some sequences, with its projections made once; a norm over an image about one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from porting.trace.attention import projected
from porting.trace.attention_table import KINDS
from porting.trace.questions import Problem

ROWS = 12  #: queries that attention is tried on
BATCH = 2  #: sequences that attention is tried on
PLACES = 64  #: positions that a layer is tried on


def sampled(problem: Problem) -> Problem:
    """The same question about a part of its arrays, where its layer allows that.

    >>> x = np.ones((2, 200, 4))
    >>> sampled(Problem("norm", {"x": x}, {}, x, x)).target.shape
    (2, 64, 4)
    """
    return SAMPLED.get(problem.layer, lambda whole: whole)(problem)


def _some_queries(problem: Problem) -> Problem:
    """The sequences that part most and some of their queries."""
    made = projected(problem.operands, problem.leaves)
    rest = {n: a for n, a in problem.leaves.items() if n.startswith("out/")}
    problem = dataclasses.replace(problem, operands=made, leaves=rest)
    first = next(iter(made.values()))
    if problem.target.shape[:2] != first.shape[:2]:
        return problem  # heads before positions, or joined with the batch
    batch, length = first.shape[:2]
    apart = np.zeros(first.shape[:2]) if problem.apart is None else problem.apart
    apart = apart.reshape(batch, length, -1).max(-1)
    some = np.sort(np.argsort(-apart.max(-1), kind="stable")[:BATCH])
    rows = np.linspace(0, length - 1, min(length, ROWS)).astype(int)
    rows = np.union1d(rows, np.argsort(-apart.max(0), kind="stable")[: ROWS // 4])
    taken = {
        name: array[some] if array.shape[0] == batch and array.ndim > 2 else array
        for name, array in made.items()
    }
    return _cut(problem, taken | {"rows": rows}, (some[:, None], rows))


def _some_places(problem: Problem) -> Problem:
    """Some positions, and those that part most."""
    x, target = problem.operands["x"], problem.target
    if min(x.ndim, target.ndim) < 3 or x.shape[:2] != target.shape[:2] or x.shape[1] <= PLACES:
        return problem
    apart = np.zeros(target.shape) if problem.apart is None else problem.apart
    most = apart.max((0, *range(2, target.ndim)))
    places = np.linspace(0, x.shape[1] - 1, PLACES // 2).astype(int)
    rest = np.setdiff1d(np.argsort(-most, kind="stable"), places, assume_unique=True)
    places = np.sort(np.concatenate([places, rest[: PLACES - len(places)]]))
    every = (slice(None), places)
    return _cut(problem, {**problem.operands, "x": x[every]}, every)


def _one_image(problem: Problem) -> Problem:
    """The one of a batch that parts most."""
    x = problem.operands["x"]
    if x.shape[:1] != problem.target.shape[:1]:
        return problem
    apart = np.zeros(len(x)) if problem.apart is None else problem.apart.reshape(len(x), -1)
    one = slice(at := int(np.argmax(apart.reshape(len(x), -1).max(-1))), at + 1)
    return _cut(problem, {**problem.operands, "x": x[one]}, (one,))


def _cut(problem: Problem, operands: dict[str, np.ndarray], at: tuple) -> Problem:
    """A question with other operands, about a part of its target."""
    wide, apart = (None if a is None else a[at] for a in (problem.target64, problem.apart))
    return dataclasses.replace(
        problem, operands=operands, target=problem.target[at], target64=wide, apart=apart
    )


#: layer -> how a question about it is made smaller
SAMPLED: dict[str, Callable[[Problem], Problem]] = {
    **dict.fromkeys(KINDS, _some_queries),
    **dict.fromkeys(("norm", "dense", "embed"), _some_places),
    "group norm": _one_image,
}
