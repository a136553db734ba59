"""A rule as two rows of chips: each named axis in its old and in its new place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from porting.layouts import Rule


def rule_chips(rule: Rule, shape: Sequence[int]) -> dict[str, Any]:
    """The chips of a rule for a source of `shape`.

    Returns:
        `left` and `right`: axes, each a list of chips {name, size, taken, flipped}; a chip
        that is taken ("= 0") has no place on the right.

    >>> chips = rule_chips(Rule("(qkv=0 o) i -> i o", {"qkv": 3}), (12, 5))
    >>> [[c["name"] for c in axis] for axis in chips["left"]], [c["size"] for c in chips["right"][0]]
    ([['qkv', 'o'], ['i']], [5])
    """
    left, right = rule.sides
    sizes = rule.axis_sizes(shape)
    kept = rule.kept_sizes(shape)
    flips = {a.name for axis in (*left, *right) for a in axis.atoms if a.flip}

    def chip(atom: Any, known: dict[str, int]) -> dict[str, Any]:
        taken = "" if atom.take is None else _taken(atom.take)
        size = known.get(atom.name, 1)
        return {"name": atom.name, "size": size, "taken": taken, "flipped": atom.name in flips}

    return {
        "left": [[chip(atom, sizes) for atom in axis.atoms] for axis in left],
        "right": [[chip(atom, kept) for atom in axis.atoms] for axis in right],
        "pattern": str(rule),
    }


def _taken(take: int | slice) -> str:
    if isinstance(take, slice):
        return (
            f"{'' if take.start is None else take.start}:{'' if take.stop is None else take.stop}"
        )
    return str(take)


def axis_names(rule: Rule) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the axes of a rule's source and of its leaf, merged ones joined.

    >>> axis_names(Rule("o (c h w) -> (h w c) o", {"c": 2, "h": 3}))
    (('o', 'c·h·w'), ('h·w·c', 'o'))
    """
    left, right = (
        tuple("·".join(atom.name for atom in axis.atoms) for axis in side) for side in rule.sides
    )
    return left, right
