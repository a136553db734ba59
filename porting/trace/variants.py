"""The search: which choices of the table give a recorded output.

It runs a layer in float64 with one choice of values after the other and keeps those that
give the recorded output, so it names both what the reference means and what the candidate
does.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from porting.trace.attention_table import KINDS
from porting.trace.formula import titles
from porting.trace.formula_search import formulas
from porting.trace.measure import FLOOR, U
from porting.trace.questions import Choice, Problem
from porting.trace.tables import LAYERS, VARIANTS

MOST = 3000  #: choices that are run for one question
LEAST = 200  #: choices that are run for the largest question
WORK = 3e9  #: products of two numbers that are spent on one question
ROWS = 12  #: queries that attention is tried on
BATCH = 2  #: sequences that attention is tried on


def choices(problem: Problem, usual: Choice | None = None) -> Iterator[tuple[int, Choice]]:
    """Every choice for a problem with the number of options that leave the usual value.

    Args:
        problem: the question.
        usual: the choice to begin with, where it is not the first of every row.
    """
    rows = [row for row in VARIANTS if row.layer == problem.layer]
    values = {
        row.option: row.values(problem) if callable(row.values) else row.values for row in rows
    }
    if problem.layer == "ids":
        values["ids"] = (*values["ids"], *problem.operands)
    many = {row.option: row.usual for row in rows}
    if usual and set(usual) == set(values):
        values = {o: _first(usual[o], v) for o, v in values.items()}
        many = dict.fromkeys(values, 1)
    for count in range(len(values) + 1):
        for apart in itertools.combinations(values, count):
            taken = [v[many[o] :] if o in apart else v[: many[o]] for o, v in values.items()]
            for choice in itertools.product(*taken):
                yield count, dict(zip(values, choice, strict=True))


def _first(usual: Any, values: Sequence[Any]) -> list[Any]:
    return sorted(values, key=lambda value: value != usual)


def fitting(problem: Problem, usual: Choice | None = None) -> list[Choice]:
    """The choices that give the recorded output, those nearest to the usual one.

    A choice fits if it is as near as rounding allows and no other is nearer by far.

    >>> x = np.random.default_rng(0).normal(size=(4, 7))
    >>> y = LAYERS["norm"](Problem("norm", {"x": x}, {}, x), epsilon=1e-3)
    >>> fitting(Problem("norm", {"x": x}, {}, np.float32(y), y))[0]["epsilon"]
    0.001
    """
    problem = SAMPLED.get(problem.layer, lambda whole: whole)(problem)
    target = problem.target if problem.target64 is None else problem.target64
    scale = float(np.max(np.abs(target), initial=0.0))
    allowed = (32 * U if problem.target64 is None else FLOOR) * scale
    if problem.layer == "between":
        found = formulas(problem.operands, target, allowed, problem.apart)
        return [{"formula": formula} for formula in found]
    near: list[tuple[float, Choice]] = []
    level = 0
    for deviations, choice in itertools.islice(choices(problem, usual), _most(problem)):
        if near and deviations > level:
            break
        error = _error(problem, choice, target)
        if error <= allowed:
            near.append((error, choice))
            level = deviations
    floor = (4 * U if problem.target64 is None else 1e-12) * scale
    best = min((error for error, _ in near), default=0.0)
    return [choice for error, choice in near if error <= max(16 * best, floor)]


def _most(problem: Problem) -> int:
    """How many choices the size of a question allows."""
    if problem.layer not in KINDS:
        return MOST
    arrays = problem.operands.values()
    products = sum(a.size for a in arrays) * max(a.shape[-1] for a in arrays)
    return int(np.clip(WORK / products, LEAST, MOST))


def differences(
    mean: Problem, wanted: Choice, does: Problem, given: Choice
) -> list[tuple[str, str]]:
    """What the choices of two questions differ in: title and verdict of each.

    >>> norm = Problem("norm", {}, {}, np.ones(1))
    >>> differences(norm, {"epsilon": 1e-5}, norm, {"epsilon": 1e-6})
    [('epsilon', 'code')]
    """
    if mean.layer == "between":
        order = sorted(mean.operands, key=lambda name: not name.startswith("its own input"))
        alone = set(mean.operands) - set(does.operands), set(does.operands) - set(mean.operands)
        found = titles(wanted["formula"], given["formula"], order, alone)
        return [(title, "code") for title in found]
    apart = {option for option in wanted if wanted[option] != given[option]}
    rows = [row for row in VARIANTS if row.layer == mean.layer and row.option in apart]
    return [(row.title, row.verdict) for row in rows]


def notable(problem: Problem, choice: Choice) -> Choice:
    """The options of a choice that are not the first of their row; all where all are.

    >>> notable(Problem("norm", {}, {}, np.ones(1)), {"epsilon": 1e-6, "mean": "subtracted"})
    {'epsilon': 1e-06}
    """
    rows = {row.option: row for row in VARIANTS if row.layer == problem.layer}
    first = {
        o: (r.values(problem) if callable(r.values) else r.values)[:1] for o, r in rows.items()
    }
    return {o: v for o, v in choice.items() if v not in first[o]} or choice


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


def _some_rows(problem: Problem) -> Problem:
    """The same question about the sequences that part most and some of their queries."""
    first = next(iter(problem.operands.values()))
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
        for name, array in problem.operands.items()
    }
    return dataclasses.replace(
        problem,
        operands=taken | {"rows": rows},
        target=problem.target[some][:, rows],
        target64=None if problem.target64 is None else problem.target64[some][:, rows],
    )


#: How a question is made smaller before many choices are tried.
SAMPLED = dict.fromkeys(KINDS, _some_rows)
