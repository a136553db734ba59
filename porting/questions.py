"""The questions that a mapping leaves to a person, and the mapping with the answers."""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping

from porting.errors import ArgumentError
from porting.leaves import Leaf
from porting.mapping import Mapping


def readings(mapping: Mapping) -> dict[str, tuple[Leaf, ...]]:
    """Target path -> the readings that a person can choose from, the likeliest first.

    Only leaves that are unsure and have a second reading are questions with a menu.

    >>> import numpy as np
    >>> from porting.mapping import MappedLeaf
    >>> from porting.layouts import Rule
    >>> other = Leaf("k", ("w",), Rule("a b -> a b"))
    >>> leaf = MappedLeaf("k", ("w",), Rule("o i -> i o"), confident=False, alternatives=(other,))
    >>> [str(reading) for reading in readings(Mapping({"k": leaf}))["k"]]
    ['k <- w by o i -> i o', 'k <- w by a b -> a b']
    """
    return {
        path: (Leaf(path, leaf.sources, leaf.rule, leaf.join), *leaf.alternatives)
        for path, leaf in mapping.unsure.items()
        if leaf.alternatives
    }


def answered(mapping: Mapping, answers: AnyMapping[str, int]) -> Mapping:
    """The mapping with the readings that a person chose.

    Args:
        mapping: as it was inferred.
        answers: target path -> which of its `readings`.

    Raises:
        ArgumentError: an answer to what is no question, or to none of its readings.
    """
    asked = readings(mapping)
    for path, choice in answers.items():
        if not 0 <= choice < len(asked.get(path, ())):
            raise ArgumentError(f"{path:.80}: reading {choice} is not among those it asks about.")
        mapping = mapping.choose(path, asked[path][choice])
    return mapping


def reading_text(leaf: Leaf) -> str:
    """One reading in a line of a menu.

    >>> from porting.layouts import Rule
    >>> reading_text(Leaf("k", ("w",), Rule("o i -> i o")))
    'w by o i -> i o'
    """
    return str(leaf).partition(" <- ")[2]
