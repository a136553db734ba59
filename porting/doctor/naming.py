"""The name of a wrong layout: what the person did, in the words of the trade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from porting.doctor.arrange import Arrangement, find
from porting.doctor.bits import canonical
from porting.doctor.patterns import block_order, pattern, short_index
from porting.doctor.pieces import assemble
from porting.layouts import Rule

#: kind of wrong layout -> what a reader is told
LAYOUTS = {
    "untransposed": "not transposed",
    "transposed": "transposed although it should not be",
    "reshaped": "reshaped instead of transposed",
    "fortran": "read in Fortran (column-major) order",
    "axes": "axes in the wrong order",
    "hw": "height and width exchanged",
    "flipped": "reversed along an axis",
    "unflipped": "not reversed along its spatial axes",
    "heads": "heads and head_dim exchanged",
    "rotary": "rotary halves and interleaved pairs mixed up",
    "blocks": "blocks (gates, or parts of a packed tensor) in another order",
    "flatten": "flattened in another order",
    "sorted": "taken in the order of their names as text (0, 1, 10, 11, 2, …)",
    "permuted": "elements in another order along an axis",
    "split": "cut from the packed tensor at the wrong places",
    "other_part": "another part of the packed tensor",
    "padded": "padded",
    "cut": "cut",
    "partly": "partly replaced",
    "rearranged": "rearranged",
}


@dataclass(frozen=True)
class Named:
    """A kind of `LAYOUTS` and what is known beyond it."""

    kind: str
    note: str = ""


def name_layout(
    held: Arrangement, source: np.ndarray, expected: np.ndarray, leaf: np.ndarray, rule: Rule
) -> Named:
    """What was done wrong to the right source.

    Args:
        held: how the leaf came from the source.
        source: the (joined) source tensor, with the values that the leaf has.
        expected: what the rule makes of it.
        leaf: the given array.
        rule: the right rule.
    """
    if held.partial:
        return _name_partial(held, expected, leaf)
    if held.kind == "pieces":
        return _name_pieces(held, source, expected, leaf)
    if held.kind == "identity":
        return Named(
            "untransposed" if source.ndim < 3 else "axes", "The axes were left as they are."
        )
    if held.kind == "fortran":
        return Named("fortran")
    return _name_whole(held, source, expected, leaf, rule)


def _name_whole(
    held: Arrangement, source: np.ndarray, expected: np.ndarray, leaf: np.ndarray, rule: Rule
) -> Named:
    if held.kind == "reshape":
        mixes = held.rule is None or _mixes(held.rule)
        return Named("reshaped" if mixes else "untransposed")
    if held.kind == "flip":
        return Named("flipped", f"Given {held}, expected {rule}.")
    between = find(canonical(expected), canonical(leaf))
    if "-" in rule.pattern.split("->")[1] and "-" not in str(held).split("->")[-1]:
        return Named("unflipped")
    if source.ndim == 2 and leaf.ndim == 2:
        if held.rule is not None and not _mixes(held.rule) and _homes(held.rule) == _homes(rule):
            return Named("flatten", f"Given {held}, expected {rule}.")
        return Named("transposed" if held.kind == "transpose" else "reshaped")
    if source.ndim == 2 and held.rule is not None and not _mixes(held.rule):
        same = _homes(held.rule) == _homes(rule)
        return Named("heads" if same else "untransposed")
    if between is None or between.kind != "transpose":
        return Named("rearranged")
    return _name_axes(_order(between), source.ndim)


def _name_axes(order: Sequence[int], rank: int) -> Named:
    """The name of axes exchanged after the right rule was applied."""
    moved = [a for a, b in enumerate(order) if a != b]
    if rank == 2:
        heads = len(moved) == 2 and moved[1] - moved[0] == 1
        return Named("heads" if heads else "axes")
    spatial = rank - 2
    if all(a < spatial for a in moved):
        return Named("hw")
    return Named("axes")


def _order(arrangement: Arrangement) -> tuple[int, ...]:
    return next((s.args for s in arrangement.steps if s.name == "transpose"), ())


def _mixes(rule: Rule) -> bool:
    """Whether a target axis is made of atoms of two source axes."""
    left, right = rule.pattern.split(" -> ")
    home: dict[str, int] = {}
    for number, axis in enumerate(_axes(left)):
        home |= dict.fromkeys(axis, number)
    return any(len({home[atom] for atom in axis if atom in home}) > 1 for axis in _axes(right))


def _homes(rule: Rule) -> list[int]:
    """For each target axis the source axis that it is made of; -1 for one of size 1."""
    left, right = rule.pattern.split(" -> ")
    home: dict[str, int] = {}
    for number, axis in enumerate(_axes(left)):
        home |= dict.fromkeys((atom.split("=")[0].lstrip("-") for atom in axis), number)
    return [home.get(axis[0].lstrip("-"), -1) for axis in _axes(right)]


def _axes(side: str) -> list[list[str]]:
    axes: list[list[str]] = []
    inside = False
    for token in side.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            axes.append([])
            inside = True
        elif token == ")":
            inside = False
        elif inside:
            axes[-1].append(token)
        else:
            axes.append([token])
    return axes


def _name_partial(held: Arrangement, expected: np.ndarray, leaf: np.ndarray) -> Named:
    axis, index = next((a, i) for a, i in held.indices if (i < 0).any())
    foreign = int((index < 0).sum())
    kind = "padded" if leaf.size > expected.size else "partly"
    return Named(kind, f"{foreign} of {len(index)} slices along axis {axis} are not the source's.")


def _name_pieces(
    held: Arrangement, source: np.ndarray, expected: np.ndarray, leaf: np.ndarray
) -> Named:
    right = assemble(canonical(source), canonical(expected))
    if right is None or right.partial:
        return Named("permuted", held.note)
    wanted, given = dict(right.indices), dict(held.indices)
    whole = {a: np.arange(n) for a, n in enumerate(source.shape)}
    for axis in whole:
        want, have = wanted.get(axis, whole[axis]), given.get(axis, whole[axis])
        if np.array_equal(want, have):
            continue
        if np.array_equal(np.sort(want), np.sort(have)):
            place = np.empty(source.shape[axis], np.int64)
            place[want] = np.arange(len(want))
            named = name_order(place[have])
            flat = axis == source.ndim - 1 > 0 and leaf.ndim == source.ndim
            return replace(named, kind="flatten") if flat and named.kind == "heads" else named
        if len(have) < len(want):
            return Named("cut", f"Only {short_index(have)} of axis {axis} is there.")
        if len(have) > len(want):
            return Named("padded", f"It repeats slices of axis {axis}.")
        text = f"Given {short_index(have)} of axis {axis}, expected {short_index(want)}."
        return Named("split", text)
    return _untransposed_pieces(held, right)


def _untransposed_pieces(held: Arrangement, right: Arrangement) -> Named:
    return Named("untransposed" if held.rule != right.rule else "rearranged")


def name_order(order: np.ndarray) -> Named:
    """The name of a permutation along one axis, relative to the right order.

    >>> name_order(np.array([0, 4, 1, 5, 2, 6, 3, 7])).kind
    'rotary'
    >>> name_order(np.array([0, 1, 4, 5, 2, 3, 6, 7]))
    Named(kind='blocks', note='Blocks of 2 in the order 0, 2, 1, 3.')
    """
    n = len(order)
    if np.array_equal(order, np.arange(n)[::-1]):
        return Named("flipped")
    if n > 10 and order.tolist() == sorted(range(n), key=str):
        return Named("sorted")
    counted = pattern(order, n)
    blocks = block_order(order)
    if blocks and blocks[0] > 1:
        size, sequence = blocks
        return Named("blocks", f"Blocks of {size} in the order {', '.join(map(str, sequence))}.")
    sizes = [size for _, size in counted.loops] if counted else []
    if counted and len(sizes) in (2, 3) and 2 in sizes[-2:]:
        return Named("rotary")
    if counted and len(sizes) == 2:
        return Named("heads", f"{sizes[0]} × {sizes[1]} was read as {sizes[1]} × {sizes[0]}.")
    if counted:
        return Named("flatten", " × ".join(map(str, sizes)) + " in another order.")
    return Named("permuted", short_index(order))
