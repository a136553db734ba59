"""Where single elements go under a rule, however large the array is.

A rule only moves elements, so what it makes is a strided view of its source: position
`start + Σ index · stride`. A dozen numbers say where each of a hundred million elements came
from; an array of their positions would be larger than the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from porting.layouts import Rule


@dataclass(frozen=True)
class Walk:
    """The flat source position of every element of a result, as steps along its axes.

    Attributes:
        start: the source position of the first element.
        sizes: of the axes, the outermost first.
        strides: how far the source position moves with each axis; negative where it is reversed.
    """

    start: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    def places(self, positions: np.ndarray) -> np.ndarray:
        """The flat source positions of some elements of the result.

        Args:
            positions: flat positions in the result, in C order.

        >>> walk(Rule("o i -> i o"), (3, 2)).places(np.arange(6)).tolist()
        [0, 2, 4, 1, 3, 5]
        """
        rest = np.asarray(positions, np.int64)
        found = np.full_like(rest, self.start)
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            rest, index = np.divmod(rest, size)
            found += index * stride
        return found


def walk(rule: Rule, shape: Sequence[int], order: Sequence[int] | None = None) -> Walk:
    """The walk of what `rule` makes of a source of `shape`.

    Args:
        order: the axes of the result as they follow each other in the flat positions, where
            that is not the order that the rule gives them.

    Raises:
        RuleError: the rule does not fit the shape.

    >>> walk(Rule("o i -> -i o"), (3, 2))
    Walk(start=1, sizes=(2, 3), strides=(-1, 2))
    """
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    base = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), tuple(shape), steps)
    view = rule.aligned(base)  # of one byte an element, and none of them is ever read
    start = view.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    axes, at = [], 0
    for axis in rule.sides[1]:
        count = sum(atom.name != "1" for atom in axis.atoms)
        axes.append(range(at, at + count))
        at += count
    atoms = [a for axis in (range(len(axes)) if order is None else order) for a in axes[axis]]
    return Walk(start, *(tuple(int(t[a]) for a in atoms) for t in (view.shape, view.strides)))


@dataclass(frozen=True)
class Origin:
    """Where an array came from: the rule that made it, and what it was made of.

    Attributes:
        rule: the rearrangement.
        shape: of the source.
        start: the number of the source's first element, where sources are counted together.
    """

    rule: Rule
    shape: tuple[int, ...]
    start: int = 0

    def walk(self, order: Sequence[int]) -> Walk:
        """The walk of the array, its axes in `order`."""
        found = walk(self.rule, self.shape, order)
        return Walk(self.start + found.start, found.sizes, found.strides)
