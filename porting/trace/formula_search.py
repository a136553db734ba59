"""The search for the formula that stands between two layers.

Terms (an activation of a look of an array, products of two) are laid out as columns over
some elements of the target, and those few whose sum gives the target are found from their
scalar products, all pairs at once. Factors come out of the fit: a residual that is scaled is
found like one that is not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from porting.trace.formula import NONE, Formula, Term, plainly
from porting.trace.formula_columns import PLAINS, Columns, columns_of
from porting.trace.functions import ACTIVATIONS

SAMPLE = 512  #: elements that are looked at
CHANNELS = 4  #: channels that they lie in, where there are many positions
MOST = 400  #: terms that are tried beside every other
NEARLY = 1e-9  #: of the target's square, below which a fit is looked at closely
LEAST = 1e-4  #: of the target, the least that a term adds
#: Functions around a sum, with the target's values that tell and the way back.
OUTERS = {
    "ReLU": lambda y: (y > 0, y),
    "tanh": lambda y: (np.abs(y) < 0.999, np.arctanh(np.clip(y, -0.9999, 0.9999))),
    "sigmoid": lambda y: ((y > 0.001) & (y < 0.999), _logit(np.clip(y, 1e-4, 1 - 1e-4))),
}


def _logit(y: np.ndarray) -> np.ndarray:
    return np.log(y / (1 - y))


def formulas(
    operands: Mapping[str, np.ndarray],
    target: np.ndarray,
    allowed: float,
    apart: np.ndarray | None = None,
) -> list[Formula]:
    """The formulas that give the target, the plainest; several where they cannot be told apart.

    Args:
        operands: float64 arrays by name, of any shape.
        target: what they give.
        allowed: the largest error.
        apart: where it is largest, elements are looked at.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 3, 4, 5))
    >>> [str(f) for f in formulas({"x": x, "y": y}, np.maximum(x, 0) + 0.5 * y, 1e-9)]
    ['ReLU of x + y × 0.5']
    """
    if not target.ndim or not target.size:
        return []
    at = _sample(target, apart)
    wanted = target[at].astype(np.float64)
    if not np.any(wanted) or not np.all(np.isfinite(wanted)):
        return []
    columns = columns_of(operands, target.shape, at)
    return _levels(columns, wanted, allowed, math.sqrt(target.shape[-1]))


def _levels(columns: Columns, wanted: np.ndarray, allowed: float, wide: float) -> list[Formula]:
    if not columns.terms:
        return []
    for outer in (NONE, *OUTERS):
        rows, inner = np.ones(len(wanted), bool), wanted
        if outer != NONE:
            rows, inner = OUTERS[outer](wanted)
            if (
                rows.sum() < 16
                or not np.any(inner[rows])
                or not np.allclose(ACTIVATIONS[outer](inner)[rows], wanted[rows])
                or (outer == "ReLU" and wanted.min() < 0)
            ):
                continue
        sub = Columns(columns.terms, columns.values[:, rows], columns.cost)
        for level in (_singles, _few_plain, _pairs, _with_plain_pairs):
            found = []
            for chosen in level(sub, inner[rows]):
                formula = _fitted(columns, chosen, rows, inner, wanted, outer, allowed, wide)
                if formula is not None:
                    found.append(
                        (
                            sum(columns.cost[c] for c in chosen)
                            + sum(bool(t.times) for t in formula.terms),
                            formula,
                        )
                    )
            if found:
                least = min(cost for cost, _ in found)
                return list(dict.fromkeys(f for cost, f in found if cost == least))
    return []


def _sample(target: np.ndarray, apart: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Some elements at random, the extremes, and those where the models part most.

    They lie in few channels: what pools positions is worked out for these only. The extremes
    tell what cuts values off.
    """
    rng = np.random.default_rng(0)
    flat = target.reshape(-1, wide := target.shape[-1])
    count = min(wide, max(CHANNELS, -(-2 * SAMPLE // len(flat))))
    tells = [flat, -flat] + ([] if apart is None else [apart.reshape(flat.shape)])
    known = [_most(one.max(0), -(-count // 4)) for one in tells]
    channels = np.unique(np.concatenate([rng.choice(wide, count, replace=False), *known]))
    total = len(flat) * len(channels)
    take = [rng.choice(total, min(total, SAMPLE), replace=False)]
    take += [_most(one[:, channels], min(total, SAMPLE // 16)) for one in tells]
    rows, places = np.divmod(np.unique(np.concatenate(take)), len(channels))
    return np.unravel_index(rows * wide + channels[places], target.shape)


def _most(array: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest elements are."""
    return np.argpartition(array, array.size - count, axis=None)[array.size - count :]


def _singles(columns: Columns, wanted: np.ndarray) -> Iterable[tuple[int, ...]]:
    near = _left(columns.values @ wanted, np.sum(columns.values**2, 1), wanted)
    return [(int(i),) for i in np.flatnonzero(near < NEARLY)]


def _left(product: np.ndarray, square: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return 1 - product**2 / (square * np.sum(wanted**2))


def _plain_ones(columns: Columns) -> list[int]:
    return [
        i
        for i, t in enumerate(columns.terms)
        if len(t.factors) == 1
        and t.factors[0].activation == NONE
        and t.factors[0].look.kind in ("", "part")
    ][:PLAINS]


def _few_plain(columns: Columns, wanted: np.ndarray) -> Iterator[tuple[int, ...]]:
    """Sums of two to four arrays as they are."""
    plain = _plain_ones(columns)
    for count in (2, 3, 4):
        found = []
        for some in itertools.combinations(plain, count):
            x = columns.values[list(some)].T
            fit = np.linalg.lstsq(x, wanted, rcond=None)[0]
            if np.sum((x @ fit - wanted) ** 2) < NEARLY * np.sum(wanted**2):
                found.append(some)
        if found:
            yield from found
            return


def _pairs(columns: Columns, wanted: np.ndarray) -> Iterable[tuple[int, ...]]:
    """A term of one array beside a term of any kind."""
    alone = [i for i, t in enumerate(columns.terms) if len(t.factors) == 1]
    alone = sorted(alone, key=lambda i: columns.cost[i])[:MOST]
    return sorted({(min(two), max(two)) for two in _best(columns.values, alone, wanted)})


def _with_plain_pairs(columns: Columns, wanted: np.ndarray) -> Iterator[tuple[int, ...]]:
    """A term of any kind beside two arrays as they are, from the scalar products of all."""
    plain, values = _plain_ones(columns), columns.values
    across, product = values[plain] @ values.T, values @ wanted
    square, whole = np.sum(values**2, 1), wanted @ wanted
    for one, two in itertools.combinations(range(len(plain)), 2):
        some = [plain[one], plain[two]]
        gram, beside = across[[one, two]][:, some], across[[one, two]]
        if np.linalg.cond(gram) > 1e8:
            continue
        both = np.linalg.solve(gram, np.column_stack([beside, product[some]]))
        rest = square - np.sum(beside * both[:, :-1], 0)
        left = product - product[some] @ both[:, :-1]
        good = rest > 1e-9 * square
        gone = (
            whole
            - product[some] @ both[:, -1]
            - np.where(good, left**2 / np.where(good, rest, 1), 0)
        )
        for i in np.flatnonzero(good & (gone < NEARLY * whole)):
            yield (*some, int(i))


def _best(values: np.ndarray, alone: list[int], wanted: np.ndarray) -> list[tuple[int, int]]:
    """The pairs (one of `alone`, any) that together give the target."""
    unit = values / np.sqrt(np.sum(values**2, 1))[:, None]
    gram, product = unit[alone] @ unit.T, unit @ (wanted / np.sqrt(np.sum(wanted**2)))
    apart = 1 - gram**2
    mine = product[alone][:, None]
    with np.errstate(all="ignore"):
        sure = (mine**2 + product**2 - 2 * mine * product * gram) / apart
    left = np.where(apart > 1e-9, 1 - sure, 1.0)
    i, j = np.nonzero(left < NEARLY)
    order = np.argsort(left[i, j], kind="stable")[:128]
    return [(alone[i[n]], int(j[n])) for n in order]


def _fitted(
    columns: Columns, chosen: tuple[int, ...], rows: np.ndarray, inner: np.ndarray,
    wanted: np.ndarray, outer: str, allowed: float, wide: float,
) -> Formula | None:  # fmt: skip
    """The chosen terms with the plainest numbers that give the target; None where none do."""
    x = columns.values[list(chosen)].T
    fit = np.linalg.lstsq(x[rows], inner[rows], rcond=None)[0]
    scale = np.max(np.abs(inner[rows]))
    if np.any(np.abs(fit) * np.max(np.abs(x[rows]), 0) < LEAST * scale):
        return None
    names = [_number(value, wide) for value in fit]
    for numbers in ([value for _, value in names], fit):
        error = np.max(np.abs(ACTIVATIONS[outer](x @ numbers) - wanted))
        if error <= allowed:
            terms = zip(chosen, names, strict=True)
            made = [replace(columns.terms[i], times=name) for i, (name, _) in terms]
            return plainly(Formula(tuple(sorted(made, key=_place)), outer))
    return None


def _place(term: Term) -> tuple:
    return (term.factors[0].activation == NONE, str(term))


def _number(value: float, wide: float) -> tuple[str, float]:
    """The plainest number near a fitted one, and its name ("" for 1)."""
    known = {"": 1.0, "√width": wide, "1/√width": 1 / wide, "1/√2": 0.5**0.5}
    for name, number in known.items():
        if abs(value - number) < 1e-5 * abs(number):
            return name, number
    short = float(f"{value:.3g}")
    return (
        (f"{short:g}", short) if abs(value - short) < 1e-5 * abs(short) else (f"{value:.6g}", value)
    )
