"""The search: which choices of the table give a recorded output.

It runs a layer in float64 with one choice of values after the other and keeps those that
give the recorded output, so it names both what the reference means and what the candidate
does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from porting.trace.formula import titles
from porting.trace.formula_search import formulas
from porting.trace.measure import FLOOR, U
from porting.trace.questions import Budget, Choice, Problem
from porting.trace.sampled import sampled
from porting.trace.tables import VARIANTS
from porting.trace.trials import trial_of

MOST = 3000  #: choices that are run for one question


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


def fitting(
    problem: Problem, usual: Choice | None = None, budget: Budget | None = None
) -> list[Choice]:
    """The choices that give the recorded output, those nearest to the usual one.

    A choice fits if it is as near as rounding allows and no other is nearer by far.

    Args:
        problem: the question.
        usual: see `choices`.
        budget: what may be spent; the search ends where its share is used up.

    >>> x = np.random.default_rng(0).normal(size=(4, 7))
    >>> from porting.trace import functions
    >>> y = functions.norm(x, {}, epsilon=1e-3)
    >>> fitting(Problem("norm", {"x": x}, {}, np.float32(y), y))[0]["epsilon"]
    0.001
    """
    double = problem.target64 is not None
    finite = np.abs(problem.target)[np.isfinite(problem.target)]
    scale = float(np.max(finite, initial=0.0))
    allowed = (FLOOR if double else 32 * U) * scale
    problem = sampled(problem)
    if problem.layer == "between":
        target = problem.target if problem.target64 is None else problem.target64
        found = formulas(problem.operands, target, allowed, problem.apart)
        return [{"formula": formula} for formula in found]
    budget = budget or Budget()
    share, trial, before = budget.share(), trial_of(problem, allowed), budget.left
    near: list[tuple[float, Choice]] = []
    level = 0
    for deviations, choice in itertools.islice(choices(problem, usual), MOST):
        if (near and deviations > level) or before - budget.left > share:
            break
        error, work = trial(choice)
        budget.left -= work
        if error <= allowed:
            near.append((error, choice))
            level = deviations
    floor = (1e-12 if double else 4 * U) * scale
    best = min((error for error, _ in near), default=0.0)
    return [choice for error, choice in near if error <= max(16 * best, floor)]


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

    >>> x = np.ones((2, 3))
    >>> notable(Problem("norm", {"x": x}, {}, x), {"epsilon": 1e-6, "mean": "subtracted"})
    {'epsilon': 1e-06}
    """
    rows = {row.option: row for row in VARIANTS if row.layer == problem.layer}
    first = {
        o: (r.values(problem) if callable(r.values) else r.values)[:1] for o, r in rows.items()
    }
    return {o: v for o, v in choice.items() if v not in first[o]} or choice
