"""Regular indices: an index along one axis as loops, and as named axes.

What goes wrong along one axis has a shape: blocks, every third slice, pairs, a reversal. An
index that counts in loops is written in the notation of `Rule`; blocks in another order and
mere runs are told in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """One source axis in the notation: its left side, the leaf's axes, and sizes."""

    left: str
    right: list[str]
    sizes: dict[str, int]


@dataclass(frozen=True)
class Pattern:
    """An index that counts: `start` plus steps of loops, the outermost first.

    Attributes:
        loops: (stride, size) pairs.
        start: where the first slice comes from.
        length: of the source axis.
        name: of the source axis.
    """

    loops: tuple[tuple[int, int], ...]
    start: int
    length: int
    name: str

    def spread(self, shape: Sequence[int]) -> Spread | None:
        """The notation, with the index laid out over leaf axes of `shape`."""
        loops = _cut(self.loops, shape)
        if loops is None:
            return None
        low = self.start + sum((n - 1) * s for s, n in loops if s < 0)
        count = math.prod(n for _, n in loops)
        ordered = sorted(range(len(loops)), key=lambda j: -abs(loops[j][0]))
        chain = _chain(loops, ordered, count)
        if chain is not None:
            return self._range(loops, ordered, low, count, shape)
        return self._selected(loops, ordered, low, shape)

    def _range(
        self,
        loops: list[tuple[int, int]],
        ordered: list[int],
        low: int,
        count: int,
        shape: Sequence[int],
    ) -> Spread | None:
        """All of the range low:low+count, in some order."""
        labels = _labels(self.name, ordered)
        names = [labels[j] for j in ordered]
        sizes = {labels[j]: loops[j][1] for j in ordered} if len(names) > 1 else {}
        left = names[0] if len(names) == 1 else f"({' '.join(names)})"
        if count != self.length:
            left = (
                f"({left.strip('()')})={low}:{low + count}"
                if len(names) > 1
                else f"{left}={low}:{low + count}"
            )
        return Spread(left, _merge(loops, labels, shape), sizes)

    def _selected(
        self, loops: list[tuple[int, int]], ordered: list[int], low: int, shape: Sequence[int]
    ) -> Spread | None:
        """Some index of atoms between the loops (one part of every head)."""
        labels = _labels(self.name, ordered)
        atoms, sizes, above, rest = [], {}, self.length, low
        for number, j in enumerate(ordered):
            stride, size = abs(loops[j][0]), loops[j][1]
            if above % (stride * size):
                return None
            gap = above // (stride * size)
            if gap > 1:
                pick = f"{self.name}p{number}"
                atoms.append(f"{pick}={rest // (stride * size)}")
                sizes[pick] = gap
                rest %= stride * size
            atoms.append(labels[j])
            sizes[labels[j]] = size
            above = stride
        if above > 1:
            atoms.append(f"{self.name}p={rest}")
            sizes[f"{self.name}p"] = above
            rest = 0
        return None if rest else Spread(f"({' '.join(atoms)})", _merge(loops, labels, shape), sizes)


def _labels(name: str, ordered: list[int]) -> dict[int, str]:
    if len(ordered) == 1:
        return {ordered[0]: name}
    return {j: f"{name}{number}" for number, j in enumerate(ordered)}


def _chain(loops: list[tuple[int, int]], ordered: list[int], count: int) -> list[int] | None:
    """`ordered`, if the loops fill `count` places without a hole."""
    for j in ordered:
        stride, size = abs(loops[j][0]), loops[j][1]
        if stride * size != count:
            return None
        count = stride
    return ordered if count == 1 else None


def _cut(loops: Sequence[tuple[int, int]], shape: Sequence[int]) -> list[tuple[int, int]] | None:
    """The loops with sizes split where the leaf's axes begin."""
    out: list[tuple[int, int]] = []
    todo = [n for n in shape if n > 1]
    room = todo.pop(0) if todo else 1
    for stride, size in loops:
        while size > 1:
            if room == 1:
                room = todo.pop(0)
            if size <= room:
                if room % size:
                    return None
                out.append((stride, size))
                room //= size
                size = 1
            else:
                if size % room:
                    return None
                size //= room
                out.append((stride * size, room))
                room = 1
    return out or [(1, 1)]


def _merge(loops: list[tuple[int, int]], labels: dict[int, str], shape: Sequence[int]) -> list[str]:
    """The right side: for each leaf axis the atoms that it is made of."""
    out, j = [], 0
    for length in shape:
        atoms, product = [], 1
        while product < length:
            atoms.append(("-" if loops[j][0] < 0 else "") + labels[j])
            product *= loops[j][1]
            j += 1
        out.append("1" if not atoms else atoms[0] if len(atoms) == 1 else f"({' '.join(atoms)})")
    return out


def pattern(index: np.ndarray, length: int, name: str = "a") -> Pattern | None:
    """The loops that count through `index`, or None if nothing so regular does.

    >>> pattern(np.array([0, 2, 4, 1, 3, 5]), 6).loops
    ((1, 2), (2, 3))
    >>> pattern(np.array([0, 3, 1]), 4) is None
    True
    """
    loops: list[tuple[int, int]] = []
    rest = np.asarray(index, np.int64)
    while len(rest) > 1:
        stride = int(rest[1] - rest[0])
        breaks = np.flatnonzero(np.diff(rest) != stride)
        size = int(breaks[0]) + 1 if len(breaks) else len(rest)
        if stride == 0 or len(rest) % size:
            return None
        grid = rest.reshape(-1, size)
        if not np.array_equal(
            grid - grid[:, :1], np.tile(np.arange(size) * stride, (len(grid), 1))
        ):
            return None
        loops.append((stride, size))
        rest = grid[:, 0]
    return Pattern(tuple(loops[::-1]), int(index[0]), length, name)


def block_order(index: np.ndarray) -> tuple[int, list[int]] | None:
    """The size of equal blocks and their order, if `index` only moves whole blocks.

    >>> block_order(np.array([0, 1, 4, 5, 2, 3]))
    (2, [0, 2, 1])
    """
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    size = math.gcd(len(index), *breaks.tolist()) if len(breaks) else len(index)
    starts = np.asarray(index)[::size]
    return (
        None if (starts % size).any() or size == len(index) else (size, (starts // size).tolist())
    )


def short_index(index: np.ndarray) -> str:
    """An index in few characters: its runs, as slices.

    >>> short_index(np.array([0, 1, 2, 8, 9, -1, -1]))
    '0:3, 8:10, 2 foreign'
    """
    runs = np.split(index, np.flatnonzero(np.diff(index) != 1) + 1)
    text, foreign = [], int((index < 0).sum())
    for run in runs:
        if run[0] >= 0:
            text.append(f"{run[0]}:{run[-1] + 1}" if len(run) > 1 else str(run[0]))
    text = [*text[:6], "…", text[-1]] if len(text) > 8 else text
    return ", ".join([*text, f"{foreign} foreign"] if foreign else text)
