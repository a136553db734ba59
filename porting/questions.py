"""The questions that a mapping leaves to a person, and the mapping with the answers."""

from __future__ import annotations

import re
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


def alike(asked: AnyMapping[str, tuple[Leaf, ...]], path: str) -> list[str]:
    """The other paths that ask the question of `path`, for another layer.

    Their names differ from its in numbers only, and so do their readings, by the same numbers:
    the answer to one is the answer to all.

    >>> from porting.layouts import Rule
    >>> rules = Rule("o i -> i o"), Rule("o i -> o i")
    >>> asked = {f"l_{i}/k": tuple(Leaf(f"l_{i}/k", (f"l.{i}.w",), r) for r in rules) for i in (0, 1)}
    >>> alike(asked, "l_0/k")
    ['l_1/k']
    """
    mine = asked.get(path, ())
    return [other for other in asked if other != path and _same(path, mine, other, asked[other])]


def _same(path: str, mine: tuple[Leaf, ...], other: str, theirs: tuple[Leaf, ...]) -> bool:
    (skeleton, numbers), (their_skeleton, their_numbers) = _parts(path), _parts(other)
    if skeleton != their_skeleton or len(mine) != len(theirs):
        return False
    moved = {pair for pair in zip(numbers, their_numbers, strict=True) if pair[0] != pair[1]}
    return all(
        a.rule == b.rule
        and a.join.name == b.join.name
        and _moved(", ".join(a.sources), ", ".join(b.sources), moved)
        for a, b in zip(mine, theirs, strict=True)
    )


def _moved(keys: str, their_keys: str, moved: set[tuple[str, str]]) -> bool:
    """Whether the keys differ only in numbers, and those as the paths do."""
    (skeleton, numbers), (their_skeleton, their_numbers) = _parts(keys), _parts(their_keys)
    return skeleton == their_skeleton and all(
        a == b or (a, b) in moved for a, b in zip(numbers, their_numbers, strict=True)
    )


def _parts(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    pieces = re.split(r"(\d+)", text)
    return tuple(pieces[::2]), tuple(pieces[1::2])


def reading_text(leaf: Leaf) -> str:
    """One reading in a line of a menu.

    >>> from porting.layouts import Rule
    >>> reading_text(Leaf("k", ("w",), Rule("o i -> i o")))
    'w by o i -> i o'
    """
    return str(leaf).partition(" <- ")[2]


#: what a pattern means, for a person who has to choose between two; the first that fits
_MEANINGS = (
    (r".*\(c (d )?(h )?[wl]\).* -> \((d )?(h )?[wl] c\) \w+$",
     "The model flattens channels first, as PyTorch's Flatten does; Flax flattens them last."),
    (r"o i -> i o$", "Transposed only: (out, in) becomes (in, out)."),
    (r".* -> i h d$", "Transposed, the outputs split into heads."),
)  # fmt: skip


def gloss(leaf: Leaf) -> str:
    """What a reading means, in a sentence; "" where its pattern says it all.

    >>> from porting.layouts import Rule
    >>> gloss(Leaf("k", ("w",), Rule("o i -> i o")))
    'Transposed only: (out, in) becomes (in, out).'
    """
    if leaf.rule.is_identity:
        return "As it stands, nothing moved."
    pattern = leaf.rule.pattern
    return next((text for known, text in _MEANINGS if re.match(known, pattern)), "")
