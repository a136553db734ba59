"""A rule as the NumPy calls that carry it out: applied here, shown as the fix.

The line that a person is given and the call that was checked are one list, so what is shown
is what was tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from porting.layouts import Rule


@dataclass(frozen=True)
class Step:
    """One NumPy call on an array.

    Attributes:
        name: "reshape", "transpose", "index" or "astype".
        args: its arguments.
    """

    name: str
    args: tuple[Any, ...]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """The array after the call."""
        if self.name == "index":
            return array[self.args]
        args = self.args[0] if self.name == "astype" else self.args
        return getattr(array, self.name)(args)

    def __str__(self) -> str:
        if self.name == "index":
            return f"[{', '.join(_index_text(i) for i in self.args)}]"
        if self.name == "astype":
            name = np.dtype(self.args[0]).name
            return f".astype({'np' if hasattr(np, name) else 'ml_dtypes'}.{name})"
        if self.name == "transpose" and self.args == tuple(range(len(self.args)))[::-1]:
            return ".T"
        return f".{self.name}({', '.join(map(str, self.args)) or '()'})"


def _index_text(index: Any) -> str:
    if isinstance(index, int):
        return str(index)
    ends = ["" if end is None else str(end) for end in (index.start, index.stop)]
    return ":".join(ends if index.step is None else [*ends, str(index.step)])


def steps_of(rule: Rule, shape: Sequence[int]) -> tuple[Step, ...]:
    """The calls that do what `rule` does to an array of `shape`, the idle ones left out.

    >>> "".join(map(str, steps_of(Rule("(h d) e -> e h d", {"h": 2}), (6, 4))))
    '.reshape(2, 3, 4).transpose(2, 0, 1)'
    >>> "".join(map(str, steps_of(Rule("o i -> i o"), (6, 4))))
    '.T'
    """
    left, right = rule.sides
    sizes = {"1": 1, **rule.axis_sizes(shape)}
    atoms = [a for axis in left for a in axis.atoms]
    kept = [a.name for a in atoms if not isinstance(a.take, int) and a.name != "1"]
    flips = {a.name for axis in left + right for a in axis.atoms if a.flip}
    merged = [a.take if a.parts and a.take is not None else slice(None) for a in left]
    split = [sizes[a.name] for a in atoms]
    taken = [slice(None) if a.take is None else a.take for a in atoms]
    taken = [0 if a.name == "1" else t for a, t in zip(atoms, taken, strict=True)]
    flip = [slice(None, None, -1) if n in flips else slice(None) for n in kept]
    order = tuple(kept.index(a.name) for axis in right for a in axis.atoms if a.name != "1")
    calls = [
        Step("index", tuple(merged)),
        Step("reshape", tuple(split)),
        Step("index", tuple(taken)),
        Step("index", tuple(flip)),
        Step("transpose", order),
        Step("reshape", rule.shape(shape)),
    ]
    return _without_idle(calls, tuple(shape))


def _without_idle(calls: list[Step], shape: tuple[int, ...]) -> tuple[Step, ...]:
    """Calls that change nothing are dropped, and a short index ends at its last real entry."""
    out, array = [], np.broadcast_to(np.int8(0), shape)
    for call in calls:
        after = call.apply(array)
        idle = {
            "index": all(i == slice(None) for i in call.args),
            "reshape": after.shape == array.shape,
            "transpose": call.args == tuple(range(len(call.args))),
        }[call.name]
        if not idle:
            used = call.args
            while call.name == "index" and used[-1] == slice(None):
                used = used[:-1]
            out.append(Step(call.name, used))
        array = after
    return tuple(out)


def run(steps: Sequence[Step], array: np.ndarray) -> np.ndarray:
    """The array after all `steps`.

    >>> run(steps_of(Rule("o i -> i o"), (3, 2)), np.zeros((3, 2))).shape
    (2, 3)
    """
    for step in steps:
        array = step.apply(array)
    return array


def refine(first: Sequence[int], second: Sequence[int]) -> list[int] | None:
    """Sizes of atoms of which the axes of both shapes are made, or None.

    >>> refine((6, 4), (3, 8)), refine((6, 4), (4, 6))
    ([3, 2, 4], None)
    """
    cuts = {1, math.prod(first)}
    for shape in (first, second):
        cuts |= {math.prod(shape[i:]) for i in range(len(shape))}
    ordered = sorted(cuts, reverse=True)
    pairs = list(itertools.pairwise(ordered))
    return None if any(a % b for a, b in pairs) else [a // b for a, b in pairs]
