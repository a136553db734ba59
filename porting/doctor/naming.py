"""The name of a wrong layout: what the person did, in the words of the trade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from porting.doctor.arrange import Arrangement, find
from porting.doctor.bits import canonical
from porting.doctor.patterns import block_order, pattern, short_index
from porting.doctor.pieces import assemble
from porting.errors import RuleError
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
    """A kind of `LAYOUTS`, what is known beyond it, and the kinds of what was done besides."""

    kind: str
    note: str = ""
    also: tuple[str, ...] = ()


def _together(found: Sequence[Named]) -> Named | None:
    """Several mistakes as one name: the first, and the others besides."""
    kinds = tuple(dict.fromkeys(n.kind for n in found))
    notes = " ".join(dict.fromkeys(n.note for n in found if n.note))
    return Named(kinds[0], notes, kinds[1:]) if found else None


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
        return _name_partial(held, source, expected, leaf)
    if held.kind == "pieces":
        return _name_pieces(held, source, expected, leaf)
    if held.kind == "identity":
        return Named(
            "untransposed" if source.ndim < 3 else "axes", "The axes were left as they are."
        )
    if held.kind == "fortran":
        return Named("fortran")
    flat = _name_flat(source, expected, leaf) if source.ndim > 2 else None
    return flat or _name_whole(held, source, expected, leaf, rule)


def _name_flat(source: np.ndarray, expected: np.ndarray, leaf: np.ndarray) -> Named | None:
    """The name of a matrix with axes of size 1 (a pointwise convolution), reshaped as such."""
    bits, due, given = (canonical(a).squeeze() for a in (source, expected, leaf))
    if bits.ndim != 2 or given.ndim != 2 or not np.array_equal(due, bits.T):
        return None
    found = find(bits, given)
    return (
        Named({"reshape": "reshaped"}.get(found.kind, "fortran"))
        if found and found.kind in ("reshape", "fortran")
        else None
    )


def _name_whole(
    held: Arrangement, source: np.ndarray, expected: np.ndarray, leaf: np.ndarray, rule: Rule
) -> Named:
    if held.kind == "reshape":
        mixes = held.rule is None or _mixes(held.rule)
        return Named("reshaped" if mixes else "untransposed")
    given, due = _moves(held.rule), _moves(rule)
    if given and due:
        return _name_moves(given, due, f"Given {held}, expected {rule}.")
    if source.ndim == 2 and held.rule is not None and not _mixes(held.rule):
        return _name_factors(held, source, leaf, rule)
    if source.ndim == 2 and leaf.ndim == 2:
        return Named("transposed" if held.kind == "transpose" else "reshaped")
    between = find(canonical(expected), canonical(leaf))
    if between is None or between.kind != "transpose":
        return Named("rearranged")
    return _name_axes(_order(between), source.ndim)


def _name_factors(held: Arrangement, source: np.ndarray, leaf: np.ndarray, rule: Rule) -> Named:
    """The name of a matrix whose axes were split, and the factors put in another order."""
    assert held.rule is not None
    split = "flatten" if leaf.ndim == 2 else "heads"
    if _homes(held.rule) == _homes(rule):
        text = f"Given {held}, expected {rule}." * (leaf.ndim == 2)
        found = assemble(canonical(source), canonical(leaf))
        named = _name_pieces(found, source, rule.apply(source), leaf) if found else None
        return Named(named.kind if named and named.kind == "rotary" else split, text)
    try:
        turned = rule.apply(source.T)
    except RuleError:
        return Named("untransposed")
    pure = turned.shape == leaf.shape and np.array_equal(canonical(turned), canonical(leaf))
    return Named("untransposed", "", () if pure else (split,))


def _moves(rule: Rule | None) -> tuple[tuple[int, ...], frozenset[int]] | None:
    """The order of the axes of a rule that only moves and reverses them, and those reversed."""
    left, right = (side.split() for side in rule.pattern.split(" -> ")) if rule else ([], [""])
    bare = [name.lstrip("-") for name in right]
    if sorted(bare) != sorted(left) or not all(name.isidentifier() for name in bare):
        return None
    order = tuple(left.index(name) for name in bare)
    return order, frozenset(left.index(n[1:]) for n in right if n.startswith("-"))


def _name_moves(
    given: tuple[tuple[int, ...], frozenset[int]],
    due: tuple[tuple[int, ...], frozenset[int]],
    text: str,
) -> Named:
    """The name of axes moved and reversed otherwise than is due."""
    found = []
    if given[1] != due[1]:
        found.append(Named("flipped" if given[1] else "unflipped", text))
    if given[0] != due[0] and len(due[0]) == 2:
        found.append(Named("transposed" if given[0] == (1, 0) else "untransposed"))
    elif given[0] != due[0]:
        found.append(_name_axes([due[0].index(a) for a in given[0]], len(due[0])))
    return _together(found) or Named("rearranged")


def _name_axes(order: Sequence[int], rank: int) -> Named:
    """The name of axes exchanged after the right rule was applied."""
    moved = [a for a, b in enumerate(order) if a != b]
    if rank == 2:
        heads = len(moved) == 2 and moved[1] - moved[0] == 1
        return Named("heads" if heads else "axes")
    spatial = rank - 2
    if all(a < spatial for a in moved):
        return Named("hw")
    return Named("axes", "", ("hw",) if _spatial_exchanged(order, spatial) else ())


def _spatial_exchanged(order: Sequence[int], spatial: int) -> bool:
    """Whether the spatial axes changed places among themselves while others moved as well."""
    inside = [a for a in order if a < spatial]
    return list(order[:spatial]) == inside and inside != sorted(inside)


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


def _name_partial(
    held: Arrangement, source: np.ndarray, expected: np.ndarray, leaf: np.ndarray
) -> Named:
    axis, index = next((a, i) for a, i in held.indices if (i < 0).any())
    foreign = int((index < 0).sum())
    kind = "padded" if leaf.size > expected.size else "partly"
    right = assemble(canonical(source), canonical(expected)) if held.places else None
    turned = _turned(held, right, source) if right else []
    text = f"{foreign} of {len(index)} slices along axis {axis} are not the source's."
    return Named(kind, text, tuple(named.kind for named in turned))


def _name_pieces(
    held: Arrangement, source: np.ndarray, expected: np.ndarray, leaf: np.ndarray
) -> Named:
    right = assemble(canonical(source), canonical(expected))
    if right is None or right.partial:
        return Named("permuted", held.note)
    wanted, given = dict(right.indices), dict(held.indices)
    found = []
    for axis, length in enumerate(source.shape):
        whole = np.arange(length)
        named = _along(axis, wanted.get(axis, whole), given.get(axis, whole), source, leaf)
        found += [named] if named else []
    found += _turned(held, right, source)
    return _together(found) or Named("rearranged")


def _turned(held: Arrangement, right: Arrangement, source: np.ndarray) -> list[Named]:
    """The name of source axes that became other axes of the leaf than they should."""
    if held.places == right.places:
        return []
    if source.ndim != 2:
        return [Named("axes")]
    return [Named("transposed" if right.places == ((0, (0,)), (1, (1,))) else "untransposed")]


def _along(
    axis: int, want: np.ndarray, have: np.ndarray, source: np.ndarray, leaf: np.ndarray
) -> Named | None:
    """What is wrong along one axis of the source, or None."""
    if np.array_equal(want, have):
        return None
    if np.array_equal(np.sort(want), np.sort(have)):
        place = np.empty(source.shape[axis], np.int64)
        place[want] = np.arange(len(want))
        named = name_order(place[have])
        flat = axis == source.ndim - 1 > 0 and leaf.ndim == source.ndim
        due = not np.array_equal(want, np.arange(len(want)))  # the right rule reorders this axis
        other = named.kind == "heads" or (named.kind == "rotary" and due)
        return replace(named, kind="flatten") if flat and other else named
    if len(have) < len(want):
        return Named("cut", f"Only {short_index(have)} of axis {axis} is there.")
    if len(have) > len(want):
        return Named("padded", f"It repeats slices of axis {axis}.")
    text = f"Given {short_index(have)} of axis {axis}, expected {short_index(want)}."
    return Named("split", text)


def name_order(order: np.ndarray) -> Named:
    """The name of a permutation along one axis, relative to the right order.

    >>> name_order(np.array([0, 4, 1, 5, 2, 6, 3, 7])).kind
    'rotary'
    >>> name_order(np.array([0, 1, 4, 5, 2, 3, 6, 7])).note
    'Blocks of 2 in the order 0, 2, 1, 3.'
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
