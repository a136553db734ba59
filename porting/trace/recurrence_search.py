"""The first steps of a recurrent layer, which show most choices to be wrong.

Every direction of a layer is held against its own half of the output, so what one cell gives
is worked out once for all choices that read it in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from porting.trace.questions import Choice, Problem
from porting.trace.recurrence import BACK, Cell, recurrence, turned
from porting.trace.recurrence_table import BESIDE, all_cells, begins, ends_of, timed

STEPS = 6  #: steps that are run; the first ones do not show all (a gate times a state of zeros)
ROWS = 2  #: sequences that are run


def first_steps(problem: Problem) -> Callable[[Choice], tuple[float, float]]:
    """A trial of the first steps: the error there, and the operations spent.

    >>> x = np.ones((1, 1, 2))
    >>> leaves = {f"cell/{s}/kernel": np.ones((2, 2)) for s in "ih"}
    >>> trial = first_steps(Problem("recurrent", {"x": x}, leaves, np.tanh(2 * x)))
    >>> usual = {"cells": "cell", "lengths": "the whole length", "join": "the first before the second"}
    >>> trial({**usual, "direction": "forwards", "time": "the second axis", "carry": "zeros"})[0]
    0.0
    """
    cells = all_cells(problem.leaves)
    known: dict[tuple, float] = {}
    wide = problem.target if problem.target64 is None else problem.target64

    def trial(choice: Choice) -> tuple[float, float]:
        if wide.ndim != 3:
            return 0.0, 0.0  # the last state alone: nothing to be seen before the end
        rest = {n: v for n, v in choice.items() if n not in ("cells", "direction", "join")}
        work, error = 0.0, 0.0
        for path, way, half in _parts(choice):
            key = (path, way, half, *rest.values())
            if key not in known:
                known[key] = _error(problem, wide, cells[path], way, half, rest)
                work += _cost(problem, cells[path])
            error = max(error, known[key])
            if math.isinf(error):
                break
        return error, work

    return trial


def _parts(choice: Choice) -> list[tuple[str, str, tuple[int, int]]]:
    """(cell, direction, which of how many parts of the output) of each direction."""
    pairs = [*zip(choice["cells"].split(BESIDE), choice["direction"].split(BESIDE), strict=True)]
    count = len(pairs)
    if choice["join"] == "the first twice":
        pairs = [pairs[0]] * count
    if choice["join"] == "the second before the first":
        pairs = pairs[::-1]
    return [(path, way, (n, count)) for n, (path, way) in enumerate(pairs)]


def _cost(problem: Problem, cell: Cell) -> float:
    products = ROWS * STEPS * (cell.wi.size + cell.wh.size) / 16
    return products + 2e4 * STEPS


def _error(
    problem: Problem, wide: np.ndarray, cell: Cell, way: str, half: tuple[int, int], rest: Choice
) -> float:
    options = {n: v for n, v in rest.items() if n not in ("lengths", "time", "carry")}
    target = np.split(timed(wide, rest["time"]), half[1], -1)[half[0]]
    x = timed(problem.operands["x"], rest["time"])
    ends = ends_of(problem, rest["lengths"])
    if ends is not None and len(ends) != len(x):
        return math.inf
    rows = _rows(len(x), ends)
    ends = None if ends is None else ends[rows]
    begin = begins(problem, rest["carry"], rows)
    with np.errstate(all="ignore"):
        y = recurrence(x[rows], cell, way, lengths=ends, carry=begin, steps=STEPS, **options)
        seen = target[rows] if way != BACK else turned(target[rows], ends)
        if "zeros" in rest["lengths"] and ends is not None:
            y = y * (np.arange(y.shape[1])[None] < ends[:, None])[..., None]
        error = float(np.max(np.abs(y - seen[:, :STEPS]), initial=0.0))
    return error if error == error else math.inf


def _rows(count: int, ends: np.ndarray | None) -> np.ndarray:
    """The first sequence, and the shortest or the last."""
    other = count - 1 if ends is None else int(np.argmin(ends))
    return np.unique([0, other])[:ROWS]
