"""How one tensor became another of the same values: whole-tensor rearrangements.

The usual mistakes are few: axes permuted, a reshape where a transpose belongs, Fortran
order, a reversed axis. They are tried cheapest first, each on a handful of elements before
it is compared in full. What only shows along one axis (heads, gates, rotary halves, blocks)
is found in `pieces` instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations

import numpy as np

from porting.doctor.bits import equal
from porting.doctor.steps import Step, refine, run
from porting.layouts import Rule

#: rank -> names of the axes of a PyTorch weight
AXES = {0: "", 1: "a", 2: "o i", 3: "o i k", 4: "o i h w", 5: "o i d h w"}
PERMUTED = 4  #: ranks up to this are permuted on both sides of a reshape


@dataclass(frozen=True)
class Arrangement:
    """What was done to a source tensor.

    Attributes:
        steps: NumPy calls that make the leaf from the source.
        rule: the same in named axes, or None where the notation cannot say it.
        kind: "identity", "transpose", "reshape", "fortran", "flip", "mixed" or "pieces".
        note: what a reader should know of it.
        partial: whether some of the leaf is not from this source.
        indices: for "pieces", an axis of the source and the index along it, each.
        places: for "pieces", an axis of the source and the axes of the leaf that it became.
    """

    steps: tuple[Step, ...]
    rule: Rule | None = None
    kind: str = "identity"
    note: str = ""
    partial: bool = False
    indices: tuple[tuple[int, np.ndarray], ...] = field(default=(), compare=False)
    places: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def __str__(self) -> str:
        return str(self.rule) if self.rule else "".join(map(str, self.steps)).lstrip(".")


def axis_names(rank: int) -> list[str]:
    """Names for the axes of a source of `rank` axes."""
    return AXES.get(rank, "a b c d e f g h").split()[:rank]


def arrangements(source: Sequence[int], leaf: Sequence[int]) -> Iterator[Arrangement]:
    """Rearrangements of a `source` shape that make a `leaf` shape, cheapest first.

    >>> [str(a) for a in arrangements((3, 2), (2, 3))][:2]
    ['o i -> i o', 'reshape(2, 3)']
    """
    source, leaf = tuple(source), tuple(leaf)
    rank = len(source)
    orders = list(permutations(range(rank))) if rank <= 5 else [tuple(range(rank))]
    orders.sort(key=lambda p: (p != tuple(range(rank)), p != tuple(range(rank))[::-1]))
    for order in orders:
        if tuple(source[a] for a in order) == leaf:
            yield _permuted(order, ())
    for order in orders:
        if tuple(source[a] for a in order) != leaf:
            yield _reshaped(source, order, leaf, tuple(range(len(leaf))))
    for count in range(1, rank + 1):
        for axes in combinations(range(rank - 1, -1, -1), count):
            for order in orders:
                if tuple(source[a] for a in order) == leaf:
                    yield _permuted(order, axes)
    for back in permutations(range(len(leaf))):
        if back != tuple(range(len(leaf))):
            for order in orders[: None if rank <= PERMUTED else 2]:
                yield _reshaped(source, order, leaf, back)


def _permuted(order: Sequence[int], flips: Sequence[int]) -> Arrangement:
    names = axis_names(len(order))
    right = [("-" if a in flips else "") + names[a] for a in order]
    rule = Rule(f"{' '.join(names)} -> {' '.join(right)}")
    steps: tuple[Step, ...] = ()
    if flips:
        full, back = slice(None), slice(None, None, -1)
        steps += (Step("index", tuple(back if a in flips else full for a in range(len(order)))),)
    if tuple(order) != tuple(range(len(order))):
        steps += (Step("transpose", tuple(order)),)
    kind = "flip" if flips else ("transpose" if steps else "identity")
    return Arrangement(steps, rule, kind)


def _reshaped(
    source: tuple[int, ...], order: Sequence[int], leaf: tuple[int, ...], back: Sequence[int]
) -> Arrangement:
    """`source.transpose(order).reshape(…).transpose(back)` with the shape `leaf`."""
    rank = len(leaf)
    between = [0] * rank
    for place, axis in enumerate(back):
        between[axis] = leaf[place]
    steps: list[Step] = []
    if tuple(order) != tuple(range(len(source))):
        steps.append(Step("transpose", tuple(order)))
    steps.append(Step("reshape", tuple(between)))
    if tuple(back) != tuple(range(rank)):
        steps.append(Step("transpose", tuple(back)))
    both = (
        tuple(order) == tuple(range(len(source)))[::-1] and tuple(back) == tuple(range(rank))[::-1]
    )
    kind = "fortran" if both else ("reshape" if len(steps) == 1 else "mixed")
    rule = _reshape_rule(source, order, between, back)
    return Arrangement(tuple(steps), rule, kind)


def _reshape_rule(
    source: Sequence[int], order: Sequence[int], between: Sequence[int], back: Sequence[int]
) -> Rule | None:
    """The reshape in named axes, if the axes of both sides have common factors in a row."""
    moved = [source[a] for a in order]
    atoms = refine(moved, between)
    if atoms is None:
        return None
    names = axis_names(len(source))
    left: list[list[str]] = [[] for _ in source]
    sizes: dict[str, int] = {}
    flat: list[str] = []
    at = 0
    for axis, length in zip(order, moved, strict=True):
        taken = _take_atoms(atoms[at:], length)
        at += len(taken)
        labels = [names[axis] + (str(n) if len(taken) > 1 else "") for n in range(len(taken))]
        left[axis] = labels
        sizes |= dict(zip(labels, taken, strict=True)) if len(taken) > 1 else {}
        flat += labels
    right: list[list[str]] = []
    at = 0
    for length in between:
        taken = _take_atoms(atoms[at:], length)
        right.append(flat[at : at + len(taken)])
        at += len(taken)
    text = f"{_side(left)} -> {_side([right[a] for a in back])}"
    return Rule(text, sizes)


def _take_atoms(atoms: Sequence[int], length: int) -> list[int]:
    taken: list[int] = []
    product = 1
    while product < length:
        taken.append(atoms[len(taken)])
        product *= taken[-1]
    return taken


def _side(axes: Sequence[Sequence[str]]) -> str:
    return " ".join(
        "1" if not axis else axis[0] if len(axis) == 1 else f"({' '.join(axis)})" for axis in axes
    )


def find(source: np.ndarray, leaf: np.ndarray) -> Arrangement | None:
    """The cheapest rearrangement of `source` (bits) that is `leaf` (bits), or None.

    >>> x = np.arange(6, dtype=np.uint32).reshape(3, 2)
    >>> str(find(x, np.ascontiguousarray(x.T)))
    'o i -> i o'
    """
    if source.size != leaf.size or source.dtype != leaf.dtype:
        return None
    for candidate in arrangements(source.shape, leaf.shape):
        if equal(run(candidate.steps, source), leaf):
            return candidate
    return None
