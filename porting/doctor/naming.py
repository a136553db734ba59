"""The name of a wrong layout: what the person did, in the words of the trade."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from porting.doctor.arrange import Arrangement, find
from porting.doctor.bits import canonical
from porting.doctor.kinds import Named, together
from porting.doctor.orders import name_partial, name_pieces
from porting.doctor.pieces import assemble
from porting.errors import RuleError
from porting.layouts import Rule


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
        return name_partial(held, source, expected, leaf)
    if held.kind == "pieces":
        return name_pieces(held, source, expected, leaf)
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
        named = name_pieces(found, source, rule.apply(source), leaf) if found else None
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
    return together(found) or Named("rearranged")


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
