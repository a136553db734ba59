"""`Rule`: a rearrangement of one array, written with named axes.

The notation is that of einops, with two additions. An axis on the left may be selected
from (`qkv=0` one index, `r=2:5` a range, also behind a bracket: `(h d)=0:64`), and an
axis may be reversed by a minus sign (`-h`):

    o i -> i o                        a linear weight to a Dense kernel
    o i h w -> h w i o                OIHW to HWIO
    (qkv=0 h d) e -> e h d            the query of a packed in_proj_weight
    i o h w -> -h -w i o              a transposed convolution, kernel flipped

A rule only moves elements: it never computes. So one call on an array of positions tells
where every element went, which is what links the pictures, runs a rule backwards, and
proves that two rules differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from porting.errors import RuleError

_TOKEN = re.compile(
    r"(?P<flip>-?)(?:\((?P<group>[^()]*)\)|(?P<name>[A-Za-z_]\w*|1))"
    r"(?:=(?P<start>-?\d*)(?P<colon>:?)(?P<stop>-?\d*))?(?:\s+|$)"
)


@dataclass(frozen=True)
class Axis:
    """One axis of a side: the names it is made of, what is taken of it, whether reversed."""

    parts: tuple[Axis, ...] = ()
    name: str = ""
    take: int | slice | None = None
    flip: bool = False

    @property
    def atoms(self) -> tuple[Axis, ...]:
        return tuple(a for p in self.parts for a in p.atoms) if self.parts else (self,)


def _parse_side(text: str, pattern: str) -> tuple[Axis, ...]:
    axes, rest = [], text.strip()
    while rest:
        match = _TOKEN.match(rest)
        if match is None:
            raise RuleError(f"The rule {pattern!r} cannot be read at {rest!r}.")
        rest = rest[match.end() :].lstrip()
        take: int | slice | None = None
        if match["start"] is not None:
            first, last = (int(match[k]) if match[k] else None for k in ("start", "stop"))
            if not match["colon"] and first is None:
                raise RuleError(f"The rule {pattern!r} has an '=' with nothing behind it.")
            take = slice(first, last) if match["colon"] else first
        parts: tuple[Axis, ...] = ()
        if match["group"] is not None:
            parts = _parse_side(match["group"], pattern)
        if match["flip"] and parts:  # a merged axis is reversed by reversing each of its parts
            parts = tuple(replace(part, flip=not part.flip) for part in parts)
        axes.append(Axis(parts, match["name"] or "", take, bool(match["flip"])))
    return tuple(axes)


@cache
def _parse(pattern: str) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    left, arrow, right = pattern.partition("->")
    if not arrow:
        raise RuleError(f"The rule {pattern!r} has no '->' between its two sides.")
    sides = _parse_side(left, pattern), _parse_side(right, pattern)
    for side in sides:
        names = [a.name for axis in side for a in axis.atoms if a.name != "1"]
        if len(set(names)) != len(names):
            raise RuleError(f"The rule {pattern!r} names an axis twice on one side.")
    if any(axis.take is not None for side in sides[1] for axis in (side, *side.atoms)):
        raise RuleError(f"The rule {pattern!r} selects on the right. Select on the left.")
    kept = {
        a.name
        for axis in sides[0]
        for a in axis.atoms
        if a.name != "1" and not isinstance(a.take, int)
    }
    named = {a.name for axis in sides[1] for a in axis.atoms if a.name != "1"}
    if kept != named:
        raise RuleError(
            f"The rule {pattern!r} names {sorted(kept ^ named)} on one side only. "
            "Name every axis on both sides, or take one index of it (`axis=0`)."
        )
    return sides


@dataclass(frozen=True)
class Rule:
    """A rearrangement and the sizes of the axes that an array's shape does not tell.

    Attributes:
        pattern: named axes on both sides of `->`.
        sizes: sizes of axes inside brackets, as a mapping or pairs.

    >>> Rule("o i -> i o").shape((8, 6))
    (6, 8)
    >>> query = Rule("(qkv=0 h d) e -> e h d", {"qkv": 3, "h": 2})
    >>> query.apply(np.zeros((12, 4))).shape
    (4, 2, 2)
    >>> str(query)
    '(qkv=0 h d) e -> e h d; qkv=3, h=2'
    """

    pattern: str
    sizes: Mapping[str, int] | tuple[tuple[str, int], ...] = field(default=())

    def __post_init__(self) -> None:
        sides = (" ".join(side.split()) for side in self.pattern.split("->"))
        object.__setattr__(self, "pattern", " -> ".join(sides))
        sizes = tuple((k, int(v)) for k, v in dict(self.sizes).items())
        object.__setattr__(self, "sizes", sizes)
        _parse(self.pattern)
        wrong = [f"{k} = {v}" for k, v in sizes if v < 1]
        if wrong:
            raise RuleError(f"The rule '{self}' has a size below 1: {', '.join(wrong)}.")

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule that `str(rule)` wrote.

        >>> Rule.parse("(h d) e -> e h d; h=4") == Rule("(h d) e -> e h d", {"h": 4})
        True
        """
        pattern, _, sizes = text.partition(";")
        pairs = re.findall(r"(\w+)\s*=\s*(\d+)", sizes)
        return cls(pattern.strip(), tuple((k, int(v)) for k, v in pairs))

    def __str__(self) -> str:
        sizes = ", ".join(f"{k}={v}" for k, v in dict(self.sizes).items())
        return f"{self.pattern}; {sizes}" if sizes else self.pattern

    @property
    def is_identity(self) -> bool:
        """Whether the rule leaves every array as it is."""
        left, _, right = self.pattern.partition(" -> ")
        return left == right and "=" not in left and "-" not in left

    @property
    def selects(self) -> bool:
        """Whether the rule takes only part of its source."""
        return "=" in self.pattern

    def axis_sizes(self, shape: Sequence[int]) -> dict[str, int]:
        """The size of every named axis for a source of `shape`, before any selection.

        Raises:
            RuleError: the rank differs, an axis does not divide, or a size is unknown.

        >>> Rule("(h d) e -> e h d", {"h": 4}).axis_sizes((8, 6))
        {'h': 4, 'd': 2, 'e': 6}
        """
        left, _ = self.sides
        shape = tuple(shape)
        if len(left) != len(shape):
            raise RuleError(
                f"The rule '{self}' names {len(left)} axes and the array has {len(shape)}: {shape}."
            )
        given, found = dict(self.sizes), {}
        for axis, length in zip(left, shape, strict=True):
            if axis.parts:
                length = self._taken(axis.take, length)
            unknown = [a.name for a in axis.atoms if a.name != "1" and a.name not in given]
            known = math.prod(given[a.name] for a in axis.atoms if a.name in given)
            if len(unknown) > 1:
                raise RuleError(
                    f"The rule '{self}' does not say how {length} splits into "
                    f"{' × '.join(unknown)}. Give the size of all but one."
                )
            if (length % known if unknown and known else length != known) or not known:
                names = " × ".join(f"{a.name}={given.get(a.name, '?')}" for a in axis.atoms)
                raise RuleError(
                    f"The rule '{self}' does not fit an array of shape {shape}: an axis of "
                    f"{length} is not {names}."
                )
            for atom in axis.atoms:
                if atom.name != "1":
                    found[atom.name] = given.get(atom.name, length // known)
                    self._taken(atom.take, found[atom.name])
        return found

    def _taken(self, take: int | slice | None, length: int) -> int:
        """How many of `length` a selection leaves; it must lie within."""
        ends = (take.start, take.stop) if isinstance(take, slice) else (take, take)
        last = length if isinstance(take, slice) else length - 1
        if any(end is not None and not -length <= end <= last for end in ends):
            text = f"{ends[0]}:{ends[1]}" if isinstance(take, slice) else take
            text = str(text).replace("None", "")
            raise RuleError(f"The rule '{self}' takes {text} of an axis of {length}.")
        if take is None:
            return length
        return len(range(*take.indices(length))) if isinstance(take, slice) else 1

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape that a source of `shape` gets, computed without an array.

        >>> Rule("o i h w -> h w i o").shape((5, 3, 2, 7))
        (2, 7, 3, 5)
        """
        sizes = {"1": 1, **self.kept_sizes(shape)}
        return tuple(math.prod(sizes[a.name] for a in axis.atoms) for axis in self.sides[1])

    def kept_sizes(self, shape: Sequence[int]) -> dict[str, int]:
        """The size of every named axis after the selection.

        >>> Rule("(h d)=0:4 e -> e h d", {"h": 2}).kept_sizes((8, 6))
        {'h': 2, 'd': 2, 'e': 6}
        """
        sizes = self.axis_sizes(shape)
        for atom in (a for axis in self.sides[0] for a in axis.atoms):
            if isinstance(atom.take, slice):
                sizes[atom.name] = self._taken(atom.take, sizes[atom.name])
        return sizes

    @property
    def sides(self) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
        """The axes on both sides of the arrow."""
        return _parse(self.pattern)

    def apply(self, array: Any) -> Any:
        """`array` rearranged: a view where NumPy can make one.

        Args:
            array: anything with `shape`, `reshape`, `transpose` and slicing (NumPy, JAX).

        >>> Rule("o i -> i o").apply(np.arange(6).reshape(3, 2)).tolist()
        [[0, 2, 4], [1, 3, 5]]
        """
        shape = self.shape(array.shape)
        return self.aligned(array).reshape(shape)

    def aligned(self, array: Any) -> Any:
        """`array` split, selected, reversed and moved: all but the last merge. A view."""
        left, right = self.sides
        sizes = self.axis_sizes(array.shape)
        parts = (a.take if a.parts and a.take is not None else slice(None) for a in left)
        array = array[(*parts, ...)]  # the ellipsis keeps a view even of an array without axes
        atoms = [a for axis in left for a in axis.atoms]
        array = array.reshape([sizes.get(a.name, 1) for a in atoms])
        taken = (slice(None) if a.take is None else a.take for a in atoms)
        array = array[(*taken, ...)]
        kept = [a.name for a in atoms if not isinstance(a.take, int) and a.name != "1"]
        units = [
            i
            for i, a in enumerate(a for a in atoms if not isinstance(a.take, int))
            if a.name == "1"
        ]
        array = array.squeeze(tuple(units)) if units else array
        flips = {a.name for axis in left + right for a in axis.atoms if a.flip}
        turned = (slice(None, None, -1) if n in flips else slice(None) for n in kept)
        array = array[(*turned, ...)]
        target = [a.name for axis in right for a in axis.atoms if a.name != "1"]
        return array.transpose([kept.index(n) for n in target])

    def scatter(self, leaf: Any, into: np.ndarray) -> None:
        """Write `leaf` back to the places of `into` that it came from (the rule backwards).

        Args:
            leaf: an array of the shape that the rule gives for `into.shape`.
            into: the C-contiguous source array, changed in place.

        >>> weight = np.zeros((3, 2)); Rule("o i -> i o").scatter(np.arange(6).reshape(2, 3), weight)
        >>> weight.tolist()
        [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
        """
        expected = self.shape(into.shape)
        if tuple(leaf.shape) != expected:
            raise RuleError(
                f"The rule '{self}' makes a leaf of shape {expected} from {into.shape}; "
                f"this leaf has {tuple(leaf.shape)}."
            )
        place = self.aligned(into)
        place[...] = np.asarray(leaf).reshape(place.shape)

    def inverse(self) -> Rule:
        """The rule that undoes this one.

        Raises:
            RuleError: the rule takes only part of its source; use `scatter`.

        >>> str(Rule("o i h w -> h w i o").inverse())
        'h w i o -> o i h w'
        """
        if self.selects:
            raise RuleError(f"The rule '{self}' takes a part of its source: use `scatter`.")
        left, right = self.pattern.split(" -> ")
        return Rule(f"{right} -> {left}", self.sizes)

    def positions(self, shape: Sequence[int]) -> np.ndarray:
        """For every element of the result, its flat position in a source of `shape`.

        >>> Rule("o i -> i o").positions((3, 2)).tolist()
        [[0, 2, 4], [1, 3, 5]]
        """
        return self.apply(np.arange(math.prod(shape)).reshape(tuple(shape)))


TRANSPOSE = Rule("o i -> i o")


def identity(rank: int) -> Rule:
    """The rule that leaves an array of `rank` axes as it is.

    >>> str(identity(2))
    'a b -> a b'
    """
    names = " ".join("abcdefgh"[:rank])
    return Rule(f"{names} -> {names}")
